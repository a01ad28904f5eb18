"""What a class's score is, and which bin of the histogram it falls in."""

from __future__ import annotations

import torch
from torch import Tensor

SCORE_BINS = 16384
"""Bins of the score histogram: 256 KiB of counts a class."""

_KNEE = 8.0
"""The logit up to which bins are about evenly wide; beyond, their width grows with the square of the logit."""


def one_vs_rest_logits(logits_CHW: Tensor) -> Tensor:
    r"""The logit of each class's softmax probability: the class against all others.

    .. math:: \operatorname{logit}(p_c) = x_c - \log \sum_{j \ne c} e^{x_j}

    Unlike p_c itself it does not saturate: a confident and a very confident pixel keep their order.

    Args:
        logits_CHW: one image's scores, C >= 2, free of NaN and infinities.

    Returns:
        The logits, of the same shape.
    """
    top_1HW, winner_1HW = logits_CHW.max(dim=0, keepdim=True)
    mass_CHW = (logits_CHW - top_1HW).exp()
    others_CHW = mass_CHW.sum(dim=0, keepdim=True) - mass_CHW
    scores_CHW = logits_CHW - top_1HW - others_CHW.log()
    # The others of a loser include the winner, whose mass is 1: nothing cancels. Those of the winner would cancel: sum them anew.
    rest_1HW = logits_CHW.scatter(0, winner_1HW, -torch.inf).logsumexp(dim=0, keepdim=True)
    return scores_CHW.scatter(0, winner_1HW, top_1HW - rest_1HW)


def score_bins(scores: Tensor) -> Tensor:
    r"""The number of the bin that each score falls in.

    .. math:: b = \left\lfloor \frac{B}{2} \left(1 + \frac{x}{k + |x|}\right) \right\rfloor, \quad k = 8, \; B = 16384

    Bins are evenly spaced in x / (k + |x|): 0.001 wide at logit 0, 0.004 at 8, 0.024 at 32, 0.18 at 100. So the whole line fits in,
    without open ends in which the order of confident scores is lost: as many even bins over [-32, 32] put AUROC off by 0.08 and AP by
    0.15 when the logits have a standard deviation of 30.

    Args:
        scores: logits, free of NaN.

    Returns:
        int32 numbers in [0, SCORE_BINS), of the same shape; they never decrease with the score.
    """
    finite = scores.clamp(-1e30, 1e30)
    share = (1 + finite / (_KNEE + finite.abs())) / 2
    return (share * SCORE_BINS).to(torch.int32).clamp(max=SCORE_BINS - 1)


def score_edges() -> Tensor:
    """Where the bins of the histogram begin and end, as logits.

    Returns:
        SCORE_BINS + 1 rising float64 numbers from -inf to inf; bin b holds the scores from edge b up to, not including, edge b + 1.
    """
    squashed = torch.linspace(-1, 1, SCORE_BINS + 1, dtype=torch.float64)
    return _KNEE * squashed / (1 - squashed.abs())
