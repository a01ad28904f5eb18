"""Intervals and p-values over images: against drawing images in a loop, and against what they promise."""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics
from segfocal.metrics.bootstrap import Difference, compare, figure_names, figures_of, intervals
from segfocal.metrics.images import ImageTable, _Row

CLASSES = ["road", "crack", "patch"]
LEVELS = [0.5, 0.95]


def random_counts(images: int, classes: int = 3, seed: int = 0, most: int = 50) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, most, (images, classes, 3))


def table_of(counts: NDArray[np.int64], names: list[str] | None = None, tuned: NDArray[np.int64] | None = None) -> ImageTable:
    """A table of these counts."""
    classes = [str(c) for c in range(counts.shape[1])]
    table = ImageTable(TaskConfig(name="multilabel", classes=classes), Decision("multilabel"))
    for number, plain in enumerate(counts):
        name = names[number] if names else f"{number:05d}"
        table._rows.append(_Row(name, plain, plain if tuned is None else tuned[number], 1, np.zeros(len(classes))))
    return table


def predictions(truth: NDArray[np.int64], seed: int, error: float = 0.3) -> NDArray[np.int64]:
    """Counts of predictions of images with so many true pixels of each class."""
    rng = np.random.default_rng(seed)
    missed = rng.binomial(truth, error)
    return np.stack([truth - missed, rng.binomial(truth, error), missed], axis=-1)


# --- the figures


@pytest.mark.parametrize(("mode", "classes"), [("binary", ["a"]), ("multiclass", CLASSES), ("multilabel", CLASSES)])
def test_figures_of_counts_are_those_of_the_metrics(mode: Mode, classes: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(classes), 6, 7) if mode == "multilabel" else (2, 6, 7)
    target = torch.randint(0, len(classes) - 1 if mode == "multiclass" else 2, shape, generator=generator)
    logits = torch.randn(2, len(classes), 6, 7, generator=generator)
    logits[:, -1] -= 9 * (mode == "multiclass")  # a class that is absent
    metrics, table = SegmentationMetrics(mode, classes), ImageTable(TaskConfig(name=mode, classes=classes), Decision(mode))
    metrics.update(logits, target)
    table.add(["a", "b"], logits, target)
    expected = metrics.compute()
    found = dict(zip(figure_names(classes), figures_of(table.plain.sum(0).astype(float)).tolist(), strict=True))
    for name in set(found) & set(expected):
        assert (None if math.isnan(found[name]) else pytest.approx(found[name], abs=1e-12)) == expected[name], name
    assert {f"iou/{classes[0]}", "iou_macro", "dice_macro", "precision_macro", "recall_macro", "iou_micro"} <= set(found) & set(expected)


def test_figures_over_all_classes() -> None:
    sums = np.array([[6.0, 2, 2], [1, 3, 0], [0, 0, 0]])
    found = dict(zip(figure_names(CLASSES), figures_of(sums), strict=True))
    assert found["iou_micro"] == 7 / 14
    assert found["dice_micro"] == 14 / 21
    assert found["iou_weighted"] == pytest.approx((8 * 0.6 + 1 * 0.25) / 9)
    assert found["iou_macro"] == pytest.approx((0.6 + 0.25) / 2)
    assert np.isnan(figures_of(np.zeros((3, 3)))).all()


# --- intervals


def drawn_in_a_loop(counts: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.float64]:
    """Figures of each draw, image by image."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        picked = rng.integers(len(counts), size=len(counts))
        found.append(figures_of(np.sum([counts[number] for number in picked], axis=0).astype(float)))
    return np.array(found)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_are_those_of_images_drawn_in_a_loop(level: float) -> None:
    counts = random_counts(7)
    counts[1:, 2] = 0  # in a third of the draws this class is absent
    drawn = drawn_in_a_loop(counts, 60, seed=5)
    assert 5 < np.isnan(drawn[:, 2]).sum() < 40
    found = intervals(counts, CLASSES, draws=60, seed=5, level=level)
    assert list(found) == figure_names(CLASSES)
    for name, values in zip(figure_names(CLASSES), drawn.T, strict=True):
        assert found[name] == tuple(np.quantile(values[~np.isnan(values)], [(1 - level) / 2, (1 + level) / 2]))


def test_draws_in_several_parts_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = random_counts(9)
    expected = intervals(counts, CLASSES, draws=40)
    for cells in (1, 9 * 7, 9 * 40):
        monkeypatch.setattr("segfocal.metrics.bootstrap._CELLS", cells)
        assert intervals(counts, CLASSES, draws=40) == expected


def test_a_seed_gives_the_same_draws() -> None:
    counts = random_counts(9)
    assert intervals(counts, CLASSES, 50, seed=1) == intervals(counts, CLASSES, 50, seed=1) != intervals(counts, CLASSES, 50, seed=2)


def test_what_is_never_defined_has_no_interval() -> None:
    counts = random_counts(8)
    counts[:, 1] = 0
    counts[:, 2, :2] = 0  # never predicted
    found = intervals(counts, CLASSES, 50)
    missing = {"iou/crack", "dice/crack", "precision/crack", "recall/crack", "precision/patch"}
    assert set(figure_names(CLASSES)) - set(found) == missing
    assert found["iou/patch"] == (0, 0)
    assert intervals(np.zeros((8, 3, 3), np.int64), CLASSES, 50) == {}


@pytest.mark.parametrize("images", [0, 1])
def test_a_single_image_says_nothing_about_others(images: int) -> None:
    counts = random_counts(images)
    assert intervals(counts, CLASSES, 50) == {}
    assert compare(table_of(counts), table_of(counts), draws=50) == {}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """80 splits of 60 images: 95 % intervals fail in about 4 of them. A correct one fails in more than 11 once in a thousand times."""
    misses = 0
    for number in range(80):
        rng = np.random.default_rng(number)
        truth = rng.gamma(2.0, 200.0, (60, 1)).astype(np.int64) + 1
        errors = rng.beta(2, 6, (60, 2))  # images differ, pixels of an image are alike
        missed, made_up = (truth * errors[:, [0]]).astype(np.int64), (truth * errors[:, [1]]).astype(np.int64)
        counts = np.stack([truth - missed, made_up, missed], axis=-1)
        low, high = intervals(counts, ["crack"], 300, seed=number)["iou/crack"]
        misses += not low <= (1 - 0.25) / (1 + 0.25) <= high
    assert 1 <= misses <= 11


def test_intervals_narrow_with_the_number_of_images() -> None:
    widths = []
    for images in (40, 4000):
        low, high = intervals(random_counts(images, most=1000), CLASSES, 200)["iou/crack"]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.4)


def test_ten_thousand_images_take_little_memory_and_time() -> None:
    counts = random_counts(10_000, 11, most=100_000)
    tracemalloc.start()
    started = time.process_time()
    found = intervals(counts, [str(c) for c in range(11)], draws=1000)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 4 * 11 + 7
    assert peak < 100e6
    assert seconds < 4


@pytest.mark.parametrize(("draws", "level"), [(0, 0.95), (10, 0.0), (10, 1.0), (10, math.nan)])
def test_numbers_out_of_range_are_refused(draws: int, level: float) -> None:
    counts = random_counts(4)
    with pytest.raises(ValueError, match="draws="):
        intervals(counts, CLASSES, draws, level=level)
    with pytest.raises(ValueError, match="draws="):
        compare(table_of(counts), table_of(counts), draws=draws, level=level)


@pytest.mark.parametrize("counts", [np.zeros((4, 3)), np.zeros((4, 2, 3)), np.zeros((4, 3, 4))])
def test_counts_of_another_shape_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="for 3 classes"):
        intervals(counts, CLASSES)


# --- differences

TRUTH = np.random.default_rng(0).integers(0, 400, (30, 2))


def test_the_same_table_has_no_difference() -> None:
    table = table_of(predictions(TRUTH, 1))
    assert set(compare(table, table, draws=50).values()) == {Difference(0.0, 0.0, 0.0, 1.0)}


def test_the_same_images_are_drawn_for_both() -> None:
    a, b = predictions(TRUTH, 1), predictions(TRUTH, 2)
    drawn = drawn_in_a_loop(b, 60, seed=3) - drawn_in_a_loop(a, 60, seed=3)
    value = figures_of(b.sum(0).astype(float)) - figures_of(a.sum(0).astype(float))
    found = compare(table_of(a), table_of(b), draws=60, seed=3)
    for name, whole, values in zip(figure_names(["0", "1"]), value, drawn.T, strict=True):
        smaller = min((values <= 0).sum(), (values >= 0).sum())
        assert (found[name].value, found[name].p) == (whole, min(1.0, 2 * (smaller + 1) / 61))
        assert (found[name].low, found[name].high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-14)
    assert any(0.1 < each.p < 1 for each in found.values())


def test_turned_round_it_is_the_same_difference() -> None:
    a, b = table_of(predictions(TRUTH, 1)), table_of(predictions(TRUTH, 2, error=0.35))
    there, back = compare(a, b, draws=99), compare(b, a, draws=99)
    for name, found in there.items():
        assert found.value == -back[name].value and found.p == back[name].p
        assert (found.low, found.high) == pytest.approx((-back[name].high, -back[name].low), abs=1e-12)


def test_a_difference_is_found_in_pairs_where_intervals_overlap() -> None:
    """Images differ much more than the two predictions of each."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.05, 0.9, (40, 1))
    truth = np.full((40, 1), 1000)
    first, second = ((truth * (share * hard)).astype(np.int64) for share in (1.0, 0.95))
    a, b = (np.stack([truth - missed, 0 * truth, missed], axis=-1) for missed in (first, second))
    ends = [intervals(counts, ["0"])["iou/0"] for counts in (a, b)]
    assert ends[1][0] < ends[0][1], "they overlap"
    found = compare(table_of(a), table_of(b))["iou/0"]
    assert 0 < found.low < found.value < found.high and found.p == pytest.approx(2 / 1001)


def test_without_a_difference_p_is_small_as_seldom_as_it_says() -> None:
    """200 pairs of equally good predictions. Below 0.2 are about 40; of a fair test it would be less than 20 or more than 62 once in 2000."""
    small = 0
    for number in range(200):
        truth = np.random.default_rng(number).integers(1, 60, (40, 1))
        a, b = (table_of(predictions(truth, 1000 * number + side)) for side in (1, 2))
        small += compare(a, b, draws=99, seed=number)["iou/0"].p < 0.2
    assert 20 <= small <= 62


@pytest.mark.parametrize("better", [1, 2, 3, 6])
def test_few_images_that_differ_prove_little(better: int) -> None:
    a = predictions(TRUTH, 1)
    a[:, :, 2] += 1
    b = a.copy()
    b[:better, 0] += [[1, 0, -1]]  # one more pixel found, in class 0 alone
    found = compare(table_of(a), table_of(b), draws=2000)
    assert found["iou/0"].value > 0 and found["iou_macro"].value > 0
    assert found["iou/0"].p >= 2 ** (1 - better) and found["iou_macro"].p >= 2 ** (1 - better)
    assert found["recall/0"].p == found["iou/0"].p
    assert found["iou/1"] == found["recall/1"] == Difference(0.0, 0.0, 0.0, 1.0)


def test_the_counts_by_the_decision_are_compared_where_asked() -> None:
    plain, a, b = predictions(TRUTH, 1), predictions(TRUTH, 2), predictions(TRUTH, 3)
    tables = table_of(plain, tuned=a), table_of(plain, tuned=b)
    assert {found.value for found in compare(*tables, draws=20).values()} == {0.0}
    assert compare(*tables, tuned=True, draws=20) == compare(table_of(a), table_of(b), draws=20)


def test_images_are_paired_by_name() -> None:
    a, b = predictions(TRUTH, 1), predictions(TRUTH, 2)
    names = [f"{number:02d}" for number in range(30)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = table_of(b[order], [names[number] for number in order])
    assert compare(table_of(a, names), shuffled, draws=50) == compare(table_of(a, names), table_of(b, names), draws=50)


def test_images_of_one_name_are_paired_by_their_masks() -> None:
    a, b = predictions(TRUTH, 1), predictions(TRUTH, 2)
    names = [f"{number // 3:02d}" for number in range(30)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = table_of(b[order], [names[number] for number in order])
    assert compare(table_of(a, names), shuffled, draws=50) == compare(table_of(a, names), table_of(b, names), draws=50)


def test_a_figure_that_one_of_the_two_has_not_is_left_out() -> None:
    a, b = predictions(TRUTH, 1), predictions(TRUTH, 2)
    b[:, 1] = np.stack([0 * TRUTH[:, 1], 0 * TRUTH[:, 1], TRUTH[:, 1]], axis=-1)  # never predicted
    found = compare(table_of(a), table_of(b), draws=50)
    assert set(figure_names(["0", "1"])) - set(found) == {"precision/1"}
    assert found["recall/1"].value < 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (table_of(predictions(TRUTH[:29], 2)), "tables of 30 and 29 images, 1 of them in one alone, as 00029"),
        (table_of(predictions(TRUTH, 2), [f"{number:05d}" for number in range(1, 31)]), "2 of them in one alone, as 00000"),
        (table_of(predictions(TRUTH, 2), ["00000", *(f"{number:05d}" for number in range(29))]), "1 of them in one alone, as 00029"),
        (table_of(predictions(TRUTH[:, :1], 2)), "multilabel with 0, 1; multilabel with 0: only tables of the same classes"),
        (table_of(predictions(TRUTH + (np.arange(30) == 4)[:, None], 2)), "00004: another mask in one table than in the other, 1 images"),
    ],
)
def test_tables_that_cannot_be_compared(other: ImageTable, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare(table_of(predictions(TRUTH, 1)), other)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 999))
def test_intervals_are_in_order_and_within_what_is_possible(images: int, classes: int, most: int, zeros: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, most + 1, (images, classes))
    truth[rng.random(truth.shape) < zeros / 4] = 0
    a, b = predictions(truth, seed), predictions(truth, seed + 1)
    for low, high in intervals(a, [str(c) for c in range(classes)], 30, seed).values():
        assert 0 <= low <= high <= 1
    for found in compare(table_of(a), table_of(b), draws=30, seed=seed).values():
        assert -1 <= found.low <= found.high <= 1 and -1 <= found.value <= 1
        assert 2 / 31 <= found.p <= 1 and found.p >= min(1, 2 ** (1 - images))
