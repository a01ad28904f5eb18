"""The few points of a curve lie on it, and leave out nothing that matters."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics  # type: ignore[import-untyped]  # it ships no types
from torch import Tensor

from segfocal.config.task import Mode
from segfocal.metrics import ClassCurves, class_curves
from tests.metrics.test_calibration import of_class
from tests.metrics.test_metrics_parity import MODES, NAMES, measured, rare_pixels


def outcomes(p: Tensor, true: Tensor, threshold: float) -> tuple[float, float, float]:
    predicted = p >= threshold
    return float((predicted & (true == 1)).sum()), float((predicted & (true == 0)).sum()), float(true.sum())


@pytest.mark.parametrize("scale", [0.3, 2.0, 10.0])
@pytest.mark.parametrize("mode", MODES)
def test_every_point_is_what_its_threshold_gives(mode: Mode, scale: float) -> None:
    logits, target = rare_pixels(mode, scale)
    drawn = class_curves(measured(mode, logits, target).histogram, beta=2.0)
    assert len(drawn) == len(NAMES[mode])
    for c, curves in enumerate(drawn):
        p, true = of_class(mode, c, logits, target)
        told_apart = sum(threshold < 1 - 1e-12 for threshold in curves.threshold)  # beyond, a softmax in float64 is 1
        for k in range(0, told_apart, 20):
            tp, fp, positive = outcomes(p, true, curves.threshold[k])
            assert curves.recall[k] == pytest.approx(tp / positive, abs=1e-3)
            assert curves.fpr[k] == pytest.approx(fp / (len(true) - positive), abs=1e-3)
            assert curves.iou[k] == pytest.approx(tp / (positive + fp), abs=5e-3)
            assert curves.f_beta[k] == pytest.approx(5 * tp / (4 * positive + tp + fp), abs=5e-3)
            if tp + fp > 50:
                assert curves.precision[k] == pytest.approx(tp / (tp + fp), abs=0.02)


@pytest.mark.parametrize("scale", [0.3, 2.0, 10.0])
@pytest.mark.parametrize("mode", MODES)
def test_few_points_keep_the_shape(mode: Mode, scale: float) -> None:
    logits, target = rare_pixels(mode, scale)
    metrics = measured(mode, logits, target)
    for c, curves in enumerate(class_curves(metrics.histogram)):
        assert 40 < len(curves.threshold) <= 400
        assert curves.threshold == sorted(curves.threshold) and (curves.threshold[0], curves.threshold[-1]) == (0, 1)
        assert (curves.fpr[0], curves.recall[0], curves.fpr[-1], curves.recall[-1]) == (1, 1, 0, 0)
        fpr, recall = np.array(curves.fpr[::-1], float), np.array(curves.recall[::-1], float)
        assert np.trapezoid(recall, fpr) == pytest.approx(metrics.compute()[f"auroc/{NAMES[mode][c]}"], abs=2e-3)
        p, true = of_class(mode, c, logits, target)
        precision, found, _ = sklearn_metrics.precision_recall_curve(true, p)
        ours = np.interp(np.linspace(0.1, 1, 50), recall, np.array(curves.precision[::-1], float))
        theirs = np.interp(np.linspace(0.1, 1, 50), found[::-1], precision[::-1])
        assert np.abs(ours - theirs).mean() < 0.01
    if mode != "multiclass":
        best = [max(value for value in curves.iou if value is not None) for curves in class_curves(metrics.histogram, points=20)]
        assert best == [metrics.compute()[f"best_iou/{name}"] for name in NAMES[mode]], "the best point is always there"


def test_points_are_as_few_as_asked() -> None:
    histogram = measured("binary", *rare_pixels("binary", 2.0)).histogram
    assert 10 < len(class_curves(histogram, points=40)[0].threshold) <= 40


def test_what_is_not_defined_is_none_and_all_is_plain() -> None:
    logits = torch.tensor([[-2.0, 3.0, 1.0]]).view(1, 1, 1, 3)
    only = {share: class_curves(measured("binary", logits, torch.full((1, 1, 3), share)).histogram)[0] for share in (0, 1, 255)}
    assert set(only[0].recall) == {None} and set(only[1].fpr) == {None}
    assert only[0].fpr[0] == 1 and only[1].recall[0] == 1 and only[1].precision[-1] is None
    assert set(only[255].iou) == {None} and only[255].reliability.pixels == []
    for curves in only.values():
        assert ClassCurves(*json.loads(json.dumps(curves, allow_nan=False))).threshold == curves.threshold


@pytest.mark.parametrize("temperature", [[], [0.5, 1.0, 4.0]])
def test_reliability_is_that_of_the_pixels(temperature: list[float]) -> None:
    logits, target = rare_pixels("multilabel", 2.0, 0.1)
    for c, curves in enumerate(class_curves(measured("multilabel", logits, target).histogram, temperature=temperature)):
        p, true = of_class("multilabel", c, logits / (temperature[c] if temperature else 1.0), target)
        bins = (p * 15).long().clamp(max=14)
        some = [b for b in range(15) if (bins == b).any()]
        found = curves.reliability
        assert sum(found.pixels) == pytest.approx(len(p), abs=2)
        assert found.pixels == pytest.approx([int((bins == b).sum()) for b in some], rel=0.02, abs=3)
        assert found.confidence == pytest.approx([p[bins == b].mean().item() for b in some], abs=2e-3)
        assert found.positive_share == pytest.approx([true[bins == b].mean().item() for b in some], abs=0.02)
