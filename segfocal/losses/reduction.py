"""From one value a label to one value a batch, with the denominator called by its name: others divide by different things under "mean"."""

from __future__ import annotations

import torch
from torch import Tensor

from segfocal.config.loss import Denominator, Reduction
from segfocal.losses.targets import Labels


def reduce(terms_NKHW: Tensor, count_N: Tensor, reduction: Reduction) -> Tensor:
    """Reduce values to a number.

        sum               sum over everything
        mean              sum over everything / sum of the images' counts
        batchwise_mean    sum over images of (sum over the image / its count)
        none              the values as they are

    Args:
        terms_NKHW: values, 0 where ignored.
        count_N: what each image brings to the denominator, see `count`. A denominator of 0 is taken as 1: nothing to learn from is 0
            and not NaN, and false positives count although there is no positive.
        reduction: one of the above.

    Returns:
        A scalar, attached to the graph; for `none` the values.
    """
    if reduction == "none":
        return terms_NKHW
    if reduction == "sum":
        return terms_NKHW.sum()
    if reduction == "mean":
        return terms_NKHW.sum() / _or_one(count_N.sum())
    return (terms_NKHW.flatten(1).sum(1) / _or_one(count_N)).sum()


def count(denominator: Denominator, labels: Labels, classes: int, weight_NCHW: Tensor | None) -> Tensor:
    """What each image brings to the denominator of a mean; only what is not ignored counts.

        pixels       pixels, in multilabel those with a class that is not ignored
        elements     labels decided on: pixels times the classes that are decided one by one
        weights      the sum of the weights over the elements; without weights the elements
        positives    labels other than 0: positives, and in multiclass the pixels of any class but the background

    Args:
        denominator: one of the above.
        labels: from `align`.
        classes: how many values stand behind one label: C for multiclass one against the rest, else 1.
        weight_NCHW: the weight of every value, 0 where ignored.

    Returns:
        Shape (N,).
    """
    if denominator == "pixels":
        return labels.valid_NKHW.any(1, keepdim=True).flatten(1).sum(1)
    if denominator == "positives":
        return (labels.target_NKHW > 0).flatten(1).sum(1)  # 0 where ignored
    if denominator == "weights" and weight_NCHW is not None:
        return weight_NCHW.flatten(1).sum(1)
    return labels.valid_NKHW.flatten(1).sum(1) * classes


def _or_one(count: Tensor) -> Tensor:
    return torch.where(count > 0, count, 1)
