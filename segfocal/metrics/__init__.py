"""Figures of a data set from two counts: a confusion matrix and a score histogram, whatever the number of pixels.

`counts` fills them, batch by batch and rank by rank; `figures` reads every number off them; `scores` says what a score is and in
which bin it falls.
"""

from segfocal.metrics.counts import SegmentationMetrics
from segfocal.metrics.figures import auroc, average_precision, dice, iou, pixel_accuracy, pixel_share, precision, recall
from segfocal.metrics.scores import SCORE_BINS, score_edges

__all__ = [
    "SCORE_BINS",
    "SegmentationMetrics",
    "auroc",
    "average_precision",
    "dice",
    "iou",
    "pixel_accuracy",
    "pixel_share",
    "precision",
    "recall",
    "score_edges",
]
