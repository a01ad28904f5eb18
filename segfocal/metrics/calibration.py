"""Whether probabilities are as often right as they say, and the temperature that makes them so; read off the histogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segfocal.metrics.scores import score_edges

CONFIDENCE_BINS = 15
MOST_HEAT = 20.0
"""Temperatures are looked for from 1 / MOST_HEAT to MOST_HEAT."""


class Confidence(NamedTuple):
    """Pixels by what the class's probability says, float64 of shape (C, CONFIDENCE_BINS), in bins as wide as each other.

    Args:
        pixels: how many there are.
        confidence: the sum of their probabilities.
        positive: those that truly are the class.
    """

    pixels: Tensor
    confidence: Tensor
    positive: Tensor


def probabilities(classes: int, temperature: Sequence[float] = ()) -> Tensor:
    """The probability in the middle of each bin of the histogram, float64 (C, bins).

    Args:
        classes: how many.
        temperature: by which logits are divided, one for each class; empty is 1.
    """
    divisor = torch.tensor(list(temperature) or [1.0] * classes, dtype=torch.float64)
    return torch.sigmoid(_middles() / divisor[:, None])


def _middles() -> Tensor:
    """The logits in the middle of the bins; in the first and the last, which have no other end, the edge."""
    edges = score_edges()
    edges[0], edges[-1] = edges[1], edges[-2]
    return (edges[1:] + edges[:-1]) / 2


def confidences(histogram: Tensor, temperature: Sequence[float] = ()) -> Confidence:
    """The pixels of each class in bins of probability.

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).
        temperature: see `probabilities`.
    """
    negative, positive = histogram.cpu().double().unbind(dim=1)
    p = probabilities(len(histogram), temperature)
    inner = torch.linspace(0, 1, CONFIDENCE_BINS + 1, dtype=torch.float64)[1:-1].logit()
    limits = inner * torch.tensor(list(temperature) or [1.0] * len(p), dtype=torch.float64)[:, None]
    edges = score_edges()
    cut = torch.searchsorted(edges, limits, right=True) - 1
    share = (limits - edges[cut]) / (edges[cut + 1] - edges[cut])

    def summed(values: Tensor) -> Tensor:
        # Of a bin of the histogram that lies on both sides of a limit each has its share: many scores may be there, early in training.
        total = torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))
        below = total.gather(1, cut) + share * values.gather(1, cut)
        return torch.cat([torch.zeros(len(p), 1, dtype=torch.float64), below, total[:, -1:]], dim=1).diff(dim=1)

    return Confidence(summed(negative + positive), summed((negative + positive) * p), summed(positive))


def calibration_error(histogram: Tensor, temperature: Sequence[float] = ()) -> Tensor:
    r"""The expected calibration error of each class against the rest, over 15 equal bins of its probability.

    .. math:: \mathrm{ECE}_c = \frac{1}{N} \sum_b \Bigl| \sum_{i \in b} p_{ic} - \sum_{i \in b} [y_i = c] \Bigr|

    Right to 0.0002 beside the sum over pixels, since a probability is known to its bin of the histogram. A rare class has a small one
    whatever the model says of its few pixels: look at the reliability curve, too.

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).
        temperature: see `probabilities`.

    Returns:
        (C,) in [0, 1]; NaN without a valid pixel.

    Reference:
        Guo et al., On calibration of modern neural networks, ICML 2017; of one class: Nixon et al., Measuring calibration in deep learning,
        CVPR workshops 2019.
    """
    found = confidences(histogram, temperature)
    return (found.confidence - found.positive).abs().sum(dim=1) / found.pixels.sum(dim=1)


def brier(histogram: Tensor, temperature: Sequence[float] = ()) -> Tensor:
    r"""The mean squared difference between probability and truth, of each class against the rest.

    .. math:: \mathrm{Brier}_c = \frac{1}{N} \sum_i (p_{ic} - [y_i = c])^2

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).
        temperature: see `probabilities`.

    Returns:
        (C,) in [0, 1]; NaN without a valid pixel.

    Reference:
        Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950).
    """
    negative, positive = histogram.cpu().double().unbind(dim=1)
    p = probabilities(len(histogram), temperature)
    return (negative * p**2 + positive * (1 - p) ** 2).sum(dim=1) / (negative + positive).sum(dim=1)


def temperatures(histogram: Tensor) -> list[float]:
    r"""The temperature of each class of binary or multilabel under which its pixels are likeliest.

    .. math:: \hat T_c = \arg\min_T -\sum_i \log \sigma\left(\pm x_{ic} / T\right)

    The likelihood is concave in 1 / T, so that the zero of its derivative is found by bisection.

    Args:
        histogram: int64 counts (C, 2, SCORE_BINS).

    Returns:
        Numbers from 1 / MOST_HEAT to MOST_HEAT; 1 for a class without a positive or without a negative pixel.

    Reference:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    negative, positive = histogram.cpu().double().unbind(dim=1)
    x = _middles()

    def slope(inverse: Tensor) -> Tensor:
        return (x * ((negative + positive) * torch.sigmoid(x * inverse[:, None]) - positive)).sum(dim=1)

    found = likeliest_temperature(slope, len(histogram))
    both = (negative.sum(dim=1) > 0) & (positive.sum(dim=1) > 0)
    return [value if fit else 1.0 for value, fit in zip(found.tolist(), both.tolist(), strict=True)]


def likeliest_temperature(slope: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Where a rising function of 1 / T crosses zero, as float64 T.

    Args:
        slope: the derivative of the negative log-likelihoods in 1 / T, of a float64 tensor (count,).
        count: of temperatures.
    """
    low = torch.full((count,), 1 / MOST_HEAT, dtype=torch.float64)
    high = torch.full((count,), MOST_HEAT, dtype=torch.float64)
    for _ in range(24):  # the interval is then 4e-7 of its value wide
        middle = (low * high).sqrt()
        rising = slope(middle) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return 1 / (low * high).sqrt()
