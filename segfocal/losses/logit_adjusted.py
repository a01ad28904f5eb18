"""Cross-entropy of logits to which the class priors are added, so that the model itself need not learn them."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfocal.config.loss_entropy import LogitAdjustedConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import count, reduce
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES


class LogitAdjustedLoss(nn.Module):
    """Logit-adjusted cross-entropy, the mean over what is not ignored of the cross-entropy of

        x_c + tau log pi_c                    multiclass, a softmax
        x_c + tau log(pi_c / (1 - pi_c))      binary and multilabel, sigmoids

    The adjustment is of training alone: what predicts are the logits x, which come out for classes as if all were equally frequent.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        prior: pi_c in (0, 1), the share of each class in the pixels; binary takes a list of one; `auto` is for `train.py`,
            which takes it from the training data.
        tau: >= 0; 0 is cross-entropy.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: without a prior, for as many as there are not channels, shapes that do not go together, integer logits, and on the
            CPU for labels out of range.

    Reference:
        Menon et al., Long-tail learning via logit adjustment, arXiv 2007.07314, equation 10.
    """

    def __init__(
        self, mode: Mode, prior: list[float] | Literal["auto"] = "auto", tau: float = 1.0, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = LogitAdjustedConfig(prior=prior, tau=tau)
        if config.prior == "auto":
            raise ValueError(
                "loss.prior=auto: comes from training data; give the share of each class, or call `config.balanced(counts, task)`"
            )
        self.mode = mode
        self.config = config
        self.ignore_index = ignore_index
        adjustment = math.log if mode == "multiclass" else lambda share: math.log(share) - math.log1p(-share)
        self.added = ClassWeights([adjustment(share) for share in config.prior], "added by prior")  # in fp32 a share near 1 would be 1

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        added_C = self.added(logits)
        assert added_C is not None  # looked at when it was built
        adjusted = logits + self.config.tau * per_channel(added_C, logits)
        if self.mode == "multiclass":
            terms = F.cross_entropy(adjusted, labels.target_NKHW.squeeze(1), reduction="none").unsqueeze(1)
        else:
            terms = F.binary_cross_entropy_with_logits(adjusted, labels.target_NKHW.to(adjusted.dtype), reduction="none")
        sum_N = torch.where(labels.valid_NKHW, terms, 0.0).flatten(1).sum(1)
        return reduce(sum_N, count("elements", labels, logits.shape[1]), "mean")

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, tau={self.config.tau}, ignore_index={self.ignore_index}"


@LOSSES.builder(LogitAdjustedConfig)
def build(config: LogitAdjustedConfig, task: TaskConfig) -> LogitAdjustedLoss:
    """The logit-adjusted cross-entropy that a configuration describes."""
    return LogitAdjustedLoss(task.name, config.prior, config.tau, task.ignore_index)
