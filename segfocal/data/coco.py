"""`data=coco`: what JSON files of the COCO form list."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from types import NoneType
from typing import Any

from segfocal.config.data import DATA
from segfocal.config.layouts import CocoConfig
from segfocal.config.task import TaskConfig
from segfocal.data.assemble import sources_of
from segfocal.data.coco_masks import BACKGROUND, CocoMasks, CocoSample
from segfocal.data.faults import Fault, counted
from segfocal.data.files import Listing, Sample, below
from segfocal.data.folder import existing_root
from segfocal.data.source import Sources
from segfocal.data.splits import SPLITS, named
from segfocal.errors import UserError

ID = (int, str)
NEEDED: dict[str, dict[str, Any]] = {
    "images": {"id": ID, "file_name": str},
    "annotations": {"image_id": ID, "category_id": ID, "iscrowd": (int, NoneType)},
    "categories": {"id": ID, "name": str},
}


@DATA.builder(CocoConfig)
def coco_sources(config: CocoConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits of one JSON file or of one for each.

    Raises:
        UserError: for files that are not there or not COCO, categories that are no class, or nothing to train on.
    """
    root = existing_root(config.root)
    listing = Listing()
    targets: dict[str, int] = {}
    for split in SPLITS if "{split}" in config.annotations else ("",):
        path = root / config.annotations.replace("{split}", split)
        if split == "test" and not path.is_file():
            continue
        content = _content(path)
        found = _targets(content["categories"], config, task, path)
        if any(targets.get(number, target) != target for number, target in found.items()):
            raise UserError(f"{path}: its categories have other ids than those of the other splits")
        targets |= found
        samples = _samples(content, root / config.images.replace("{split}", split), path, listing.faults)
        listing.splits |= {split: samples} if split else {}
        listing.undrawn += [] if split else samples
    return sources_of(listing, CocoMasks(targets, task), config, task, channels, seed, f"data.root={config.root}")


def _content(path: Path) -> dict[str, Any]:
    """What a file holds; ids are texts, for some tools write 1 here and "1" there."""
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
            item |= {key: str(item[key]) for key, types in needed.items() if types is ID}
    for kind in ("images", "categories"):
        if twice := [number for number, count in Counter(item["id"] for item in content[kind]).items() if count > 1]:
            raise UserError(f"{path}: {kind} with the same id: {named(twice)}")
    return dict(content)


def _targets(categories: list[dict[str, Any]], config: CocoConfig, task: TaskConfig, path: Path) -> dict[str, int]:
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
    if task.name == "multiclass":
        _check_background({item["name"]: used[item["id"]] for item in categories}, task, path)
    return {number: named_so[name] for number, name in used.items()}


def _check_background(used: dict[str, str], task: TaskConfig, path: Path) -> None:
    """Raises UserError where what nothing is drawn on, class 0, would be taken for a class that is drawn.

    Args:
        used: category -> name of its class.
        task: which class is the first.
        path: of the categories.
    """
    first, *others = task.class_names
    if "background" in others:
        raise UserError(f"task.classes={task.class_names}: class 0 is what nothing is drawn on: name background first")
    drawn = sorted(name for name, target in used.items() if target == first and "background" not in (name, target))
    if drawn:
        raise UserError(
            f"{path}: category {named(drawn)} would be class 0, but class 0 is what nothing is drawn on: name the background first in "
            f"task.classes=[background,...], or, if it is the background, say 'data.categories={{{drawn[0]}:background}}'"
        )


def _samples(content: dict[str, Any], folder: Path, path: Path, faults: list[Fault]) -> list[Sample]:
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append({key: annotation.get(key) for key in ("id", "category_id", "segmentation", "iscrowd")})
    numbers = {item["id"] for item in content["categories"]}
    samples: list[Sample] = []
    names: set[str] = set()
    if lost := sorted(set(of_image) - {image["id"] for image in content["images"]}):
        faults.append(
            Fault(str(path), f"annotations of {counted(len(lost), 'image', 'images')} that it does not name: image_id {named(lost)}")
        )
    for image in content["images"]:
        try:
            file = below(folder, image["file_name"])
        except ValueError as error:
            faults.append(Fault(str(path), str(error), mend="data.images names the folder"))
            continue
        name = Path(image["file_name"]).with_suffix("").as_posix()
        if name in names:
            faults.append(Fault(str(path), f"two images are called {name}", "a sample has a name of its own"))
            continue
        names.add(name)
        drawn = of_image[image["id"]]
        if strange := sorted({annotation["category_id"] for annotation in drawn} - numbers):
            faults.append(Fault(str(path), f"{image['file_name']} has annotations of category {named(strange)}, which it does not name"))
            continue
        size = (image.get("height"), image.get("width"))
        samples.append(CocoSample(name, file, annotations=[{**item, "size": size} for item in drawn]))
    return samples
