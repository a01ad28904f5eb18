"""The focal family as pure functions: logits and labels in, one value for each label out. They know no modes and no reductions.

All forms share one core. Let the margin m be the log-odds of a label; with p its probability and q = 1 - p,

    log p = logsigmoid(m),  log q = logsigmoid(-m)

where m = x for the yes and -x for the no of a sigmoid, and m = x_t - logsumexp(x_j, j != t) for class t of a softmax: there, too, q is
never computed as 1 - p. Powers of q are exp(g log q): finite, with a finite gradient, for every g >= 0, also where q is 0 in floating
point. A label that is shared between answers has the values of each, weighted with its shares: the loss is linear in the label.

These are the plain formulas, differentiated by autograd any number of times. What trains is `segfocal.losses.fused`, which is held
against them: the same sums many times faster, without a map in memory.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalized = bool | Literal["smp"]

LEAST_FACTORS = 1e-30  # what a sum of factors is at least: an image of nothing but q = 0 is no 0 / 0


def sigmoid_focal(
    logits_NCHW: Tensor,
    target_NCHW: Tensor,
    valid_NCHW: Tensor | None = None,
    positive: Tensor | None = None,
    negative: Tensor | None = None,
    *,
    gamma: float | Tensor = 2.0,
    normalized: Normalized = False,
    reduced_threshold: float | None = None,
    continuous: bool = False,
) -> Tensor:
    """Focal loss of independent yes/no decisions, w q^g * -log p_t with p_t = sigmoid((2y - 1) x).

    Args:
        logits_NCHW: raw scores; half precisions are computed in fp32.
        target_NCHW: bools or integers: 1 (or true) for positives, everything else is negative; floats: soft labels from 0 to 1, each
            y times a positive and 1 - y times a negative.
        valid_NCHW: bool, false for elements to be ignored: their value and their gradient are exactly 0, whatever their logit.
        positive, negative: weights w of positives and of negatives, both or neither; they broadcast over the logits.
        gamma: focusing strength g, >= 0; a tensor broadcasts over the logits: one for each class.
        normalized: see `normalise`.
        reduced_threshold, continuous: see `focal_terms`.

    Shape:
        All of one shape, images first; `valid_NCHW` may broadcast.

    Returns:
        Values in the shape of the logits, fp32 (fp64 for fp64).

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, equations 4 and 5.

    Example:
        >>> sigmoid_focal(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0, 1]]]]), gamma=1.0)
        tensor([[[[0.3466, 0.3466]]]])
    """
    logits = clean(logits_NCHW, valid_NCHW)
    label = target_NCHW if valid_NCHW is None else torch.where(valid_NCHW, target_NCHW, 0)
    yes = label.to(logits.dtype) if label.is_floating_point() else (label == 1).to(logits.dtype)
    no = 1 - yes
    yes_terms, yes_factor = focal_terms(logits, gamma, reduced_threshold, continuous)
    no_terms, no_factor = focal_terms(-logits, gamma, reduced_threshold, continuous)
    terms = yes * _times(positive, yes_terms) + no * _times(negative, no_terms)
    return normalise(terms, yes * yes_factor + no * no_factor, valid_NCHW, normalized)


def softmax_focal(
    logits_NCHW: Tensor,
    target: Tensor,
    valid_N1HW: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    gamma: float | Tensor = 2.0,
    normalized: Normalized = False,
    reduced_threshold: float | None = None,
    continuous: bool = False,
) -> Tensor:
    """Focal loss of one decision among C classes, w q^g * -log p_t with p_t = softmax(x)_t.

    Args:
        logits_NCHW: raw scores, C >= 2; half precisions are computed in fp32.
        target: integers: class ids 0 .. C-1, anything where ignored; floats: the share of each class, one-hot or soft.
        valid_N1HW: bool, false for pixels to be ignored: their value and their gradient are exactly 0, whatever their logits.
        weight: of each class, broadcasts over the logits.
        gamma: focusing strength g, >= 0; a tensor broadcasts over the logits: one for each class.
        normalized: see `normalise`.
        reduced_threshold, continuous: see `focal_terms`.

    Shape:
        logits (N, C, H, W); target (N, 1, H, W), or (N, C, H, W) for floats.

    Returns:
        Values of shape (N, 1, H, W), fp32 (fp64 for fp64).

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, equations 4 and 5, with p_t from a softmax.

    Example:
        >>> softmax_focal(torch.zeros(1, 4, 1, 1), torch.tensor([[[[2]]]]), gamma=1.0)  # .75 * log 4
        tensor([[[[1.0397]]]])
    """
    logits = clean(logits_NCHW, valid_N1HW)
    label = target if valid_N1HW is None else torch.where(valid_N1HW, target, 0)
    if label.is_floating_point():
        terms, factor = focal_terms(_margins(logits), gamma, reduced_threshold, continuous)
        share = label.to(logits.dtype)
        return normalise(
            (share * _times(weight, terms)).sum(1, keepdim=True), (share * factor).sum(1, keepdim=True), valid_N1HW, normalized
        )
    ids = label.long()
    margin = logits.gather(1, ids) - logits.scatter(1, ids, -math.inf).logsumexp(1, keepdim=True)
    if isinstance(gamma, Tensor):
        gamma = gamma.expand_as(logits).gather(1, ids)
    if weight is not None:
        weight = weight.expand_as(logits).gather(1, ids)
    terms, factor = focal_terms(margin, gamma, reduced_threshold, continuous)
    return normalise(_times(weight, terms), factor, valid_N1HW, normalized)


def focal_terms(
    margin: Tensor, gamma: float | Tensor, reduced_threshold: float | None = None, continuous: bool = False
) -> tuple[Tensor, Tensor]:
    """The core that all forms share: factor * -log p, from the log-odds of the label; and the factor.

        factor = q^g                                                 focal
        factor = 1 where p < th, else (q / th)^g                     reduced, as its paper has it: it jumps at p = th unless th = 1/2
        factor = 1 where p < th, else (q / (1 - th))^g               reduced, continuous

    Args:
        margin: log(p / q), finite.
        gamma: focusing strength g, >= 0.
        reduced_threshold: th in (0, 1).
        continuous: which of the reduced forms.

    Reference:
        Reduced: Sergievskiy and Ponamarev, Reduced Focal Loss, arXiv 1903.01347, equation 3.
    """
    log_p, log_q = F.logsigmoid(margin), F.logsigmoid(-margin)
    log_factor = gamma * log_q
    if reduced_threshold is not None:
        scale = 1 - reduced_threshold if continuous else reduced_threshold
        log_factor = (gamma * (log_q - math.log(scale))).masked_fill(log_p < math.log(reduced_threshold), 0.0)
    factor = log_factor.exp()
    return factor * -log_p, factor


def normalise(terms: Tensor, factor: Tensor, valid: Tensor | None, how: Normalized) -> Tensor:
    """Values, 0 where ignored, scaled so that a loss does not fade as pixels become easy.

        true    values * n / sum(factor)     n and sum over the valid elements of each image; the scale carries no gradient
        smp     values / sum(factor)         the sum over the batch, for each class, at least 1e-6, and differentiated

    `smp` is what segmentation_models_pytorch computes, for comparison: divided by n once more in a mean, and with a gradient that
    points the other way for most pixels.

    Reference:
        Sofiiuk et al., AdaptIS, arXiv 1909.07829, section 3.4.
    """
    if valid is not None:
        terms, factor = torch.where(valid, terms, 0.0), torch.where(valid, factor, 0.0)
    if how == "smp":
        return terms / factor.sum([axis for axis in range(factor.dim()) if axis != 1], keepdim=True).clamp_min(1e-6)
    if not how:
        return terms
    counted = torch.ones_like(factor) if valid is None else valid.expand_as(factor).to(factor.dtype)
    return terms * image_scale(counted.flatten(1).sum(1), factor.detach().flatten(1).sum(1)).reshape(-1, *[1] * (terms.dim() - 1))


def image_scale(count_N: Tensor | int, factor_N: Tensor) -> Tensor:
    """What brings the mean of an image's factors to 1."""
    return count_N / factor_N.clamp_min(LEAST_FACTORS)


def clean(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits in fp32 at least, 0 where ignored.

    What is ignored may be inf or NaN, so it is replaced before any arithmetic: NaN * 0 would be NaN, in the gradient, too.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if valid is None else torch.where(valid, logits, 0.0)


def from_probabilities(probability: Tensor, softmax: bool, eps: float) -> Tensor:
    """Logits of probabilities, which are held between eps and 1 - eps: log p for a softmax, else log(p / (1 - p)).

    Raises:
        ValueError: on the CPU, where looking costs no waiting, for numbers that are no probabilities. NaN and inf pass: they may be ignored.
    """
    if probability.device.type == "cpu" and not torch.compiler.is_compiling():
        finite = probability.detach().nan_to_num(0.5, 0.5, 0.5)
        if finite.numel() and (finite.min() < -1e-3 or finite.max() > 1 + 1e-3):
            raise ValueError(
                f"from_logits=False takes probabilities from 0 to 1; given {finite.min():.3g} to {finite.max():.3g}: "
                "leave it out for a model without a sigmoid or softmax at its end"
            )
    p = probability.to(torch.promote_types(probability.dtype, torch.float32))
    p = p.clamp(eps, min(1 - eps, 1 - torch.finfo(p.dtype).eps / 2))  # 1 - eps may round to 1
    return p.log() if softmax else p.logit()


def _margins(logits: Tensor) -> Tensor:
    """The log-odds of every class of a softmax, log p_c - log sum_{j != c} p_j; the leading class's others are summed, not 1 - p."""
    log_p = logits.log_softmax(1)
    lead = log_p.argmax(1, keepdim=True)
    leads = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, lead, True)
    others = log_p.scatter(1, lead, -math.inf).logsumexp(1, keepdim=True)
    return log_p - torch.where(leads, others, torch.log1p(-torch.where(leads, 0.0, log_p.exp())))


def _times(weight: Tensor | None, terms: Tensor) -> Tensor:
    return terms if weight is None else weight * terms
