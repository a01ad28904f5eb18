"""DiceLoss: sums over the batch, ignored labels in none of them, empty classes learnt from their false positives."""

from __future__ import annotations

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss as SMPDiceLoss

from segfocal.losses import DiceLoss
from tests.losses.samples import gradient, sample

MODES = ["binary", "multiclass", "multilabel"]


@pytest.mark.parametrize(("mode", "background"), [("binary", True), ("multiclass", True), ("multiclass", False), ("multilabel", True)])
def test_the_formula(mode, background):
    logits, target = sample(mode)
    labels = target.unsqueeze(1) if mode == "multiclass" else target
    probability = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    losses = []
    for c in range(logits.shape[1]):
        of_class = labels[:, 0] if mode == "multiclass" else labels[:, c]
        valid = of_class != 255
        p, y = probability[:, c][valid], (of_class[valid] == (c if mode == "multiclass" else 1)).double()
        losses.append(1 - (2 * (p * y).sum() + 3) / (p.sum() + y.sum() + 3))
    expected = torch.stack(losses if background else losses[1:]).mean()
    loss = DiceLoss(mode, smooth=3.0, include_background=background, ignore_index=255)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("mode", MODES)
def test_smp_parity_where_no_class_is_empty(mode):
    logits, target = sample(mode)
    smp = SMPDiceLoss(mode, smooth=1.0, ignore_index=255)
    ours = DiceLoss(mode, smooth=2.0, ignore_index=255)  # SMP adds s to the intersection, which we count twice
    torch.testing.assert_close(gradient(ours, logits, target), gradient(smp, logits, target), rtol=1e-6, atol=1e-8)


def test_false_positives_on_an_empty_mask_are_punished():
    logits, empty = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4).long()
    value, grad = gradient(DiceLoss("binary"), logits, empty)
    torch.testing.assert_close(value, torch.tensor(1 - 1 / 17))
    assert (grad > 0).all()
    assert DiceLoss("binary")(torch.full_like(logits, -50.0), empty) < 1e-6
    assert SMPDiceLoss("binary", smooth=1.0)(logits, empty) == 0  # the reason for having our own


def test_the_sums_run_over_the_batch():
    logits, target = torch.zeros(2, 1, 2, 2), torch.tensor([[[1, 1], [1, 1]], [[0, 0], [0, 0]]])
    torch.testing.assert_close(DiceLoss("binary")(logits, target), torch.tensor(1 - (4 + 1) / (4 + 4 + 1)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_lies_beneath_the_mask_is_never_read(mode, junk):
    logits, target = sample(mode)
    mask = (target == 255).unsqueeze(1).expand_as(logits) if mode == "multiclass" else target == 255
    loss = DiceLoss(mode, ignore_index=255)
    clean, dirty = gradient(loss, logits, target), gradient(loss, logits.masked_fill(mask, junk), target)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[1][mask].eq(0).all()
    value, grad = gradient(loss, logits, torch.full_like(target, 255))
    assert value == 0
    assert grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_and_extremes(dtype):
    for mode in MODES:
        logits, target = sample(mode)
        logits = (logits / logits.abs().max() * 1e4).to(dtype)
        value, grad = gradient(DiceLoss(mode, ignore_index=255), logits, target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize(("wrong", "name"), [({"smooth": 0.0}, "smooth"), ({"include_background": False}, "include_background")])
def test_arguments_out_of_range(wrong, name):
    with pytest.raises(ValueError, match=name):
        DiceLoss("binary", **wrong)
