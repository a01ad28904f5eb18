"""`data=coco`: masks drawn from polygons and run lengths."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segfocal.config.data import DATA
from segfocal.config.layouts import CocoConfig
from segfocal.config.task import TaskConfig
from segfocal.data.assemble import sources_of
from segfocal.data.faults import BadFileError, Fault
from segfocal.data.files import Listing, Sample
from segfocal.data.folder import existing_root
from segfocal.data.source import Array, Sources
from segfocal.data.splits import SPLITS, named
from segfocal.errors import UserError

Annotation = dict[str, Any]
BACKGROUND = -1


class CocoMasks:
    """Masks of annotations, the smallest on top; crowds are ignored.

    Args:
        annotations: of each image file.
        targets: category id -> class, `ignore_index`, or `BACKGROUND`.
        task: which ids there are.
    """

    def __init__(self, annotations: dict[Path, list[Annotation]], targets: dict[int, int], task: TaskConfig) -> None:
        self.annotations, self.targets, self.task = annotations, targets, task
        self.settings = f"coco {targets}"

    def identity(self, sample: Sample) -> list[str]:
        text = json.dumps(self.annotations.get(sample.image, []), sort_keys=True)
        return [hashlib.sha256(text.encode()).hexdigest()]

    def read(self, sample: Sample, size: tuple[int, int]) -> Array:
        stacked = self.task.name == "multilabel"
        mask = np.zeros((*size, self.task.num_classes) if stacked else size, np.uint8)
        annotations = self.annotations.get(sample.image, [])
        for annotation, where in sorted(
            ((item, self._area(item, sample, size)) for item in annotations), key=lambda pair: -int(pair[1].sum())
        ):
            target = self.task.ignore_index if annotation.get("iscrowd") else self.targets[annotation["category_id"]]
            if target == self.task.ignore_index:
                mask[where] = target
            elif stacked and target != BACKGROUND:
                mask[..., target][where] = 1
            elif not stacked:
                mask[where] = self._id(target)
        return mask

    def _id(self, target: int) -> int:
        if target == BACKGROUND:
            return 0
        return 1 if self.task.name == "binary" else target

    def _area(self, annotation: Annotation, sample: Sample, size: tuple[int, int]) -> Array:
        """Which pixels an annotation covers."""
        try:
            found = annotation.get("segmentation") or []
            if isinstance(found, dict):
                runs = found if isinstance(found["counts"], (str, bytes)) else coco_mask.frPyObjects(found, *size)
            else:
                polygons = [polygon for polygon in found if len(polygon) >= 6]
                if not polygons:
                    return np.zeros(size, bool)
                runs = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
            area: Array = coco_mask.decode(runs).astype(bool)
        except Exception as error:  # whatever pycocotools meets in what is not COCO
            raise BadFileError(sample.image, f"annotation {annotation.get('id')} cannot be drawn ({error})") from None
        if area.shape != size:
            raise BadFileError(
                sample.image,
                f"annotation {annotation.get('id')} is of {area.shape[1]} x {area.shape[0]} pixels",
                f"its image has {size[1]} x {size[0]}",
            )
        return area


@DATA.builder(CocoConfig)
def coco_sources(config: CocoConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits of one JSON file or of one for each.

    Raises:
        UserError: for files that are not there or not COCO, categories that are no class, or nothing to train on.
    """
    root = existing_root(config.root)
    listing = Listing()
    annotations: dict[Path, list[Annotation]] = {}
    targets: dict[int, int] = {}
    for split in SPLITS if "{split}" in config.annotations else ("",):
        path = root / config.annotations.replace("{split}", split)
        if split == "test" and not path.is_file():
            continue
        content = _content(path)
        found = _targets(content["categories"], config, task, path)
        if any(targets.get(number, target) != target for number, target in found.items()):
            raise UserError(f"{path}: its categories have other ids than those of the other splits")
        targets |= found
        samples = _samples(content, root / config.images.replace("{split}", split), path, annotations, listing.faults)
        listing.splits |= {split: samples} if split else {}
        listing.undrawn += [] if split else samples
    return sources_of(listing, CocoMasks(annotations, targets, task), config, task, channels, seed, f"data.root={config.root}")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror} (data.annotations)") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    missing = [
        key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise UserError(f"{path}: has no list {', '.join(missing)}: not of the COCO form")
    return dict(content)


def _targets(categories: list[dict[str, Any]], config: CocoConfig, task: TaskConfig, path: Path) -> dict[int, int]:
    """Category id -> class, ignore_index or BACKGROUND."""
    chosen = config.categories or {}
    named_so = {name: index for index, name in enumerate(task.class_names)} | {"background": BACKGROUND, "ignore": task.ignore_index}
    used = {item["id"]: chosen.get(item["name"], item["name"]) for item in categories}
    unknown = sorted({str(name) for name in used.values() if name not in named_so})
    if unknown:
        example = ",".join(f"{name}:background" for name in unknown[:3])
        raise UserError(
            f"{path}: categories {named(unknown)} are none of task.classes={task.class_names}: "
            f"say what they are, as in 'data.categories={{{example}}}', or name them in task.classes"
        )
    if absent := [name for name in chosen if name not in {item["name"] for item in categories}]:
        raise UserError(
            f"{path}: has no category {named(absent)} (data.categories); there are {', '.join(item['name'] for item in categories)}"
        )
    return {number: named_so[name] for number, name in used.items()}


def _samples(
    content: dict[str, Any], folder: Path, path: Path, annotations: dict[Path, list[Annotation]], faults: list[Fault]
) -> list[Sample]:
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append({key: annotation.get(key) for key in ("id", "category_id", "segmentation", "iscrowd")})
    numbers = {item["id"] for item in content["categories"]}
    samples = []
    for image in content["images"]:
        file = folder / image["file_name"]
        if not file.is_file():
            faults.append(Fault(str(path), f"{image['file_name']} is not in {folder}", mend="data.images names the folder"))
            continue
        strange = {annotation["category_id"] for annotation in of_image[image["id"]]} - numbers
        if strange:
            faults.append(Fault(str(path), f"{image['file_name']} has annotations of category {sorted(strange)}, which it does not name"))
            continue
        annotations[file] = of_image[image["id"]]
        samples.append(Sample(Path(image["file_name"]).with_suffix("").as_posix(), file))
    return samples
