"""Augmentation; the only file that knows albumentations.

Masks are moved by nearest neighbour, what comes in from outside the image or is blotted out is ignore_index in them, and every draw is
a function of the seed that the caller gives.
"""

from __future__ import annotations

import os
import random
import warnings
from typing import Any, Protocol

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for a newer release

import albumentations as A
import cv2
import numpy as np

from segfocal.config.augment import AugmentConfig
from segfocal.data.geometry import BEND, Motion, Window, cut, lowered
from segfocal.data.source import Array, Point

cv2.setNumThreads(0)  # workers and torch share the cores already

OFTEN = 0.8  # probability of each change of light or colour that has a strength


class Paste(Protocol):
    """What is called with a part of a sample before it is moved, and the height and width of its middle that is sure to be seen."""

    def __call__(self, image: Array, mask: Array, seed: int, shown: list[int]) -> tuple[Array, Array]: ...


class TrainTransform:
    """Cut the training crop out of a sample and vary it.

    Zoom, rotation and distortion see the part of the image that the crop is made of, and nothing else: they cost what the crop costs, and
    only what lies outside the image is padded.

    Args:
        config: how much to vary.
        crop: height and width of the crop; None keeps the image whole. Smaller images are padded.
        ignore_index: what padding is in the mask.
        paste: puts something of other samples into the crop; None leaves it.
    """

    def __init__(self, config: AugmentConfig, crop: list[int] | None, ignore_index: int, paste: Paste | None = None) -> None:
        self.ignore_index, self.paste = ignore_index, paste
        self.motion = Motion(config.scale or 0.0, config.rotate, config.distort)
        bend = BEND * min(crop) if crop is not None and config.distort > 0 else 0.0
        self.window = None if crop is None else Window(crop, self.motion.zoom, config.rotate, bend)
        steps = _steps(config, ignore_index)
        self.compose = A.Compose(steps) if steps else None

    def __call__(self, image: Array, mask: Array, seed: int, point: Point | None = None) -> tuple[Array, Array]:
        """
        Args:
            image, mask: of a sample; they are not changed.
            seed: what is drawn is a function of it.
            point: row and column of a pixel that the crop is to show; near the image's edge zoom and rotation may move it out.
        """
        rng = np.random.default_rng([seed, 1])
        whole, size = image, list(image.shape[:2])
        if self.window is not None:
            top, left = self.window.place(image.shape[:2], rng, point)
            image = cut(image, top, left, self.window.reach, 0)
            mask = cut(mask, top, left, self.window.reach, self.ignore_index)
            size = self.window.crop
        cropped = image
        if self.paste is not None:
            image, mask = self.paste(image, mask, seed, size)
        shown = (whole,) if image is cropped else (whole, image)
        if self.motion:
            warp = self.motion.draw(rng, image.shape, size)
            image, mask = warp.image(image), warp.mask(mask, self.ignore_index)
        if self.compose is None:
            return np.ascontiguousarray(image), np.ascontiguousarray(mask)
        # Seeded by itself, albumentations would give each of its steps the same numbers: what is mirrored would always be turned, too.
        self.compose.set_random_state(rng, random.Random(seed))
        if image.dtype == np.uint8:
            varied = self.compose(image=image, mask=mask)
            return varied["image"], varied["mask"]
        low = min(float(part.min()) for part in shown)  # albumentations cuts off what is not within 0..1
        high = max(float(part.max()) for part in shown)
        span = (high - low) or 1.0
        varied = self.compose(image=np.clip((image - low) / span, 0, 1), mask=mask)
        return varied["image"] * np.float32(span) + np.float32(low), varied["mask"]


def strictly(kind: type[A.BasicTransform], **arguments: Any) -> A.BasicTransform:
    """A step of albumentations.

    Raises:
        TypeError: for arguments that it does not know or take as they are; by itself it warns, and goes on without them.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = kind(**arguments)
    if caught:
        raise TypeError("; ".join(str(warning.message) for warning in caught))
    return step


class _ColourJitter(A.ColorJitter):  # type: ignore[misc]  # albumentations is not typed
    """Of colour images: other numbers of channels have no hue."""

    def apply(self, img: Array, **params: Any) -> Array:
        result: Array = super().apply(img, **params) if img.shape[2] == 3 else img
        return result


class _Downscale(A.Downscale):  # type: ignore[misc]
    """Of any number of channels, and of float without a detour by 8 bit."""

    def apply(self, img: Array, scale: float, **params: Any) -> Array:
        return lowered(img, scale)


def _steps(config: AugmentConfig, ignore_index: int) -> list[A.BasicTransform]:
    assert config.vflip != "auto" and config.rotate90 != "auto", "the training data has not been asked"
    turns = [(A.HorizontalFlip, config.hflip), (A.VerticalFlip, config.vflip), (A.RandomRotate90, config.rotate90)]
    steps = [strictly(kind, p=probability) for kind, probability in turns if probability > 0]
    if config.brightness > 0 or config.contrast > 0:
        light = {"brightness_limit": config.brightness, "contrast_limit": config.contrast}
        steps.append(strictly(A.RandomBrightnessContrast, **light, p=OFTEN))
    if config.gamma > 0:
        steps.append(strictly(A.RandomGamma, gamma_limit=(100 * (1 - config.gamma), 100 * (1 + config.gamma)), p=OFTEN))
    if config.colour > 0:
        saturation, hue = (1 - config.colour, 1 + config.colour), (-config.colour / 4, config.colour / 4)
        steps.append(strictly(_ColourJitter, brightness=(1, 1), contrast=(1, 1), saturation=saturation, hue=hue, p=OFTEN))
    if config.lowres > 0:
        steps.append(strictly(_Downscale, scale_range=(0.4, 0.9), p=config.lowres))
    if config.blur > 0:
        steps.append(strictly(A.GaussianBlur, sigma_limit=(0.3, 1.5), p=config.blur))
    if config.noise > 0:
        steps.append(strictly(A.GaussNoise, std_range=(0.01, 0.05), p=config.noise))
    if config.dropout > 0:
        holes = {"num_holes_range": (1, 6), "hole_height_range": (0.04, 0.12), "hole_width_range": (0.04, 0.12)}
        steps.append(strictly(A.CoarseDropout, **holes, fill=0, fill_mask=ignore_index, p=config.dropout))
    return steps


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """A number for each showing of a sample in each epoch, the same on every machine and with any number of workers."""
    return int(np.random.SeedSequence([seed, epoch, index, repeat]).generate_state(1)[0])
