"""FocalLoss: modes, ignored labels, symmetries, precision, and parity with the libraries where they are right."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import FocalLoss as SMPFocalLoss
from torchvision.ops import sigmoid_focal_loss

from segfocal.losses import FocalLoss

MODES = ["binary", "multiclass", "multilabel"]
ALPHAS = {"binary": 0.75, "multiclass": [0.5, 1.0, 2.5], "multilabel": [0.1, 0.5, 0.9]}
SETTINGS = settings(max_examples=25, deadline=None)


def sample(mode, seed=0, images=3, ignored=0.2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    logits = 2 * torch.randn((images, classes, 4, 5), generator=generator, dtype=dtype)
    shape = (images, classes, 4, 5) if mode == "multilabel" else (images, 4, 5)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < ignored, 255)


def gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


# --- ignored labels ---


@SETTINGS
@given(
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**16),
    ignored=st.floats(0, 1),
    gamma=st.floats(0, 5),
    normalized=st.booleans(),
    threshold=st.sampled_from([None, 0.5]),
    junk=st.sampled_from([float("inf"), float("-inf"), float("nan"), 3e38]),
    reduction=st.sampled_from(["mean", "sum", "batchwise_mean"]),
)
def test_logits_of_ignored_labels_do_not_matter(mode, seed, ignored, gamma, normalized, threshold, junk, reduction):
    logits, target = sample(mode, seed, ignored=ignored, dtype=torch.float32)
    mask = (target == 255) if mode == "multilabel" else (target == 255).unsqueeze(1).expand_as(logits)
    loss = FocalLoss(mode, ALPHAS[mode], gamma, 255, reduction=reduction, normalized=normalized, reduced_threshold=threshold)
    clean_value, clean_grad = gradient(loss, logits, target)
    value, grad = gradient(loss, logits.masked_fill(mask, junk), target)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert torch.equal(value, clean_value)
    assert torch.equal(grad, clean_grad)
    assert grad[mask].eq(0).all()


@SETTINGS
@given(mode=st.sampled_from(["binary", "multiclass"]), seed=st.integers(0, 2**16), gamma=st.floats(0, 5), normalized=st.booleans())
def test_ignoring_is_leaving_out(mode, seed, gamma, normalized):
    logits, target = sample(mode, seed, images=1)
    valid = target[0] != 255
    loss = FocalLoss(mode, ALPHAS[mode], gamma, 255, normalized=normalized)
    left = loss(logits[:, :, valid], target[:, valid])  # (1, C, M): any number of spatial axes
    torch.testing.assert_close(loss(logits, target), left)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"normalized": True}, {"denominator": "weights"}, {"reduction": "batchwise_mean"}])
def test_nothing_but_ignored_labels_is_zero_and_attached(mode, options):
    logits, target = sample(mode, dtype=torch.float32)
    value, grad = gradient(FocalLoss(mode, ALPHAS[mode], ignore_index=255, **options), logits, torch.full_like(target, 255))
    assert value == 0
    assert grad.eq(0).all()


def test_an_ignore_index_that_wraps_around_in_uint8_ignores_nothing():
    target = torch.tensor([[[1, 255]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="255"):
        FocalLoss("binary", ignore_index=-1)(torch.zeros(1, 1, 1, 2), target)


# --- symmetries ---


@SETTINGS
@given(mode=st.sampled_from(MODES), seed=st.integers(0, 2**16), normalized=st.booleans())
def test_the_order_of_images_and_pixels_does_not_matter(mode, seed, normalized):
    logits, target = sample(mode, seed)
    generator = torch.Generator().manual_seed(seed)
    images, columns = torch.randperm(3, generator=generator), torch.randperm(5, generator=generator)
    loss = FocalLoss(mode, ALPHAS[mode], ignore_index=255, normalized=normalized)
    torch.testing.assert_close(loss(logits[images][..., columns], target[images][..., columns]), loss(logits, target))


@SETTINGS
@given(order=st.permutations(range(3)), seed=st.integers(0, 2**16), form=st.sampled_from(["softmax", "sigmoid"]))
def test_classes_may_be_renamed(order, seed, form):
    logits, target = sample("multiclass", seed)
    alpha = ALPHAS["multiclass"]
    renamed = torch.tensor([order.index(c) for c in range(3)])[target.where(target != 255, 0)].where(target != 255, 255)
    loss = FocalLoss("multiclass", alpha, ignore_index=255, form=form)
    other = FocalLoss("multiclass", [alpha[c] for c in order], ignore_index=255, form=form)
    torch.testing.assert_close(other(logits[:, order], renamed), loss(logits, target))


def test_a_column_of_channels_or_none():
    logits, target = sample("multiclass")
    loss = FocalLoss("multiclass", ignore_index=255)
    torch.testing.assert_close(loss(logits, target.unsqueeze(1)), loss(logits, target))
    assert FocalLoss("multiclass", ignore_index=255, reduction="none")(logits, target.unsqueeze(1)).shape == (3, 1, 4, 5)


# --- the libraries ---


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("threshold", [None, 0.4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smp_parity_binary(alpha, gamma, threshold, reduction):
    logits, target = sample("binary")
    options = {"alpha": alpha, "gamma": gamma, "ignore_index": 255, "reduction": reduction, "reduced_threshold": threshold}
    torch.testing.assert_close(
        gradient(FocalLoss("binary", **options), logits, target), gradient(SMPFocalLoss("binary", **options), logits, target)
    )


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_smp_parity_of_the_other_modes(alpha):
    logits, target = sample("multiclass")
    smp = gradient(SMPFocalLoss("multiclass", alpha, ignore_index=255), logits, target)
    torch.testing.assert_close(gradient(FocalLoss("multiclass", alpha, ignore_index=255, form="sigmoid"), logits, target), smp)
    logits, target = sample("multilabel", ignored=0)
    for reduction in ("mean", "batchwise_mean"):
        smp = gradient(SMPFocalLoss("multilabel", alpha, reduction=reduction), logits, target)
        torch.testing.assert_close(gradient(FocalLoss("multilabel", alpha, reduction=reduction), logits, target), smp)


def test_smp_sums_a_binary_batch_where_it_says_batchwise_mean():
    logits, target = sample("binary", ignored=0)
    torch.testing.assert_close(
        FocalLoss("binary", reduction="sum")(logits, target), SMPFocalLoss("binary", reduction="batchwise_mean")(logits, target)
    )


def test_smp_normalises_to_our_value_but_divides_again_and_learns_from_the_scale():
    logits, target = sample("binary", images=1, ignored=0)
    value, grad = gradient(FocalLoss("binary", normalized=True), logits, target)
    smp_value, smp_grad = gradient(SMPFocalLoss("binary", normalized=True, reduction="sum"), logits, target)
    torch.testing.assert_close(value, smp_value)
    assert not torch.allclose(grad, smp_grad, rtol=0.1)
    torch.testing.assert_close(SMPFocalLoss("binary", normalized=True)(logits, target), value / target.numel())


def test_the_arguments_are_those_of_smp_0_6_in_its_order():
    def names(cls):
        return list(inspect.signature(cls.__init__).parameters)

    assert names(FocalLoss)[: len(names(SMPFocalLoss))] == names(SMPFocalLoss)


def test_torchvision_parity():
    logits, target = sample("multilabel", ignored=0)
    expected = sigmoid_focal_loss(logits, target.double(), alpha=0.25, gamma=2, reduction="mean")
    torch.testing.assert_close(FocalLoss("multilabel", alpha=0.25)(logits, target), expected)


def test_gamma_zero_is_the_mean_of_torch():
    logits, target = sample("multiclass")
    loss = FocalLoss("multiclass", gamma=0.0, ignore_index=255)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target, ignore_index=255), rtol=1e-13, atol=0)
    logits, target = sample("multilabel", ignored=0)
    expected = F.binary_cross_entropy_with_logits(logits, target.double())
    torch.testing.assert_close(FocalLoss("multilabel", gamma=0.0)(logits, target), expected, rtol=1e-13, atol=0)


# --- precision, and what is said about it ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_under_autocast_are_computed_in_single_precision(mode, dtype):
    logits, target = sample(mode)
    logits = (100 * logits).to(dtype)
    loss = FocalLoss(mode, ALPHAS[mode], ignore_index=255)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, grad = gradient(loss, logits, target)
    assert value.dtype == torch.float32
    assert grad.isfinite().all()
    assert torch.equal(value, loss(logits.float(), target))


def test_weights_follow_the_precision_and_stay_out_of_the_state():
    loss = FocalLoss("multiclass", [0.1, 0.2, 0.7])
    assert not loss.state_dict()
    logits, target = torch.zeros(1, 3, 1, 1, dtype=torch.float64), torch.full((1, 1, 1), 2)
    value = loss(logits, target)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(0.7 * 4 / 9 * float(torch.tensor(3.0).double().log()), rel=1e-14)
    assert torch.equal(loss.half().double()(logits, target), value)
    assert torch.equal(loss.half()(logits.float(), target), FocalLoss("multiclass", [0.1, 0.2, 0.7])(logits.float(), target))


def test_it_prints_what_it_does():
    shown = repr(FocalLoss("multiclass", [0.1, 0.9], gamma=1.5))
    assert "gamma=1.5" in shown
    assert "form='softmax'" in shown
    assert "[0.1, 0.9]" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": -1.0},
        {"gamma": float("nan")},
        {"alpha": 1.5},
        {"alpha": [0.5]},
        {"reduced_threshold": 1.0},
        {"normalized": "yes"},
        {"reduction": "average"},
        {"denominator": "pixel"},
        {"form": "softmax"},
    ],
)
def test_arguments_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        FocalLoss("binary", **wrong)


def test_a_word_for_weights_is_no_number():
    with pytest.raises(ValueError, match="weights 'inverse' are no numbers yet"):
        FocalLoss("binary", alpha="inverse")


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"mode='multi'.*binary, multiclass, multilabel"):
        FocalLoss("multi")
