"""What a loss is given, brought into one shape and checked: the calling convention of every loss stands here.

| mode | logits | target |
| --- | --- | --- |
| binary | (N, 1, H, W) | (N, H, W) or (N, 1, H, W) of 0 and 1 |
| multiclass | (N, C, H, W) | (N, H, W) or (N, 1, H, W) of ids 0 .. C-1; one-hot or soft: (N, C, H, W) of floats, summing to 1 over C |
| multilabel | (N, C, H, W) | (N, C, H, W) of 0 and 1 |

Any number of spatial axes will do, none too. Shape suffixes: N images, C classes, H and W space, K = 1 or, in multilabel, C.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from segfocal.config.task import Mode
from segfocal.losses.labelcheck import label_range_error, out_of_range, watch


class Labels(NamedTuple):
    """A target as given, with the axes of the logits.

    Args:
        mode: binary, multiclass or multilabel.
        raw_NKHW: labels of any type, ignored ones among them; in multiclass (N, C, H, W) where they are soft.
        num_ids: how many label values there are, 0 .. num_ids - 1.
        ignore_index: the label of what does not count.
        soft: whether floats between 0 and 1 are labels.
    """

    mode: Mode
    raw_NKHW: Tensor
    num_ids: int
    ignore_index: int | None = None
    soft: bool = False

    @property
    def far(self) -> bool:
        """Whether looking at the labels would make the host wait: wrong ones are told later, and have to be lived with until then."""
        return self.raw_NKHW.device.type != "cpu"

    @property
    def valid_NKHW(self) -> Tensor:
        """Which labels count; for soft multiclass labels (N, 1, H, W), a pixel being ignored where any of its labels is."""
        if self.ignore_index is None:
            shape = self.raw_NKHW[:, :1].shape if self.distribution else self.raw_NKHW.shape
            return torch.ones(shape, dtype=torch.bool, device=self.raw_NKHW.device)
        valid = self.raw_NKHW != self.ignore_index
        return valid.all(1, keepdim=True) if self.distribution else valid

    @property
    def target_NKHW(self) -> Tensor:
        """Labels, 0 where ignored: int64, or floats where they are soft. Where nobody has looked at them yet, held in their range: as
        an index out of it, a wrong one would end the process on a GPU before it is told."""
        clean = self.raw_NKHW if self.ignore_index is None else torch.where(self.valid_NKHW, self.raw_NKHW, 0)
        if not self.soft:
            return clean.long().clamp(0, self.num_ids - 1) if self.far else clean.long()
        return clean if clean.is_floating_point() else clean.float()

    @property
    def distribution(self) -> bool:
        """Whether every pixel has a number for each of exclusive classes."""
        return self.soft and self.mode == "multiclass"

    def smoothed(self, share: float, classes: int) -> Labels:
        """Soft labels, (1 - share) y + share / C, of a softmax."""
        self.check()
        truth = self.target_NKHW
        if not self.soft:
            shape = (1, classes, *[1] * (truth.dim() - 2))
            truth = (truth == torch.arange(classes, device=truth.device).reshape(shape)).float()
        soft = truth * (1 - share) + share / classes
        if self.ignore_index is not None:
            soft = torch.where(self.valid_NKHW, soft, self.ignore_index)
        return Labels(self.mode, soft, 2, self.ignore_index, soft=True)

    def check(self) -> Labels:
        """Look for labels out of range; see `align` for when they are told."""
        if self.far:
            wrong = out_of_range(self.raw_NKHW, self.num_ids, self.soft)
            self.check_counted((wrong & self.valid_NKHW).sum())
        else:
            self.check_counted(torch.ones(()))
        return self

    def check_counted(self, wrong: Tensor) -> None:
        """Tell of labels out of range where somebody has counted them."""
        if torch.compiler.is_compiling():
            return
        if self.far:
            watch(wrong.sum(), self.mode, self.num_ids, self.ignore_index)
        elif wrong.any() and (error := label_range_error(self.mode, self.raw_NKHW, self.num_ids, self.ignore_index, self.soft)):
            raise ValueError(error)


def align(mode: Mode, logits_NCHW: Tensor, target: Tensor, ignore_index: int | None, soft: bool = False) -> Labels:
    """Give the target the axes of the logits, and look whether they go together.

    Args:
        mode: binary, multiclass or multilabel.
        logits_NCHW: the model's raw output.
        target: labels of any integer type, bool, or floats.
        ignore_index: the label of elements that do not count, wherever they lie; in multilabel it is set for each class on its own.
        soft: whether the loss takes floats between 0 and 1, and in multiclass one-hot targets.

    Returns:
        Labels, not looked at: `check` does, and the fused losses on their way.

    Raises:
        ValueError: for integer logits, and for shapes that do not go together.
    """
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):
        target = target.long()  # torch stores these, as they come from PNGs, and compares next to nothing of them
    if target.dtype in (torch.uint8, torch.int8) and ignore_index is not None:
        info = torch.iinfo(target.dtype)
        if not info.min <= ignore_index <= info.max:
            target = target.long()  # one byte compares modulo 256: an ignore_index of -1 would hit the label 255
    per_class = soft and mode == "multiclass" and target.shape == logits_NCHW.shape
    _check_shapes(mode, logits_NCHW, target, soft)
    if per_class and ignore_index in (0, 1):
        raise ValueError(f"ignore_index={ignore_index} is a value of one-hot targets, too: give class ids, or another ignore_index")
    if not per_class and mode != "multilabel" and target.dim() < logits_NCHW.dim():
        target = target.unsqueeze(1)
    num_ids = logits_NCHW.shape[1] if mode == "multiclass" and not per_class else 2
    return Labels(mode, target, num_ids, ignore_index, per_class or (soft and mode != "multiclass" and target.is_floating_point()))


def check_mode(mode: str) -> None:
    """Raise ValueError for what is no mode."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r}: choose one of {', '.join(get_args(Mode))}")


def _check_shapes(mode: Mode, logits: Tensor, target: Tensor, soft: bool) -> None:
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
    if soft and mode == "multiclass":
        fitting.append(shape)
    if given not in fitting:
        raise ValueError(f"mode={mode}: logits of {shape} need a target of {' or '.join(map(str, fitting))}; given {given}")
