"""The options of cross-entropy and of other ways to weigh its hard and rare pixels. No torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.balance import ClassCounts, FromData
from segfocal.config.base import STRICT, Fraction, NonNegative, OpenFraction, allowed
from segfocal.config.loss import (
    FROM_DATA,
    GivenWeights,
    LossConfig,
    Smoothing,
    Weights,
    alpha_list_problems,
    length_problems,
)
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

ClassWeights = Annotated[Weights | FromData | None, allowed(f"a list of numbers >= 0 (one for each class), {FROM_DATA}, or null")]
GivenAlpha = Annotated[Fraction | Weights | None, allowed("a number from 0 to 1, a list of numbers >= 0 (one for each class), or null")]
Prior = Annotated[
    Annotated[list[OpenFraction], Field(min_length=1)] | Literal["auto"],
    allowed("a list of numbers between 0 and 1 (the share of each class), or auto (from the training data)"),
]
Epsilon = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1)]
Clip = Annotated[float, Field(strict=True, ge=0, lt=1)]
Kept = Annotated[float, Field(strict=True, gt=0, le=1)]


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
        return length_problems("loss.class_weights", self.class_weights, task) if isinstance(self.class_weights, list) else []

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> CrossEntropyConfig:
        if not isinstance(self.class_weights, str):
            return self
        positive, negative = counts.weights(self.class_weights, self.beta, task.name)
        ratios = positive if negative is None else [p / n if p and n else 1.0 for p, n in zip(positive, negative, strict=True)]
        return replace(self, class_weights=ratios)


@LOSSES.config("poly1_focal")
@dataclass(config=STRICT, kw_only=True)
class Poly1FocalConfig(LossConfig):
    """
    Args:
        gamma: how strongly easy pixels are turned down, >= 0.
        alpha: class weights of the focal term, as for `focal`: a number from 0 to 1 or a list of them where classes are decided by
            sigmoids, in multiclass a list of numbers >= 0. Null: none.
        epsilon: how much the polynomial term counts, >= -1; 0 is the focal loss.
    """

    wants_prior: ClassVar[bool] = True

    name: Literal["poly1_focal"] = "poly1_focal"
    gamma: NonNegative = 1.0
    alpha: GivenAlpha = None
    epsilon: Epsilon = 1.0

    def problems(self, task: TaskConfig) -> list[str]:
        if isinstance(self.alpha, list):
            return alpha_list_problems(self.alpha, task)
        if self.alpha is not None and task.name == "multiclass":
            return [f"loss.alpha={self.alpha:g}: task=multiclass takes a list with one weight for each class"]
        return []


@LOSSES.config("asymmetric")
@dataclass(config=STRICT, kw_only=True)
class AsymmetricConfig(LossConfig):
    """
    Args:
        gamma_positive: how strongly easy positives are turned down, >= 0.
        gamma_negative: how strongly easy negatives are turned down, >= 0.
        clip: in [0, 1): negatives with a probability below it cost nothing at all.
        class_weights: one weight >= 0 for each class, on its positives.
    """

    wants_prior: ClassVar[bool] = True

    name: Literal["asymmetric"] = "asymmetric"
    gamma_positive: NonNegative = 0.0
    gamma_negative: NonNegative = 4.0
    clip: Clip = 0.05
    class_weights: GivenWeights = None

    def problems(self, task: TaskConfig) -> list[str]:
        if task.name == "multiclass":
            return ["loss=asymmetric: needs a sigmoid for each class; choose task=binary or task=multilabel, or loss=focal"]
        return [] if self.class_weights is None else length_problems("loss.class_weights", self.class_weights, task)


@LOSSES.config("recall_ce")
@dataclass(config=STRICT, kw_only=True)
class RecallCrossEntropyConfig(LossConfig):
    """Cross-entropy in which every class weighs what it misses in the batch; it has no options."""

    wants_prior: ClassVar[bool] = True

    name: Literal["recall_ce"] = "recall_ce"

    def problems(self, task: TaskConfig) -> list[str]:
        if task.name == "multiclass":
            return []
        return [
            f"loss=recall_ce: weighs classes that exclude each other, and task={task.name} has none; choose task=multiclass, or loss=ce"
        ]


@LOSSES.config("logit_adjusted_ce")
@dataclass(config=STRICT, kw_only=True)
class LogitAdjustedConfig(LossConfig):
    """
    Args:
        prior: the share of each class in the pixels, between 0 and 1; `auto` takes it from the training data.
        tau: how strongly the logits are adjusted, >= 0; 0 is cross-entropy, 1 makes for balanced errors.
    """

    name: Literal["logit_adjusted_ce"] = "logit_adjusted_ce"
    prior: Prior = "auto"
    tau: NonNegative = 1.0

    def problems(self, task: TaskConfig) -> list[str]:
        return [] if self.prior == "auto" else length_problems("loss.prior", self.prior, task)

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> LogitAdjustedConfig:
        """A class without a pixel, or one without any but its own, is taken to have one: log 0 is no adjustment."""
        if self.prior != "auto":
            return self
        pairs = zip(counts.pixels, counts.valid, strict=True)
        return replace(self, prior=[min(max(pixels, 1), valid - 1) / valid if valid > 1 else 0.5 for pixels, valid in pairs])


@LOSSES.config("ohem_ce")
@dataclass(config=STRICT, kw_only=True)
class OhemConfig(LossConfig):
    """
    Args:
        threshold: in (0, 1): labels recognised with at least this probability do not count.
        keep: in (0, 1]: but this share of what is not ignored, the hardest, always does.
        class_weights: one weight >= 0 for each class: multiclass on the pixels of the class, binary and multilabel on its positives.
    """

    wants_prior: ClassVar[bool] = True

    name: Literal["ohem_ce"] = "ohem_ce"
    threshold: OpenFraction = 0.7
    keep: Kept = 0.1
    class_weights: GivenWeights = None

    def problems(self, task: TaskConfig) -> list[str]:
        return [] if self.class_weights is None else length_problems("loss.class_weights", self.class_weights, task)
