"""What is minimised: the options of `loss=` with their ranges. No torch here: mistakes are told before it is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from segfocal.config.balance import ClassCounts, FromData
from segfocal.config.base import STRICT, Flag, Fraction, NonNegative, OpenFraction, Positive
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

Reduction = Literal["none", "sum", "mean", "batchwise_mean"]
Denominator = Literal["elements", "pixels", "logits", "weights", "positives", "classes"]
Form = Literal["softmax", "sigmoid"]
ReducedForm = Literal["paper", "continuous"]
Backend = Literal["auto", "compiled", "eager"]


def _allowed(words: str) -> WrapValidator:
    """Say in one line what a field takes, where pydantic would list every branch of a union."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError(
                "not_allowed", "allowed is {allowed}; given {given}", {"allowed": words, "given": _shown(value)}
            ) from None

    return WrapValidator(validate)


def _shown(value: object) -> str:
    """A value as the command line takes it: lists without spaces."""
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


Weights = Annotated[list[NonNegative], Field(min_length=1)]
FROM_DATA = "inverse, sqrt_inverse, median_frequency or effective_number (from the training data)"
Alpha = Annotated[
    Fraction | Weights | FromData | None,
    _allowed(f"a number from 0 to 1, a list of numbers >= 0 (one for each class), {FROM_DATA}, or null"),
]
ClassWeights = Annotated[Weights | FromData | None, _allowed(f"a list of numbers >= 0 (one for each class), {FROM_DATA}, or null")]
GivenWeights = Annotated[Weights | None, _allowed("a list of numbers >= 0 (one for each class), or null")]
Gamma = Annotated[NonNegative | Weights, _allowed("a finite number >= 0, or a list of them (one for each class)")]
Smoothing = Annotated[float, Field(strict=True, ge=0, lt=1)]
Normalized = Annotated[Flag | Literal["smp"], _allowed("true, false or smp")]


@dataclass(config=STRICT, kw_only=True)
class LossConfig:
    """What all losses share; a plug-in's configuration derives from it and says in `problems` what does not fit a task.

    Args:
        name: the option, as in `loss=focal`.
    """

    wants_prior: ClassVar[bool] = False
    """Whether the head's bias should start from the class prior, so that the many negatives do not swamp the first steps."""

    name: str

    def problems(self, task: TaskConfig) -> list[str]:
        """What does not fit the task: messages of one line, each starting with the key and its value."""
        return []

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> LossConfig:
        """The configuration with numbers where it says how to take them from the training data."""
        return self


@LOSSES.config("focal")
@dataclass(config=STRICT, kw_only=True)
class FocalConfig(LossConfig):
    """
    Args:
        gamma: how strongly easy pixels are turned down, >= 0; 0 is cross-entropy, 2 what the paper takes for detection. A list has one
            for each class.
        alpha: class weights. A number a from 0 to 1, where classes are decided by sigmoids: a on positives, 1 - a on negatives.
            A list with one weight for each class: multiclass a_c >= 0 on the pixels of class c; multilabel a_c from 0 to 1 on the
            positives of class c and 1 - a_c on its negatives. A word takes them from the training data: `inverse`, `sqrt_inverse`,
            `median_frequency` or `effective_number`. Null: none.
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
            found += _length_problems("loss.gamma", self.gamma, task)
        if self.class_weights is not None:
            found += _class_weight_problems(self.class_weights, task, self.form)
        if isinstance(self.alpha, list):
            found += _alpha_list_problems(self.alpha, task)
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


@LOSSES.config("ce")
@dataclass(config=STRICT, kw_only=True)
class CrossEntropyConfig(LossConfig):
    """
    Args:
        class_weights: one weight >= 0 for each class: multiclass on the pixels of the class, binary and multilabel on its positives;
            or a word that takes them from the training data, as for `focal`.
        beta: of `effective_number`, in (0, 1).
        label_smoothing: the share of every label that is spread evenly over the classes, in [0, 1).
    """

    wants_prior: ClassVar[bool] = True

    name: Literal["ce"] = "ce"
    class_weights: ClassWeights = None
    beta: OpenFraction = 0.999
    label_smoothing: Smoothing = 0.0

    def problems(self, task: TaskConfig) -> list[str]:
        return _length_problems("loss.class_weights", self.class_weights, task) if isinstance(self.class_weights, list) else []

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> CrossEntropyConfig:
        if not isinstance(self.class_weights, str):
            return self
        positive, negative = counts.weights(self.class_weights, self.beta, task.name)
        ratios = positive if negative is None else [p / n if p and n else 1.0 for p, n in zip(positive, negative, strict=True)]
        return replace(self, class_weights=ratios)


@LOSSES.config("dice")
@dataclass(config=STRICT, kw_only=True)
class DiceConfig(LossConfig):
    """
    Args:
        smooth: pixels added above and below the fraction, > 0: a class without a pixel is learnt from its false positives, the harder
            the fewer they are against `smooth`.
        include_background: whether class 0 of a multiclass task counts.
    """

    name: Literal["dice"] = "dice"
    smooth: Positive = 1.0
    include_background: Flag = True

    def problems(self, task: TaskConfig) -> list[str]:
        if self.include_background or task.name == "multiclass":
            return []
        return [f"loss.include_background=false: task={task.name} has no background class; leave it out, or choose task=multiclass"]


def check_loss(config: object, task: TaskConfig) -> list[str]:
    """What does not fit between loss and task: messages of one line; none where all is well or the configuration has no `problems`."""
    problems: Callable[[TaskConfig], list[str]] | None = getattr(config, "problems", None)
    return problems(task) if problems else []


def _length_problems(key: str, weights: Sequence[float], task: TaskConfig) -> list[str]:
    if task.classes is None or len(weights) == len(task.classes):
        return []
    names = ", ".join(task.classes)
    return [f"{key}={_shown(weights)}: {len(weights)} numbers for {len(task.classes)} classes; give one for each of {names}"]


def _class_weight_problems(weights: list[float], task: TaskConfig, form: Form | None) -> list[str]:
    if task.name == "binary" or (task.name == "multiclass" and form != "sigmoid"):
        return [
            f"loss.class_weights={_shown(weights)}: weighs the decisions of task=multilabel or loss.form=sigmoid; "
            f"task={task.name} takes its weights as loss.alpha"
        ]
    return _length_problems("loss.class_weights", weights, task)


def _alpha_list_problems(alpha: list[float], task: TaskConfig) -> list[str]:
    given = f"loss.alpha={_shown(alpha)}"
    if task.name == "binary":
        return [f"{given}: task=binary takes one number from 0 to 1, a on the foreground and 1 - a on the rest"]
    found = _length_problems("loss.alpha", alpha, task)
    if task.name == "multilabel" and max(alpha) > 1:
        found.append(f"{given}: task=multilabel takes numbers from 0 to 1, a on the positives of a class and 1 - a on its negatives")
    return found


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
