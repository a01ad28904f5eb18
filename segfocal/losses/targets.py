"""What a loss is given, brought into one shape and checked: the calling convention of every loss stands here.

| mode | logits | target |
| --- | --- | --- |
| binary | (N, 1, H, W) | (N, H, W) or (N, 1, H, W) of 0 and 1 |
| multiclass | (N, C, H, W) | (N, H, W) or (N, 1, H, W) of ids 0 .. C-1 |
| multilabel | (N, C, H, W) | (N, C, H, W) of 0 and 1 |

Any number of spatial axes will do. Shape suffixes: N images, C classes, H and W space, K = 1 or, in multilabel, C.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from segfocal.config.task import Mode


class Labels(NamedTuple):
    """A target as the losses want it, int64, 0 where ignored; and which of its elements count."""

    target_NKHW: Tensor
    valid_NKHW: Tensor


def align(mode: Mode, logits_NCHW: Tensor, target: Tensor, ignore_index: int | None) -> Labels:
    """Give the target the axes of the logits, and part what counts from what is ignored.

    Args:
        mode: binary, multiclass or multilabel.
        logits_NCHW: the model's raw output.
        target: labels of any integer type, bool, or whole numbers held as floats.
        ignore_index: the label of elements that do not count, wherever they lie; in multilabel it is set for each class on its own.

    Raises:
        ValueError: for integer logits, for shapes that do not go together, and on the CPU for labels out of range. On other devices
            looking for these would wait for the device in every step; the data pipeline has looked already.
    """
    _check_shapes(mode, logits_NCHW, target)
    # A uint8 tensor compares modulo 256: an ignore_index of -1 would hit the label 255.
    labels = target if target.is_floating_point() else target.long()
    if mode != "multilabel" and labels.dim() < logits_NCHW.dim():
        labels = labels.unsqueeze(1)
    valid = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    labels = labels.masked_fill(~valid, 0)
    if labels.device.type == "cpu":
        _check_labels(mode, labels, logits_NCHW.shape[1] if mode == "multiclass" else 2, ignore_index)
    return Labels(labels.long(), valid)


def check_mode(mode: str) -> None:
    """Raise ValueError for what is no mode."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r}: choose one of {', '.join(get_args(Mode))}")


def _check_shapes(mode: Mode, logits: Tensor, target: Tensor) -> None:
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, the model's raw output; given {logits.dtype}")
    shape, given = tuple(logits.shape), tuple(target.shape)
    if len(shape) < 2:
        raise ValueError(f"mode={mode} needs logits of shape (N, C, H, W); given {shape} with a target of {given}")
    if mode == "binary" and shape[1] != 1:
        raise ValueError(f"mode=binary needs logits with one channel, (N, 1, H, W); given {shape} with a target of {given}")
    if mode == "multiclass" and shape[1] < 2:
        raise ValueError(f"mode=multiclass needs logits with two channels or more; given {shape} with a target of {given}")
    fitting = [shape] if mode == "multilabel" else [shape[:1] + shape[2:], (shape[0], 1, *shape[2:])]
    if given not in fitting:
        raise ValueError(f"mode={mode}: logits of {shape} need a target of {' or '.join(map(str, fitting))}; given {given}")


def _check_labels(mode: Mode, labels: Tensor, num_ids: int, ignore_index: int | None) -> None:
    if labels.numel() == 0:
        return
    lowest, highest = labels.aminmax()
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    if whole and lowest >= 0 and highest < num_ids:
        return
    wrong = sorted(set(labels[~((labels >= 0) & (labels < num_ids) & (labels == labels.round()))].tolist()))
    found = ", ".join(f"{label:g}" for label in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    ignored = "no ignore_index is set" if ignore_index is None else f"ignore_index={ignore_index}"
    raise ValueError(f"the target holds {found}; mode={mode} takes 0 to {num_ids - 1} here, and {ignored}")
