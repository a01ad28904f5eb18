"""Class weights from counts, against their formulas."""

from __future__ import annotations

import pytest

from segfocal.config.balance import ClassCounts
from segfocal.config.loss_entropy import CrossEntropyConfig
from segfocal.config.loss_focal import FocalConfig
from segfocal.config.loss_sum import SumConfig
from segfocal.config.task import TaskConfig

COUNTS = ClassCounts(pixels=[900, 90, 10], valid=[1000] * 3, present=[10, 5, 1], pixels_where_present=[1000, 600, 120], images=10)
SEPARATE = ClassCounts(pixels=[20, 500], valid=[1000, 800], present=[2, 10], pixels_where_present=[200, 800], images=10)


def test_inverse_has_a_mean_of_one_over_the_pixels():
    weights, others = COUNTS.weights("inverse", 0.9, "multiclass")
    assert others is None
    assert weights == pytest.approx([1000 / (3 * 900), 1000 / (3 * 90), 1000 / (3 * 10)])


def test_sqrt_inverse():
    weights, _ = COUNTS.weights("sqrt_inverse", 0.9, "multiclass")
    assert sum(w * n for w, n in zip(weights, COUNTS.pixels, strict=True)) == pytest.approx(1000)
    assert [w / weights[0] for w in weights] == pytest.approx([1, 10**0.5, 90**0.5])


def test_median_frequency():
    weights, _ = COUNTS.weights("median_frequency", 0.9, "multiclass")
    frequency = [900 / 1000, 90 / 600, 10 / 120]
    assert weights == pytest.approx([frequency[1] / f for f in frequency])


@pytest.mark.parametrize("beta", [0.5, 0.999, 1 - 1e-12])
def test_effective_number_of_images(beta):
    weights, _ = COUNTS.weights("effective_number", beta, "multiclass")
    assert sum(weights) == pytest.approx(3)
    expected = [sum(beta**k for k in range(m)) for m in COUNTS.present]  # (1 - b^m) / (1 - b)
    assert [weights[0] / w for w in weights] == pytest.approx([n / expected[0] for n in expected], rel=1e-9)


def test_an_absent_class_weighs_nothing():
    counts = ClassCounts([900, 0, 100], [1000] * 3, [10, 0, 5], [1000, 0, 500], 10)
    for how in ("inverse", "sqrt_inverse", "median_frequency", "effective_number"):
        weights, _ = counts.weights(how, 0.9, "multiclass")
        assert weights[1] == 0
        assert weights[2] > weights[0] > 0


def test_classes_decided_one_by_one_are_weighed_against_the_rest():
    focal = FocalConfig(alpha="inverse").balanced(SEPARATE, TaskConfig(name="multilabel", classes=["a", "b"]))
    assert focal.alpha == pytest.approx([0.98, 0.375])  # share of the other pixels
    ce = CrossEntropyConfig(class_weights="inverse").balanced(SEPARATE, TaskConfig(name="multilabel", classes=["a", "b"]))
    assert ce.class_weights == pytest.approx([980 / 20, 300 / 500])  # torch's pos_weight


def test_binary_is_one_number():
    counts = ClassCounts([20], [1000], [2], [200], 10)
    assert FocalConfig(alpha="inverse").balanced(counts, TaskConfig(name="binary", classes=["a"])).alpha == pytest.approx(0.98)


def test_numbers_stay_and_sums_pass_it_on():
    task = TaskConfig(name="multiclass", classes=["a", "b", "c"])
    assert FocalConfig(alpha=[1.0, 2.0, 3.0]).balanced(COUNTS, task).alpha == [1.0, 2.0, 3.0]
    inside = SumConfig(terms={"x": FocalConfig(alpha="inverse")}).balanced(COUNTS, task).terms["x"]
    assert inside.alpha == pytest.approx([1000 / 2700, 1000 / 270, 1000 / 30])


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_few_stray_pixels_do_not_outweigh_everything_by_auto(mode):
    """Three pixels in one image of a megapixel."""
    million = 10**6
    counts = ClassCounts(
        [500 * million - 3, 20 * million, 3], [500 * million] * 3, [500, 250, 1], [500 * million, 250 * million, million], 500
    )
    word = "median_frequency" if mode == "multiclass" else "sqrt_inverse"
    (said, _), (auto, others) = counts.weights(word, 0.9, mode), counts.weights("auto", 0.9, mode)
    assert auto[:2] == said[:2] and auto[2] < said[2]
    assert auto[2] == pytest.approx(100 * (others[2] if others else 1))


@pytest.mark.parametrize("how", ["inverse", "sqrt_inverse", "median_frequency", "effective_number", "auto"])
def test_a_class_that_a_part_of_the_split_does_not_show_weighs_as_the_rarest_that_it_shows(how):
    part = ClassCounts([900, 0, 100], [1000] * 3, [10, 0, 5], [1000, 0, 500], 10, whole=False)
    weights, _ = part.weights(how, 0.9, "multiclass")
    assert weights[1] == weights[2] > weights[0]
    assert (
        CrossEntropyConfig(class_weights=how).balanced(part, TaskConfig(name="multilabel", classes=["a", "b", "c"])).class_weights[1] == 1
    )
