"""The Poly-1 focal loss: the focal loss with another weight on the first term of its series."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from segfocal.config.loss_entropy import Poly1FocalConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean, focal_terms, sigmoid_focal, softmax_focal
from segfocal.losses.reduction import count, reduce
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES


class Poly1FocalLoss(nn.Module):
    """Poly-1 focal loss, the mean over what is not ignored of

        alpha_t q^gamma * -log p_t + epsilon q^(gamma + 1)        q = 1 - p_t

    In binary and multilabel p_t is that of a sigmoid, in multiclass of a softmax. alpha weighs the focal term alone.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        alpha: None; in binary and multilabel a number a from 0 to 1, a on positives and 1 - a on negatives; one for each class in
            multilabel; in multiclass a weight >= 0 for each class.
        gamma: focusing strength, >= 0.
        epsilon: weight of the polynomial term, >= -1; 0 is the focal loss.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, an alpha that does not fit the mode or is out of range, and on
            the CPU for labels out of range.

    Reference:
        Leng et al., PolyLoss, arXiv 2204.12511, Poly-1 with the focal loss for a base.
    """

    def __init__(
        self,
        mode: Mode,
        alpha: float | list[float] | None = None,
        gamma: float = 1.0,
        epsilon: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = Poly1FocalConfig(alpha=alpha, gamma=gamma, epsilon=epsilon)
        if problems := config.problems(TaskConfig(name=mode)):
            raise ValueError("; ".join(problems))
        self.mode = mode
        self.config = config
        self.ignore_index = ignore_index
        self.alpha = ClassWeights(config.alpha, "alpha")

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        valid, truth = labels.valid_NKHW, labels.target_NKHW
        logits = clean(logits_NCHW, valid)
        alpha = self.alpha(logits)
        weight = None if alpha is None else per_channel(alpha, logits)
        gamma = self.config.gamma
        if self.mode == "multiclass":
            terms = softmax_focal(logits, truth, valid, weight, gamma=gamma)
            margin = logits.gather(1, truth) - logits.scatter(1, truth, -math.inf).logsumexp(1, keepdim=True)
        else:
            terms = sigmoid_focal(logits, truth, valid, weight, None if weight is None else 1 - weight, gamma=gamma)
            margin = torch.where(truth == 1, logits, -logits)
        terms = terms + torch.where(valid, self.config.epsilon * focal_terms(margin, gamma + 1)[1], 0.0)
        return reduce(terms.flatten(1).sum(1), count("elements", labels, logits.shape[1]), "mean")

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, gamma={self.config.gamma}, epsilon={self.config.epsilon}, ignore_index={self.ignore_index}"


@LOSSES.builder(Poly1FocalConfig)
def build(config: Poly1FocalConfig, task: TaskConfig) -> Poly1FocalLoss:
    """The Poly-1 focal loss that a configuration describes."""
    return Poly1FocalLoss(task.name, config.alpha, config.gamma, config.epsilon, task.ignore_index)
