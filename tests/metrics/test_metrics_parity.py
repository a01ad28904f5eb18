"""The figures are those of torchmetrics in its exact mode and of scikit-learn, which keep every score."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics  # type: ignore[import-untyped]  # it ships no types
from torch import Tensor
from torchmetrics.functional import classification as exact

from segfocal.config.task import Mode
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics, auroc, average_precision, f_beta, score_edges
from segfocal.metrics.scores import score_bins

IGNORE = 255
NAMES = {"binary": ["crack"], "multiclass": ["road", "crack", "patch", "lid"], "multilabel": ["rust", "crack", "moss"]}
MODES: list[Mode] = ["binary", "multiclass", "multilabel"]


def rare_pixels(mode: Mode, scale: float, share: float = 0.005, offset: float = -2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that find most of the rare pixels, with a standard deviation of `scale`, and their target; a tenth is ignored."""
    generator = torch.Generator().manual_seed(seed)
    images, count, height, width = 2, len(NAMES[mode]), 160, 200

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    if mode == "multiclass":
        rare = uniform(images, height, width) < share * (count - 1)
        target = torch.where(rare, 1 + (uniform(images, height, width) * (count - 1)).long(), 0)
        truth = torch.nn.functional.one_hot(target, count).movedim(-1, 1)
    else:
        truth = target = (uniform(images, count, height, width) < share).long()
    logits = scale * (torch.randn(truth.shape, generator=generator) + 3 * truth + offset)
    return logits, torch.where(uniform(*target.shape) < 0.1, IGNORE, target)


def measured(mode: Mode, logits: Tensor, target: Tensor, decision: Decision | None = None) -> SegmentationMetrics:
    metrics = SegmentationMetrics(mode, NAMES[mode], IGNORE, decision)
    metrics.update(logits, target)
    return metrics


def by_torchmetrics(mode: Mode, name: str, logits: Tensor, target: Tensor, average: str | None = None, **options: Any) -> Tensor:
    """The function of torchmetrics: one figure a class, unless averaged."""
    if name != "confusion_matrix" and mode != "binary":
        options["average"] = average
    if mode != "binary":
        options["num_classes" if mode == "multiclass" else "num_labels"] = len(NAMES[mode])
    figure: Tensor = getattr(exact, f"{mode}_{name}")(logits, target, ignore_index=IGNORE, **options)
    return figure.reshape(1) if figure.ndim == 0 and average is None else figure


@pytest.mark.parametrize("share", [0.005, 0.3])
@pytest.mark.parametrize("mode", MODES)
def test_figures_of_the_confusion_matrix_are_those_of_torchmetrics(mode: Mode, share: float) -> None:
    logits, target = rare_pixels(mode, 2.0, share)
    metrics = measured(mode, logits, target)

    assert torch.equal(metrics.confusion, by_torchmetrics(mode, "confusion_matrix", logits, target).view(metrics.confusion.shape))
    figures = metrics.compute()
    for ours, theirs in {"iou": "jaccard_index", "dice": "f1_score", "precision": "precision", "recall": "recall"}.items():
        expected = by_torchmetrics(mode, theirs, logits, target)
        assert [figures[f"{ours}/{name}"] for name in NAMES[mode]] == pytest.approx(expected.tolist(), abs=1e-6)  # theirs is float32
        assert figures[f"{ours}_macro"] == pytest.approx(float(expected.mean()), abs=1e-6)
    weighted = by_torchmetrics(mode, "jaccard_index", logits, target, **({} if mode == "binary" else {"average": "weighted"}))
    assert figures["iou_weighted"] == pytest.approx(weighted.item(), abs=1e-6)
    for ours, theirs in {"iou_micro": "jaccard_index", "dice_micro": "f1_score", "accuracy": "accuracy"}.items():
        assert figures[ours] == pytest.approx(by_torchmetrics(mode, theirs, logits, target, average="micro").item(), abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_figures_of_the_confusion_matrix_are_exact(mode: Mode) -> None:
    logits, target = rare_pixels(mode, 2.0)
    metrics = measured(mode, logits, target)
    figures = metrics.compute()

    valid = target != IGNORE
    for c, name in enumerate(NAMES[mode]):
        if mode == "multiclass":
            true, predicted = target[valid] == c, logits.argmax(dim=1)[valid] == c
        else:
            true, predicted = target[:, c][valid[:, c]] == 1, logits[:, c][valid[:, c]] > 0
        assert figures[f"iou/{name}"] == pytest.approx(sklearn_metrics.jaccard_score(true, predicted), abs=1e-12)
        assert figures[f"dice/{name}"] == pytest.approx(sklearn_metrics.f1_score(true, predicted), abs=1e-12)
        assert figures[f"precision/{name}"] == pytest.approx(sklearn_metrics.precision_score(true, predicted), abs=1e-12)
        assert figures[f"recall/{name}"] == pytest.approx(sklearn_metrics.recall_score(true, predicted), abs=1e-12)
        assert figures[f"accuracy/{name}"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted), abs=1e-12)
        assert f_beta(metrics.confusion, 2.0)[c].item() == pytest.approx(sklearn_metrics.fbeta_score(true, predicted, beta=2), abs=1e-12)
        assert figures[f"pixel_share/{name}"] == pytest.approx(true.double().mean().item(), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9, 0.999])
def test_thresholding_agrees_with_torchmetrics_to_the_last_bit(threshold: float) -> None:
    step = 2.0**-26 / (threshold * (1 - threshold))
    neighbours = math.log(threshold / (1 - threshold)) + step * torch.arange(-60, 61)
    # +-9, since torchmetrics takes a batch that lies in [0, 1] for probabilities.
    logits = torch.cat([neighbours, torch.tensor([-9.0, 9.0])]).reshape(1, 1, 3, 41)
    target = torch.ones(1, 1, 3, 41, dtype=torch.long)

    expected = exact.binary_confusion_matrix(logits, target, threshold)
    assert 1 < expected[1, 0] < 122, "the neighbours lie on both sides"
    metrics = measured("binary", logits, target, Decision("binary", thresholds=[threshold]))
    assert torch.equal(metrics.confusion[0] if threshold == 0.5 else metrics.tuned_confusion[0], expected)


@pytest.mark.parametrize("offset", [-2.0, 0.0])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("mode", MODES)
def test_ranking_figures_are_those_of_torchmetrics(mode: Mode, scale: float, offset: float) -> None:
    logits, target = rare_pixels(mode, scale, offset=offset)
    figures = measured(mode, logits, target).compute()

    # In float64, since in float32 their sigmoid and softmax saturate early, and saturated scores lose their order.
    for ours, theirs in {"auroc": "auroc", "ap": "average_precision"}.items():
        expected = by_torchmetrics(mode, theirs, logits.double(), target, thresholds=None)
        assert [figures[f"{ours}/{name}"] for name in NAMES[mode]] == pytest.approx(expected.tolist(), abs=1e-3)
        assert figures[f"{ours}_macro"] == pytest.approx(float(expected.mean()), abs=1e-3)


def test_confident_scores_are_ranked_where_linear_thresholds_lose_their_order() -> None:
    """Half a percent of the pixels is foreground, and the model is sure: most probabilities lie in the first and last of 200 steps."""
    logits, target = rare_pixels("binary", 4.0, offset=-3.5)
    valid = target != IGNORE
    true, p = target[valid], logits[valid].double().sigmoid()
    figures, exact_auroc = measured("binary", logits, target).compute(), sklearn_metrics.roc_auc_score(true, p)
    assert figures["auroc/crack"] == pytest.approx(exact_auroc, abs=1e-3)
    assert figures["ap/crack"] == pytest.approx(sklearn_metrics.average_precision_score(true, p), abs=1e-3)
    assert exact_auroc - by_torchmetrics("binary", "auroc", logits, target, thresholds=200).item() > 0.05


@pytest.mark.parametrize("scale", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("mode", MODES)
def test_saturated_scores_keep_their_order(mode: Mode, scale: float) -> None:
    """Here probabilities are 0 and 1 in any precision: the reference is the order of the logits."""
    logits, target = rare_pixels(mode, scale)
    figures = measured(mode, logits, target).compute()

    for c, name in enumerate(NAMES[mode]):
        score = logits[:, c].double()
        if mode == "multiclass":
            score = score - logits.double()[:, [k for k in range(len(NAMES[mode])) if k != c]].logsumexp(dim=1)
        true = (target == c).long() if mode == "multiclass" else (target[:, c] == 1).long()
        valid = target != IGNORE if mode == "multiclass" else target[:, c] != IGNORE
        rank = torch.searchsorted(score[valid].sort().values, score[valid]) / score[valid].numel()  # in [0, 1): taken as it is
        assert figures[f"auroc/{name}"] == pytest.approx(exact.binary_auroc(rank, true[valid], thresholds=None).item(), abs=1e-3)
        assert figures[f"ap/{name}"] == pytest.approx(exact.binary_average_precision(rank, true[valid], thresholds=None).item(), abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_logits_count_as_the_numbers_that_they_are(mode: Mode) -> None:
    """The ties of bfloat16 count as ties: the figures are exact for the rounded logits."""
    logits, target = rare_pixels(mode, 2.0)
    half = logits.bfloat16()
    metrics = measured(mode, half, target)

    assert torch.equal(metrics.histogram, measured(mode, half.float(), target).histogram)
    assert torch.equal(metrics.confusion, measured(mode, half.float(), target).confusion)
    expected = by_torchmetrics(mode, "average_precision", half.double(), target, thresholds=None)
    assert [metrics.compute()[f"ap/{name}"] for name in NAMES[mode]] == pytest.approx(expected.tolist(), abs=1e-3)


def test_ranking_figures_are_exact_for_scores_rounded_to_their_bin() -> None:
    logits, target = rare_pixels("binary", 0.02, share=0.05)  # so narrow that bins hold many pixels, of both kinds
    logits, target = logits.flatten(), (target == 1).long().flatten()
    bins = score_bins(logits).long()
    centres = (score_edges()[bins] + score_edges()[bins + 1]) / 2
    histogram = torch.zeros(1, 2, score_edges().numel() - 1, dtype=torch.int64)
    histogram.index_put_((torch.zeros_like(bins), target, bins), torch.ones_like(bins), accumulate=True)

    assert len(set(bins.tolist())) < 300
    assert auroc(histogram).item() == pytest.approx(sklearn_metrics.roc_auc_score(target, centres), abs=1e-12)
    assert average_precision(histogram).item() == pytest.approx(sklearn_metrics.average_precision_score(target, centres), abs=1e-12)
