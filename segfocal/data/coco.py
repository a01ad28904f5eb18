"""`data=coco`: masks drawn from polygons and run lengths."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from types import NoneType
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
ID = (int, str)
NEEDED: dict[str, dict[str, Any]] = {
    "images": {"id": ID, "file_name": str},
    "annotations": {"image_id": ID, "category_id": ID, "iscrowd": (int, NoneType)},
    "categories": {"id": ID, "name": str},
}
BACKGROUND = -1
FAR = 10  # sides of the image that a polygon may reach beyond it


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
        self.digests: dict[Path, str] = {}

    def identity(self, sample: Sample) -> list[str]:
        if sample.image not in self.digests:  # asked at each reading
            text = json.dumps(self.annotations.get(sample.image, []), sort_keys=True)
            self.digests[sample.image] = hashlib.sha256(text.encode()).hexdigest()
        return [self.digests[sample.image]]

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
        height, width = annotation["size"]
        if (height or size[0], width or size[1]) != size:
            raise BadFileError(sample.image, f"an image of {size[1]} x {size[0]} pixels", f"its annotations are of {width} x {height}")
        try:
            area: Array = coco_mask.decode(_runs(annotation.get("segmentation"), size)).astype(bool)
        except Exception as error:  # what is no COCO, and whatever pycocotools meets
            raise BadFileError(sample.image, f"annotation {annotation.get('id')} cannot be drawn ({error})") from None
        return area


def _runs(segmentation: Any, size: tuple[int, int]) -> Any:
    """Compressed run lengths; raises ValueError for what pycocotools, which is C, would not survive."""
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"of {segmentation['size'][1]} x {segmentation['size'][0]} pixels, its image has {size[1]} x {size[0]}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            lengths = counts
            counts = (
                coco_mask.frPyObjects(segmentation, *size)["counts"] if all(isinstance(item, int) and item >= 0 for item in counts) else b""
            )
        else:
            counts = counts.encode("ascii") if isinstance(counts, str) else counts
            lengths = _lengths(counts)
        if min(lengths, default=-1) < 0 or sum(lengths) != size[0] * size[1]:
            raise ValueError("run lengths that do not fill the image")
        return {"size": list(size), "counts": counts}
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("without polygons or run lengths")
    furthest = FAR * max(size)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is a list of x, y, x, y, ... of three points or more")
        if not all(isinstance(value, (int, float)) and abs(value) <= furthest for value in polygon):  # NaN is not, either
            raise ValueError("a polygon with points far outside of the image, or that are no numbers")
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))


def _lengths(counts: bytes) -> list[int]:
    """Compressed run lengths as numbers: groups of 5 bits from the lowest, the highest one signed; from the third on differences to the last but one."""
    found: list[int] = []
    value = shift = 0
    for byte in counts:
        part = byte - 48
        value |= (part & 0x1F) << shift
        shift += 5
        if not part & 0x20:
            if part & 0x10:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    return found


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
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror} (data.annotations)") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    missing = [
        key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise UserError(f"{path}: has no list {', '.join(missing)}: not of the COCO form")
    for kind, needed in NEEDED.items():
        for number, item in enumerate(content[kind]):
            if not isinstance(item, dict) or not all(isinstance(item.get(key), types) for key, types in needed.items()):
                raise UserError(f"{path}: {kind}[{number}] has no {' or '.join(needed)} as COCO has them: {str(item)[:80]}")
    for kind in ("images", "categories"):
        if twice := [number for number, count in Counter(item["id"] for item in content[kind]).items() if count > 1]:
            raise UserError(f"{path}: {kind} with the same id: {named([str(number) for number in twice])}")
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
    samples: list[Sample] = []
    names: set[str] = set()
    if lost := sorted({str(number) for number in of_image} - {str(image["id"]) for image in content["images"]}):
        faults.append(Fault(str(path), f"annotations of {len(lost)} images that it does not name: image_id {named(lost)}"))
    for image in content["images"]:
        file = folder / str(image["file_name"])
        name = Path(str(image["file_name"])).with_suffix("").as_posix()
        if name in names:
            faults.append(Fault(str(path), f"two images are called {name}", "a sample has a name of its own"))
            continue
        names.add(name)
        if not file.resolve().is_relative_to(folder.resolve()):
            faults.append(Fault(str(path), f"{image['file_name']} is not below {folder}", mend="data.images names the folder"))
            continue
        if not file.is_file():
            faults.append(Fault(str(path), f"{image['file_name']} is not in {folder}", mend="data.images names the folder"))
            continue
        strange = {annotation["category_id"] for annotation in of_image[image["id"]]} - numbers
        if strange:
            faults.append(
                Fault(str(path), f"{image['file_name']} has annotations of category {sorted(strange, key=str)}, which it does not name")
            )
            continue
        annotations[file] = [{**item, "size": (image.get("height"), image.get("width"))} for item in of_image[image["id"]]]
        samples.append(Sample(name, file))
    return samples
