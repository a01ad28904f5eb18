"""Thresholds read off the histogram are the best that there are, and the decision that holds them decides as the histogram says."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics, best_thresholds
from segfocal.metrics.thresholds import SUREST

CLASSES = ["rust", "crack", "moss"]


def scores(spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of three classes, the rarer the lower, and their target; (1, 3, 80, 100)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.3, 0.03, 0.01])[:, None, None]
    target = (torch.rand(1, 3, 80, 100, generator=generator) < share).long()
    logits = spread * (torch.randn(1, 3, 80, 100, generator=generator) + 3 * target - torch.tensor([1.0, 3.0, 4.0])[:, None, None])
    return logits, target


def counted(logits: Tensor, target: Tensor, decision: Decision | None = None) -> SegmentationMetrics:
    metrics = SegmentationMetrics("multilabel", CLASSES[: logits.shape[1]], decision=decision)
    metrics.update(logits, target)
    return metrics


def largest(logits: Tensor, target: Tensor, beta: float | None) -> float:
    """The best F-beta, or IoU, of a class over every way to cut between two pixels."""
    order = logits.flatten().sort(descending=True).indices
    hits = target.flatten()[order].cumsum(0).double()
    predicted, true = torch.arange(1, len(hits) + 1), target.sum()
    weight = 0.0 if beta is None else beta**2
    figure = hits / (predicted + true - hits) if beta is None else (1 + weight) * hits / (predicted + weight * true)
    return float(figure.max())


@pytest.mark.parametrize("temperature", [[], [0.5, 2.0, 3.0]])
@pytest.mark.parametrize(("choose", "beta"), [("iou", 1.0), ("fbeta", 1.0), ("fbeta", 2.0), ("fbeta", 0.5)])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_no_threshold_is_better(spread: float, choose: Literal["iou", "fbeta"], beta: float, temperature: list[float]) -> None:
    logits, target = scores(spread)
    best = best_thresholds(counted(logits, target).histogram, choose, beta, temperature)

    expected = [largest(logits[:, c], target[:, c], None if choose == "iou" else beta) for c in range(3)]
    assert best.values.tolist() == pytest.approx(expected, abs=2e-3)  # a bin may hold a pixel of each side
    tuned = counted(logits, target, Decision("multilabel", temperature, best.thresholds))
    tp, fp, fn = (tuned.tuned_confusion[:, row, column].double() for row, column in ((1, 1), (0, 1), (1, 0)))
    weight = beta**2
    reached = tp / (tp + fp + fn) if choose == "iou" else (1 + weight) * tp / ((1 + weight) * tp + weight * fn + fp)
    torch.testing.assert_close(reached, best.values, rtol=0, atol=1e-12)


def test_the_tuned_figures_are_the_best_ones_and_no_worse_than_the_plain_ones() -> None:
    logits, target = scores(1.0)
    plain = counted(logits, target).compute()
    figures = counted(
        logits, target, Decision("multilabel", thresholds=[plain[f"best_threshold/{name}"] or 0 for name in CLASSES])
    ).compute()
    for name in CLASSES:
        assert figures[f"iou/{name}"] == plain[f"iou/{name}"]
        assert figures[f"tuned/iou/{name}"] == pytest.approx(plain[f"best_iou/{name}"], abs=1e-12)
        assert (plain[f"best_iou/{name}"] or 0) >= (plain[f"iou/{name}"] or 0)
    assert (figures["tuned/iou_macro"] or 0) > 1.3 * (figures["iou_macro"] or 0)
    assert figures["tuned/iou_macro"] == pytest.approx(plain["best_iou_macro"], abs=1e-12)


def of_row(logits: list[float], target: list[int], temperature: float = 1.0) -> tuple[object, object]:
    """The chosen cut, in logits, and the IoU there."""
    metrics = counted(torch.tensor(logits).view(1, 1, 1, -1), torch.tensor(target).view(1, 1, 1, -1))
    best = best_thresholds(metrics.histogram, temperature=[temperature])
    return torch.tensor(best.thresholds).double().logit().item() * temperature, float(best.values)


def test_half_stays_where_it_is_as_good_as_any() -> None:
    assert of_row([-5, -4, 1, 2], [0, 0, 1, 1]) == (0.0, 1.0)


def test_else_the_threshold_is_in_the_middle_of_the_gap() -> None:
    assert of_row([-5, -2, -1, 2], [0, 0, 1, 1]) == (pytest.approx(-1.5, abs=0.002), 1.0)
    assert of_row([-5, 2, 4, 5], [0, 0, 1, 1]) == (pytest.approx(3.0, abs=0.003), 1.0)
    assert of_row([-5, -2, -1, 2], [0, 0, 1, 1], temperature=3.0) == (pytest.approx(-1.5, abs=0.002), 1.0)


def test_of_several_gaps_that_are_as_good_the_nearest_to_half_is_taken() -> None:
    # IoU is 1 / 2 between 3 and 5: one of two; and between -4 and -2: two of four.
    logit, value = of_row([5, 3, 1, -2, -4], [1, 0, 0, 1, 0])
    assert value == 0.5
    assert logit == pytest.approx(-3.0, abs=0.003)


def test_a_class_without_a_positive_pixel_keeps_half() -> None:
    metrics = counted(torch.randn(1, 2, 4, 5), torch.stack([torch.zeros(4, 5), torch.ones(4, 5)]).long()[None])
    best = best_thresholds(metrics.histogram)
    assert best.thresholds[0] == 0.5
    assert math.isnan(best.values[0]) and best.values[1] == 1
    figures = metrics.compute()
    assert (figures["best_iou/rust"], figures["best_threshold/rust"], figures["best_iou_macro"]) == (None, None, 1.0)


@pytest.mark.parametrize("sign", [-1, 1])
def test_thresholds_stay_where_float32_tells_probabilities_apart(sign: int) -> None:
    """The best cut lies at a logit of 50, where every probability is 0 or 1."""
    logit, _ = of_row([sign * 50.0 - 1, sign * 50.0 + 1], [0, 1])
    assert isinstance(logit, float) and abs(logit) <= math.log(SUREST / (1 - SUREST)) + 1e-6
    Decision(
        "binary", thresholds=best_thresholds(counted(torch.full((1, 1, 1, 1), 50.0), torch.ones(1, 1, 1, 1).long()).histogram).thresholds
    )
