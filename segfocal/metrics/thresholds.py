"""At which probability a class is best taken as found: read off the histogram, for binary and multilabel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from segfocal.metrics.scores import score_edges

Choose = Literal["iou", "fbeta"]

SUREST = 1 - 1e-5
"""The highest threshold: from here on float32 tells probabilities apart no better than the bins of the histogram do."""


class Cuts(NamedTuple):
    """What comes out of each class when it is taken as found from an edge of the histogram on.

    Args:
        true_positive, false_positive: float64 counts (C, bins + 1), at rising scores.
        positive, negative: pixels (C, 1).
    """

    true_positive: Tensor
    false_positive: Tensor
    positive: Tensor
    negative: Tensor

    def iou(self) -> Tensor:
        """(C, bins + 1); NaN where the class is neither there nor predicted."""
        return self.true_positive / (self.positive + self.false_positive)

    def f_beta(self, beta: float) -> Tensor:
        """(C, bins + 1); NaN where the class is neither there nor predicted."""
        weight = beta**2
        return (1 + weight) * self.true_positive / (weight * self.positive + self.true_positive + self.false_positive)

    def figure(self, choose: Choose, beta: float = 1.0) -> Tensor:
        """The one of the two that is to be made large."""
        return self.iou() if choose == "iou" else self.f_beta(beta)


def cuts(histogram: Tensor) -> Cuts:
    """The outcomes at every edge.

    Args:
        histogram: int64 counts (C, 2, bins), in bins of rising score.
    """
    counts = torch.nn.functional.pad(histogram.cpu().double(), (0, 1))
    false_positive, true_positive = counts.flip(dims=(2,)).cumsum(dim=2).flip(dims=(2,)).unbind(dim=1)
    return Cuts(true_positive, false_positive, true_positive[:, :1], false_positive[:, :1])


class Best(NamedTuple):
    """
    Args:
        thresholds: one probability for each class.
        values: (C,) what the classes reach there; NaN for a class without a positive pixel.
    """

    thresholds: list[float]
    values: Tensor


def best_thresholds(histogram: Tensor, choose: Choose = "iou", beta: float = 1.0, temperature: Sequence[float] = ()) -> Best:
    r"""The thresholds that make IoU or F-beta of each class as large as possible over the pixels of the histogram.

    .. math:: \hat t_c = \sigma(e / T_c), \quad e = \arg\max_{e \in \text{edges}} F_c(\{x_c \ge e\})

    Where 0.5 is among the best, it stays: nothing speaks for another one. Else it is the middle, in logits, of the run of best edges that
    lies nearest to 0.5: as far as can be from the scores on either side, whose order with new images is least certain. A class without a
    positive pixel keeps 0.5.

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).
        choose: what is made large.
        beta: of `fbeta`.
        temperature: by which logits are divided before they become probabilities; empty is 1.

    Returns:
        Thresholds from 1 - SUREST to SUREST and what they reach.
    """
    found = cuts(histogram)
    figure = found.figure(choose, beta)
    edges, thresholds = score_edges(), []
    values = torch.full((len(histogram),), torch.nan, dtype=torch.float64)
    for c, row in enumerate(figure):
        divisor = temperature[c] if temperature else 1.0
        if not found.positive[c]:
            thresholds.append(0.5)
            continue
        within = (edges / divisor).abs() <= math.log(SUREST / (1 - SUREST))
        row = row.where(within, -1.0)
        values[c] = row.max()
        edge = _middle_of_best(row == values[c], edges)
        thresholds.append(torch.sigmoid(edges[edge] / divisor).item())
    return Best(thresholds, values)


def _middle_of_best(best: Tensor, edges: Tensor) -> int:
    """Which edge to take of those that are marked."""
    half = len(best) // 2  # the edge at logit 0
    if best[half]:
        return half
    marked = best.nonzero().flatten()
    nearest = int(marked[(marked - half).abs().argmin()])
    step = 1 if nearest > half else -1
    last = nearest
    while best[last + step]:
        last += step
    return int((edges - (edges[nearest] + edges[last]) / 2).abs().argmin())
