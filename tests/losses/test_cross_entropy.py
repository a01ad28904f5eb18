"""CrossEntropyLoss is torch's, but for what torch does not know: ignored labels everywhere, and batches of nothing else."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from segfocal.losses import CrossEntropyLoss, FocalLoss

WEIGHTS = [None, [0.1, 1.0, 3.0]]


def sample(mode, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    shape = (2, 4, 5) if mode == "multiclass" else (2, classes, 4, 5)
    logits = 2 * torch.randn((2, classes, 4, 5), generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255)


def gradient(function, logits):
    logits = logits.clone().requires_grad_()
    value = function(logits)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multiclass_is_that_of_torch(weights, smoothing):
    logits, target = sample("multiclass")
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = CrossEntropyLoss("multiclass", weights, smoothing, 255)
    torch.testing.assert_close(
        gradient(lambda x: loss(x, target), logits),
        gradient(lambda x: F.cross_entropy(x, target, weight, ignore_index=255, label_smoothing=smoothing), logits),
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multilabel_is_the_binary_one_of_torch_over_what_is_not_ignored(weights, smoothing):
    logits, target = sample("multilabel")
    valid = target != 255
    soft = (target == 1).double() * (1 - smoothing) + smoothing / 2
    weight = torch.ones(3, 1, 1) if weights is None else torch.tensor(weights, dtype=torch.float64).reshape(3, 1, 1)
    weight = weight.expand_as(logits)[valid]
    loss = CrossEntropyLoss("multilabel", weights, smoothing, 255)
    torch.testing.assert_close(
        gradient(lambda x: loss(x, target), logits),
        gradient(lambda x: F.binary_cross_entropy_with_logits(x[valid], soft[valid], pos_weight=weight), logits),
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("loss", [CrossEntropyLoss, partial(FocalLoss, denominator="weights", reduction="batchwise_mean")])
def test_a_batch_of_pixels_without_weight_is_zero_although_its_labels_are_smoothed(loss):
    weights = {"class_weights" if loss is CrossEntropyLoss else "alpha": [0.0, 1.0, 1.0]}
    value, grad = gradient(lambda x: loss("multiclass", **weights, label_smoothing=0.1)(x, torch.zeros(2, 4, 5)), sample("multiclass")[0])
    assert value == 0
    assert grad.eq(0).all()


def test_binary_with_a_weight_on_the_foreground():
    logits, target = sample("binary")
    valid = target != 255
    expected = F.binary_cross_entropy_with_logits(logits[valid], target[valid].double(), pos_weight=torch.tensor(5.0).double())
    torch.testing.assert_close(CrossEntropyLoss("binary", [5.0], ignore_index=255)(logits, target.squeeze(1)), expected)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_lies_beneath_the_mask_is_never_read(mode, junk):
    logits, target = sample(mode)
    mask = (target == 255).unsqueeze(1).expand_as(logits) if mode == "multiclass" else target == 255
    loss = CrossEntropyLoss(mode, label_smoothing=0.1, ignore_index=255)
    clean = gradient(lambda x: loss(x, target), logits)
    dirty = gradient(lambda x: loss(x, target), logits.masked_fill(mask, junk))
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[1][mask].eq(0).all()
    value, grad = gradient(lambda x: loss(x, torch.full_like(target, 255)), logits)
    assert value == 0
    assert grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_and_extremes(dtype):
    for mode in ("binary", "multiclass"):
        logits, target = sample(mode)
        logits = (logits / logits.abs().max() * 1e4).to(dtype)
        value, grad = gradient(lambda x, m=mode, t=target: CrossEntropyLoss(m, ignore_index=255)(x, t), logits)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"label_smoothing": 1.0}, "label_smoothing"), ({"class_weights": [-1.0]}, "class_weights"), ({"class_weights": "auto"}, "weights")],
)
def test_arguments_out_of_range(wrong, name):
    with pytest.raises(ValueError, match=name):
        CrossEntropyLoss("binary", **wrong)


def test_as_many_weights_as_channels():
    with pytest.raises(ValueError, match=r"2 numbers .* 3 channels"):
        CrossEntropyLoss("multiclass", [1.0, 2.0])(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1).long())
