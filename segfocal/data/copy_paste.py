"""Things of rare classes, cut out of training images by their masks and pasted into others."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from segfocal.config.sampling import RareClassConfig
from segfocal.config.task import TaskConfig
from segfocal.data.geometry import cut
from segfocal.data.sampling import class_chances
from segfocal.data.source import Array, Point, Source
from segfocal.data.stats import SplitStats


class CopyPaste:
    """With a probability, paste a thing of a rare class over a training crop, image and label alike.

    A class is drawn as `sampling=rare_class` draws it (in multiclass never class 0, the background, where there is another), an image that
    holds it, and one of the places of it that are known. What is pasted is the connected part of the class at that place, as far as the
    crop reaches. It goes where the crop shows a pixel that is not ignored, and leaves out all that are. Around it a pixel of its
    surroundings is blended in, so that networks do not learn the seam; the label has no seam.

    Args:
        source: the training split; things come from nowhere else.
        stats: of that split.
        task: what the masks mean.
        probability: for each crop.

    Reference:
        Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, arXiv 2012.07177.
    """

    def __init__(self, source: Source, stats: SplitStats, task: TaskConfig, probability: float) -> None:
        self.source, self.task, self.probability = source, task, probability
        self.points = stats.points
        self.holders = [np.flatnonzero(pixels) for pixels in stats.pixels_NC.T]
        chances = class_chances(stats, RareClassConfig().temperature, probability * stats.total)
        if task.name == "multiclass" and chances[1:].any():
            chances[0] = 0.0
        self.chances: Array = chances / chances.sum()

    def __call__(self, image: Array, mask: Array, seed: int, shown: list[int]) -> tuple[Array, Array]:
        """
        Args:
            image, mask: what a crop is made of; they are not changed.
            seed: what is drawn is a function of it.
            shown: height and width of its middle, which the crop shows.
        """
        rng = np.random.default_rng([seed, 2])  # 1 and the seed itself are what the rest of augmentation draws from
        if rng.random() >= self.probability:
            return image, mask
        free = ~self._ignored(mask)
        place = _place(free, shown, rng)
        if place is None:
            return image, mask
        label, donor, (row, column) = self._drawn(rng)
        pixels, labels = self.source.read(donor)
        top, left, size = row - place[0], column - place[1], list(mask.shape[:2])
        pixels, labels = cut(pixels, top, left, size, 0), cut(labels, top, left, size, self.task.ignore_index)
        part = _connected(self._of_class(labels, label), place) & free
        box = _box(part)
        free, part, pixels, labels = free[box], part[box], pixels[box], labels[box]
        seam = cv2.GaussianBlur(part.astype(np.float32), (3, 3), 0) * (free & ~self._ignored(labels))
        image, mask = image.copy(), mask.copy()
        image[box] = _blended(image[box], _alike(pixels, image), np.where(part, 1, seam)[..., None])
        mask[box][part] = labels[part]
        return image, mask

    def _drawn(self, rng: np.random.Generator) -> tuple[int, int, Point]:
        """A class, a sample that holds it, and where."""
        label = int(rng.choice(len(self.chances), p=self.chances))
        donor = int(rng.choice(self.holders[label]))
        points = self.points[donor]
        _, row, column = rng.choice(points[points[:, 0] == label])
        return label, donor, (int(row), int(column))

    def _of_class(self, mask: Array, label: int) -> Array:
        if self.task.name == "multiclass":
            return cast(Array, mask == label)
        return cast(Array, (mask[..., label] if mask.ndim == 3 else mask) == 1)

    def _ignored(self, mask: Array) -> Array:
        """Where a mask says nothing, of any class."""
        ignored = mask == self.task.ignore_index
        return cast(Array, ignored.any(-1) if mask.ndim == 3 else ignored)


def _place(free: Array, shown: list[int], rng: np.random.Generator) -> Point | None:
    """A free pixel of the middle; None where there is none."""
    top, left = ((free.shape[axis] - shown[axis]) // 2 for axis in (0, 1))
    places = np.flatnonzero(free[top : top + shown[0], left : left + shown[1]])
    if not len(places):
        return None
    row, column = divmod(int(rng.choice(places)), shown[1])
    return top + row, left + column


def _connected(plane: Array, place: Point) -> Array:
    """What hangs together with a pixel of a plane, diagonals included."""
    _, parts = cv2.connectedComponents(plane.astype(np.uint8), connectivity=8)
    return cast(Array, parts == parts[place])


def _box(part: Array) -> tuple[slice, slice]:
    """The rectangle of what is true, and a pixel around it."""
    left, top, width, height = cv2.boundingRect(part.astype(np.uint8))
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def _blended(image: Array, pixels: Array, cover: Array) -> Array:
    mixed: Array = (1 - cover) * image + cover * pixels
    return np.rint(mixed) if image.dtype == np.uint8 else mixed


def _alike(pixels: Array, image: Array) -> Array:
    """Pixels in the units of an image: 8 bit stand for 0..1."""
    if pixels.dtype == image.dtype:
        return pixels
    return pixels / 255 if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255)
