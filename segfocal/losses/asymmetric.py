"""The asymmetric loss: a focal loss that is harder on easy negatives than on easy positives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfocal.config.loss_entropy import AsymmetricConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean, focal_terms
from segfocal.losses.reduction import count, reduce
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES


class AsymmetricLoss(nn.Module):
    """Asymmetric loss, the mean over the labels that are not ignored of

        positives    w_c (1 - p)^gamma_positive * -log p
        negatives    p_m^gamma_negative * -log(1 - p_m)        p_m = max(p - m, 0), so that none costs more than -log m

    The original takes the sum; here it is the mean, as everywhere.

    Args:
        mode: `binary` or `multilabel`: a sigmoid for each class.
        gamma_positive: >= 0.
        gamma_negative: >= 0.
        clip: m in [0, 1): negatives with p <= m have a value and a gradient of exactly 0.
        class_weights: w_c >= 0, one for each class. None: 1.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W) in binary; (N, C, H, W) in multilabel.
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: for multiclass, shapes that do not go together, integer logits, as many weights as there are not channels, and on
            the CPU for labels out of range.

    Reference:
        Ridnik et al., Asymmetric Loss For Multi-Label Classification, arXiv 2009.14119, section 2.
    """

    def __init__(
        self,
        mode: Mode,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        class_weights: list[float] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = AsymmetricConfig(gamma_positive=gamma_positive, gamma_negative=gamma_negative, clip=clip, class_weights=class_weights)
        if problems := config.problems(TaskConfig(name=mode)):
            raise ValueError("; ".join(problems))
        self.mode = mode
        self.config = config
        self.ignore_index = ignore_index
        self.class_weights = ClassWeights(config.class_weights)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        positive = focal_terms(logits, self.config.gamma_positive)[0]
        weight_C = self.class_weights(logits)
        if weight_C is not None:
            positive = per_channel(weight_C, logits) * positive
        terms = torch.where(labels.target_NKHW == 1, positive, self._negative(logits))
        sum_N = torch.where(labels.valid_NKHW, terms, 0.0).flatten(1).sum(1)
        return reduce(sum_N, count("elements", labels, logits.shape[1]), "mean")

    def _negative(self, logits: Tensor) -> Tensor:
        gamma, clip = self.config.gamma_negative, self.config.clip
        if clip == 0:
            return focal_terms(-logits, gamma)[0]
        beyond = logits.sigmoid() - clip
        counts = beyond > 0
        beyond = torch.where(counts, beyond, 0.5)  # before the power, whose slope may be infinite at 0
        # 1 - p_m as q + m: p - m, where p rounds to 1, has lost most digits of m, and all of one below 6e-8
        rest = (-logits).sigmoid() + max(clip, torch.finfo(logits.dtype).tiny)
        return torch.where(counts, beyond**gamma * -rest.log(), 0.0)

    def extra_repr(self) -> str:
        config = self.config
        powers = f"gamma_positive={config.gamma_positive}, gamma_negative={config.gamma_negative}"
        return f"mode={self.mode!r}, {powers}, clip={config.clip}, ignore_index={self.ignore_index}"


@LOSSES.builder(AsymmetricConfig)
def build(config: AsymmetricConfig, task: TaskConfig) -> AsymmetricLoss:
    """The asymmetric loss that a configuration describes."""
    return AsymmetricLoss(task.name, config.gamma_positive, config.gamma_negative, config.clip, config.class_weights, task.ignore_index)
