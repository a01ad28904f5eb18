"""The focal family's values and gradients written out, for `segfocal.losses.fused`: what is fast, not what is plain.

Plain are the formulas of `segfocal.losses.functional`, which the tests hold these against. With q = 1 - p_t, CE = -log p_t, factor
f = q^g (or what the reduced form makes of it) and strength s (g, or 0 where the reduced form does not turn down):

    sigmoid     value  w f CE      gradient  -(2y - 1) w f (q + s p_t CE)
    softmax     value  w f CE      gradient  p_j A for j != t and -q A for j = t,   A = w f (1 + s p_t CE / q)

A kernel is a function of tensors alone, all of four axes: images, classes, rows, columns, or with the classes last. It runs as it
is on a chunk that fits the cache, or compiled on the whole. It has no boolean indexing, no gather, and nothing that waits for a device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG2_E = 1.4426950408889634


class Focus(NamedTuple):
    """What is constant in a kernel.

    Args:
        axis: of the classes, 1 or 3.
        gamma: focusing strength, for a kernel without a gamma for each class among its arguments.
        threshold: of the reduced form, or None.
        scale: what the reduced form divides q by: the threshold, or 1 - threshold.
        ignore_index: the label of what does not count, or None.
        one_vs_rest: whether labels are ids and a sigmoid decides on every class against the rest.
        soft: whether labels are floats, of a sigmoid; one counts y times as a positive and 1 - y times as a negative.
        smoothing: soft labels are (1 - smoothing) y + smoothing / 2.
        normalized: whether the sum of the factors is wanted, too.
    """

    axis: int
    gamma: float
    threshold: float | None = None
    scale: float = 1.0
    ignore_index: int | None = None
    one_vs_rest: bool = False
    soft: bool = False
    smoothing: float = 0.0
    normalized: bool = False


class _Side(NamedTuple):
    """A label seen as a positive or as a negative: what share of it is, its weight times that, p_t, q, CE, -d margin / d logit."""

    share: Tensor | None
    weight: Tensor | None
    p: Tensor
    q: Tensor
    ce: Tensor
    sign: Tensor | float


# --- sigmoid ---


def sigmoid_value(
    focus: Focus, logits: Tensor, label: Tensor, positive: Tensor | None, negative: Tensor | None, gamma: Tensor | None
) -> tuple[Tensor, ...]:
    """Sums over each row.

    Args:
        focus: constants.
        logits, label: as the loss is given them; one channel of labels where they are ids.
        positive, negative: weights of positives and negatives, of one value, one for each class, or one for each pixel; None: 1.
        gamma: for each class; None: `focus.gamma`.

    Returns:
        (N, C, R, 1) or (N, R, 1, C), fp32 at least: values; labels out of range; and, if normalised, factors.
    """
    x, y, valid, wrong = _sigmoid_input(focus, logits, label)
    columns = 2 if focus.axis == 3 else 3
    values, factors = [], []
    for side in _sides(focus, x, y, positive, negative):
        factor, _ = _factor(focus, side.p, side.q, gamma)
        values.append(_times(side.weight, factor * side.ce))
        factors.append(_times(side.share, factor))
    maps = [_where(valid, _total(values)), wrong.to(x.dtype)]
    if focus.normalized:
        maps.append(_where(valid, _total(factors)))
    return tuple(map_.sum(columns, keepdim=True) for map_ in maps)


def sigmoid_gradient(
    focus: Focus,
    logits: Tensor,
    label: Tensor,
    positive: Tensor | None,
    negative: Tensor | None,
    gamma: Tensor | None,
    upstream: Tensor,
) -> tuple[Tensor, ...]:
    """The gradient of the values times `upstream`, of shape (N, 1, 1, 1); in the precision of the logits."""
    x, y, valid, _ = _sigmoid_input(focus, logits, label)
    gradients = []
    for side in _sides(focus, x, y, positive, negative):
        factor, strength = _factor(focus, side.p, side.q, gamma)
        gradients.append(_times(side.weight, side.sign * factor * (side.q + strength * side.p * side.ce)))
    return (_where(valid, _total(gradients) * upstream).to(logits.dtype),)


def _sigmoid_input(focus: Focus, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Logits, 0 where ignored; 1 for positives; which labels count; which are out of range."""
    x, number, valid = _cleaned(focus, logits, label)
    if focus.one_vs_rest:
        wrong = (number < 0) | (number >= x.shape[focus.axis])
        y = (number == _ids(focus, x)).to(x.dtype)
    elif focus.soft:
        wrong = ~((number >= 0) & (number <= 1))  # NaN is neither
        y = _where(valid, number) * (1 - focus.smoothing) + focus.smoothing / 2
    else:
        wrong = (number != 0) & (number != 1)
        y = (number == 1).to(x.dtype)
    return x, y, valid, wrong if valid is None else wrong & valid


def _sides(focus: Focus, x: Tensor, y: Tensor, positive: Tensor | None, negative: Tensor | None) -> list[_Side]:
    if focus.soft:
        return [
            _Side(y, _times(positive, y), *_answer(-x), -1.0),
            _Side(1 - y, _times(negative, 1 - y), *_answer(x), 1.0),
        ]
    sign = 1 - 2 * y
    weight = None if positive is None or negative is None else torch.where(y > 0, positive, negative)
    return [_Side(None, weight, *_answer(x * sign), sign)]


def _answer(against: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and CE of an answer that the logit speaks against by so much: sigmoid(-a), sigmoid(a), log(1 + exp(a))."""
    if not torch.compiler.is_compiling() or against.dtype == torch.float64:
        q = torch.sigmoid(against)
        return 1 - q, q, F.softplus(against, threshold=40.0)  # p is a factor of sums with q: its absolute precision will do
    # Inductor writes results of exp and log1p that are used twice to memory, on the CPU; not so those of exp2 and of a polynomial,
    # which is also the faster one. log1p(e) = 2 atanh(z), z = e / (2 + e) <= 1/3, its series to 2 z^17 / 17 < 2e-9. One division.
    e = torch.exp2(against.abs() * -LOG2_E)
    inverse = 1 / ((1 + e) * (2 + e))
    large, z = (2 + e) * inverse, e * (1 + e) * inverse
    w = z * z
    series = w * (1 / 15) + 1 / 13
    for odd in (11, 9, 7, 5, 3, 1):
        series = series * w + 1 / odd
    mistaken, small = against > 0, e * large
    return torch.where(mistaken, small, large), torch.where(mistaken, large, small), against.clamp_min(0) + 2 * z * series


# --- softmax ---


def softmax_value(focus: Focus, logits: Tensor, label: Tensor, weight: Tensor | None, gamma: Tensor | None) -> tuple[Tensor, ...]:
    """Maps of one channel.

    Args:
        focus: constants.
        logits, label: as the loss is given them.
        weight: of each class; None: 1.
        gamma: for each class; None: `focus.gamma`.

    Returns:
        (N, 1, R, W) or (N, R, W, 1), fp32 at least: values; labels out of range; the largest logit m, log sum_j exp(x_j - m) - log A
        and q A, all that the gradient needs; and, if normalised, factors.
    """
    x, number, valid = _cleaned(focus, logits, label)
    axis = focus.axis
    true = number == _ids(focus, x)
    peak = x.amax(axis, keepdim=True)
    others = torch.where(true, 0.0, torch.exp(x - peak)).sum(axis, keepdim=True)
    margin = torch.where(true, x, 0.0).sum(axis, keepdim=True) - peak
    own = torch.exp(margin)
    total = others + own
    p, q = own / total, others / total
    log_total = torch.log1p(others + (own - 1))  # own is 1 where the true class leads: the small others are not lost in the sum
    ce = log_total - margin

    factor, strength = _factor(focus, p, q, _of_label(focus, gamma, true))
    own_weight = _of_label(focus, weight, true)
    slope = _times(own_weight, factor * (1 + strength * p * ce / q.clamp_min(torch.finfo(x.dtype).tiny)))
    wrong = (number < 0) | (number >= x.shape[axis])
    counts = ~wrong if valid is None else valid & ~wrong
    slope = torch.where(counts, slope, 0.0)
    maps = [
        torch.where(counts, _times(own_weight, factor * ce), 0.0),
        _where(valid, wrong.to(x.dtype)),
        peak,
        log_total - torch.log(slope),
        q * slope,
    ]
    return (*maps, torch.where(counts, factor, 0.0)) if focus.normalized else tuple(maps)


def softmax_gradient(
    focus: Focus, logits: Tensor, label: Tensor, peak: Tensor, level: Tensor, slope: Tensor, upstream: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of the values times `upstream`, of shape (N, 1, 1, 1): exp(x_j - peak - level), and -slope for the true class."""
    x, number, _ = _cleaned(focus, logits, label)
    gradient = torch.where(number == _ids(focus, x), -slope, torch.exp(x - peak - level))
    return ((gradient * upstream).to(logits.dtype),)


def _of_label(focus: Focus, per_class: Tensor | None, true: Tensor) -> Tensor | None:
    """What the true class of every pixel has; no gather, which would leave its range for labels out of theirs."""
    if per_class is None:
        return None
    return torch.where(true, per_class, 0.0).sum(focus.axis, keepdim=True)


# --- both ---


def _cleaned(focus: Focus, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits in fp32 at least, 0 where ignored: inf and NaN end here; labels as floats; which of them count, None for all."""
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    number = label.to(x.dtype)  # floats compare faster than int64; exact up to 2^24
    if focus.ignore_index is None:
        return x, number, None
    valid = number != focus.ignore_index
    return torch.where(valid, x, 0.0), number, valid


def _ids(focus: Focus, x: Tensor) -> Tensor:
    ids = torch.arange(x.shape[focus.axis], device=x.device, dtype=x.dtype)
    return ids if focus.axis == 3 else ids.reshape(-1, 1, 1)


def _factor(focus: Focus, p: Tensor, q: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """The modulating factor, and the g that its slope goes with."""
    strength: Tensor | float = focus.gamma if gamma is None else gamma
    if focus.threshold is None:
        return q.pow(strength), strength
    hard = p < focus.threshold
    return torch.where(hard, 1.0, (q * (1 / focus.scale)).pow(strength)), torch.where(hard, 0.0, strength)


def _where(valid: Tensor | None, value: Tensor) -> Tensor:
    return value if valid is None else torch.where(valid, value, 0.0)


def _times(weight: Tensor | None, value: Tensor) -> Tensor:
    return value if weight is None else weight * value


def _total(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else values[0] + values[1]
