"""The score of a whole image and its AUROC: exact, since images are few where pixels are many."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SURE = 0.6
"""A probability above which a class is the only winner of its pixel, and below which 1 - p does not cancel."""


def highest(logits_CHW: Tensor, valid_CHW: Tensor) -> Tensor:
    """The highest logit of each class among its valid pixels, (C,); -inf where there are none."""
    return logits_CHW.masked_fill(~valid_CHW, -torch.inf).amax((1, 2))


def highest_of_multiclass(logits_CHW: Tensor, winner_HW: Tensor, valid_HW: Tensor) -> Tensor:
    """The highest of `scores.one_vs_rest_logits` of each class, at a fifth of their cost: only that of a sure winner needs care.

    Args:
        logits_CHW: one image's, C >= 2, free of NaN.
        winner_HW: the class with the highest logit.
        valid_HW: which pixels count.

    Returns:
        (C,); -inf where no pixel counts.
    """
    top_HW, second_HW = torch.maximum(*logits_CHW[:2]), torch.minimum(*logits_CHW[:2])
    for logits_HW in logits_CHW[2:]:
        second_HW = torch.maximum(second_HW, torch.minimum(top_HW, logits_HW))
        top_HW = torch.maximum(top_HW, logits_HW)
    # Cut at the second, the winner counts as exactly 1, and so does the second: to take away 1 loses nothing.
    rest_HW = second_HW + ((logits_CHW - second_HW).clamp_(max=0).exp_().sum(0) - 1).log_()
    log_p = (logits_CHW - torch.logaddexp(top_HW, rest_HW).masked_fill(~valid_HW, torch.inf)).amax((1, 2))
    margin_HW = (top_HW - rest_HW).masked_fill(~valid_HW, -torch.inf)
    won = torch.full_like(log_p, -torch.inf).scatter_reduce(0, winner_HW.flatten().long(), margin_HW.flatten(), "amax")
    p = log_p.exp()
    return torch.where(p > _SURE, won, log_p - torch.log1p(-p.clamp(max=_SURE)))


def auroc(scores: NDArray[np.float64], holds: NDArray[np.bool_]) -> float | None:
    """How likely a positive outscores a negative, ties half; NaN scores are left out; None without a positive or without a negative."""
    known = ~np.isnan(scores)
    scores, holds = scores[known], holds[known]
    positives, negatives = int(holds.sum()), int((~holds).sum())
    if not positives or not negatives:
        return None
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (sizes.cumsum() - (sizes - 1) / 2)[place]
    return float((rank[holds].sum() - positives * (positives + 1) / 2) / (positives * negatives))
