"""What is fitted for which task and configuration."""

from __future__ import annotations

import pytest
import torch

from segfocal.config.metrics import MetricsConfig
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import PixelSample, SegmentationMetrics, best_offsets, best_thresholds, fit, temperature_of, temperatures
from tests.metrics.test_metrics_parity import NAMES, rare_pixels

MULTICLASS = TaskConfig(name="multiclass", classes=NAMES["multiclass"])
MULTILABEL = TaskConfig(name="multilabel", classes=NAMES["multilabel"])


def counted(task: TaskConfig) -> tuple[SegmentationMetrics, PixelSample]:
    logits, target = rare_pixels(task.name, 2.0)
    metrics, sample = SegmentationMetrics(task.name, task.class_names), PixelSample(task)
    metrics.update(logits, target)
    if task.name == "multiclass":
        sample.update(logits, target, torch.arange(len(logits)))
    return metrics, sample


def test_overlapping_classes_are_fitted_from_the_histogram() -> None:
    histogram = counted(MULTILABEL)[0].histogram
    heat = temperatures(histogram)
    assert fit(MULTILABEL, MetricsConfig(choose="none"), histogram) == Decision("multilabel")
    assert fit(MULTILABEL, MetricsConfig(choose="none", calibrate=True), histogram) == Decision("multilabel", heat)
    expected = Decision("multilabel", thresholds=best_thresholds(histogram).thresholds, fitted_for="iou")
    assert fit(MULTILABEL, MetricsConfig(), histogram) == expected and not expected.plain
    both = fit(MULTILABEL, MetricsConfig(choose="fbeta", beta=2.0, calibrate=True), histogram)
    assert both == Decision("multilabel", heat, best_thresholds(histogram, "fbeta", 2.0, heat).thresholds, fitted_for="fbeta, beta=2")


def test_the_threshold_of_a_temperature_decides_as_that_of_none() -> None:
    logits, target = rare_pixels("multilabel", 2.0)
    metrics, _ = counted(MULTILABEL)
    tuned = []
    for calibrate in (False, True):
        decision = fit(MULTILABEL, MetricsConfig(calibrate=calibrate), metrics.histogram)
        again = SegmentationMetrics("multilabel", NAMES["multilabel"], decision=decision)
        again.update(logits, target)
        tuned.append(again.compute()["tuned/iou_macro"])
    assert tuned[0] == pytest.approx(tuned[1], abs=1e-12)


def test_exclusive_classes_are_fitted_from_the_sample() -> None:
    metrics, sample = counted(MULTICLASS)
    logits, labels = sample.pixels()
    best, heat = best_offsets(logits, labels, "fbeta", 2.0), temperature_of(logits, labels)
    offsets = [0.75 * offset for offset in best]  # the rest is of this split alone
    assert fit(MULTICLASS, MetricsConfig(choose="none"), metrics.histogram) == Decision("multiclass")
    assert fit(MULTICLASS, MetricsConfig(choose="none", calibrate=True), metrics.histogram, sample) == Decision("multiclass", [heat])
    both = fit(MULTICLASS, MetricsConfig(choose="fbeta", beta=2.0, calibrate=True), metrics.histogram, sample)
    assert both == Decision("multiclass", [heat], offsets=offsets, fitted_for="fbeta, beta=2") and not both.plain
    with pytest.raises(ValueError, match="sample"):
        fit(MULTICLASS, MetricsConfig(), metrics.histogram)


def test_nothing_to_learn_from_gives_the_plain_decision() -> None:
    assert fit(MULTICLASS, MetricsConfig(calibrate=True), torch.zeros(4, 2, 16384).long(), PixelSample(MULTICLASS)) == Decision(
        "multiclass"
    )
    decision = fit(MULTILABEL, MetricsConfig(calibrate=True), torch.zeros(3, 2, 16384).long())
    assert decision.plain and decision.temperature == [1.0] * 3


def test_what_is_fitted_survives_a_checkpoint() -> None:
    metrics, sample = counted(MULTICLASS)
    for task, decision in (
        (MULTICLASS, fit(MULTICLASS, MetricsConfig(calibrate=True), metrics.histogram, sample)),
        (MULTILABEL, fit(MULTILABEL, MetricsConfig(calibrate=True), counted(MULTILABEL)[0].histogram)),
    ):
        assert Decision.of(decision.as_dict(), task) == decision
