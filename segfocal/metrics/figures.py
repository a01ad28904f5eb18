"""Figures as pure functions of counts, computed in float64 on the CPU, since accelerators may lack it; NaN stands for "not defined".

A confusion matrix is C x C (multiclass: rows are the truth, columns the prediction) or C x 2 x 2 (one such matrix for each class
against the rest). A histogram is C x 2 x bins: the scores of each class's negative pixels (0) and positive pixels (1), in bins of
rising score.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outcomes(NamedTuple):
    """Pixels of each class by outcome, float64 of shape (C,)."""

    true_positive: Tensor
    false_positive: Tensor
    false_negative: Tensor
    true_negative: Tensor


def outcomes(confusion: Tensor) -> Outcomes:
    """Each class against the rest.

    Args:
        confusion: int64 counts.

    Shape:
        (C, C) or (C, 2, 2).

    Raises:
        ValueError: of another shape.
    """
    counts = confusion.cpu().double()
    if counts.ndim == 2 and counts.shape[0] == counts.shape[1]:
        hit = counts.diagonal()
        predicted, true = counts.sum(dim=0), counts.sum(dim=1)
        return Outcomes(hit, predicted - hit, true - hit, counts.sum() - predicted - true + hit)
    if counts.ndim == 3 and counts.shape[1:] == (2, 2):
        return Outcomes(counts[:, 1, 1], counts[:, 0, 1], counts[:, 1, 0], counts[:, 0, 0])
    raise ValueError(f"a confusion matrix is C x C or C x 2 x 2, not {tuple(confusion.shape)}")


def iou(confusion: Tensor) -> Tensor:
    """Intersection over union, the Jaccard index: TP / (TP + FP + FN).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN for a class that is absent from prediction and truth.
    """
    tp, fp, fn, _ = outcomes(confusion)
    return tp / (tp + fp + fn)


def iou_micro(confusion: Tensor) -> Tensor:
    """IoU of all classes' pixels taken together: sum TP / sum (TP + FP + FN).

    Frequent classes dominate it; with one class it is that class's IoU.

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        A scalar in [0, 1]; NaN when every class is absent.
    """
    tp, fp, fn, _ = outcomes(confusion)
    return tp.sum() / (tp + fp + fn).sum()


def dice(confusion: Tensor) -> Tensor:
    """The Dice coefficient, that is F1: 2 TP / (2 TP + FP + FN).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN for a class that is absent from prediction and truth.
    """
    tp, fp, fn, _ = outcomes(confusion)
    return 2 * tp / (2 * tp + fp + fn)


def dice_micro(confusion: Tensor) -> Tensor:
    """Dice of all classes' pixels taken together: 2 sum TP / sum (2 TP + FP + FN); for (C, C) that is the accuracy.

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        A scalar in [0, 1]; NaN when all classes are absent.
    """
    tp, fp, fn, _ = outcomes(confusion)
    return 2 * tp.sum() / (2 * tp + fp + fn).sum()


def f_beta(confusion: Tensor, beta: float) -> Tensor:
    """Precision and recall in one, recall beta times as important: (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).
        beta: 1 is Dice.

    Returns:
        (C,) in [0, 1]; NaN for a class that is absent from prediction and truth.

    Reference:
        van Rijsbergen, Information retrieval, 2nd edition (1979), chapter 7.
    """
    tp, fp, fn, _ = outcomes(confusion)
    hits = (1 + beta**2) * tp
    return hits / (hits + beta**2 * fn + fp)


def iou_weighted(confusion: Tensor) -> Tensor:
    """The mean IoU weighted by the pixels that truly are of the classes: sum (TP + FN) IoU / sum (TP + FN).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        A scalar in [0, 1]; NaN where no class has a pixel in the truth.

    Reference:
        Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
    """
    tp, _, fn, _ = outcomes(confusion)
    return ((tp + fn) * iou(confusion).nan_to_num()).sum() / (tp + fn).sum()


def precision(confusion: Tensor) -> Tensor:
    """The share of the pixels predicted as the class that are it: TP / (TP + FP).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN for a class that is never predicted.
    """
    tp, fp, _, _ = outcomes(confusion)
    return tp / (tp + fp)


def recall(confusion: Tensor) -> Tensor:
    """The share of the class's pixels that are found: TP / (TP + FN).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN for a class without a pixel in the truth.
    """
    tp, _, fn, _ = outcomes(confusion)
    return tp / (tp + fn)


def pixel_share(confusion: Tensor) -> Tensor:
    """The share of the valid pixels that truly are the class: (TP + FN) / all.

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN without a valid pixel.
    """
    tp, fp, fn, tn = outcomes(confusion)
    return (tp + fn) / (tp + fp + fn + tn)


def accuracy(confusion: Tensor) -> Tensor:
    """The share of the pixels on which is rightly decided whether they are the class: (TP + TN) / all.

    Of a rare class it is near 1 whatever the model does.

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        (C,) in [0, 1]; NaN without a valid pixel.
    """
    tp, fp, fn, tn = outcomes(confusion)
    return (tp + tn) / (tp + fp + fn + tn)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """The share of right decisions: one a pixel for (C, C), one a pixel and class for (C, 2, 2).

    Args:
        confusion: int64 counts, (C, C) or (C, 2, 2).

    Returns:
        A scalar in [0, 1]; NaN without a valid pixel.
    """
    counts = confusion.cpu().double()
    return counts.diagonal(dim1=-2, dim2=-1).sum() / counts.sum()


def auroc(histogram: Tensor) -> Tensor:
    r"""The area under the ROC curve: how likely a positive pixel outscores a negative one, where a tie counts half.

    .. math:: \frac{1}{P N} \sum_b \mathrm{pos}_b \left( \sum_{a < b} \mathrm{neg}_a + \tfrac{1}{2} \mathrm{neg}_b \right)

    Exact for scores rounded to their bin.

    Args:
        histogram: int64 counts (C, 2, bins), in bins of rising score.

    Returns:
        (C,) in [0, 1]; NaN for a class without a positive or without a negative pixel.

    Reference:
        Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982).
    """
    negative, positive = histogram.cpu().double().unbind(dim=1)
    outscored = negative.cumsum(dim=1) - negative / 2
    return (positive * outscored).sum(dim=1) / (positive.sum(dim=1) * negative.sum(dim=1))


def average_precision(histogram: Tensor) -> Tensor:
    r"""The precision at each positive pixel's own score, averaged over the positive pixels.

    .. math:: \frac{1}{P} \sum_b \mathrm{pos}_b \frac{\sum_{a \ge b} \mathrm{pos}_a}{\sum_{a \ge b} \mathrm{pos}_a + \mathrm{neg}_a}

    Exact for scores rounded to their bin. The scores in a bin are one tie, as torchmetrics and scikit-learn treat ties. To read them as
    spread over the bin would be nearer for float32 logits, but far off for bfloat16 logits, which are ties in fact.

    Args:
        histogram: int64 counts (C, 2, bins), in bins of rising score.

    Returns:
        (C,) in [0, 1]; NaN for a class without a positive pixel.

    Reference:
        Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006.
    """
    negative, positive = histogram.cpu().double().flip(dims=(2,)).unbind(dim=1)
    found, false = positive.cumsum(dim=1), negative.cumsum(dim=1)
    precision_at = found / (found + false).clamp(min=1)
    return (positive * precision_at).sum(dim=1) / positive.sum(dim=1)
