"""What is kept of a sample once it has been read: counts, channel sums, and some places of each class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from segfocal.config.task import TaskConfig
from segfocal.data.source import Array

POINTS = 10  # places kept of each class in a sample: enough for other crops in other epochs, few enough for 100,000 images


@dataclass(frozen=True)
class SampleStats:
    """
    Args:
        pixels: of each class, (C,).
        valid: pixels of each class that are not ignored, (C,).
        size: height and width.
        channel_sums: count, sum and sum of squares of each channel, (3, channels); images of 8 bit scaled to 0..1.
        points: class, row and column, (K, 3): at most `POINTS` of each class, drawn evenly from its pixels.
        content: of the image, 16 bytes: equal where all pixels are.
        look: of the image, 8 bytes: equal where it looks the same, see `looks`.
    """

    pixels: Array
    valid: Array
    size: tuple[int, int]
    channel_sums: Array
    points: Array
    content: bytes
    look: bytes


def measure(image: Array, mask: Array, task: TaskConfig) -> SampleStats:
    """Count a sample; the same sample has the same numbers and places, always."""
    if task.name == "multiclass":
        pixels = np.bincount(mask.ravel(), minlength=256)[: task.num_classes]
        valid = np.full(task.num_classes, pixels.sum())
        planes = (mask == label if pixels[label] else None for label in range(task.num_classes))  # one at a time: images may be large
    else:
        of_class = mask.reshape(*mask.shape[:2], task.num_classes)
        pixels, valid = (of_class == 1).sum((0, 1)), (of_class != task.ignore_index).sum((0, 1))
        planes = (of_class[..., label] == 1 if pixels[label] else None for label in range(task.num_classes))
    known_by = content(image)
    points = _points(planes, int.from_bytes(known_by, "big"))
    return SampleStats(pixels, valid, (image.shape[0], image.shape[1]), _channel_sums(image), points, known_by, looks(image))


def content(image: Array) -> bytes:
    """16 bytes that two images share where they are the same, pixel by pixel."""
    found = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    return found.digest()


def looks(image: Array) -> bytes:
    """Whether each of 8 x 8 places is brighter than its neighbour on the right: the same for a picture saved, scaled or lit otherwise.

    The first three channels are looked at.

    Reference:
        The difference hash dHash, N. Krawetz, 2013.
    """
    small = (
        cv2.resize(np.ascontiguousarray(image[..., :3]), (9, 8), interpolation=cv2.INTER_AREA).reshape(8, 9, -1).astype(np.float32).mean(-1)
    )
    return np.packbits(small[:, :-1] > small[:, 1:]).tobytes()


def _channel_sums(image: Array) -> Array:
    mean, std = (np.asarray(each, np.float64).reshape(-1) for each in cv2.meanStdDev(image))
    if image.dtype == np.uint8:
        mean, std = mean / 255, std / 255
    sums: Array = np.stack([np.ones_like(mean), mean, std**2 + mean**2]) * image.shape[0] * image.shape[1]
    return sums


def _points(planes: Iterable[Array | None], seed: int) -> Array:
    rng = np.random.default_rng(seed)  # one of the sample's own: by another's, places would lie at the same shares of each class
    found = [np.empty((0, 3), np.int32)]
    for label, plane in enumerate(planes):
        if plane is not None:
            places = np.flatnonzero(plane)
            chosen = np.sort(rng.choice(places, min(POINTS, len(places)), replace=False))
            rows, columns = np.divmod(chosen, plane.shape[1])
            found.append(np.stack([np.full_like(rows, label), rows, columns], axis=1).astype(np.int32))
    return np.concatenate(found)
