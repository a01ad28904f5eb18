"""Figures of a data set from two counts: a confusion matrix and a score histogram, whatever the number of pixels.

`counts` fills them, batch by batch and rank by rank; `figures`, `calibration` and `curves` read every number off them and `summary` gives
it its name; `scores` says what a score is and in which bin it falls. `fitting` finds the decision that suits the counts: `thresholds` and
`calibration` from the histogram, `offsets` from a `sample` of pixels.
"""

from segfocal.metrics.calibration import brier, calibration_error, temperatures
from segfocal.metrics.counts import SegmentationMetrics
from segfocal.metrics.curves import ClassCurves, Reliability, class_curves
from segfocal.metrics.figures import (
    accuracy,
    auroc,
    average_precision,
    dice,
    dice_micro,
    f_beta,
    iou,
    iou_micro,
    iou_weighted,
    pixel_accuracy,
    pixel_share,
    precision,
    recall,
)
from segfocal.metrics.fitting import fit
from segfocal.metrics.offsets import best_offsets, temperature_of
from segfocal.metrics.sample import PixelSample
from segfocal.metrics.scores import SCORE_BINS, score_edges
from segfocal.metrics.thresholds import best_thresholds

__all__ = [
    "SCORE_BINS",
    "ClassCurves",
    "PixelSample",
    "Reliability",
    "SegmentationMetrics",
    "accuracy",
    "auroc",
    "average_precision",
    "best_offsets",
    "best_thresholds",
    "brier",
    "calibration_error",
    "class_curves",
    "dice",
    "dice_micro",
    "f_beta",
    "fit",
    "iou",
    "iou_micro",
    "iou_weighted",
    "pixel_accuracy",
    "pixel_share",
    "precision",
    "recall",
    "score_edges",
    "temperature_of",
    "temperatures",
]
