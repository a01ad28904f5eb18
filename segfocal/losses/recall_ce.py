"""Cross-entropy in which every class weighs what it misses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfocal.config.loss_entropy import RecallCrossEntropyConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import over_processes
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import per_channel
from segfocal.registry import LOSSES


class RecallCrossEntropyLoss(nn.Module):
    """Recall loss, cross-entropy weighed with the share that each class misses in the batch,

        sum_c (1 - R_c) sum_{y = c} -log p_c / n        R_c = pixels of c whose largest logit is c / pixels of c

    with n the pixels that are not ignored. The weights carry no gradient, and a class without a pixel has no term. A batch in which
    every pixel is right has a loss of 0. Recall, sums and n are those of all processes.

    Args:
        mode: `multiclass`.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W).
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: for another mode, shapes that do not go together, integer logits, and on the CPU for labels out of range.

    Reference:
        Tian et al., Striking the Right Balance: Recall Loss for Semantic Segmentation, arXiv 2106.14917. The authors' code
        counts ignored pixels as ones of class 1; here they count nowhere.
    """

    def __init__(self, mode: Mode = "multiclass", ignore_index: int | None = None) -> None:
        super().__init__()
        check_mode(mode)
        if problems := RecallCrossEntropyConfig().problems(TaskConfig(name=mode)):
            raise ValueError("; ".join(problems))
        self.mode = mode
        self.ignore_index = ignore_index

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        terms = F.cross_entropy(logits, labels.target_NKHW.squeeze(1), reduction="none").unsqueeze(1)
        of_class = labels.target_NKHW == per_channel(torch.arange(logits.shape[1], device=logits.device), logits)
        of_class = of_class & labels.valid_NKHW
        missed = of_class & (logits.argmax(1, keepdim=True) != labels.target_NKHW)
        axes = [axis for axis in range(logits.dim()) if axis != 1]
        parts = [torch.where(of_class, terms, 0.0).sum(axes), missed.sum(axes), of_class.sum(axes)]
        # one stack, which has a gradient, so that the counts are summed over the processes with it
        sum_C, missed_C, pixels_C = over_processes(torch.stack([part.to(logits.dtype) for part in parts]))
        weight_C = (missed_C / pixels_C.clamp_min(1)).detach()
        return torch.div((weight_C * sum_C).sum(), pixels_C.sum().detach().clamp_min(1))

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, ignore_index={self.ignore_index}"


@LOSSES.builder(RecallCrossEntropyConfig)
def build(config: RecallCrossEntropyConfig, task: TaskConfig) -> RecallCrossEntropyLoss:
    """The recall loss."""
    return RecallCrossEntropyLoss(task.name, task.ignore_index)
