"""The pure functions against the formulas, written down plainly in fp64, and at the ends of the number range."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segfocal.losses.functional import focal_terms, sigmoid_focal, softmax_focal

GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]
EXTREMES = [0.0, 1e-3, 1.0, 9.0, 17.0, 30.0, 100.0, 1e3, 1e4]
HALVES = [torch.float16, torch.bfloat16]
OPTIONS = [{}, {"normalized": True}, {"reduced_threshold": 0.4}, {"normalized": True, "reduced_threshold": 0.6}]


def plain_terms(p_t, gamma, valid, normalized=False, reduced_threshold=None):
    """factor(1 - p_t) * -log p_t, fp64; images first."""
    factor = (1 - p_t) ** gamma
    if reduced_threshold is not None:
        factor = torch.where(p_t < reduced_threshold, 1.0, ((1 - p_t) / reduced_threshold) ** gamma)
    if normalized:
        space = tuple(range(1, p_t.dim()))
        counted = valid.expand_as(p_t)
        scale = counted.sum(space, keepdim=True) / (factor * counted).sum(space, keepdim=True)
        factor = factor * scale.detach()
    return torch.where(valid, factor * -torch.log(p_t), 0.0)


def binary_sample(shape=(2, 3, 4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, shape, generator=generator)
    return logits, target, torch.rand(shape, generator=generator) < 0.8


def class_sample(classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((2, classes, 4, 5), generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (2, 1, 4, 5), generator=generator)
    return logits, target, torch.rand(target.shape, generator=generator) < 0.8


def gradient(function, logits):
    logits = logits.clone().requires_grad_()
    value = function(logits)
    (grad,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), grad


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("options", OPTIONS)
def test_sigmoid_value_and_gradient_are_those_of_the_formula(gamma, options):
    logits, target, valid = binary_sample()

    def formula(x):
        return plain_terms(torch.where(target == 1, torch.sigmoid(x), torch.sigmoid(-x)), gamma, valid, **options)

    result = gradient(lambda x: sigmoid_focal(x, target, valid, gamma=gamma, **options), logits)
    torch.testing.assert_close(result, gradient(formula, logits), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("classes", [2, 4])
def test_softmax_value_and_gradient_are_those_of_the_formula(gamma, options, classes):
    logits, target, valid = class_sample(classes)

    def formula(x):
        return plain_terms(x.softmax(1).gather(1, target), gamma, valid, **options)

    result = gradient(lambda x: softmax_focal(x, target, valid, gamma=gamma, **options), logits)
    torch.testing.assert_close(result, gradient(formula, logits), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS[:1] + OPTIONS[2:3])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradcheck_to_second_order(gamma, options):
    logits, target, valid = binary_sample((1, 1, 2, 4))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, target, valid, gamma=gamma, **options), logits)
    assert torch.autograd.gradgradcheck(lambda x: sigmoid_focal(x, target, valid, gamma=gamma, **options), logits)
    logits, target, valid = (tensor[:1, :, :2, :2] for tensor in class_sample(3))
    logits = logits.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: softmax_focal(x, target, valid, gamma=gamma, **options), logits)
    assert torch.autograd.gradgradcheck(lambda x: softmax_focal(x, target, valid, gamma=gamma, **options), logits)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_sigmoid_logits(gamma, dtype):
    logits = torch.tensor(EXTREMES + [-x for x in EXTREMES]).to(dtype).reshape(1, 1, 1, -1).expand(1, 2, 1, -1)
    target = torch.tensor([0, 1]).reshape(1, 2, 1, 1).expand_as(logits)
    value, grad = gradient(lambda x: sigmoid_focal(x, target, gamma=gamma), logits)

    sign = 2.0 * target - 1
    margin = sign * logits.double()
    p, q, ce = torch.sigmoid(margin), torch.sigmoid(-margin), torch.logaddexp(-margin, torch.zeros(()))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), q**gamma * ce, rtol=1e-5, atol=1e-30)
    expected = -sign * q**gamma * (q + gamma * p * ce)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", [2, 3])
def test_extreme_softmax_logits(gamma, dtype, classes):
    steps = torch.tensor(EXTREMES + [-x for x in EXTREMES])
    logits = torch.stack([torch.zeros_like(steps), steps, -steps][:classes]).to(dtype)[None, :, None]
    for label in range(classes):
        target = torch.full((1, 1, 1, len(steps)), label)
        value, grad = gradient(lambda x, target=target: softmax_focal(x, target, gamma=gamma), logits)

        exact = logits.double()
        log_p = exact.log_softmax(1)
        p, truth = log_p.exp(), F.one_hot(target[:, 0], classes).permute(0, 3, 1, 2).bool()
        q = torch.where(truth, 0.0, p).sum(1, keepdim=True)
        p_t, log_p_t = p.gather(1, target), torch.where(q > 1e-8, log_p.gather(1, target), -q)
        torch.testing.assert_close(value.double(), q**gamma * -log_p_t, rtol=1e-5, atol=1e-30)
        scale = torch.where(q > 0, q ** (gamma - 1) * (q - gamma * p_t * log_p_t), 0.0)
        expected = torch.where(truth, -q * scale, p * scale)
        torch.testing.assert_close(grad.double(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-7)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("options", OPTIONS)
def test_everything_is_finite_for_every_option(gamma, options):
    logits = torch.tensor(EXTREMES + [-x for x in EXTREMES]).reshape(-1, 1, 1, 1).expand(-1, 3, 1, 2)  # images of one kind of pixel each
    for function, target in ((sigmoid_focal, torch.ones_like(logits)), (softmax_focal, torch.zeros(len(logits), 1, 1, 2).long())):
        spread = logits * torch.tensor([1.0, 0.5, -1.0]).reshape(3, 1, 1)
        value, grad = gradient(lambda x, f=function, t=target: f(x, t, gamma=gamma, **options), spread)
        assert value.isfinite().all()
        assert grad.isfinite().all()


def test_easy_pixels_keep_their_relative_precision():
    """At p_t = 1 - 1e-13 the value in fp32 is that of fp64: q is not 1 - p_t, CE not a difference of large numbers."""
    logits = torch.tensor([[[[30.0]], [[0.0]], [[-3.0]]]])
    target = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    torch.testing.assert_close(
        softmax_focal(logits, target, gamma=1.0).double(), softmax_focal(logits.double(), target, gamma=1.0), rtol=1e-5, atol=0
    )
    assert softmax_focal(logits, target, gamma=1.0) > 0
    negatives = torch.tensor([[[[-9.0, -30.0]]]])
    exact = torch.tensor([[[[1.5227e-8, 8.7565e-27]]]])
    torch.testing.assert_close(sigmoid_focal(negatives, torch.zeros(1, 1, 1, 2), gamma=1.0), exact, rtol=1e-4, atol=0)


def test_gamma_zero_is_cross_entropy():
    logits, target, _ = binary_sample()
    torch.testing.assert_close(
        gradient(lambda x: sigmoid_focal(x, target, gamma=0.0), logits),
        gradient(lambda x: F.binary_cross_entropy_with_logits(x, target.double(), reduction="none"), logits),
        rtol=1e-13,
        atol=1e-14,
    )
    logits, target, _ = class_sample()
    torch.testing.assert_close(
        gradient(lambda x: softmax_focal(x, target, gamma=0.0)[:, 0], logits),
        gradient(lambda x: F.cross_entropy(x, target[:, 0], reduction="none"), logits),
        rtol=1e-13,
        atol=1e-14,
    )


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_torchvision_parity(gamma):
    from torchvision.ops import sigmoid_focal_loss

    logits, target, _ = binary_sample()
    torch.testing.assert_close(
        gradient(lambda x: sigmoid_focal(x, target, gamma=gamma), logits),
        gradient(lambda x: sigmoid_focal_loss(x, target.double(), alpha=-1, gamma=gamma), logits),
        rtol=1e-9,
        atol=1e-12,
    )


def test_a_softmax_over_two_classes_is_a_sigmoid_of_their_difference():
    logits, target, valid = class_sample(classes=2)
    sigmoid = sigmoid_focal(logits[:, 1:] - logits[:, :1], target, valid, gamma=1.5)
    torch.testing.assert_close(softmax_focal(logits, target, valid, gamma=1.5), sigmoid)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_normalised_factors_average_one_in_each_image_and_their_scale_is_constant(gamma):
    logits, target, valid = binary_sample()
    plain, plain_grad = gradient(lambda x: sigmoid_focal(x, target, valid, gamma=gamma), logits)
    value, grad = gradient(lambda x: sigmoid_focal(x, target, valid, gamma=gamma, normalized=True), logits)
    cross_entropy = sigmoid_focal(logits, target, gamma=0.0)
    factor = torch.where(valid, value / cross_entropy, 0.0)
    torch.testing.assert_close(factor.flatten(1).sum(1), valid.flatten(1).sum(1).double())
    scale = (value / plain.clamp_min(1e-300)).flatten(1).amax(1).reshape(-1, 1, 1, 1)
    assert scale[0] != scale[1]
    torch.testing.assert_close(grad, plain_grad * scale)


def test_normalising_an_image_of_nothing_but_easy_pixels():
    """All factors underflow; their ratios are known all the same."""
    logits = torch.full((1, 1, 1, 4), 1e3)
    value, grad = gradient(lambda x: sigmoid_focal(x, torch.ones(1, 1, 1, 4), normalized=True), logits)
    assert value.eq(0).all()
    assert grad.isfinite().all()
    valid = torch.tensor([[[[True, True, False, True]]]])  # in relation to the peak, an ignored factor may be beyond all numbers
    value, grad = gradient(lambda x: sigmoid_focal(x, torch.ones(1, 1, 1, 4), valid, normalized=True), logits)
    assert value.eq(0).all()
    assert grad.isfinite().all()


def test_the_reduced_form_leaves_hard_pixels_at_full_strength():
    p = torch.tensor([0.1, 0.3, 0.45, 0.6, 0.9], dtype=torch.float64)
    terms, factor = focal_terms(torch.logit(p), gamma=2.0, reduced_threshold=0.4)
    expected = torch.tensor([1, 1, (0.55 / 0.4) ** 2, 1, (0.1 / 0.4) ** 2], dtype=torch.float64)
    torch.testing.assert_close(terms / -p.log(), expected)
    torch.testing.assert_close(factor, expected)
    expected = torch.tensor([1, 1, (0.55 / 0.6) ** 2, (0.4 / 0.6) ** 2, (0.1 / 0.6) ** 2], dtype=torch.float64)
    torch.testing.assert_close(focal_terms(torch.logit(p), 2.0, 0.4, continuous=True)[1], expected)


@pytest.mark.parametrize("junk", [float("inf"), float("-inf"), float("nan"), 1e30])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_lies_beneath_the_mask_is_never_read(junk, options):
    for function, (logits, target, valid) in ((sigmoid_focal, binary_sample()), (softmax_focal, class_sample())):
        marked = torch.where(valid, target, 255)
        clean = gradient(lambda x, f=function, t=target, v=valid: f(x, t, v, **options), logits)
        dirty = gradient(lambda x, f=function, t=marked, v=valid: f(x, t, v, **options), torch.where(valid, logits, junk))
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
        assert dirty[0][~valid].eq(0).all()
        assert dirty[1][~valid.expand_as(logits)].eq(0).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_single_precision(dtype):
    for function, (logits, target, valid) in ((sigmoid_focal, binary_sample()), (softmax_focal, class_sample())):
        half = logits.to(dtype)
        value, grad = gradient(lambda x, f=function, t=target, v=valid: f(x, t, v), half)
        exact, exact_grad = gradient(lambda x, f=function, t=target, v=valid: f(x, t, v), half.float())
        assert value.dtype == torch.float32
        assert grad.dtype == dtype
        torch.testing.assert_close(value, exact, rtol=0, atol=0)
        torch.testing.assert_close(grad, exact_grad.to(dtype), rtol=0, atol=0)


def test_double_precision_stays_double():
    logits, target, valid = binary_sample()
    assert sigmoid_focal(logits, target, valid, reduced_threshold=0.5, normalized=True).dtype == torch.float64
