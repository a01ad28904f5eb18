"""Curves of each class, read off the histogram: few points that keep the shape, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segfocal.metrics.calibration import confidences
from segfocal.metrics.scores import score_edges
from segfocal.metrics.thresholds import cuts

POINTS = 400

Values = list[float | None]
"""None where a figure is not defined."""


class Reliability(NamedTuple):
    """The pixels in bins of their probability, without the empty bins.

    Args:
        confidence: mean probability.
        positive_share: of the pixels that truly are the class; as large as the confidence where probabilities are right.
        pixels: how many.
    """

    confidence: list[float]
    positive_share: list[float]
    pixels: list[int]


class ClassCurves(NamedTuple):
    """What becomes of a class as the threshold rises; all lists but those of `reliability` are as long as each other.

    Args:
        threshold: probabilities from 0 to 1.
        fpr: the share of the negative pixels that are predicted; against it `recall` is the ROC curve.
        recall: the share of the positive pixels that are predicted.
        precision: the share of the predicted pixels that are positive; None where none is predicted.
        iou, f_beta: at each threshold.
        reliability: see there.
    """

    threshold: list[float]
    fpr: Values
    recall: Values
    precision: Values
    iou: Values
    f_beta: Values
    reliability: Reliability


def class_curves(histogram: Tensor, beta: float = 1.0, temperature: Sequence[float] = (), points: int = POINTS) -> list[ClassCurves]:
    """The curves of every class.

    Both ends are there, everything predicted and nothing, and the largest IoU and F-beta. Between them the points are spread so that from
    one to the next all values together change by as much: no step of a curve is missed.

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).
        beta: of F-beta.
        temperature: by which logits are divided, one for each class; empty is 1. Not for multiclass, whose histogram is that of the
            probabilities at temperature 1.
        points: the most of a curve, 8 or more.
    """
    found, edges = cuts(histogram), score_edges()
    columns = {
        "fpr": found.false_positive / found.negative,
        "recall": found.true_positive / found.positive,
        "precision": found.true_positive / (found.true_positive + found.false_positive),
        "iou": found.iou(),
        "f_beta": found.f_beta(beta),
    }
    drawn = []
    for c, reliability in enumerate(_reliabilities(histogram, temperature)):
        threshold = torch.sigmoid(edges / (temperature[c] if temperature else 1.0))
        rows = {name: column[c] for name, column in columns.items()}
        kept = _kept(
            torch.stack([threshold, *rows.values()]), [int(rows[name].nan_to_num(-1).argmax()) for name in ("iou", "f_beta")], points
        )
        plain = {name: [None if math.isnan(value) else value for value in row[kept].tolist()] for name, row in rows.items()}
        drawn.append(ClassCurves(threshold[kept].tolist(), **plain, reliability=reliability))
    return drawn


def _kept(rows: Tensor, always: list[int], points: int) -> list[int]:
    """The cuts to keep of (rows, cuts), rising."""
    change = rows.nan_to_num().diff(dim=1).abs().sum(dim=0).cumsum(dim=0)
    last = rows.shape[1] - 1
    even = torch.linspace(0, float(change[-1]), points - 2 - len(always), dtype=torch.float64)
    return sorted({0, last, *always, *(min(last, place + 1) for place in torch.searchsorted(change, even).tolist())})


def _reliabilities(histogram: Tensor, temperature: Sequence[float]) -> list[Reliability]:
    found = []
    for pixels, confidence, positive in zip(*confidences(histogram, temperature), strict=True):
        some = pixels > 0.5  # of pixels in a bin on two sides there are parts
        mean, share = ((values[some] / pixels[some]).tolist() for values in (confidence, positive))
        found.append(Reliability(mean, share, [round(number) for number in pixels[some].tolist()]))
    return found
