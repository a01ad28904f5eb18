"""Class weights, denominators and reductions of FocalLoss, against plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segfocal.losses import FocalLoss

MODES = ["binary", "multiclass", "multilabel"]
ALPHAS = {"binary": 0.75, "multiclass": [0.5, 1.0, 2.5], "multilabel": [0.1, 0.5, 0.9]}


def sample(mode, seed=0, images=3, ignored=0.2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    logits = 2 * torch.randn((images, classes, 4, 5), generator=generator, dtype=dtype)
    shape = (images, classes, 4, 5) if mode == "multilabel" else (images, 4, 5)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < ignored, 255)


def softmax_terms(logits, target, gamma):
    """(N, H, W), ignored ones 0, plainly."""
    p_t = logits.softmax(1).gather(1, target.where(target != 255, 0).unsqueeze(1)).squeeze(1)
    return torch.where(target != 255, (1 - p_t) ** gamma * -p_t.log(), 0.0)


def sigmoid_terms(logits, target, gamma):
    p_t = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())
    return torch.where(target != 255, (1 - p_t) ** gamma * -p_t.log(), 0.0)


def test_alpha_of_a_binary_task():
    logits, target = sample("binary")
    weight = torch.where(target == 1, 0.75, 0.25)
    expected = (sigmoid_terms(logits[:, 0], target, 2) * weight).sum() / (target != 255).sum()
    torch.testing.assert_close(FocalLoss("binary", alpha=0.75, ignore_index=255)(logits, target), expected)


def test_alpha_of_a_multiclass_task_is_a_weight_for_each_class():
    logits, target = sample("multiclass")
    weight = torch.tensor([0.1, 1.0, 2.7], dtype=torch.float64)[target.where(target != 255, 0)]
    expected = (softmax_terms(logits, target, 2) * weight).sum() / (target != 255).sum()
    torch.testing.assert_close(FocalLoss("multiclass", [0.1, 1.0, 2.7], ignore_index=255)(logits, target), expected, rtol=1e-12, atol=0)


def test_alpha_of_a_multilabel_task_weighs_positives_against_negatives():
    logits, target = sample("multilabel")
    alpha = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).reshape(3, 1, 1)
    weight = torch.where(target == 1, alpha, 1 - alpha)
    expected = (sigmoid_terms(logits, target, 2) * weight).sum() / (target != 255).sum()
    torch.testing.assert_close(FocalLoss("multilabel", [0.1, 0.5, 0.9], ignore_index=255)(logits, target), expected, rtol=1e-12, atol=0)
    expected = (sigmoid_terms(logits, target, 2) * torch.where(target == 1, 0.25, 0.75)).sum() / (target != 255).sum()
    torch.testing.assert_close(FocalLoss("multilabel", 0.25, ignore_index=255)(logits, target), expected)


@pytest.mark.parametrize("alpha", [None, 0.25, [0.5, 1.0, 2.0]])
def test_one_against_the_rest(alpha):
    logits, target = sample("multiclass")
    terms, weights = [], []
    for c in range(3):
        one = torch.where(target == 255, 255, (target == c).long())
        terms.append(sigmoid_terms(logits[:, c], one, 2))
        of_class = torch.tensor(alpha).double()[target.where(target != 255, 0)] if isinstance(alpha, list) else None
        weights.append(torch.where(one == 1, alpha, 1 - alpha).double() if isinstance(alpha, float) else of_class)
    valid = target != 255
    terms = torch.stack(terms, 1)
    weight = torch.ones_like(terms) if alpha is None else torch.stack(weights, 1) * valid.unsqueeze(1)
    total = (terms * weight).sum()
    for denominator, divisor in (("elements", 3 * valid.sum()), ("pixels", valid.sum()), ("weights", (weight * valid.unsqueeze(1)).sum())):
        loss = FocalLoss("multiclass", alpha, ignore_index=255, form="sigmoid", denominator=denominator)
        torch.testing.assert_close(loss(logits, target), total / divisor)
    map_NHW = FocalLoss("multiclass", alpha, ignore_index=255, form="sigmoid", reduction="none")(logits, target)
    torch.testing.assert_close(map_NHW, (terms * weight).sum(1))


def test_one_number_for_many_classes_is_never_guessed():
    with pytest.raises(ValueError, match=r"ambiguous.*loss\.alpha=\[0\.25,0\.75.*loss\.form=sigmoid"):
        FocalLoss("multiclass", alpha=0.25)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_as_many_weights_as_channels(mode):
    logits, target = sample(mode)
    with pytest.raises(ValueError, match=r"2 numbers .* 3 channels"):
        FocalLoss(mode, alpha=[0.5, 0.5], ignore_index=255)(logits, target)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_reduction_over_every_denominator(mode, weighted):
    logits, target = sample(mode)
    target[0, ..., 0] = 255  # so that images, and in multilabel pixels, count differently
    target[1] = 255
    alpha = ALPHAS[mode] if weighted else None
    terms = FocalLoss(mode, alpha, ignore_index=255, reduction="none")(logits, target)
    assert terms.shape == target.shape

    valid = target != 255
    of_label = torch.where(target > 0, 0.75, 0.25) if mode == "binary" else torch.ones(target.shape)
    if mode == "multiclass":
        of_label = torch.tensor(ALPHAS[mode])[target.where(valid, 0)]
    if mode == "multilabel":
        a = torch.tensor(ALPHAS[mode]).reshape(3, 1, 1)
        of_label = torch.where(target == 1, a, 1 - a)
    counted = {
        "elements": valid.flatten(1).sum(1),
        "pixels": (valid.any(1) if mode == "multilabel" else valid).flatten(1).sum(1),
        "weights": torch.where(valid, of_label if weighted else 1.0, 0.0).flatten(1).sum(1),
        "positives": (valid & (target > 0)).flatten(1).sum(1),
    }
    sums = terms.flatten(1).sum(1)
    assert FocalLoss(mode, alpha, ignore_index=255, reduction="sum")(logits, target) == pytest.approx(float(sums.sum()))
    for denominator, count in counted.items():
        options = {"alpha": alpha, "ignore_index": 255, "denominator": denominator}
        mean = FocalLoss(mode, reduction="mean", **options)(logits, target)
        assert mean == pytest.approx(float(sums.sum() / count.sum()), rel=1e-6)
        batchwise = FocalLoss(mode, reduction="batchwise_mean", **options)(logits, target)
        assert batchwise == pytest.approx(float((sums / count.clamp_min(1e-9)).sum()), rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "batchwise_mean"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_the_number_of_classes_divides_once_whatever_the_number_of_images(reduction, weights):
    logits, target = sample("multilabel")
    options = {"ignore_index": 255, "class_weights": weights}
    loss = FocalLoss("multilabel", reduction=reduction, denominator="classes", **options)
    expected = FocalLoss("multilabel", reduction="sum", **options)(logits, target) / (3 if weights is None else 3.5)
    torch.testing.assert_close(loss(logits, target), expected)
    torch.testing.assert_close(loss(torch.cat([logits] * 4), torch.cat([target] * 4)), 4 * expected)


def test_without_positives_the_false_ones_still_count():
    logits = torch.zeros(1, 1, 2, 2)
    loss = FocalLoss("binary", denominator="positives", gamma=0.0)(logits, torch.zeros(1, 2, 2).long())
    torch.testing.assert_close(loss, 4 * torch.tensor(2.0).log())


def test_weights_that_sum_to_less_than_one_are_divided_by_all_the_same():
    loss = FocalLoss("multiclass", [0.01, 0.01], gamma=0.0, denominator="weights")
    torch.testing.assert_close(loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long()), torch.tensor(2.0).log())


def test_the_weighted_mean_at_gamma_zero_is_that_of_torch():
    logits, target = sample("multiclass")
    expected = F.cross_entropy(logits, target, torch.tensor([0.5, 1.0, 2.5]).double(), ignore_index=255)
    loss = FocalLoss("multiclass", [0.5, 1.0, 2.5], gamma=0.0, ignore_index=255, denominator="weights")
    torch.testing.assert_close(loss(logits, target), expected, rtol=1e-13, atol=0)
