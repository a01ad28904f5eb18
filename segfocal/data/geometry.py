"""Where a crop is cut, and how it is zoomed, turned and distorted: images between pixels, masks by nearest neighbour."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np

from segfocal.data.source import Array, Point

BEND = 0.05  # furthest that a distortion moves a pixel, of the crop's shorter side: nothing folds over, nothing is torn
KNOTS = 5  # points on each side that a distortion moves; what lies between follows smoothly
CV_CHANNELS = 4  # the most that OpenCV moves at once


class Window:
    """What a crop may need of the image: the crop turned by up to an angle, distorted, and zoomed out by up to 1 - zoom.

    Args:
        crop: height and width.
        zoom: largest relative change of the size.
        rotate: largest angle in degrees.
        bend: furthest that a distortion moves a pixel of the crop.
    """

    def __init__(self, crop: list[int], zoom: float, rotate: float, bend: float = 0.0) -> None:
        self.crop = crop
        angle = math.radians(min(rotate, 90.0))
        self.reach: list[int] = []
        """Height and width of what is cut out of the image; as odd or even as the crop, which lies in the middle of it."""
        bent = [length + 2 * bend for length in crop]
        for length, own, other in zip(crop, bent, bent[::-1], strict=True):
            widest = min(angle, math.atan2(other, own))  # there the turned crop is as high as its diagonal
            needed = (own * math.cos(widest) + other * math.sin(widest)) / (1 - zoom)
            self.reach.append(length + 2 * math.ceil((needed - length) / 2 - 1e-9))
        worst = min(angle, math.pi / 4)
        moved = (min(crop) / 2 - bend) / (1 + zoom) / (math.cos(worst) + math.sin(worst)) - 1
        self.kept = [max(0.0, moved) if zoom or rotate or bend else (length - 1) / 2 for length in crop]
        """How far from the middle a pixel is to lie, so that no zoom, angle or distortion moves it out of the crop."""

    def place(self, size: tuple[int, ...], rng: np.random.Generator, point: Point | None) -> tuple[int, int]:
        """The upper left corner of what is cut out of an image of that size: the crop lies within the image where it can."""
        corner = []
        for axis, length in enumerate(self.crop):
            slack = size[axis] - length
            low, high = (0, slack) if slack >= 0 else (slack // 2, slack // 2)
            if point is not None:
                middle = point[axis] + 0.5 - length / 2
                first, last = math.ceil(middle - self.kept[axis]), math.floor(middle + self.kept[axis])
                low, high = min(max(low, first), high), max(min(high, last), low)  # near its edge, the image goes before `kept`
            corner.append(int(rng.integers(low, high + 1)) - (self.reach[axis] - length) // 2)
        return corner[0], corner[1]


def cut(array: Array, top: int, left: int, size: list[int], fill: int) -> Array:
    """A part of an array, filled where it reaches beyond; a view where it does not."""
    bottom, right = top + size[0], left + size[1]
    inside = array[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (size[0], size[1]):
        return inside
    whole: Array = np.full((size[0], size[1], *array.shape[2:]), fill, array.dtype)
    row, column = max(-top, 0), max(-left, 0)
    whole[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return whole


class Motion:
    """How much crops are moved.

    Args:
        zoom: largest relative change of the size.
        rotate: largest angle in degrees.
        distort: probability of a distortion.
    """

    def __init__(self, zoom: float, rotate: float, distort: float) -> None:
        self.zoom, self.rotate, self.distort = zoom, rotate, distort

    def __bool__(self) -> bool:
        return self.zoom > 0 or self.rotate > 0 or self.distort > 0

    def draw(self, rng: np.random.Generator, source: tuple[int, ...], size: list[int]) -> Warp:
        """A warp of the middle of something of height and width `source` into something of `size`."""
        zoom = rng.uniform(1 - self.zoom, 1 + self.zoom)
        angle = math.radians(rng.uniform(-self.rotate, self.rotate))
        bend = None
        if self.distort > 0 and rng.random() < self.distort:
            bend = rng.uniform(-1, 1, (KNOTS, KNOTS, 2)).astype(np.float32) * (BEND * min(size))
        return Warp(source, size, zoom, angle, bend)


class Warp:
    """Moves images and masks alike, each read once.

    Args:
        source: height and width of what is moved.
        size: of what comes out; its middle is the source's.
        zoom: how much larger things become.
        angle: in radians.
        bend: x and y in pixels that `KNOTS` x `KNOTS` places of the result are read aside; None reads straight.
    """

    def __init__(self, source: tuple[int, ...], size: list[int], zoom: float, angle: float, bend: Array | None) -> None:
        self.size = (size[1], size[0])
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / zoom
        middle, centre = (np.array([shape[1] - 1, shape[0] - 1]) / 2 for shape in (source, size))
        self.matrix = np.column_stack([turn, middle - turn @ centre])
        """From pixels of the result to those of the source."""
        self.places: tuple[Array, Array] | None = None
        """Columns and rows that the pixels of the result are read at, where that is not the matrix alone."""
        if bend is not None:
            limit = float(np.abs(bend).max())
            field = np.clip(cv2.resize(bend, self.size, interpolation=cv2.INTER_CUBIC), -limit, limit)
            field += np.stack(np.meshgrid(*(np.arange(length, dtype=np.float32) for length in self.size)), axis=-1)
            columns, rows = cv2.split(cv2.transform(field, self.matrix))
            self.places = columns, rows

    def image(self, image: Array) -> Array:
        """An image, 0 where it comes in from outside."""
        return in_fours(image, lambda part: self._moved(part, cv2.INTER_LINEAR, 0))

    def mask(self, mask: Array, ignore_index: int) -> Array:
        """A mask, ignore_index where it comes in from outside."""
        return in_fours(mask, lambda part: self._moved(part, cv2.INTER_NEAREST, ignore_index))

    def _moved(self, array: Array, interpolation: int, fill: int) -> Array:
        border, outside = cv2.BORDER_CONSTANT, (fill,) * CV_CHANNELS
        if self.places is not None:
            moved = cv2.remap(array, self.places[0], self.places[1], interpolation, borderMode=border, borderValue=outside)
        else:
            how = interpolation | cv2.WARP_INVERSE_MAP
            moved = cv2.warpAffine(array, self.matrix, self.size, flags=how, borderMode=border, borderValue=outside)
        return cast(Array, moved)


def lowered(image: Array, scale: float) -> Array:
    """An image as if taken with fewer pixels: made smaller by a factor, and large again."""
    height, width = image.shape[:2]
    few = (max(1, round(scale * width)), max(1, round(scale * height)))

    def change(part: Array) -> Array:
        return cast(Array, cv2.resize(cv2.resize(part, few, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_LINEAR))

    return in_fours(image, change)


def in_fours(array: Array, change: Callable[[Array], Array]) -> Array:
    """A change by OpenCV of any number of channels: it takes four at most, and drops the axis of a single one."""
    if array.ndim == 2 or array.shape[2] <= CV_CHANNELS:
        changed = change(array)
        return changed.reshape(*changed.shape[:2], *array.shape[2:])
    return np.concatenate([in_fours(array[..., first : first + CV_CHANNELS], change) for first in range(0, array.shape[2], CV_CHANNELS)], 2)
