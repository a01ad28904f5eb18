"""Masks drawn from the polygons and run lengths of the COCO form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from segfocal.config.task import TaskConfig
from segfocal.data.faults import BadFileError
from segfocal.data.files import Sample
from segfocal.data.source import Array

Annotation = dict[str, Any]
BACKGROUND = -1
FAR = 10  # sides of the image that a polygon may reach beyond it


@dataclass
class CocoSample(Sample):
    """An image and what is drawn on it; the JSON file of another split may have other annotations of the same image.

    Args:
        annotations: of this image.
    """

    annotations: list[Annotation] = field(default_factory=list)

    @cached_property  # asked at each reading
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.annotations, sort_keys=True).encode()).hexdigest()


class CocoMasks:
    """Masks of annotations, the smallest on top; crowds are ignored.

    Args:
        targets: category id -> class, `ignore_index`, or `BACKGROUND`.
        task: which ids there are.
    """

    def __init__(self, targets: dict[str, int], task: TaskConfig) -> None:
        self.targets, self.task = targets, task
        self.settings = f"coco {targets}"

    def identity(self, sample: Sample) -> list[str]:
        return [cast(CocoSample, sample).digest]

    def read(self, sample: Sample, size: tuple[int, int]) -> Array:
        stacked = self.task.name == "multilabel"
        mask = np.zeros((*size, self.task.num_classes) if stacked else size, np.uint8)
        runs = [(self._runs(annotation, sample, size), annotation) for annotation in cast(CocoSample, sample).annotations]
        for run, annotation in sorted(runs, key=lambda pair: -int(coco_mask.area(pair[0]))):
            target = self.task.ignore_index if annotation.get("iscrowd") else self.targets[annotation["category_id"]]
            box, where = _area(run)  # one at a time: an image may have thousands
            part = mask[box]
            if target == self.task.ignore_index:
                part[where] = target
            elif stacked and target != BACKGROUND:
                part[..., target][where] = 1
            elif not stacked:
                part[where] = self._id(target)
        return mask

    def _id(self, target: int) -> int:
        if target == BACKGROUND:
            return 0
        return 1 if self.task.name == "binary" else target

    def _runs(self, annotation: Annotation, sample: Sample, size: tuple[int, int]) -> Any:
        """Which pixels an annotation covers, as run lengths."""
        height, width = annotation["size"]
        if (height or size[0], width or size[1]) != size:
            raise BadFileError(sample.image, f"an image of {size[1]} x {size[0]} pixels", f"its annotations are of {width!r} x {height!r}")
        try:
            return _runs(annotation.get("segmentation"), size)
        except Exception as error:  # what is no COCO, and whatever pycocotools meets
            raise BadFileError(sample.image, f"annotation {annotation.get('id')} cannot be drawn ({error})") from None


def _area(runs: Any) -> tuple[tuple[slice, slice], Array]:
    """The box around the pixels, and which of it are theirs."""
    left, top, width, height = coco_mask.toBbox(runs).astype(int).tolist()
    box = slice(top, top + height), slice(left, left + width)
    return box, coco_mask.decode(runs)[box].astype(bool)


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
