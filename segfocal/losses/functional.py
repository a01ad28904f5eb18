"""The focal family as pure functions: logits and labels in, one value for each label out. They know no modes and no reductions.

All forms share one core. Let the margin m be the log-odds of the true label; with p_t its probability and q = 1 - p_t,

    log p_t = logsigmoid(m),  log q = logsigmoid(-m)

where m = (2y - 1) x for a sigmoid, and m = x_t - logsumexp(x_j, j != t) for a softmax: there, too, q is never computed as 1 - p_t.
Powers of q are taken as exp(g log q), which is finite with a finite gradient for every g >= 0, also where q is 0 in floating point.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal(
    logits_NCHW: Tensor,
    target_NCHW: Tensor,
    valid_NCHW: Tensor | None = None,
    *,
    gamma: float = 2.0,
    normalized: bool = False,
    reduced_threshold: float | None = None,
) -> Tensor:
    """Focal loss of independent yes/no decisions, q^g * -log p_t with p_t = sigmoid((2y - 1) x).

    Args:
        logits_NCHW: raw scores; half precisions are computed in fp32.
        target_NCHW: 1 (or true) for positives; everything else is negative.
        valid_NCHW: bool, false for elements to be ignored: their value and their gradient are exactly 0, whatever their logit.
        gamma: focusing strength, >= 0.
        normalized: scale the factors q^g of every image to a mean of 1, see `focal_terms`.
        reduced_threshold: in (0, 1), see `focal_terms`.

    Shape:
        All of one shape, images first; `valid_NCHW` may broadcast.

    Returns:
        Values in the shape of the logits, fp32 (fp64 for fp64).

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, equation 4.

    Example:
        >>> sigmoid_focal(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0, 1]]]]), gamma=1.0)
        tensor([[[[0.3466, 0.3466]]]])
    """
    logits = clean(logits_NCHW, valid_NCHW)
    margin = torch.where(target_NCHW == 1, logits, -logits)
    return focal_terms(margin, valid_NCHW, gamma=gamma, normalized=normalized, reduced_threshold=reduced_threshold)


def softmax_focal(
    logits_NCHW: Tensor,
    target_N1HW: Tensor,
    valid_N1HW: Tensor | None = None,
    *,
    gamma: float = 2.0,
    normalized: bool = False,
    reduced_threshold: float | None = None,
) -> Tensor:
    """Focal loss of one decision among C classes, q^g * -log p_t with p_t = softmax(x)_t.

    Args:
        logits_NCHW: raw scores, C >= 2; half precisions are computed in fp32.
        target_N1HW: class ids 0 .. C-1; anything where ignored.
        valid_N1HW: bool, false for pixels to be ignored: their value and their gradient are exactly 0, whatever their logits.
        gamma: focusing strength, >= 0.
        normalized: scale the factors q^g of every image to a mean of 1, see `focal_terms`.
        reduced_threshold: in (0, 1), see `focal_terms`.

    Shape:
        logits (N, C, H, W), the others (N, 1, H, W).

    Returns:
        Values of shape (N, 1, H, W), fp32 (fp64 for fp64).

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, equation 4, with p_t from a softmax.

    Example:
        >>> softmax_focal(torch.zeros(1, 4, 1, 1), torch.tensor([[[[2]]]]), gamma=1.0)  # .75 * log 4
        tensor([[[[1.0397]]]])
    """
    logits = clean(logits_NCHW, valid_N1HW)
    target = target_N1HW.long()
    if valid_N1HW is not None:
        target = target.masked_fill(~valid_N1HW, 0)
    others = logits.scatter(1, target, -math.inf).logsumexp(1, keepdim=True)
    margin = logits.gather(1, target) - others
    return focal_terms(margin, valid_N1HW, gamma=gamma, normalized=normalized, reduced_threshold=reduced_threshold)


def focal_terms(
    margin: Tensor,
    valid: Tensor | None = None,
    *,
    gamma: float,
    normalized: bool = False,
    reduced_threshold: float | None = None,
) -> Tensor:
    """The core that both forms share: factor(q) * -log p_t, from the log-odds of the true label.

        factor = q^g                                                 focal
        factor = 1 where p_t < th, else (q / th)^g                   reduced
        factor * n / sum(factor), n and sum over each image          normalised; the scale n / sum carries no gradient

    Args:
        margin: log(p_t / q), finite, images first.
        valid: bool, broadcasts to the margin; elsewhere the value is 0 and no gradient flows.
        gamma: focusing strength g, >= 0.
        normalized: without it the factors, and with them the loss, fade as pixels become easy.
        reduced_threshold: th in (0, 1): labels recognised with less are all learnt at full strength.

    Returns:
        Values in the shape of the margin.

    Reference:
        Reduced: Sergievskiy and Ponamarev, arXiv 1903.01347. Normalised: Sofiiuk et al., AdaptIS, arXiv 1909.07829.
    """
    log_p, log_q = F.logsigmoid(margin), F.logsigmoid(-margin)
    log_factor = gamma * log_q
    if reduced_threshold is not None:
        log_th = math.log(reduced_threshold)
        log_factor = (log_factor - gamma * log_th).masked_fill(log_p < log_th, 0.0)
    factor = _normalised_exp(log_factor, valid) if normalized else log_factor.exp()
    terms = factor * -log_p
    return terms if valid is None else torch.where(valid, terms, 0.0)


def clean(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits in fp32 at least, 0 where ignored.

    What is ignored may be inf or NaN, so it is replaced before any arithmetic: NaN * 0 would be NaN, in the gradient, too.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if valid is None else torch.where(valid, logits, 0.0)


def _normalised_exp(log_factor: Tensor, valid: Tensor | None) -> Tensor:
    """exp(log_factor), scaled to a mean of 1 over the valid elements of each image; the scale is a constant to autograd.

    Relative to the image's largest factor, so that an image of nothing but tiny factors does not become 0 / 0.
    """
    valid = torch.ones_like(log_factor, dtype=torch.bool) if valid is None else valid.expand_as(log_factor)
    space = tuple(range(1, log_factor.dim()))
    peak = log_factor.detach().masked_fill(~valid, -math.inf).amax(space, keepdim=True)
    factor = (log_factor - peak).masked_fill(~valid, 0.0).exp()
    share = (factor.detach() * valid).sum(space, keepdim=True)
    return factor * (valid.sum(space, keepdim=True) / share.clamp_min(1.0))  # a sum over anything holds its peak, 1
