"""The same few samples in each layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DataConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from tests.conftest import blobs

BLOB = TaskConfig(name="binary", classes=["blob"])
SPLIT = {number: "train" if number < 6 else "val" if number < 9 else "test" for number in range(12)}
SAMPLES = blobs(12)


def opened(config: DataConfig, task: TaskConfig = BLOB, seed: int = 0) -> SegmentationData:
    return SegmentationData(config, AugmentConfig(name="none"), task, channels=3, workers=0, seed=seed)


def names(data: SegmentationData) -> dict[str, list[str]]:
    return {split: source.names for split, source in data.sources.items()}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def manifest(root: Path, **columns: Callable[[int], str]) -> Path:
    """img/0.png with ids in lbl/0.png, and a table of them."""
    rows = []
    for number, (image, mask) in enumerate(SAMPLES):
        save(root / f"img/{number}.png", image)
        save(root / f"lbl/{number}.png", mask)
        rows.append({"image": f"img/{number}.png", "mask": f"lbl/{number}.png", **{key: make(number) for key, make in columns.items()}})
    with (root / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (root / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root / "data.csv"


def coco(root: Path, form: str, per_split: bool = True) -> None:
    """images/, and annotations as polygons or run lengths."""
    contents: dict[str, Any] = {}
    for number, (image, mask) in enumerate(SAMPLES):
        save(root / f"images/{number}.png", image)
        rows, columns = np.nonzero(mask)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        compressed = coco_mask.encode(np.asfortranarray(mask))
        segmentation: Any = {
            "polygon": [[int(item) for item in (left, top, right, top, right, bottom, left, bottom)]],
            "runs": {"size": [64, 64], "counts": compressed["counts"].decode()},
            "plain runs": {"size": [64, 64], "counts": plain_runs(mask)},
        }[form]
        part = contents.setdefault(
            SPLIT[number] if per_split else "all", {"images": [], "annotations": [], "categories": [{"id": 7, "name": "blob"}]}
        )
        part["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        part["annotations"].append({"id": number, "image_id": number, "category_id": 7, "segmentation": segmentation, "iscrowd": 0})
    for name, content in contents.items():
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))


def plain_runs(mask: np.ndarray) -> list[int]:
    runs, value = [0], 0
    for item in mask.ravel(order="F"):
        if item != value:
            runs.append(0)
            value = item
        runs[-1] += 1
    return runs


def cityscapes(root: Path) -> None:
    """Cars (26) on roads (7), one void pixel (4); each split has a city of its own."""
    for number, (image, mask) in enumerate(SAMPLES):
        city = {"train": "aachen", "val": "ulm", "test": "bonn"}[SPLIT[number]]
        ids = np.where(mask == 1, 26, 7).astype(np.uint8)
        ids[0, 0] = 4
        stem = f"{SPLIT[number]}/{city}/{city}_{number:06d}_000019"
        save(root / f"leftImg8bit/{stem}_leftImg8bit.png", image)
        save(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)


def voc(root: Path) -> None:
    """Cars (7) in palette images, a border of 255."""
    for number, (image, mask) in enumerate(SAMPLES):
        ids = np.where(mask == 1, 7, 0).astype(np.uint8)
        ids[0] = 255
        picture = Image.fromarray(ids)
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([number * 37 % 256 for number in range(768)])
        save(root / f"JPEGImages/{number}.jpg", image)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(root / f"SegmentationClass/{number}.png")
        path = root / f"ImageSets/Segmentation/{SPLIT[number]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{number}\n")


def edited(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda file: file.write_text(change(file.read_text())) and None  # type: ignore[func-returns-value]
