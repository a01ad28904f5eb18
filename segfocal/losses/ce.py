"""Cross-entropy: over a softmax for one class a pixel, binary where every class decides for itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfocal.config.loss_entropy import CrossEntropyConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import count, reduce
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import ClassWeights, numbers, per_channel
from segfocal.registry import LOSSES


class CrossEntropyLoss(nn.Module):
    """Cross-entropy, -w_t log p_t, the mean over what is not ignored.

    Means are torch's: in multiclass over the sum of w_t, in binary and multilabel over the labels.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        class_weights: one weight >= 0 for each class: multiclass w_c on pixels of class c; binary and multilabel w_c on positives of
            class c and 1 on negatives (torch's `pos_weight`). None: 1 everywhere.
        label_smoothing: e in [0, 1): labels become (1 - e) y + e / C, and (1 - e) y + e / 2 where classes decide for themselves.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; 0 where everything is ignored, or all pixels are of classes without weight.

    Raises:
        ValueError: for shapes that do not go together, integer logits, as many weights as there are not channels, and on the CPU for
            labels out of range.

    Reference:
        torch.nn.functional.cross_entropy and binary_cross_entropy_with_logits, which give NaN where nothing has a weight, or know no
        ignore_index. Label smoothing: Szegedy et al., arXiv 1512.00567, section 7.
    """

    def __init__(
        self,
        mode: Mode,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = CrossEntropyConfig(class_weights=class_weights, label_smoothing=label_smoothing)
        self.mode = mode
        self.label_smoothing = config.label_smoothing
        self.ignore_index = ignore_index
        self.class_weights = ClassWeights(numbers(class_weights))

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        weight_C = self.class_weights(logits)
        if self.mode == "multiclass":
            ids = labels.target_NKHW
            terms = F.cross_entropy(logits, ids.squeeze(1), weight_C, reduction="none", label_smoothing=self.label_smoothing).unsqueeze(1)
            weight = None if weight_C is None else weight_C[ids] * labels.valid_NKHW
            count_N = count("weights", labels, logits.shape[1], weight_NCHW=weight)
        else:
            soft = labels.target_NKHW.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
            positive_weight = None if weight_C is None else per_channel(weight_C, logits)
            terms = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=positive_weight, reduction="none")
            count_N = count("elements", labels, logits.shape[1])
        return reduce(torch.where(labels.valid_NKHW, terms, 0.0).flatten(1).sum(1), count_N, "mean", empty=math.inf)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, label_smoothing={self.label_smoothing}, ignore_index={self.ignore_index}"


@LOSSES.builder(CrossEntropyConfig)
def build(config: CrossEntropyConfig, task: TaskConfig) -> CrossEntropyLoss:
    """The cross-entropy that a configuration describes."""
    return CrossEntropyLoss(task.name, numbers(config.class_weights), config.label_smoothing, task.ignore_index)
