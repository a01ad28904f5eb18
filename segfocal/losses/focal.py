"""The focal loss as a module: modes, class weights and reductions around the pure functions."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn

from segfocal.config.loss import Denominator, FocalConfig, Form, Reduction
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import sigmoid_focal, softmax_focal
from segfocal.losses.reduction import count, reduce
from segfocal.losses.targets import Labels, align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES


class Focus(TypedDict):
    """What the pure functions take besides logits and labels."""

    gamma: float
    normalized: bool
    reduced_threshold: float | None


class FocalLoss(nn.Module):
    """Focal loss for segmentation: cross-entropy that turns easy pixels down, so that the many do not drown the rare.

        value of one label = a_t q^gamma * -log p_t,   q = 1 - p_t, p_t the probability of the true label, a_t its weight

    The arguments have the names and the order of segmentation_models_pytorch (SMP) but for `from_logits` and `eps`, which SMP 0.6 takes
    before `reduction`: name what comes after `ignore_index`. What differs in value from SMP 0.6:

    - multiclass is a softmax, and alpha one weight for each class; `form="sigmoid"` is SMP's one-against-the-rest.
    - `normalized` holds its scale constant and takes it for each image; SMP differentiates it and divides by the count twice.
    - `batchwise_mean` divides before it sums over the batch in binary, too; SMP flattens the batch away there, which is our `sum`.
    - An ignored batch is 0, not NaN; `ignore_index` works in multilabel; fractional gamma has finite gradients.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        alpha: class weights. A number a in [0, 1] for sigmoids: a on positives, 1 - a on negatives. A list of C: multiclass a_c >= 0 on
            pixels of class c; multilabel a_c in [0, 1] on positives of class c and 1 - a_c on its negatives. None: 1 everywhere.
        gamma: focusing strength, >= 0; 0 is cross-entropy.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.
        reduction: `mean`, `sum`, `batchwise_mean` (mean of each image, summed over the batch) or `none` (in the shape of the target).
        normalized: scale every image's factors q^gamma to a mean of 1, so that the loss does not fade as training succeeds.
        reduced_threshold: in (0, 1): labels recognised with less keep the factor 1, the others have (q / th)^gamma.
        denominator: what a mean divides by: `elements` (values summed), `pixels`, `weights` (sum of a_t) or `positives` (in multiclass,
            pixels of any class but 0); ignored ones never count, and 0 is taken as 1.
        form: in multiclass `softmax`, which is what None means, or `sigmoid`: each class against the rest, summed over classes.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; the shape of the target for `reduction="none"`.

    Raises:
        ValueError: for arguments out of range or at odds with the mode, for shapes that do not go together, integer logits, and on the
            CPU for labels out of range (on other devices looking for them would wait for the device).

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002. See `segfocal.losses.functional` for the other forms.

    Example:
        >>> loss = FocalLoss("multiclass", alpha=[0.2, 1.0, 1.0], ignore_index=255)
        >>> loss(torch.zeros(2, 3, 8, 8), torch.full((2, 8, 8), 1))  # (2/3)^2 log 3
        tensor(0.4883)
    """

    def __init__(
        self,
        mode: Mode,
        alpha: float | list[float] | None = None,
        gamma: float = 2.0,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        normalized: bool = False,
        reduced_threshold: float | None = None,
        denominator: Denominator = "elements",
        form: Form | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = FocalConfig(
            gamma=gamma,
            alpha=alpha,
            normalized=normalized,
            reduced_threshold=reduced_threshold,
            reduction=reduction,
            denominator=denominator,
            form=form,
        )
        if misfits := config.misfits(TaskConfig(name=mode)):
            raise ValueError("; ".join(misfits))
        self.mode = mode
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.normalized = normalized
        self.reduced_threshold = reduced_threshold
        self.denominator = denominator
        self.form = form or ("softmax" if mode == "multiclass" else "sigmoid")
        self.alpha = ClassWeights(alpha)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index)
        terms, weight = self._softmax(logits_NCHW, labels) if self.form == "softmax" else self._sigmoid(logits_NCHW, labels)
        if weight is not None:
            weight = torch.where(labels.valid_NKHW, weight, 0.0).expand_as(terms)
            terms = terms * weight
        one_vs_rest = self.mode == "multiclass" and self.form == "sigmoid"
        count_N = count(self.denominator, labels, terms.shape[1] if one_vs_rest else 1, weight)
        if one_vs_rest:
            terms = terms.sum(1, keepdim=True)
        loss = reduce(terms, count_N, self.reduction)
        return loss.reshape(target.shape) if self.reduction == "none" else loss

    def _softmax(self, logits_NCHW: Tensor, labels: Labels) -> tuple[Tensor, Tensor | None]:
        """Values and weights, (N, 1, H, W)."""
        alpha_C = self.alpha(logits_NCHW)
        return softmax_focal(logits_NCHW, *labels, **self._focus), None if alpha_C is None else alpha_C[labels.target_NKHW]

    def _sigmoid(self, logits_NCHW: Tensor, labels: Labels) -> tuple[Tensor, Tensor | None]:
        """Values, (N, C, H, W), and weights that broadcast to them."""
        if self.mode == "multiclass":
            positive = labels.target_NKHW == per_channel(torch.arange(logits_NCHW.shape[1], device=logits_NCHW.device), logits_NCHW)
        else:
            positive = labels.target_NKHW == 1
        terms = sigmoid_focal(logits_NCHW, positive, labels.valid_NKHW, **self._focus)
        alpha = self.alpha(logits_NCHW)
        if alpha is None:
            return terms, None
        if self.mode == "multiclass" and alpha.dim() == 1:
            return terms, alpha[labels.target_NKHW]
        alpha = per_channel(alpha, logits_NCHW)
        return terms, torch.where(positive, alpha, 1 - alpha)

    @property
    def _focus(self) -> Focus:
        return {"gamma": self.gamma, "normalized": self.normalized, "reduced_threshold": self.reduced_threshold}

    def extra_repr(self) -> str:
        shown = ("mode", "gamma", "ignore_index", "reduction", "normalized", "reduced_threshold", "denominator", "form")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


@LOSSES.builder(FocalConfig)
def build(config: FocalConfig, task: TaskConfig) -> FocalLoss:
    """The focal loss that a configuration describes."""
    return FocalLoss(
        task.name,
        alpha=config.alpha,
        gamma=config.gamma,
        ignore_index=task.ignore_index,
        reduction=config.reduction,
        normalized=config.normalized,
        reduced_threshold=config.reduced_threshold,
        denominator=config.denominator,
        form=config.form,
    )
