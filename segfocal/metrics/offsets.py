"""What is added to the logits of rare classes before the highest one is taken; fitted on a sample of pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segfocal.metrics.calibration import likeliest_temperature
from segfocal.metrics.sample import PixelSample
from segfocal.metrics.thresholds import Choose

__all__ = ["FEWEST_PIXELS", "PixelSample", "best_offsets", "temperature_of"]

FEWEST_PIXELS = 100
"""A class with fewer pixels in the sample keeps the offset 0: what is best for so few is chance."""

_ROUNDS = 3
_LEAST_GAIN = 1e-4

Counts = NDArray[np.float64]


class _Objective(NamedTuple):
    """IoU or F-beta from hits, predicted and true pixels, as numbers or arrays."""

    hits_weigh: float
    true_weighs: float

    @staticmethod
    def of(choose: Choose, beta: float) -> _Objective:
        # IoU is H / (P + T - H), F-beta (1 + b^2) H / (P + b^2 T).
        return _Objective(-1.0, 1.0) if choose == "iou" else _Objective(0.0, beta**2)

    def __call__(self, hits: Counts, predicted: Counts, true: Counts | float) -> Counts:
        scale = 1.0 if self.hits_weigh else 1 + self.true_weighs
        result: Counts = scale * hits / np.maximum(predicted + self.true_weighs * true + self.hits_weigh * hits, 1e-12)
        return result


def best_offsets(logits: Tensor, labels: Tensor, choose: Choose = "iou", beta: float = 1.0) -> list[float]:
    r"""The offsets b that make the mean IoU or F-beta of :math:`\arg\max_c x_c + b_c` large, over the classes that are there.

    By coordinate ascent: with all other offsets fixed, a pixel goes to class c where b_c is larger than its margin
    :math:`\max_{j \ne c} (x_j + b_j) - x_c`. In the order of the margins the pixels come over one by one, so that the best b_c is found
    among all that there are, between two neighbours. A few rounds over the classes, rare ones first.

    Args:
        logits: (pixels, C) float32.
        labels: (pixels,) ids 0 .. C - 1.
        choose: what is made large.
        beta: of `fbeta`.

    Returns:
        C offsets whose mean is 0; or relative to the classes with fewer than `FEWEST_PIXELS` pixels, which keep 0. All are 0 where that is
        as good on these pixels.
    """
    x, y = logits.numpy(), labels.numpy().astype(np.intp)
    count = x.shape[1]
    true = np.bincount(y, minlength=count).astype(np.float64)
    fitted = [int(c) for c in np.argsort(true, kind="stable") if true[c] >= FEWEST_PIXELS]
    objective = _Objective.of(choose, beta)
    offsets = np.zeros(count, np.float32)
    reached = start = _value(x, y, offsets, true, objective)
    for _ in range(_ROUNDS):
        before = reached
        for c in fitted:
            reached = _improve(x, y, offsets, c, true, objective)
        if reached - before < _LEAST_GAIN:
            break
    if len(fitted) == count:
        offsets -= offsets.mean()
    if _value(x, y, offsets, true, objective) <= start:
        return [0.0] * count
    return [float(offset) for offset in offsets]


def _value(x: NDArray[np.float32], y: NDArray[np.intp], offsets: NDArray[np.float32], true: Counts, objective: _Objective) -> float:
    """The mean figure of the classes that are there."""
    chosen = (x + offsets).argmax(axis=1)
    predicted = np.bincount(chosen, minlength=len(true)).astype(np.float64)
    hits = np.bincount(y[chosen == y], minlength=len(true)).astype(np.float64)
    return float(objective(hits, predicted, true)[true > 0].mean())


def _improve(
    x: NDArray[np.float32], y: NDArray[np.intp], offsets: NDArray[np.float32], c: int, true: Counts, objective: _Objective
) -> float:
    """Set the offset of class c to the best one; returns the mean figure that it reaches."""
    shifted = x + offsets
    shifted[:, c] = -np.inf
    rival = shifted.argmax(axis=1)
    margin = np.take_along_axis(shifted, rival[:, None], axis=1)[:, 0] - x[:, c]
    order = np.argsort(margin)
    margin, rival, label = margin[order], rival[order], y[order]

    # Figures of the class itself after the first k pixels have come over, k = 0 .. pixels.
    own = objective(np.concatenate([[0.0], np.cumsum(label == c)]), np.arange(len(y) + 1.0), true[c])
    lost = np.zeros(len(y) + 1)
    there = true > 0
    groups = np.argsort(rival.astype(np.uint16), kind="stable")
    ends = np.cumsum(np.bincount(rival, minlength=len(true)))
    rest = 0.0
    for k, end in enumerate(ends):
        if k == c or not there[k]:
            continue
        places = groups[ends[k - 1] if k else 0 : end]
        # Of its rivals' pixels those from `places` on are still theirs.
        hits = np.concatenate([[0.0], np.cumsum((label[places] == k)[::-1])])[::-1]
        figures = objective(hits, np.arange(len(places), -1.0, -1.0), true[k])
        lost[places + 1] = np.diff(figures)
        rest += figures[0]
    total = own + rest + np.cumsum(lost)

    free = np.flatnonzero(margin[1:] > margin[:-1]) + 1  # pixels of one margin come over together
    now = int(np.searchsorted(margin, offsets[c]))
    if len(free):
        best = int(free[total[free].argmax()])
        if total[best] > total[now]:
            offsets[c] = (margin[best - 1] + margin[best]) / 2
            now = best
    return float(total[now] / there.sum())


def temperature_of(logits: Tensor, labels: Tensor) -> float:
    r"""The temperature under which the labels are likeliest.

    .. math:: \hat T = \arg\min_T -\sum_i \log \operatorname{softmax}(x_i / T)_{y_i}

    Args:
        logits: (pixels, C).
        labels: (pixels,) ids 0 .. C - 1.

    Returns:
        A number from 1 / 20 to 20.

    Reference:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    x = logits.float() - logits.float().max(dim=1, keepdim=True).values
    of_label = x.gather(1, labels.long()[:, None]).double().sum()

    def slope(inverse: Tensor) -> Tensor:
        expected = ((x * inverse.float()).softmax(dim=1) * x).sum(dim=1).double().sum()
        return (expected - of_label).reshape(1)

    return float(likeliest_temperature(slope, 1))
