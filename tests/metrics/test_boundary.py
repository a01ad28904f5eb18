"""Boundary IoU and the boundary F-measure against transcriptions of their definitions, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from segfocal.config.task import Mode, TaskConfig
from segfocal.metrics.boundary import BoundaryCounts, _rim

IGNORE = 255
CLASSES = {"binary": ["crack"], "multiclass": ["road", "crack", "patch"], "multilabel": ["rust", "crack"]}
MODES: list[Mode] = ["binary", "multiclass", "multilabel"]
BINARY = TaskConfig(classes=["crack"])


def task_of(mode: Mode) -> TaskConfig:
    return TaskConfig(name=mode, classes=CLASSES[mode])


def figures_of(predicted: Any, true: Any, **options: float) -> dict[str, float | None]:
    """Of one binary image."""
    counts = BoundaryCounts(BINARY, **options)
    counts.add(torch.as_tensor(np.asarray(predicted, np.uint8))[None, None], torch.as_tensor(np.asarray(true, np.uint8))[None])
    return counts.figures()


def blobs(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """0/1, smooth enough to have regions with a rim and an inside."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), [0.0] * (len(shape) - 2) + [3.0, 3.0])
    return (noise > np.quantile(noise, 0.6)).astype(np.uint8)


def random_images(mode: Mode, images: int, size: tuple[int, int] = (40, 50), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels as a decision gives them, and a target with ignored parts."""
    found = []
    for offset in (0, 100):
        planes = [blobs((images, *size), seed + offset + plane) for plane in range(2)]
        if mode == "multiclass":
            found.append(np.where(planes[0] == 1, 1, 2 * planes[1]))
        else:
            found.append(np.stack(planes[: len(CLASSES[mode])], axis=1))
    labels, target = found
    ignored = blobs(target.shape, seed + 200) & blobs(target.shape, seed + 300)
    target = np.where(ignored == 1, IGNORE, target)
    return torch.from_numpy(labels.astype(np.uint8)), torch.from_numpy(target[:, 0] if mode == "binary" else target)


# --- transcriptions


def slow_rim(mask: NDArray[Any], valid: NDArray[Any], width: int, border: bool) -> set[tuple[int, int]]:
    """Pixels of the mask with a valid pixel outside of it, or the world outside of the image, at most so many king's moves away."""
    height, length = mask.shape
    found = set()
    for row, column in zip(*np.nonzero(mask & valid), strict=True):
        for y in range(row - width, row + width + 1):
            for x in range(column - width, column + width + 1):
                inside = 0 <= y < height and 0 <= x < length
                if (border and not inside) or (inside and valid[y, x] and not mask[y, x]):
                    found.add((int(row), int(column)))
    return found


def slow_counts(predicted: NDArray[Any], true: NDArray[Any], valid: NDArray[Any], ratio: float, tolerance: float) -> list[int]:
    width = max(1, round(ratio * math.sqrt(true.shape[0] ** 2 + true.shape[1] ** 2)))
    inner = [slow_rim(mask, valid, width, border=True) for mask in (predicted, true)]
    contours = [slow_rim(mask, valid, 1, border=False) for mask in (predicted, true)]

    def near(of: int, other: int) -> int:
        return sum(any((a - c) ** 2 + (b - d) ** 2 <= tolerance**2 for c, d in contours[other]) for a, b in contours[of])

    return [len(inner[0] & inner[1]), len(inner[0] | inner[1]), len(contours[0]), near(0, 1), len(contours[1]), near(1, 0)]


def planes_of(mode: Mode, labels: Tensor, target: Tensor, label: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Prediction, truth and what is valid, of one image and class."""
    predicted, ids = labels.numpy(), target.numpy()
    if mode == "multiclass":
        return predicted == label, ids == label, ids != IGNORE
    ids = ids if mode == "multilabel" else ids[None]
    return predicted[label] == 1, ids[label] == 1, ids[label] != IGNORE


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.booleans(), st.floats(0, 1), st.integers(0, 99))
def test_rims_are_those_of_an_erosion(height: int, length: int, width: int, border: bool, share: float, seed: int) -> None:
    """Also of squares that are larger than the image."""
    rng = np.random.default_rng(seed)
    counted = rng.random((height, length)) < 0.9
    mask = (rng.random((height, length)) < 1 - 0.02 * share) & counted
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    kept = cv2.erode((mask | ~counted).astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0 if border else 1)
    np.testing.assert_array_equal(_rim(mask, counted, width, border), mask & (kept == 0))


def test_wide_rims_are_summed_and_not_eroded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time that does not grow with the width, and without a sum that is too large for its type."""
    monkeypatch.delattr(cv2, "erode")
    mask = np.ones((700, 700), bool)
    mask[350, 350] = False
    rim = _rim(mask, np.ones_like(mask), 200, border=False)
    assert rim.sum() == 401**2 - 1
    assert _rim(~mask, np.ones_like(mask), 300, border=False).sum() == 1


@pytest.mark.parametrize(("ratio", "tolerance"), [(0.02, 2.0), (0.05, 0.0), (0.001, 3.5)])
@pytest.mark.parametrize("mode", MODES)
def test_counts_are_those_of_a_slow_transcription(mode: Mode, ratio: float, tolerance: float) -> None:
    labels, target = random_images(mode, 2, (24, 30), seed=int(10 * tolerance))
    counts = BoundaryCounts(task_of(mode), ratio, tolerance)
    counts.add(labels, target)
    for label in range(len(CLASSES[mode])):
        each = [slow_counts(*planes_of(mode, one, ids, label), ratio, tolerance) for one, ids in zip(labels, target, strict=True)]
        assert counts.counts[label].tolist() == np.sum(each, axis=0).tolist()
        assert min(counts.counts[label]) > 0


@pytest.mark.parametrize("size", [(40, 50), (90, 200), (7, 5)])
def test_boundary_iou_is_that_of_the_authors_code(size: tuple[int, int]) -> None:
    """Their mask_to_boundary, with scipy's erosion in place of OpenCV's."""
    predicted, true = blobs(size, 1), blobs(size, 2)

    def mask_to_boundary(mask: NDArray[Any]) -> NDArray[Any]:
        dilation = max(1, round(0.02 * np.sqrt(size[0] ** 2 + size[1] ** 2)))
        eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=dilation, border_value=1)
        return mask - eroded[1:-1, 1:-1]

    ours, theirs = mask_to_boundary(predicted), mask_to_boundary(true)
    assert figures_of(predicted, true)["boundary_iou/crack"] == (ours & theirs).sum() / (ours | theirs).sum()


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.0, 5.0])
def test_boundary_f_is_that_of_distances(tolerance: float) -> None:
    predicted, true = blobs((60, 60), 3), blobs((60, 60), 4)
    contours = [mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1) for mask in (predicted == 1, true == 1)]
    distances = [ndimage.distance_transform_edt(~contour) for contour in contours]
    precision = np.mean(distances[1][contours[0]] <= tolerance)
    recall = np.mean(distances[0][contours[1]] <= tolerance)
    expected = 2 * precision * recall / (precision + recall)
    assert 0 < expected < 1
    assert figures_of(predicted, true, tolerance=tolerance)["boundary_f/crack"] == pytest.approx(expected, abs=1e-12)


# --- cases small enough to be seen through


def square(top: int, left: int, side: int, size: int = 20) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_a_shift_by_one_pixel_is_within_two() -> None:
    found = figures_of(square(5, 5, 8), square(6, 5, 8))
    assert found["boundary_f/crack"] == 1
    # Rims of 28 pixels, one wide: the two sides share 2 x 7, and top and bottom nothing but the corners among them.
    assert found["boundary_iou/crack"] == 14 / (28 + 28 - 14)
    assert figures_of(square(5, 5, 8), square(6, 5, 8), tolerance=0)["boundary_f/crack"] == 14 / 28


def test_the_border_of_the_image_is_a_rim_but_no_contour() -> None:
    whole = np.ones((20, 20), np.uint8)
    found = figures_of(whole, whole)
    assert (found["boundary_iou/crack"], found["boundary_f/crack"]) == (1, None)
    inner = square(1, 1, 18)  # its rim lies within that of the whole image by nothing
    assert figures_of(inner, whole)["boundary_iou/crack"] == 0


def test_without_a_contour_in_prediction_and_truth_nothing_is_defined() -> None:
    nothing = np.zeros((20, 20), np.uint8)
    assert set(figures_of(nothing, nothing).values()) == {None}
    assert set(BoundaryCounts(BINARY).figures().values()) == {None}
    assert set(figures_of(square(5, 5, 8), np.full((20, 20), IGNORE)).values()) == {None}
    for pair in ((square(5, 5, 8), nothing), (nothing, square(5, 5, 8))):
        assert set(figures_of(*pair).values()) == {0}


def test_an_absent_class_is_left_out_of_the_mean() -> None:
    counts = BoundaryCounts(task_of("multiclass"))
    half = torch.zeros(1, 20, 20, dtype=torch.uint8)
    half[:, :, 10:] = 1
    counts.add(half, half)
    found = counts.figures()
    assert found == {
        **{f"{name}/{label}": 1 for name in ("boundary_iou", "boundary_f") for label in ("road", "crack")},
        **{f"{name}/patch": None for name in ("boundary_iou", "boundary_f")},
        "boundary_iou_macro": 1,
        "boundary_f_macro": 1,
    }


# --- what is ignored


def test_what_is_predicted_on_ignored_pixels_changes_nothing() -> None:
    for mode in MODES:
        labels, target = random_images(mode, 2)
        ignored = target == IGNORE if mode != "binary" else (target == IGNORE)[:, None]
        counts = []
        for other in (labels, torch.where(ignored, 1 - labels.clamp(max=1), labels)):
            counts.append(BoundaryCounts(task_of(mode)))
            counts[-1].add(other, target)
        assert not torch.equal(labels, other)
        assert np.array_equal(counts[0].counts, counts[1].counts)


def test_next_to_what_is_ignored_there_is_no_contour() -> None:
    true = square(5, 5, 8)
    true[4:14, 4:14] = np.where(square(5, 5, 8)[4:14, 4:14] == 1, 1, IGNORE)  # ignored all round
    assert set(figures_of(square(5, 5, 8), true).values()) == {None}
    assert figures_of(square(2, 2, 14), true)["boundary_f/crack"] == 0, "beyond it, a contour is one too many"


@given(st.sampled_from(MODES), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_what_pads_an_image_is_no_part_of_it(mode: Mode, top: int, bottom: int, left: int, right: int) -> None:
    labels, target = random_images(mode, 1)
    counts = [BoundaryCounts(task_of(mode)) for _ in range(2)]
    counts[0].add(labels, target)
    counts[1].add(
        torch.nn.functional.pad(labels, (left, right, top, bottom), value=1),
        torch.nn.functional.pad(target, (left, right, top, bottom), value=IGNORE),
    )
    assert np.array_equal(counts[0].counts, counts[1].counts)


# --- properties

masks = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 1, 1, IGNORE]))


@given(masks, st.floats(0.001, 0.4), st.floats(0, 6))
@settings(max_examples=100, deadline=None)
def test_a_perfect_prediction_is_one(true: NDArray[np.uint8], ratio: float, tolerance: float) -> None:
    assert set(figures_of(true == 1, true, ratio=ratio, tolerance=tolerance).values()) <= {1, None}


@given(masks, st.data(), st.sampled_from([(0, 1, 1), (0, 1, -1), (0, -1, 1), (1, 1, 1), (1, -1, 1), (1, 1, -1)]))
@settings(max_examples=100, deadline=None)
def test_figures_are_the_same_of_a_flipped_or_turned_image(
    true: NDArray[np.uint8], data: st.DataObject, turn: tuple[int, int, int]
) -> None:
    predicted = data.draw(hnp.arrays(np.uint8, true.shape, elements=st.integers(0, 1)))
    swap, down, across = turn

    def turned(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return (mask.T if swap else mask)[::down, ::across].copy()

    assert figures_of(predicted, true) == figures_of(turned(predicted), turned(true))


@given(masks, st.data(), st.floats(0.001, 0.4), st.floats(0, 6))
@settings(max_examples=100, deadline=None)
def test_prediction_and_truth_can_change_places(true: NDArray[np.uint8], data: st.DataObject, ratio: float, tolerance: float) -> None:
    ignored = true == IGNORE
    predicted = data.draw(hnp.arrays(np.uint8, true.shape, elements=st.integers(0, 1)))
    options = {"ratio": ratio, "tolerance": tolerance}
    there = figures_of(predicted, true, **options)
    back = figures_of(np.where(ignored, 0, true), np.where(ignored, IGNORE, predicted), **options)
    assert there == pytest.approx(back, abs=1e-12)
    assert all(value is None or 0 <= value <= 1 for value in there.values())


# --- counts add up


@pytest.mark.parametrize("mode", MODES)
def test_batches_and_parts_add_up(mode: Mode) -> None:
    labels, target = random_images(mode, 3)
    whole, first, second = (BoundaryCounts(task_of(mode)) for _ in range(3))
    whole.add(labels, target)
    first.add(labels[2:], target[2:])
    for number in range(2):
        second.add(labels[[number]], target[[number]])
    first.merge(second)
    assert np.array_equal(whole.counts, first.counts)
    assert whole.figures() == first.figures()


def test_a_binary_target_comes_with_or_without_a_channel() -> None:
    labels, target = random_images("binary", 1)
    counts = [BoundaryCounts(BINARY) for _ in range(2)]
    counts[0].add(labels, target)
    counts[1].add(labels, target[:, None])
    assert np.array_equal(counts[0].counts, counts[1].counts)
