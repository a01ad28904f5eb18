"""What is fitted on the validation split: temperature, thresholds, offsets."""

from __future__ import annotations

from torch import Tensor

from segfocal.config.metrics import MetricsConfig
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics.calibration import temperatures
from segfocal.metrics.offsets import PixelSample, best_offsets, temperature_of
from segfocal.metrics.thresholds import best_thresholds

TAKEN = 0.75
"""Of the best offsets. The best of one split go too far for others, of other shares of the classes: what this costs and gains is in docs/recipe.md."""


def fit(task: TaskConfig, config: MetricsConfig, histogram: Tensor, sample: PixelSample | None = None) -> Decision:
    """The decision that suits the pixels which were counted.

    Binary and multilabel take theirs from the histogram alone, multiclass from the sample alone: a decision between classes depends on
    all logits of a pixel. Where there is nothing to learn from, it is the plain decision.

    Args:
        task: what the logits mean.
        config: what to fit.
        histogram: of `SegmentationMetrics`, (C, 2, SCORE_BINS), over all ranks.
        sample: wanted where `config.wants_sample(task.name)`. Its pixels are brought together here: every rank has to call.

    Raises:
        ValueError: a sample is wanted and missing.
    """
    aim = {"none": "", "iou": "iou", "fbeta": f"fbeta, beta={config.beta:g}"}[config.choose]
    if task.name != "multiclass":
        heat = temperatures(histogram) if config.calibrate else []
        if config.choose == "none":
            return Decision(task.name, heat)
        best = best_thresholds(histogram, config.choose, config.beta, heat)
        return Decision(task.name, heat, thresholds=best.thresholds, fitted_for=aim)
    if not config.wants_sample(task.name):
        return Decision(task.name)
    if sample is None:
        raise ValueError("multiclass is fitted on a sample of pixels, and there is none")
    logits, labels = sample.pixels()
    if not len(labels):
        return Decision(task.name)
    heat = [temperature_of(logits, labels)] if config.calibrate else []
    offsets = [] if config.choose == "none" else best_offsets(logits, labels, config.choose, config.beta)
    offsets = [TAKEN * offset for offset in offsets]
    return Decision(task.name, heat, offsets=offsets, fitted_for=aim)
