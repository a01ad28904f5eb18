"""The focal family's values and gradients written out, for `segfocal.losses.fused`: what is fast, not what is plain.

Plain are the formulas of `segfocal.losses.functional`, which the tests hold these against. With q = 1 - p_t, CE = -log p_t, factor
f = q^g (or what the reduced form makes of it) and strength s (g, or 0 where the reduced form does not turn down):

    sigmoid     value  w f CE      gradient  -(2y - 1) w f (q + s p_t CE)
    softmax     value  w f CE      gradient  p_j A for j != t and -q A for j = t,   A = w f (1 + s p_t CE / q)

A kernel is a function of tensors alone, all of four axes: images, classes, rows, columns, or with the classes last. It runs as it
is on a chunk that fits the cache, or compiled on the whole. It has no boolean indexing, no gather, and nothing that waits for a device.
It returns sums over each row: of the values, of labels out of range (more than 0 where there is one), and, if normalised, of the
factors; before them, if it is asked for, the gradient of the values times `upstream`, in the precision of the logits. Inductor computes
gradient and sums in one loop if the gradient comes first and has the axes of the sums: so `upstream` has a number for each of these.

A kernel has one stage or two. A stage is what is compiled in one piece: Inductor would compute again for every class what a second
stage is given for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segfocal.losses.labelcheck import SOFT_MOST

LOG2_E = 1.4426950408889634
ATANH = (1.0, 0.33333158, 0.20012427, 0.13980709, 0.14087329)

Stage = Callable[..., tuple[Tensor, ...]]
Runner = Callable[..., tuple[Tensor, ...]]  # called with a stage and its arguments


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


def sigmoid(run: Runner, focus: Focus, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Every class for itself; see `_sigmoid`."""
    return run(_sigmoid, focus, *tensors)


def _sigmoid(
    focus: Focus,
    logits: Tensor,
    label: Tensor,
    positive: Tensor | None,
    negative: Tensor | None,
    gamma: Tensor | None,
    upstream: Tensor | None,
) -> tuple[Tensor, ...]:
    """Values and gradients of decisions on every class.

    Args:
        focus: constants.
        logits, label: as the loss is given them; one channel of labels where they are ids.
        positive, negative: weights of positives and negatives, of one value, one for each class, or one for each pixel; None: 1.
        gamma: for each class; None: `focus.gamma`.
        upstream: (N, C, R, 1) or (N, R, 1, 1), where the gradient is wanted.

    Returns:
        See the module; sums in the shape of `upstream`, fp32 at least.
    """
    x, y, valid, wrong = _sigmoid_input(focus, logits, label)
    sides = [(side, *_factor(focus, side.p, side.q, gamma)) for side in _sides(focus, x, y, positive, negative)]
    outputs = []
    if upstream is not None:
        slopes = [_times(side.weight, side.sign * factor * (side.q + strength * side.p * side.ce)) for side, factor, strength in sides]
        outputs.append((_where(valid, _total(slopes)) * upstream).to(logits.dtype))
    values = [_times(side.weight, factor * side.ce) for side, factor, _ in sides]
    outputs += [_sum(focus, valid, _total(values)), _sum(focus, valid, wrong)]
    if focus.normalized:
        factors = [_times(side.share, factor) for side, factor, _ in sides]
        outputs.append(_sum(focus, valid, _total(factors)))
    return tuple(outputs)


def _sigmoid_input(focus: Focus, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Logits, 0 where ignored; 1 for positives; which labels count; more than 0 for those out of range."""
    x, number, valid = _cleaned(focus, logits, label)
    if focus.one_vs_rest:
        wrong = _no_id(focus, number, x)
        y = _with_own(focus, number, torch.zeros_like(x), torch.ones_like(number))
    elif focus.soft:
        wrong = (~((number >= 0) & (number <= SOFT_MOST))).to(x.dtype)  # NaN is neither
        y = _where(valid, number)
    else:
        wrong = number * (number - 1)  # of whole numbers
        y = _where(valid, number)
    return x, y * (1 - focus.smoothing) + focus.smoothing / 2 if focus.smoothing else y, valid, wrong


def _sides(focus: Focus, x: Tensor, y: Tensor, positive: Tensor | None, negative: Tensor | None) -> list[_Side]:
    if focus.soft:
        return [
            _Side(y, _times(positive, y), *_answer(-x), -1.0),
            _Side(1 - y, _times(negative, 1 - y), *_answer(x), 1.0),
        ]
    sign = torch.rsub(y, 1, alpha=2)  # 1 - 2y
    weight = None if positive is None or negative is None else torch.where(y > 0, positive, negative)
    return [_Side(None, weight, *_answer(x * sign), sign)]


def _answer(against: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and CE of an answer that the logit speaks against by so much: sigmoid(-a), sigmoid(a), log(1 + exp(a))."""
    if not torch.compiler.is_compiling() or against.dtype == torch.float64:
        q = torch.sigmoid(against)
        return 1 - q, q, F.softplus(against, threshold=40.0)  # p is a factor of sums with q: its absolute precision will do
    # Inductor writes results of exp and log1p that are used twice to memory, on the CPU; not so those of exp2 and of a polynomial,
    # which is also the faster one. log1p(e) = 2 atanh(z), z = e / (2 + e) <= 1/3; fitted to atanh(z) / z at Chebyshev's points of z^2
    # in [0, 1/9], to 4e-9. One division.
    e = torch.exp2(against.abs() * -LOG2_E)
    inverse = 1 / ((1 + e) * (2 + e))
    large, z = (2 + e) * inverse, e * (1 + e) * inverse
    w = z * z
    series = w * ATANH[-1] + ATANH[-2]
    for coefficient in ATANH[-3::-1]:
        series = series * w + coefficient
    mistaken, small = against > 0, e * large
    return torch.where(mistaken, small, large), torch.where(mistaken, large, small), against.clamp_min(0) + 2 * z * series


# --- softmax ---


def softmax(
    run: Runner, focus: Focus, logits: Tensor, label: Tensor, weight: Tensor | None, gamma: Tensor | None, upstream: Tensor | None
) -> tuple[Tensor, ...]:
    """One class to a pixel.

    Args:
        run: of stages.
        focus: constants.
        logits, label: as the loss is given them; one channel of labels.
        weight: of each class; None: 1.
        gamma: for each class; None: `focus.gamma`.
        upstream: (N, 1, R, 1) or (N, R, 1, 1), where the gradient is wanted.

    Returns:
        See the module; sums in the shape of `upstream`, fp32 at least.
    """
    if upstream is None:
        return run(_softmax_sums, focus, logits, label, weight, gamma, None)
    peak, share, own, *sums = run(_softmax_sums, focus, logits, label, weight, gamma, upstream)
    return (*run(_softmax_gradient, focus, logits, label, peak, share, own), *sums)


def _softmax_sums(
    focus: Focus, logits: Tensor, label: Tensor, weight: Tensor | None, gamma: Tensor | None, upstream: Tensor | None
) -> tuple[Tensor, ...]:
    """Sums; before them, where there is an upstream gradient, what `_softmax_gradient` needs of every pixel."""
    x, number, valid = _cleaned(focus, logits, label)
    peak = x.amax(focus.axis, keepdim=True)
    others = _with_own(focus, number, torch.exp(x - peak), torch.zeros_like(number)).sum(focus.axis, keepdim=True)
    margin = _own(focus, number, x) - peak
    own = torch.exp(margin)
    total = others + own
    p, q = own / total, others / total
    # own is 1 where the true class leads: the small others are not lost in the sum
    ce = torch.log1p(others + (own - 1)) - margin

    factor, strength = _factor(focus, p, q, None if gamma is None else _own(focus, number, gamma.expand_as(x)))
    own_weight = None if weight is None else _own(focus, number, weight.expand_as(x))
    sums = [_sum(focus, valid, _times(own_weight, factor * ce)), _sum(focus, valid, _no_id(focus, number, x))]
    if focus.normalized:
        sums.append(_sum(focus, valid, factor))
    if upstream is None:
        return tuple(sums)
    slope = _times(own_weight, factor * (1 + strength * p * ce / q.clamp_min(torch.finfo(x.dtype).tiny)))
    slope = _where(valid, slope) * upstream
    return peak, slope / total, -q * slope, *sums


def _softmax_gradient(focus: Focus, logits: Tensor, label: Tensor, peak: Tensor, share: Tensor, own: Tensor) -> tuple[Tensor, ...]:
    """exp(x_j - peak) share; of the true class, `own`."""
    x, number, _ = _cleaned(focus, logits, label)
    return (_with_own(focus, number, torch.exp(x - peak) * share, own).to(logits.dtype),)


# --- both ---


def sum_axes(focus: Focus) -> tuple[int, ...]:
    """The axes that sums go over: columns, and classes where they come last."""
    return (3,) if focus.axis == 1 else (2, 3)


def _cleaned(focus: Focus, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits in fp32 at least, 0 where ignored: inf and NaN end here; labels as floats; which of them count, None for all."""
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    number = label.to(x.dtype)  # floats compare faster than int64; exact up to 2^24
    if focus.ignore_index is None:
        return x, number, None
    valid = number != focus.ignore_index
    return torch.where(valid, x, 0.0), number, valid


def _own(focus: Focus, number: Tensor, values: Tensor) -> Tensor:
    """What the class that is named has, of each pixel."""
    if torch.compiler.is_compiling():
        return torch.where(_true(focus, number, values), values, 0.0).sum(focus.axis, keepdim=True)
    return values.gather(focus.axis, _id(focus, number, values))


def _with_own(focus: Focus, number: Tensor, values: Tensor, own: Tensor) -> Tensor:
    """`values`, but `own` for the class that is named; a new tensor's memory is used again."""
    if torch.compiler.is_compiling():
        return torch.where(_true(focus, number, values), own, values)
    return values.scatter_(focus.axis, _id(focus, number, values), own)


def _true(focus: Focus, number: Tensor, values: Tensor) -> Tensor:
    """Compiled, comparing is free, and an index costs; otherwise it is the other way round."""
    ids = torch.arange(values.shape[focus.axis], device=values.device, dtype=number.dtype)
    return number == (ids if focus.axis == 3 else ids.reshape(-1, 1, 1))


def _id(focus: Focus, number: Tensor, values: Tensor) -> Tensor:
    return number.nan_to_num(0.0).clamp(0, values.shape[focus.axis] - 1).long()


def _no_id(focus: Focus, number: Tensor, values: Tensor) -> Tensor:
    """1 for labels out of range, NaN and what is no whole number."""
    return ((number < 0) | (number >= values.shape[focus.axis]) | (number != number.floor())).to(values.dtype)


def _factor(focus: Focus, p: Tensor, q: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """The modulating factor, and the g that its slope goes with."""
    strength: Tensor | float = focus.gamma if gamma is None else gamma
    if focus.threshold is None:
        return q.pow(strength), strength
    hard = p < focus.threshold
    return torch.where(hard, 1.0, (q * (1 / focus.scale)).pow(strength)), torch.where(hard, 0.0, strength)


def _sum(focus: Focus, valid: Tensor | None, values: Tensor) -> Tensor:
    return _where(valid, values).sum(sum_axes(focus), keepdim=True)


def _where(valid: Tensor | None, value: Tensor) -> Tensor:
    return value if valid is None else torch.where(valid, value, 0.0)


def _times(weight: Tensor | None, value: Tensor) -> Tensor:
    return value if weight is None else weight * value


def _total(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else values[0] + values[1]
