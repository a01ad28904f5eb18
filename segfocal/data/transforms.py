"""Augmentation; the only file that knows albumentations.

Masks are moved by nearest neighbour, what comes in from outside the image is ignore_index in them, and every draw is a
function of the seed that the caller gives.
"""

from __future__ import annotations

import math
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for a newer release

import albumentations as A
import cv2
import numpy as np

from segfocal.config.augment import AugmentConfig
from segfocal.data.source import Array, Point

cv2.setNumThreads(0)  # workers and torch share the cores already


class TrainTransform:
    """Cut the training crop out of a sample and vary it.

    Zoom and rotation see the part of the image that the crop is made of, and nothing else: they cost what the crop costs, and only
    what lies outside the image is padded.

    Args:
        config: how much to vary.
        crop: height and width of the crop; None keeps the image whole. Smaller images are padded.
        ignore_index: what padding is in the mask.
    """

    def __init__(self, config: AugmentConfig, crop: list[int] | None, ignore_index: int) -> None:
        self.compose = A.Compose(_steps(config, crop, ignore_index), seed=0)
        self.window = None if crop is None else _Window(crop, config.scale or 0.0, config.rotate)
        self.ignore_index = ignore_index

    def __call__(self, image: Array, mask: Array, seed: int, point: Point | None = None) -> tuple[Array, Array]:
        """
        Args:
            image, mask: of a sample.
            seed: what is drawn is a function of it.
            point: row and column of a pixel that the crop is to show; near the image's edge zoom and rotation may move it out.
        """
        if self.window is not None:
            top, left = self.window.place(
                image.shape[:2], np.random.default_rng([seed, 1]), point
            )  # not the numbers that zoom and rotation get
            image = _cut(image, top, left, self.window.reach, 0)
            mask = _cut(mask, top, left, self.window.reach, self.ignore_index)
        self.compose.set_random_seed(seed)
        varied = self.compose(image=image, mask=mask)
        return varied["image"], varied["mask"]


class _Window:
    """What a crop may need of the image: the crop turned by up to an angle, and zoomed out by up to 1 - zoom.

    Args:
        crop: height and width.
        zoom: largest relative change of the size.
        rotate: largest angle in degrees.
    """

    def __init__(self, crop: list[int], zoom: float, rotate: float) -> None:
        self.crop = crop
        angle = math.radians(min(rotate, 90.0))
        self.reach: list[int] = []
        """Height and width of what is cut out of the image; as odd or even as the crop, which is then cut out of the middle."""
        for own, other in (crop, crop[::-1]):
            widest = min(angle, math.atan2(other, own))  # there the turned crop is as high as its diagonal
            needed = (own * math.cos(widest) + other * math.sin(widest)) / (1 - zoom)
            self.reach.append(own + 2 * math.ceil((needed - own) / 2 - 1e-9))
        worst = min(angle, math.pi / 4)
        moved = min(crop) / 2 / (1 + zoom) / (math.cos(worst) + math.sin(worst)) - 1
        self.kept = [max(0.0, moved) if zoom or rotate else (length - 1) / 2 for length in crop]
        """How far from the middle a pixel is to lie, so that no zoom and no angle moves it out of the crop."""

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


def _cut(array: Array, top: int, left: int, size: list[int], fill: int) -> Array:
    """A part of an array, filled where it reaches beyond."""
    bottom, right = top + size[0], left + size[1]
    inside = array[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (size[0], size[1]):
        return np.ascontiguousarray(inside)
    whole: Array = np.full((size[0], size[1], *array.shape[2:]), fill, array.dtype)
    row, column = max(-top, 0), max(-left, 0)
    whole[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return whole


def _steps(config: AugmentConfig, crop: list[int] | None, ignore_index: int) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if config.scale is not None or config.rotate > 0:
        zoom = config.scale or 0.0
        steps.append(
            A.Affine(
                scale=(1 - zoom, 1 + zoom),
                rotate=(-config.rotate, config.rotate),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=ignore_index,
                p=1.0,
            )
        )
        if crop is not None:
            steps.append(A.CenterCrop(height=crop[0], width=crop[1]))
    steps += [A.HorizontalFlip(p=config.hflip), A.VerticalFlip(p=config.vflip), A.RandomRotate90(p=config.rotate90)]
    if config.brightness > 0 or config.contrast > 0:
        steps.append(A.RandomBrightnessContrast(brightness_limit=config.brightness, contrast_limit=config.contrast, p=0.8))
    if config.blur > 0:
        steps.append(A.GaussianBlur(sigma_limit=(0.3, 1.5), p=config.blur))
    if config.noise > 0:
        steps.append(A.GaussNoise(std_range=(0.01, 0.05), p=config.noise))
    return steps


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """A number for each showing of a sample in each epoch, the same on every machine and with any number of workers."""
    return int(np.random.SeedSequence([seed, epoch, index, repeat]).generate_state(1)[0])
