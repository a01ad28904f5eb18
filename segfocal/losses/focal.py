"""The focal loss as a module: modes, class weights and reductions around the sums of `segfocal.losses.fused`."""

from __future__ import annotations

import math
from dataclasses import fields

from torch import Tensor, nn

from segfocal.config.loss import Backend, Denominator, Form, ReducedForm, Reduction
from segfocal.config.loss_focal import FocalConfig, Normalized
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.decisions import Decision, SigmoidDecision, SoftmaxDecision
from segfocal.losses.functional import from_probabilities, image_scale
from segfocal.losses.reduction import count, image_weights, processes, weighted
from segfocal.losses.targets import Labels, align, check_mode
from segfocal.losses.weights import numbers
from segfocal.registry import LOSSES

OPTIONS = [item for item in fields(FocalConfig) if item.name not in ("name", "beta")]  # the arguments of the module


class FocalLoss(nn.Module):
    """Focal loss for segmentation: cross-entropy that turns easy pixels down, so that the many do not drown the rare.

        value of one label = a_t q^gamma * -log p_t,   q = 1 - p_t, p_t the probability of the true label, a_t its weight

    The arguments have the names and the order of segmentation_models_pytorch (SMP) 0.6; ours follow. What differs in value:

    - multiclass is a softmax, and alpha one weight for each class; `form="sigmoid"` is SMP's one-against-the-rest.
    - `normalized` holds its scale constant and takes it for each image; SMP differentiates it and divides by the count twice.
    - `sum` is a sum; SMP's is one over the number of classes of it. `batchwise_mean` divides before it sums over the batch in binary,
      too; SMP flattens the batch away there, which is our `sum`.
    - An ignored batch is 0, not NaN; `ignore_index` works in multilabel; fractional gamma has finite gradients; probabilities of a
      softmax are taken as what they are.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        alpha: class weights. A number a in [0, 1] for sigmoids: a on positives, 1 - a on negatives. A list of C: multiclass a_c >= 0 on
            pixels of class c; multilabel a_c in [0, 1] on positives of class c and 1 - a_c on its negatives. None: 1 everywhere.
        gamma: focusing strength, >= 0; 0 is cross-entropy. A list of C: multiclass gamma_c on pixels of class c; where every class has
            its sigmoid, on the positives and negatives of class c.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.
        from_logits: False where the model's output are probabilities, of sigmoids or of a softmax.
        eps: probabilities are held between eps and 1 - eps, in (0, 0.5).
        reduction: `mean`, `sum`, `batchwise_mean` (mean of each image, summed over the batch) or `none` (in the shape of an index map).
        normalized: scale every image's factors q^gamma to a mean of 1, so that the loss does not fade as training succeeds; `"smp"`
            does what SMP does, for comparison.
        reduced_threshold: in (0, 1): labels recognised with less keep the factor 1, the others have (q / th)^gamma.
        class_weights: C numbers >= 0, where every class has its sigmoid: the weight of the decisions on class c, in values and in
            the denominators `elements`, `logits`, `weights` and `classes`.
        denominator: what a mean divides by: `elements` (values summed), `pixels`, `logits` (pixels times classes), `weights` (sum of
            a_t), `positives` (in multiclass, pixels of any class but 0) or `classes`; ignored ones never count, and 0 is taken as 1.
        form: in multiclass `softmax`, which is what None means, or `sigmoid`: each class against the rest, summed over classes.
        label_smoothing: e in [0, 1): labels become (1 - e) y + e / C under a softmax, and (1 - e) y + e / 2 under sigmoids.
        reduced_form: `paper`, or `continuous`: (q / (1 - th))^gamma, which does not jump at th.
        backend: `auto`, `compiled` or `eager`: how values and gradients are computed, see `segfocal.losses.backend`.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32. Any number of spatial axes, none too.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W). Labels from 0 to 1 as floats are soft; in multiclass they are
          (N, C, H, W), one-hot or soft.
        - returns: a scalar; the shape of the target for `reduction="none"` ((N, H, W) for soft multiclass targets).

    Raises:
        ValueError: for arguments out of range or at odds with the mode, for shapes that do not go together, integer logits, and labels
            out of range: on the CPU at once; elsewhere in one of the next calls, as looking would wait for the device.

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
        gamma: float | list[float] = 2.0,
        ignore_index: int | None = None,
        from_logits: bool = True,
        eps: float = 1e-7,
        reduction: Reduction = "mean",
        normalized: Normalized = False,
        reduced_threshold: float | None = None,
        class_weights: list[float] | None = None,
        denominator: Denominator = "elements",
        form: Form | None = None,
        label_smoothing: float = 0.0,
        reduced_form: ReducedForm = "paper",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_mode(mode)
        config = FocalConfig(
            gamma=gamma,
            alpha=alpha,
            from_logits=from_logits,
            eps=eps,
            reduction=reduction,
            normalized=normalized,
            reduced_threshold=reduced_threshold,
            class_weights=class_weights,
            denominator=denominator,
            form=form,
            label_smoothing=label_smoothing,
            reduced_form=reduced_form,
            backend=backend,
        )
        if misfits := config.misfits(TaskConfig(name=mode)):
            raise ValueError("; ".join(misfits))
        self.mode = mode
        self.ignore_index = ignore_index
        numbers(config.alpha)
        self.config = config
        softmax = mode == "multiclass" and form != "sigmoid"
        self.decision: Decision = SoftmaxDecision(config) if softmax else SigmoidDecision(config)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        config, decision = self.config, self.decision
        if not config.from_logits and logits_NCHW.is_floating_point():
            logits_NCHW = from_probabilities(logits_NCHW, not decision.per_channel, config.eps)
        labels = align(self.mode, logits_NCHW, target, self.ignore_index, soft=True)
        counted = labels
        if config.label_smoothing and not decision.per_channel:
            labels = labels.smoothed(config.label_smoothing, logits_NCHW.shape[1])
        if config.reduction == "none":
            terms = decision.terms(logits_NCHW, labels.check(), config.normalized)
            return self._as_target(terms, target)
        weight_N = self._weights(logits_NCHW, counted)
        if config.normalized == "smp" or labels.distribution:
            sum_N = decision.terms(logits_NCHW, labels.check(), config.normalized).flatten(1).sum(1)
        else:
            sum_N = self._sums(logits_NCHW, labels, weight_N * processes())
        return weighted(sum_N, weight_N)

    def _sums(self, logits_NCHW: Tensor, labels: Labels, expected_N: Tensor) -> Tensor:
        sums = self.decision.sums(logits_NCHW, labels, expected_N)
        labels.check_counted(sums.wrong)
        if sums.factor_N is None:
            return sums.value_N
        elements = count("elements", labels, logits_NCHW.shape[1], self.decision.per_channel)
        return sums.value_N * image_scale(elements, sums.factor_N)

    def _weights(self, logits_NCHW: Tensor, labels: Labels) -> Tensor:
        """What the sums of images are multiplied with."""
        denominator, reduction = self.config.denominator, self.config.reduction
        if denominator == "classes" and reduction == "mean":  # which does not count images
            reduction = "batchwise_mean"
        empty = math.inf if denominator == "weights" else 1.0
        return image_weights(self._counts(logits_NCHW, labels), reduction, logits_NCHW, empty)

    def _counts(self, logits_NCHW: Tensor, labels: Labels) -> Tensor | int:
        denominator = self.config.denominator
        weight = self.decision.weight(logits_NCHW, labels) if denominator == "weights" else None
        of_class = self.decision.class_weights(logits_NCHW)
        return count(denominator, labels, logits_NCHW.shape[1], self.decision.per_channel, weight, of_class)

    def _as_target(self, terms: Tensor, target: Tensor) -> Tensor:
        if self.mode != "multiclass":
            return terms.reshape(target.shape)
        terms = terms.sum(1, keepdim=True)
        return terms if target.shape == terms.shape else terms.squeeze(1)

    def extra_repr(self) -> str:
        form = "sigmoid" if self.decision.per_channel else "softmax"
        options = {item.name: getattr(self.config, item.name) for item in OPTIONS}
        shown = {"mode": self.mode, "ignore_index": self.ignore_index, **options, "form": form}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


@LOSSES.builder(FocalConfig)
def build(config: FocalConfig, task: TaskConfig) -> FocalLoss:
    """The focal loss that a configuration describes."""
    options = {item.name: getattr(config, item.name) for item in OPTIONS}
    return FocalLoss(task.name, ignore_index=task.ignore_index, **options)
