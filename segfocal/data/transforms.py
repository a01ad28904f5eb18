"""Augmentation; the only file that knows albumentations.

Masks are moved by nearest neighbour, what comes in from outside the image is ignore_index in them, and every draw is a
function of the seed that the caller gives.
"""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for a newer release

import albumentations as A
import cv2
import numpy as np

from segfocal.config.augment import AugmentConfig
from segfocal.data.source import Array

cv2.setNumThreads(0)  # workers and torch share the cores already


class TrainTransform:
    """Vary a sample and cut the training crop out of it.

    Args:
        config: how much to vary.
        crop: height and width of the crop; None keeps the image whole. Smaller images are padded.
        ignore_index: what padding is in the mask.
    """

    def __init__(self, config: AugmentConfig, crop: list[int] | None, ignore_index: int) -> None:
        self.compose = A.Compose(_steps(config, crop, ignore_index), seed=0)

    def __call__(self, image: Array, mask: Array, seed: int) -> tuple[Array, Array]:
        self.compose.set_random_seed(seed)
        varied = self.compose(image=image, mask=mask)
        return varied["image"], varied["mask"]


def _steps(config: AugmentConfig, crop: list[int] | None, ignore_index: int) -> list[A.BasicTransform]:
    outside = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": ignore_index}
    steps: list[A.BasicTransform] = []
    if config.scale is not None or config.rotate > 0:
        zoom = config.scale or 0.0
        steps.append(
            A.Affine(
                scale=(1 - zoom, 1 + zoom),
                rotate=(-config.rotate, config.rotate),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                p=1.0,
                **outside,
            )
        )
    if crop is not None:
        steps += [A.PadIfNeeded(min_height=crop[0], min_width=crop[1], **outside), A.RandomCrop(height=crop[0], width=crop[1])]
    steps += [A.HorizontalFlip(p=config.hflip), A.VerticalFlip(p=config.vflip), A.RandomRotate90(p=config.rotate90)]
    if config.brightness > 0 or config.contrast > 0:
        steps.append(A.RandomBrightnessContrast(brightness_limit=config.brightness, contrast_limit=config.contrast, p=0.8))
    if config.blur > 0:
        steps.append(A.GaussianBlur(sigma_limit=(0.3, 1.5), p=config.blur))
    if config.noise > 0:
        steps.append(A.GaussNoise(std_range=(0.01, 0.05), p=config.noise))
    return steps


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A number for each sample of each epoch, the same on every machine and with any number of workers."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0])
