"""Cross-entropy of the hardest pixels alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfocal.config.loss_entropy import OhemConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import reduce
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES

UNIT = 10**9  # of the share that is kept


class OhemCrossEntropyLoss(nn.Module):
    """Cross-entropy with online hard example mining, the mean of w_t * -log p_t over the labels that are hard,

        p_t < threshold, or p_t among the lowest `keep` of what is not ignored

    in multiclass pixels, in binary and multilabel the labels of all classes together. Labels as hard as the last that is kept are kept
    too. The lowest are taken from the batch of one process; sum and number of the mean are those of all.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        threshold: in (0, 1).
        keep: in (0, 1]; 1 is cross-entropy.
        class_weights: one weight >= 0 for each class: multiclass on pixels of the class; binary and multilabel on its positives. They
            have no part in what is hard, nor in the number. None: 1.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, as many weights as there are not channels, and on the CPU for
            labels out of range.

    Reference:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, arXiv 1604.03540; for pixels, with a
        threshold and a least number: Wu et al., arXiv 1605.06885.
    """

    def __init__(
        self,
        mode: Mode,
        threshold: float = 0.7,
        keep: float = 0.1,
        class_weights: list[float] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        self.mode = mode
        self.config = OhemConfig(threshold=threshold, keep=keep, class_weights=class_weights)
        self.ignore_index = ignore_index
        self.class_weights = ClassWeights(self.config.class_weights)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        truth = labels.target_NKHW
        logits = clean(logits_NCHW, labels.valid_NKHW)
        weight_C = self.class_weights(logits)
        if self.mode == "multiclass":
            terms = F.cross_entropy(logits, truth.squeeze(1), reduction="none").unsqueeze(1)
            weight = None if weight_C is None else weight_C[truth]
        else:
            terms = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
            weight = None if weight_C is None else torch.where(truth == 1, per_channel(weight_C, logits), 1.0)
        hard = self._hard(terms.detach(), labels.valid_NKHW)
        weighed = terms if weight is None else weight * terms
        return reduce(torch.where(hard, weighed, 0.0).flatten(1).sum(1), hard.flatten(1).sum(1), "mean")

    def _hard(self, terms: Tensor, valid: Tensor) -> Tensor:
        """Which labels count; by a sorted copy, as neither their number nor a mask's is known without waiting for the GPU."""
        terms = torch.where(valid, terms, -math.inf)
        # In integers, as there are accelerators without fp64, and a little less: 0.7 of ten is 7, and not what rounding makes of it.
        share = round(self.config.keep * UNIT)
        count = valid.sum()
        least = ((count * share - count // 2 - UNIT // 1_000_000 + UNIT - 1) // UNIT).clamp_min(1)
        # padded, so that there is a last of no labels, too
        last = F.pad(terms.flatten(), (0, 1), value=-math.inf).sort(descending=True).values.index_select(0, least.reshape(1) - 1)
        return valid & ((terms > -math.log(self.config.threshold)) | (terms >= last))

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, threshold={self.config.threshold}, keep={self.config.keep}, ignore_index={self.ignore_index}"


@LOSSES.builder(OhemConfig)
def build(config: OhemConfig, task: TaskConfig) -> OhemCrossEntropyLoss:
    """The cross-entropy of hard pixels that a configuration describes."""
    return OhemCrossEntropyLoss(task.name, config.threshold, config.keep, config.class_weights, task.ignore_index)
