"""Every figure by the name under which it is logged, printed and written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segfocal.metrics import calibration, figures
from segfocal.metrics.thresholds import best_thresholds

Figures = dict[str, float | None]


def figures_of(confusion: Tensor, histogram: Tensor, classes: list[str], overlapping: bool) -> Figures:
    """All that a split comes to by the plain rule.

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).
        histogram: int64 counts (C, 2, SCORE_BINS).
        classes: their names.
        overlapping: whether each class has a threshold of its own: binary and multilabel.

    Returns:
        See `SegmentationMetrics.compute`.
    """
    averaged = {
        "auroc": figures.auroc(histogram),
        "ap": figures.average_precision(histogram),
    }
    per_class = {"pixel_share": figures.pixel_share(confusion)}
    if overlapping:
        best = best_thresholds(histogram)
        averaged["best_iou"] = best.values
        per_class["best_threshold"] = torch.tensor(best.thresholds, dtype=torch.float64).where(~best.values.isnan(), torch.nan)
    absent = int(figures.iou(confusion).isnan().sum())
    return {
        **figures_of_confusion(confusion, classes),
        **_named(averaged, per_class, classes),
        **calibration_of(histogram, [], classes),
        "iou_micro": _defined(figures.iou_micro(confusion)),
        "dice_micro": _defined(figures.dice_micro(confusion)),
        "iou_weighted": _defined(figures.iou_weighted(confusion)),
        "absent_classes": absent,
    }


def figures_of_confusion(confusion: Tensor, classes: list[str]) -> Figures:
    """What depends on how was decided: IoU, Dice, precision and recall of each class, their means, and accuracy."""
    averaged = {
        "iou": figures.iou(confusion),
        "dice": figures.dice(confusion),
        "precision": figures.precision(confusion),
        "recall": figures.recall(confusion),
    }
    per_class = {"accuracy": figures.accuracy(confusion)}
    return _named(averaged, per_class, classes) | {"accuracy": _defined(figures.pixel_accuracy(confusion))}


def calibration_of(histogram: Tensor, temperature: Sequence[float], classes: list[str]) -> Figures:
    """Calibration error and Brier score of each class, of logits divided by the temperature, and their means."""
    found = {
        "ece": calibration.calibration_error(histogram, temperature),
        "brier": calibration.brier(histogram, temperature),
    }
    return _named(found, {}, classes)


def _named(averaged: dict[str, Tensor], per_class: dict[str, Tensor], classes: list[str]) -> Figures:
    """One of each class, and for what is averaged the mean of those that are defined."""
    found = {
        f"{name}/{label}": _defined(value)
        for name, row in (averaged | per_class).items()
        for label, value in zip(classes, row, strict=True)
    }
    return found | {f"{name}_macro": _defined(row.nanmean()) for name, row in averaged.items()}


def _defined(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
