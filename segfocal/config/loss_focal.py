"""The options of the focal loss. No torch here: mistakes are told before it is imported."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.balance import ClassCounts, FromData
from segfocal.config.base import STRICT, Flag, Fraction, NonNegative, OpenFraction, allowed, shown
from segfocal.config.loss import (
    FROM_DATA,
    Backend,
    Denominator,
    Form,
    GivenWeights,
    LossConfig,
    ReducedForm,
    Reduction,
    Smoothing,
    Weights,
    alpha_list_problems,
    length_problems,
)
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

Alpha = Annotated[
    Fraction | Weights | FromData | None,
    allowed(f"a number from 0 to 1, a list of numbers >= 0 (one for each class), {FROM_DATA}, or null"),
]
Gamma = Annotated[NonNegative | Weights, allowed("a finite number >= 0, or a list of them (one for each class)")]
Normalized = Annotated[Flag | Literal["smp"], allowed("true, false or smp")]


@LOSSES.config("focal")
@dataclass(config=STRICT, kw_only=True)
class FocalConfig(LossConfig):
    """
    Args:
        gamma: how strongly easy pixels are turned down, >= 0; 0 is cross-entropy, 2 what the paper takes for detection. A list has one
            for each class.
        alpha: class weights. A number a from 0 to 1, where classes are decided by sigmoids: a on positives, 1 - a on negatives.
            A list with one weight for each class: multiclass a_c >= 0 on the pixels of class c; multilabel a_c from 0 to 1 on the
            positives of class c and 1 - a_c on its negatives. A word takes them from the training data: `auto`, `inverse`,
            `sqrt_inverse`, `median_frequency` or `effective_number`. Null: none.
        beta: of `effective_number`, in (0, 1); counted are images that show the class.
        class_weights: where every class has its sigmoid, how much the decisions on each class count, in the mean's denominator, too.
        normalized: scale every image's modulating factors to a mean of 1, so that the loss does not fade as training succeeds; `smp`
            is what segmentation_models_pytorch makes of it, for comparison.
        reduced_threshold: turn down only what is already recognised with at least this probability, in (0, 1); null turns down everything.
        reduced_form: `paper`, or `continuous`, without the jump that the paper's has at a threshold other than 1/2.
        label_smoothing: the share of every label that is spread evenly over the answers, in [0, 1).
        reduction: `mean`, `sum`, `batchwise_mean` (mean of each image, summed over the batch); `none` is a map, not for training.
        denominator: what a mean divides by, counted over what is not ignored. `elements`: the terms summed - pixels, times classes where
            every class has its sigmoid. `pixels`. `logits`: pixels times classes. `weights`: the sum of alpha over the elements.
            `positives`: elements of value 1; in multiclass, pixels of any class but 0, the background. `classes`: their number.
        form: for multiclass: `softmax` one decision a pixel; `sigmoid` every class against the rest; null is `softmax`.
        from_logits: false where the model ends in probabilities.
        eps: probabilities are held between eps and 1 - eps.
        backend: `auto`, `compiled` or `eager`: whether values and gradients run as compiled code; `auto` does where it pays.
    """

    wants_prior: ClassVar[bool] = True

    name: Literal["focal"] = "focal"
    gamma: Gamma = 1.0
    alpha: Alpha = None
    beta: OpenFraction = 0.999
    class_weights: GivenWeights = None
    normalized: Normalized = False
    reduced_threshold: OpenFraction | None = None
    reduced_form: ReducedForm = "paper"
    label_smoothing: Smoothing = 0.0
    reduction: Reduction = "mean"
    denominator: Denominator = "elements"
    form: Form | None = None
    from_logits: Flag = True
    eps: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 1e-7
    backend: Backend = "auto"

    def problems(self, task: TaskConfig) -> list[str]:
        if self.reduction == "none":
            return ["loss.reduction=none: a map of values cannot be trained on; choose mean, sum or batchwise_mean", *self.misfits(task)]
        return self.misfits(task)

    def misfits(self, task: TaskConfig) -> list[str]:
        """What does not fit the task even where nothing is to be trained."""
        found = []
        if self.form == "softmax" and task.name != "multiclass":
            found.append(f"loss.form=softmax: task={task.name} decides by sigmoids; leave loss.form out, or choose task=multiclass")
        if isinstance(self.gamma, list):
            found += length_problems("loss.gamma", self.gamma, task)
        if self.class_weights is not None:
            found += _class_weight_problems(self.class_weights, task, self.form)
        if isinstance(self.alpha, list):
            found += alpha_list_problems(self.alpha, task)
        elif isinstance(self.alpha, float | int) and task.name == "multiclass" and self.form != "sigmoid":
            found.append(_ambiguous_alpha(self.alpha, len(task.classes) if task.classes else None))
        return found

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> FocalConfig:
        if not isinstance(self.alpha, str):
            return self
        positive, negative = counts.weights(self.alpha, self.beta, task.name)
        if negative is None:
            return replace(self, alpha=positive)
        shares = [p / (p + n) if p + n else 0.5 for p, n in zip(positive, negative, strict=True)]
        return replace(self, alpha=shares[0] if task.name == "binary" else shares)


def _class_weight_problems(weights: list[float], task: TaskConfig, form: Form | None) -> list[str]:
    if task.name == "binary" or (task.name == "multiclass" and form != "sigmoid"):
        return [
            f"loss.class_weights={shown(weights)}: weighs the decisions of task=multilabel or loss.form=sigmoid; "
            f"task={task.name} takes its weights as loss.alpha"
        ]
    return length_problems("loss.class_weights", weights, task)


def _ambiguous_alpha(alpha: float, classes: int | None) -> str:
    """One number for many classes means four things in the wild: list the ways to say each, ready to be copied."""

    def weights(background: float, others: float) -> str:
        tail = ",..." if classes is None or classes > 6 else ""
        count = 2 if tail else (classes or 0) - 1
        return "[" + ",".join([f"{background:g}"] + [f"{others:g}"] * count) + tail + "]"

    rest = 1 - alpha
    return (
        f"loss.alpha={alpha:g}: one number is ambiguous for a softmax over classes. "
        f"Say loss.alpha={weights(alpha, rest)} for {alpha:g} on class 0, "
        f"loss.alpha={weights(rest, alpha)} for {alpha:g} on all but class 0, "
        f"loss.alpha={weights(alpha, alpha)} for one factor on all, "
        f"or loss.form=sigmoid for {alpha:g} on the positives and {rest:g} on the negatives of each class against the rest"
    )
