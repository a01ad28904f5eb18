"""The options of the focal loss's relatives: overlap losses, and other ways to weigh hard and rare pixels. No torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.balance import ClassCounts
from segfocal.config.base import STRICT, Flag, Fraction, NonNegative, OpenFraction, Positive
from segfocal.config.loss import GivenWeights, LossConfig, Weights, _allowed, _alpha_list_problems, _length_problems, _shown
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

GivenAlpha = Annotated[Fraction | Weights | None, _allowed("a number from 0 to 1, a list of numbers >= 0 (one for each class), or null")]
Prior = Annotated[
    Annotated[list[OpenFraction], Field(min_length=1)] | None,
    _allowed("a list of numbers between 0 and 1 (the share of each class), or null"),
]
Epsilon = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1)]
Clip = Annotated[float, Field(strict=True, ge=0, lt=1)]
Kept = Annotated[float, Field(strict=True, gt=0, le=1)]
Variant = Literal["asymmetric", "symmetric"]


@dataclass(config=STRICT, kw_only=True)
class RegionConfig(LossConfig):
    """
    Args:
        smooth: pixels added above and below the fraction, > 0.
        class_weights: how much each class counts in the mean over classes, >= 0; null: all the same.
        include_background: whether class 0 of a multiclass task counts.
    """

    smooth: Positive = 1.0
    class_weights: GivenWeights = None
    include_background: Flag = True

    def problems(self, task: TaskConfig) -> list[str]:
        found = []
        if not self.include_background and task.name != "multiclass":
            found.append(
                f"loss.include_background=false: task={task.name} has no background class; leave it out, or choose task=multiclass"
            )
        if self.class_weights is not None:
            if task.name == "binary":
                found.append(f"loss.class_weights={_shown(self.class_weights)}: task=binary has one class; leave it out")
            else:
                found += _length_problems("loss.class_weights", self.class_weights, task)
        return found


@LOSSES.config("jaccard")
@dataclass(config=STRICT, kw_only=True)
class JaccardConfig(RegionConfig):
    """
    Args:
        smooth: pixels added above and below the fraction, > 0: a class without a pixel is learnt from its false positives, the harder
            the fewer they are against `smooth`.
        class_weights: how much each class counts in the mean over classes, >= 0; null: all the same.
        include_background: whether class 0 of a multiclass task counts.
    """

    name: Literal["jaccard"] = "jaccard"


@LOSSES.config("tversky")
@dataclass(config=STRICT, kw_only=True)
class TverskyConfig(RegionConfig):
    """
    Args:
        alpha: what a false positive costs, >= 0; 0.5 and 0.5 are Dice, 1 and 1 Jaccard.
        beta: what a false negative costs, >= 0.
        smooth: pixels added above and below the fraction, > 0.
        class_weights: how much each class counts in the mean over classes, >= 0; null: all the same.
        include_background: whether class 0 of a multiclass task counts.
    """

    name: Literal["tversky"] = "tversky"
    alpha: NonNegative = 0.3
    beta: NonNegative = 0.7


@LOSSES.config("focal_tversky")
@dataclass(config=STRICT, kw_only=True)
class FocalTverskyConfig(RegionConfig):
    """
    Args:
        alpha: what a false positive costs, >= 0.
        beta: what a false negative costs, >= 0.
        gamma: exponent of a class's loss, > 0; below 1 classes that are nearly right keep a steep gradient, above 1 they fade.
        smooth: pixels added above and below the fraction, > 0.
        class_weights: how much each class counts in the mean over classes, >= 0; null: all the same.
        include_background: whether class 0 of a multiclass task counts.
    """

    name: Literal["focal_tversky"] = "focal_tversky"
    alpha: NonNegative = 0.3
    beta: NonNegative = 0.7
    gamma: Positive = 0.75


@LOSSES.config("lovasz")
@dataclass(config=STRICT, kw_only=True)
class LovaszConfig(LossConfig):
    """
    Args:
        per_image: whether every image has its own loss, of which the mean is taken; else one for all pixels of the batch.
    """

    name: Literal["lovasz"] = "lovasz"
    per_image: Flag = False


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
            return _alpha_list_problems(self.alpha, task)
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
        return [] if self.class_weights is None else _length_problems("loss.class_weights", self.class_weights, task)


@LOSSES.config("unified_focal")
@dataclass(config=STRICT, kw_only=True)
class UnifiedFocalConfig(LossConfig):
    """
    Args:
        weight: of the focal term, from 0 to 1; the rest is that of the Tversky term.
        delta: from 0 to 1: the weight of rare pixels in the focal term, and of false negatives in the Tversky term.
        gamma: from 0 to 1 (not 1): how strongly the background is turned down, and what is rare turned up.
        variant: `asymmetric` turns down the background and turns up rare classes, each where it helps; `symmetric` treats all alike.
        smooth: pixels added above and below the Tversky index, > 0.
    """

    name: Literal["unified_focal"] = "unified_focal"
    weight: Fraction = 0.5
    delta: Fraction = 0.6
    gamma: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.5
    variant: Variant = "asymmetric"
    smooth: Positive = 1.0


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
        prior: the share of each class in the pixels, between 0 and 1; null takes it from the training data.
        tau: how strongly the logits are adjusted, >= 0; 0 is cross-entropy, 1 makes for balanced errors.
    """

    name: Literal["logit_adjusted_ce"] = "logit_adjusted_ce"
    prior: Prior = None
    tau: NonNegative = 1.0

    def problems(self, task: TaskConfig) -> list[str]:
        return [] if self.prior is None else _length_problems("loss.prior", self.prior, task)

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> LogitAdjustedConfig:
        """A class without a pixel, or one without any but its own, is taken to have one: log 0 is no adjustment."""
        if self.prior is not None:
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
        return [] if self.class_weights is None else _length_problems("loss.class_weights", self.class_weights, task)
