"""The soft Dice loss: overlap instead of pixels, so that the size of a class does not matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfocal.config.loss import DiceConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import over_processes
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import per_channel
from segfocal.registry import LOSSES


class DiceLoss(nn.Module):
    """Soft Dice loss, the mean over classes of

        1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)        sums over all pixels of the batch that are not ignored

    The sums run over the batch and not over each image: in most images of a rare class it has no pixel at all.
    SMP's DiceLoss is exactly 0, with a gradient of 0, for a class without a pixel in the batch, so false positives on empty masks go
    unpunished; here the smoothing s makes them s / (sum(p) + s) below perfection. It also multiplies ignored pixels by 0, which
    leaves the NaN of a NaN; here they are replaced.

    Args:
        mode: `binary`, `multiclass` (probabilities from a softmax) or `multilabel` (from sigmoids, as in binary).
        smooth: s > 0, in pixels; SMP 0.6 adds twice what it calls `smooth`.
        include_background: whether class 0 counts in multiclass.
        ignore_index: the label of what does not count: no part in any sum, and a gradient of exactly 0, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar in [0, 1); 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, and on the CPU for labels out of range.

    Reference:
        Milletari et al., V-Net, arXiv 1606.04797, section 3, with plain sums in the denominator.
    """

    def __init__(self, mode: Mode, smooth: float = 1.0, include_background: bool = True, ignore_index: int | None = None) -> None:
        super().__init__()
        check_mode(mode)
        config = DiceConfig(smooth=smooth, include_background=include_background)
        if problems := config.problems(TaskConfig(name=mode)):
            raise ValueError("; ".join(problems))
        self.mode = mode
        self.smooth = config.smooth
        self.include_background = config.include_background
        self.ignore_index = ignore_index

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        if self.mode == "multiclass":
            probability = logits.softmax(1)
            truth = labels.target_NKHW == per_channel(torch.arange(logits.shape[1], device=logits.device), logits)
        else:
            probability = logits.sigmoid()
            truth = labels.target_NKHW == 1
        probability = torch.where(labels.valid_NKHW, probability, 0.0)
        truth = truth & labels.valid_NKHW

        pixels = [axis for axis in range(logits.dim()) if axis != 1]
        overlap_C = torch.where(truth, probability, 0.0).sum(pixels)
        total_C = probability.sum(pixels) + truth.sum(pixels)
        overlap_C, total_C = over_processes(torch.stack([overlap_C, total_C]))
        dice_C = (2 * overlap_C + self.smooth) / (total_C + self.smooth)
        loss_C: Tensor = 1 - dice_C if self.include_background else 1 - dice_C[1:]
        return loss_C.mean()

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, smooth={self.smooth}, include_background={self.include_background}, ignore_index={self.ignore_index}"


@LOSSES.builder(DiceConfig)
def build(config: DiceConfig, task: TaskConfig) -> DiceLoss:
    """The Dice loss that a configuration describes."""
    return DiceLoss(task.name, config.smooth, config.include_background, task.ignore_index)
