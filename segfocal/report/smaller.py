"""A picture and its labels, no larger than it is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segfocal.config.task import TaskConfig

Array = NDArray[Any]


def smaller(image: Array, truth: Array, prediction: Array, task: TaskConfig, size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Colours are mixed. An area of labels becomes the rarest of them, or else a crack of one pixel would vanish.

    Args:
        image: (H, W, 3) uint8.
        truth, prediction: class ids (H, W), or 0/1 (H, W, C) for binary and multilabel; from `task.num_ids` on they count nowhere, and
            give way to all others.
        task: says the classes.
        size: width and height of the result, at most those of the image; where they are the same, so is all else.
    """
    if size == image.shape[1::-1]:
        return image, truth, prediction
    mixed = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    truth, prediction = (np.minimum(labels, task.num_ids) for labels in (truth, prediction))
    order = _order(truth, prediction, task)
    ranks = np.argsort(order).astype(np.uint8)
    return mixed, order[_highest(ranks[truth], size)], order[_highest(ranks[prediction], size)]


def counts_of(ids: Array, task: TaskConfig) -> Array:
    """Pixels of each class, of class ids (H, W) uint8; numpy's `bincount` would take eight bytes for each pixel."""
    return np.array(Image.fromarray(ids).histogram()[: task.num_classes])


def _order(truth: Array, prediction: Array, task: TaskConfig) -> Array:
    """What counts nowhere, then the labels from the one that gives way to the one that stays."""
    ids = np.arange(task.num_ids)
    if task.name == "multiclass":
        ids = np.argsort(-(counts_of(truth, task) + counts_of(prediction, task)), kind="stable")
    return np.array([task.num_ids, *ids], np.uint8)


def _highest(ranks: Array, size: tuple[int, int]) -> Array:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size[::-1], ranks.shape[:2], strict=True))
    highest: Array = np.maximum.reduceat(np.maximum.reduceat(ranks, rows, axis=0), columns, axis=1)
    return highest
