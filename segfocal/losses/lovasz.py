"""The Lovász losses: a convex surrogate of the Jaccard index."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfocal.config.loss_overlap import LovaszConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import reduce
from segfocal.losses.targets import align, check_mode
from segfocal.registry import LOSSES


class LovaszLoss(nn.Module):
    """Lovász loss: of sorted errors m_1 >= m_2 >= ..., the sum of what each adds to the Jaccard loss,

        sum_i m_i (J_i - J_{i-1})        J_i = 1 - IoU where the i largest errors are mistakes

    with errors max(0, 1 - (2y - 1) x) in binary and multilabel (the Lovász hinge), and |y_c - p_c| of a softmax in multiclass
    (Lovász-Softmax, the mean over the classes that are there). Each is a term of its own: a class in multilabel, and with `per_image`
    an image; the mean is over the terms that have anything but ignored pixels.

    What is ignored has no error: sorted last, it adds nothing. So no shape depends on the labels, and no accelerator is waited for. SMP
    cuts the ignored out; besides, in multilabel it sorts all classes as one; a multiclass batch without a valid pixel gives it an empty
    tensor instead of 0, and an error with `per_image`, where ignored images also thin the mean of the others; and the softmax's
    gradient is NaN beneath ignored NaNs.

    In distributed training every process sorts what it has, and the mean is over the terms of all: not the loss of one large batch.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        per_image: a term for each image, and not for the batch.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); all precisions are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar, >= 0; 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, and on the CPU for labels out of range.

    Reference:
        Berman et al., The Lovász-Softmax loss, arXiv 1705.08790, section 3 and algorithm 1; the hinge: Yu and Blaschko,
        arXiv 1512.07797.
    """

    def __init__(self, mode: Mode, per_image: bool = False, ignore_index: int | None = None) -> None:
        super().__init__()
        check_mode(mode)
        self.mode = mode
        self.per_image = LovaszConfig(per_image=per_image).per_image
        self.ignore_index = ignore_index

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        valid_NKP = labels.valid_NKHW.unsqueeze(-1).flatten(2)
        logits_NCP = clean(logits_NCHW, labels.valid_NKHW).float().unsqueeze(-1).flatten(2)
        target_NKP = labels.target_NKHW.unsqueeze(-1).flatten(2)
        if self.mode == "multiclass":
            truth_NCP = valid_NKP & (target_NKP == torch.arange(logits_NCP.shape[1], device=target.device)[:, None])
            errors_NCP = (truth_NCP.float() - logits_NCP.softmax(1)).abs()
        else:
            truth_NCP = valid_NKP & (target_NKP != 0)
            errors_NCP = (1 - torch.where(truth_NCP, logits_NCP, -logits_NCP)).relu()
        errors_NCP = torch.where(valid_NKP, errors_NCP, 0.0)
        if not self.per_image:  # all images are one
            errors_NCP, truth_NCP, valid_NKP = (each.transpose(0, 1).flatten(1)[None] for each in (errors_NCP, truth_NCP, valid_NKP))
        value_NC = jaccard(errors_NCP, truth_NCP)
        if self.mode == "multiclass":
            there_NC = truth_NCP.any(2)
            value_NC = torch.where(there_NC, value_NC, 0.0).sum(1, keepdim=True) / there_NC.sum(1, keepdim=True).clamp_min(1)
        return reduce(value_NC.flatten(), valid_NKP.any(2).flatten(), "mean")

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, per_image={self.per_image}, ignore_index={self.ignore_index}"


def jaccard(errors_NCP: Tensor, truth_NCP: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss: sums (N, C) over errors >= 0 of pixels, those of label 1 by `truth`."""
    errors_NCP, order_NCP = errors_NCP.sort(dim=2, descending=True)
    return (errors_NCP * _steps(truth_NCP.gather(2, order_NCP))).sum(2)


def _steps(truth_NCP: Tensor) -> Tensor:
    """What each mistake, one after the other, adds to 1 - I / U,

        1 / U              on a pixel of label 1, which leaves the intersection I
        I / (U (U - 1))    on one of label 0, which joins the union U; the first one where there is no label 1 adds all, 1

    with I and U after it. From counts: of the difference of two losses near 1, single precision has no digit left among millions.
    """
    found_NCP = truth_NCP.cumsum(2, dtype=torch.int32)
    positives_NC1 = found_NCP[..., -1:]
    union_NCP = torch.arange(1, truth_NCP.shape[2] + 1, dtype=torch.int32, device=truth_NCP.device) + (positives_NC1 - found_NCP)
    share_NCP = (positives_NC1 - found_NCP) / (union_NCP - 1)
    return share_NCP.masked_fill(truth_NCP | (union_NCP == 1), 1.0) / union_NCP


@LOSSES.builder(LovaszConfig)
def build(config: LovaszConfig, task: TaskConfig) -> LovaszLoss:
    """The Lovász loss that a configuration describes."""
    return LovaszLoss(task.name, config.per_image, task.ignore_index)
