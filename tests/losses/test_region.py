"""Jaccard, Tversky and focal Tversky: formulas, ignored labels, empty classes, weights, and SMP where it is right."""

from __future__ import annotations

import pytest
import torch
from segmentation_models_pytorch.losses import JaccardLoss as SMPJaccardLoss
from segmentation_models_pytorch.losses import TverskyLoss as SMPTverskyLoss

from segfocal.config.loss_overlap import DiceConfig, FocalTverskyConfig, JaccardConfig, TverskyConfig
from segfocal.config.task import TaskConfig
from segfocal.losses import DiceLoss
from segfocal.losses.region import FocalTverskyLoss, JaccardLoss, TverskyLoss, steep_power
from tests.losses.samples import gradient, sample

MODES = ["binary", "multiclass", "multilabel"]
LOSSES = {
    "dice": (lambda mode, **more: DiceLoss(mode, 4.0, **more), (0.5, 0.5, 1.0)),
    "jaccard": (lambda mode, **more: JaccardLoss(mode, 2.0, **more), (1.0, 1.0, 1.0)),
    "tversky": (lambda mode, **more: TverskyLoss(mode, 0.2, 0.9, 2.0, **more), (0.2, 0.9, 1.0)),
    "steep": (lambda mode, **more: FocalTverskyLoss(mode, 0.3, 0.7, 0.6, 2.0, **more), (0.3, 0.7, 0.6)),
    "flat": (lambda mode, **more: FocalTverskyLoss(mode, 0.3, 0.7, 1.5, 2.0, **more), (0.3, 0.7, 1.5)),
}


def plain(mode, alpha, beta, gamma, smooth=2.0, weights=None, first=0):
    """The formula, class by class over the pixels that count."""

    def loss(logits, target):
        labels = target.unsqueeze(1) if target.dim() < logits.dim() else target
        probability = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
        losses = []
        for c in range(logits.shape[1]):
            of_class = labels[:, 0] if mode == "multiclass" else labels[:, c]
            p = probability[:, c][of_class != 255]
            y = (of_class[of_class != 255] == (c if mode == "multiclass" else 1)).double()
            tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
            losses.append((1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma)
        weight = torch.tensor(weights or [1.0] * len(losses), dtype=torch.float64)[first:]
        return (weight * torch.stack(losses)[first:]).sum() / weight.sum()

    return loss


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_formula(name, mode):
    make, numbers = LOSSES[name]
    logits, target = sample(mode)
    expected = gradient(plain(mode, *numbers), logits, target)
    torch.testing.assert_close(gradient(make(mode, ignore_index=255), logits, target), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_and_background(name):
    make, numbers = LOSSES[name]
    weights = [0.5, 2.0, 3.0]
    for mode, background in (("multiclass", True), ("multiclass", False), ("multilabel", True)):
        logits, target = sample(mode)
        expected = gradient(plain(mode, *numbers, weights=weights, first=0 if background else 1), logits, target)
        loss = make(mode, class_weights=weights, include_background=background, ignore_index=255)
        torch.testing.assert_close(gradient(loss, logits, target), expected, rtol=1e-9, atol=1e-12)
    assert make("multiclass", class_weights=[0.0, 0.0, 0.0])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()) == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name, mode):
    logits, target = sample(mode)
    loss = LOSSES[name][0](mode, ignore_index=255)
    assert torch.autograd.gradcheck(lambda x: loss(x, target[:1, ..., :3]), logits[:1, ..., :3].clone().requires_grad_())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("junk", [float("inf"), float("-inf"), float("nan")])
def test_what_lies_beneath_the_mask_is_never_read(name, mode, junk):
    logits, target = sample(mode)
    mask = (target == 255).unsqueeze(1).expand_as(logits) if mode == "multiclass" else target == 255
    loss = LOSSES[name][0](mode, ignore_index=255)
    clean, dirty = gradient(loss, logits, target), gradient(loss, logits.masked_fill(mask, junk), target)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[1][mask].eq(0).all()
    value, grad = gradient(loss, torch.full_like(logits, junk), torch.full_like(target, 255))
    assert value == 0
    assert grad.eq(0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_false_positives_on_an_empty_mask_are_punished(name):
    logits, empty = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4).long()
    loss = LOSSES[name][0]("binary")
    value, grad = gradient(loss, logits, empty)
    assert value > 0.3
    assert (grad > 0).all()
    assert SMPJaccardLoss("binary", smooth=2.0)(logits, empty) == 0  # the reason for having our own


@pytest.mark.parametrize("gamma", [0.3, 0.75, 1.0, 2.0])
def test_the_slope_is_finite_where_all_is_right(gamma):
    logits = torch.full((1, 1, 2, 2), 200.0)
    value, grad = gradient(FocalTverskyLoss("binary", gamma=gamma), logits, torch.ones(1, 2, 2).long())
    assert value == 0
    assert grad.isfinite().all()
    u = torch.tensor([0.0, 1e-9, 1e-6, 1.1e-6, 0.5], dtype=torch.float64, requires_grad=True)
    power = steep_power(u, gamma)
    assert (power.diff() > 0).all()
    assert torch.autograd.grad(power.sum(), u)[0].isfinite().all()
    torch.testing.assert_close(power[2:], u[2:] ** gamma)


@pytest.mark.parametrize("mode", MODES)
def test_smp_parity_where_no_class_is_empty(mode):
    logits, target = sample(mode)
    target = target.masked_fill(target == 255, 0)
    pairs = [
        (JaccardLoss(mode, 2.0), SMPJaccardLoss(mode, smooth=2.0)),
        (TverskyLoss(mode, 0.3, 0.7, 2.0), SMPTverskyLoss(mode, smooth=2.0, alpha=0.3, beta=0.7)),
    ]
    for ours, smp in pairs:
        torch.testing.assert_close(gradient(ours, logits, target), gradient(smp, logits, target), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_halves_and_extremes(name, dtype):
    for mode in MODES:
        logits, target = sample(mode)
        for scale in (1, 1e4):
            half = (logits * scale).to(dtype)
            value, grad = gradient(LOSSES[name][0](mode, ignore_index=255), half, target)
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, LOSSES[name][0](mode, ignore_index=255)(half.float(), target))
            assert grad.isfinite().all()


@pytest.mark.parametrize("config", [DiceConfig, JaccardConfig, TverskyConfig, FocalTverskyConfig])
def test_what_does_not_fit(config):
    assert config().problems(TaskConfig(name="binary")) == []
    (problem,) = config(include_background=False).problems(TaskConfig(name="multilabel"))
    assert problem.startswith("loss.include_background=false: task=multilabel")
    (problem,) = config(class_weights=[2.0]).problems(TaskConfig(name="binary"))
    assert problem.startswith("loss.class_weights=[2.0]: task=binary")
    (problem,) = config(class_weights=[2.0, 1.0]).problems(TaskConfig(name="multilabel", classes=["a", "b", "c"]))
    assert problem.startswith("loss.class_weights=[2.0,1.0]: 2 numbers for 3 classes")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: JaccardLoss("binary", smooth=0.0), "smooth"),
        (lambda: JaccardLoss("binary", include_background=False), "include_background"),
        (lambda: JaccardLoss("both"), "mode"),
        (lambda: TverskyLoss("binary", alpha=-0.1), "alpha"),
        (lambda: TverskyLoss("binary", beta=float("inf")), "beta"),
        (lambda: TverskyLoss("multilabel", class_weights=[-1.0]), "class_weights"),
        (lambda: FocalTverskyLoss("binary", gamma=0.0), "gamma"),
        (lambda: JaccardLoss("multilabel", class_weights=[1.0, 2.0], ignore_index=255)(*sample("multilabel")), "class_weights"),
    ],
)
def test_arguments_out_of_range(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_repr():
    assert "alpha=0.3, beta=0.7, gamma=0.5, smooth=1.0" in repr(FocalTverskyLoss("binary", gamma=0.5, ignore_index=3))
    assert "ignore_index=3" in repr(JaccardLoss("binary", ignore_index=3))
