"""What varies a crop: labels follow the pixels, what is not seen is ignored, and draws are functions of the seed."""

from __future__ import annotations

import dataclasses
import itertools
import warnings

import albumentations as A
import cv2
import numpy as np
import pytest

from segfocal.config.augment import AugmentConfig
from segfocal.data.source import Array
from segfocal.data.transforms import TrainTransform, strictly
from tests.config.test_yaml import composed

STRONG = composed("augment=strong").augment
EVERYTHING = dataclasses.replace(
    STRONG, vflip=0.5, rotate90=0.5, rotate=60, distort=1.0, gamma=0.9, colour=1.0, lowres=1.0, blur=1.0, noise=1.0, dropout=1.0
)
LIGHT = ("brightness", "contrast", "gamma", "colour", "lowres", "blur", "noise")


def one(**values: float) -> AugmentConfig:
    return AugmentConfig(name="one", **values)


def painted(size: tuple[int, int] = (150, 170)) -> tuple[Array, Array]:
    """Wide patches of classes, whose colours say the class: red 40 for class 1, 80 for class 2 ..."""
    mask = np.kron(np.random.default_rng(0).integers(1, 6, (size[0] // 10, size[1] // 10)), np.ones((10, 10))).astype(np.uint8)
    return np.repeat((mask * 40)[..., None], 3, axis=2), mask


@pytest.mark.parametrize("config", [one(distort=1.0), one(distort=1.0, scale=0.3, rotate=40, hflip=0.5, rotate90=0.5), one(scale=0.4)])
@pytest.mark.parametrize("crop", [[64, 64], [48, 80], None])
def test_labels_follow_the_pixels(config: AugmentConfig, crop: list[int] | None) -> None:
    transform = TrainTransform(config, crop, 255)
    image, mask = painted()
    agreed = []
    for seed in range(20):
        moved, labels = transform(image, mask, seed)
        assert moved.shape[:2] == labels.shape
        assert set(np.unique(labels)) <= {1, 2, 3, 4, 5, 255}
        inside = labels != 255
        assert inside.mean() > 0.5
        inner = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3))) == 0
        inner[[0, -1]] = inner[:, [0, -1]] = False  # there the neighbours are not known
        agreed.append((np.abs(moved[..., 0] - labels * 40.0) < 2)[inside & inner].mean())
    assert np.mean(agreed) > 0.998


def test_a_distortion_moves_pixels_smoothly_and_not_too_far() -> None:
    rows, columns = np.mgrid[:200, :200].astype(np.float32)
    transform = TrainTransform(one(distort=1.0), [100, 100], 255)
    furthest = []
    for seed in range(30):
        moved, labels = transform(np.stack([rows, columns], -1), np.zeros((200, 200), np.uint8), seed, (100, 100))
        assert not (labels == 255).any()  # what a distortion reads lies in the image with the crop
        steps = [np.diff(moved[..., axis], axis=axis) for axis in (0, 1)]
        assert min(step.min() for step in steps) > 0.2  # nothing folds over
        assert max(step.max() for step in steps) < 2.0
        straight = moved - moved.mean((0, 1)) - (np.stack(np.mgrid[:100, :100], -1) - 49.5)
        furthest.append(np.abs(straight).max())
    assert 3 < np.mean(furthest) < 7
    assert max(furthest) < 10  # a twentieth of 100 either way, and what the crop as a whole has moved


def test_a_share_of_the_crops_is_distorted() -> None:
    image, mask = painted()
    transform = TrainTransform(one(distort=0.3), None, 255)
    distorted = [not np.array_equal(transform(image, mask, seed)[0], image) for seed in range(200)]
    assert np.mean(distorted) == pytest.approx(0.3, abs=0.1)


def test_the_pixel_that_is_aimed_at_stays_in_the_crop_whatever_moves() -> None:
    transform = TrainTransform(one(distort=1.0, scale=0.3, rotate=30), [48, 64], 255)
    rng = np.random.default_rng(0)
    for seed in range(300):
        row, column = (int(place) for place in rng.integers(80, 170, 2))
        mask = np.zeros((250, 250), np.uint8)
        mask[row - 1 : row + 2, column - 1 : column + 2] = 9
        _, labels = transform(np.zeros((250, 250, 1), np.uint8), mask, seed, (row, column))
        assert (labels == 9).any()
        assert not (labels == 255).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("classes", [None, 1, 7])
def test_images_and_masks_of_any_kind_can_be_varied(channels: int, dtype: type, classes: int | None) -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((70, 90, channels)) * 255).astype(dtype)
    mask = rng.integers(0, 2, (70, 90) if classes is None else (70, 90, classes), dtype=np.uint8)
    before = image.copy(), mask.copy()
    for crop, seed in itertools.product(([48, 64], None), range(5)):
        varied, labels = TrainTransform(EVERYTHING, crop, 77)(image, mask, seed)
        assert varied.dtype == dtype and labels.dtype == np.uint8
        assert varied.shape == (*labels.shape[:2], channels)
        assert labels.shape[2:] == mask.shape[2:]
        assert np.isfinite(varied).all()
        assert set(np.unique(labels)) == {0, 1, 77}
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_light_changes_pixels_and_no_label(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (60, 60, 3)).astype(dtype), rng.integers(0, 9, (60, 60), dtype=np.uint8)
    transform = TrainTransform(one(**{name: 0.5 if name in ("brightness", "contrast", "gamma", "colour") else 1.0}), None, 255)
    changed = []
    for seed in range(20):
        varied, labels = transform(image, mask, seed)
        assert np.array_equal(labels, mask)
        changed.append(not np.allclose(varied, image, atol=0.01))
    assert np.mean(changed) >= 0.6


@pytest.mark.parametrize(("channels", "same"), [(1, True), (3, False), (4, True)])
def test_colour_is_shifted_where_there_is_colour(channels: int, same: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 30, channels), dtype=np.uint8)
    transform = TrainTransform(one(colour=0.8), None, 255)
    kept = [np.array_equal(transform(image, image[..., 0], seed)[0], image) for seed in range(20)]
    assert all(kept) if same else np.mean(kept) < 0.5


def test_grey_photographs_get_no_colour() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (30, 30, 1), dtype=np.uint8), 3, axis=2)
    for seed in range(20):
        varied, _ = TrainTransform(one(colour=1.0), None, 255)(grey, grey[..., 0], seed)
        assert np.ptp(varied.astype(int), axis=2).max() <= 2


def test_what_is_blotted_out_is_ignored_and_nothing_else_is() -> None:
    image, mask = np.full((100, 100, 3), 200, np.uint8), np.ones((100, 100, 2), np.uint8)
    shares = []
    for seed in range(100):
        varied, labels = TrainTransform(one(dropout=0.5), [80, 80], 99)(image, mask, seed)
        black = (varied == 0).all(-1)
        assert np.array_equal(black, (labels == 99).all(-1))
        assert np.array_equal(~black, (labels == 1).all(-1))
        shares.append(black.mean())
    assert np.mean(np.array(shares) > 0) == pytest.approx(0.5, abs=0.12)
    assert max(shares) < 0.1


@pytest.mark.parametrize("values", [(1000.0, 3000.0), (-5.0, 5.0), (0.0, 0.01)])
def test_float_images_keep_their_range(values: tuple[float, float]) -> None:
    """albumentations takes every float image for one of 0..1."""
    image = np.random.default_rng(0).uniform(*values, (40, 40, 2)).astype(np.float32)
    for seed in range(10):
        varied, _ = TrainTransform(EVERYTHING, [32, 32], 255)(image, np.zeros((40, 40), np.uint8), seed)
        assert values[0] - 1e-3 * abs(values[0]) <= varied.min() < varied.max() <= values[1] * 1.001
        assert np.ptp(varied) > 0.1 * (values[1] - values[0])


def test_steps_are_drawn_independently_of_each_other() -> None:
    """Each of albumentations' steps, seeded by itself, draws the same numbers: all mirror images at once, or none."""
    corners = np.arange(4, dtype=np.uint8).reshape(2, 2)
    transform = TrainTransform(one(hflip=0.5, vflip=0.5), None, 255)
    shown = [int(transform(corners[..., None], corners, seed)[1][0, 0]) for seed in range(400)]
    assert np.bincount(shown, minlength=4) / 400 == pytest.approx([0.25] * 4, abs=0.08)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_same_seed_draws_the_same(dtype: type) -> None:
    image, mask = painted()
    first, again = (TrainTransform(EVERYTHING, [64, 64], 255) for _ in range(2))
    drawn = [first(image.astype(dtype), mask, seed) for seed in range(10)]
    for seed in reversed(range(10)):
        for one_of, other in zip(drawn[seed], again(image.astype(dtype), mask, seed), strict=True):
            assert np.array_equal(one_of, other)
    assert len({labels.tobytes() for _, labels in drawn}) == 10


def test_an_argument_that_albumentations_does_not_know_is_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        A.PadIfNeeded(mask_value=255)  # no word of it
        with pytest.raises(TypeError, match="mask_value"):
            strictly(A.PadIfNeeded, mask_value=255)
    assert strictly(A.HorizontalFlip, p=0.3).p == 0.3


def test_every_option_can_be_built_where_warnings_are_hidden() -> None:
    """Were one of the arguments in use unknown, building would fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(TrainTransform(EVERYTHING, [32, 32], 255).compose.transforms) == 10
