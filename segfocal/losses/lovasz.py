"""The Lovász losses: a convex surrogate of the Jaccard index, by way of segmentation_models_pytorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfocal.config.loss_overlap import LovaszConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import reduce
from segfocal.losses.targets import align, check_mode
from segfocal.registry import LOSSES

IGNORED = -1  # what SMP is told to leave out: no label has this value


class LovaszLoss(nn.Module):
    """Lovász loss: of sorted errors m_1 >= m_2 >= ..., the sum of what each adds to the Jaccard loss,

        sum_i m_i (J_i - J_{i-1})        J_i = 1 - IoU where the i largest errors are mistakes

    with errors max(0, 1 - (2y - 1) x) in binary and multilabel (the Lovász hinge), and |y_c - p_c| of a softmax in multiclass
    (Lovász-Softmax, the mean over the classes that are there). Each is a term of its own: a class in multilabel, and with `per_image`
    an image; the mean is over the terms that have anything but ignored pixels.

    The sorting and the sums are SMP's. What it gets wrong is kept from it: in multilabel it sorts all classes as one; a multiclass batch
    without a valid pixel gives it an empty tensor instead of 0, and an error with `per_image`, where ignored images also thin the mean
    of the others; the softmax's gradient is NaN beneath ignored NaNs; one axis of space is taken for two; and only fp32 works, so fp64
    is computed in fp32 as well.

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
        from segmentation_models_pytorch.losses import LovaszLoss as Sorted  # here: seconds that the other losses do not need

        check_mode(mode)
        self.mode = mode
        self.per_image = LovaszConfig(per_image=per_image).per_image
        self.ignore_index = ignore_index
        self.sorted = Sorted("multiclass" if mode == "multiclass" else "binary", ignore_index=None if ignore_index is None else IGNORED)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        # two axes of space whatever there were: SMP takes three axes for (N, H, W)
        logits = clean(logits_NCHW, labels.valid_NKHW).float().unsqueeze(-1).flatten(2).unsqueeze(-1)
        ids = torch.where(labels.valid_NKHW, labels.target_NKHW, IGNORED)
        images = [slice(i, i + 1) for i in range(len(logits))] if self.per_image and len(logits) else [slice(None)]
        classes = [slice(c, c + 1) for c in range(ids.shape[1])]  # one in multiclass, which has all of its logits
        terms = [
            (logits[i] if self.mode == "multiclass" else logits[i, c], ids[i, c], labels.valid_NKHW[i, c]) for i in images for c in classes
        ]
        # sum: of the one value there is, and of none where SMP gives back an empty tensor
        value_T = torch.stack([self.sorted(scores, truth.squeeze(1)).sum() for scores, truth, _ in terms])
        return reduce(value_T, torch.stack([valid.any() for _, _, valid in terms]), "mean")

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, per_image={self.per_image}, ignore_index={self.ignore_index}"


@LOSSES.builder(LovaszConfig)
def build(config: LovaszConfig, task: TaskConfig) -> LovaszLoss:
    """The Lovász loss that a configuration describes."""
    return LovaszLoss(task.name, config.per_image, task.ignore_index)
