"""The options of losses of overlap. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag, Fraction, NonNegative, Positive, shown
from segfocal.config.loss import GivenWeights, LossConfig, length_problems
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

Variant = Literal["asymmetric", "symmetric"]


@dataclass(config=STRICT, kw_only=True)
class RegionConfig(LossConfig):
    """
    Args:
        smooth: pixels added above and below the fraction, > 0: a class without a pixel is learnt from its false positives, the harder
            the fewer they are against `smooth`.
        class_weights: how much each class counts in the mean over classes, >= 0; null: all the same.
        include_background: whether class 0 of a multiclass task counts.
    """

    smooth: Positive = 1.0
    class_weights: GivenWeights = None
    include_background: Flag = True

    def problems(self, task: TaskConfig) -> list[str]:
        found = []
        if not self.include_background and task.name != "multiclass":
            reason = f"task={task.name} has no background class; leave it out, or choose task=multiclass"
            found.append(f"loss.include_background=false: {reason}")
        if self.class_weights is None:
            return found
        if task.name == "binary":
            return [*found, f"loss.class_weights={shown(self.class_weights)}: task=binary has one class; leave it out"]
        return found + length_problems("loss.class_weights", self.class_weights, task)


@LOSSES.config("dice")
@dataclass(config=STRICT, kw_only=True)
class DiceConfig(RegionConfig):
    """Args: as in `RegionConfig`."""

    name: Literal["dice"] = "dice"


@LOSSES.config("jaccard")
@dataclass(config=STRICT, kw_only=True)
class JaccardConfig(RegionConfig):
    """Args: as in `RegionConfig`."""

    name: Literal["jaccard"] = "jaccard"


@LOSSES.config("tversky")
@dataclass(config=STRICT, kw_only=True)
class TverskyConfig(RegionConfig):
    """
    Args:
        alpha: what a false positive costs, >= 0; 0.5 and 0.5 are Dice, 1 and 1 Jaccard.
        beta: what a false negative costs, >= 0.
        smooth, class_weights, include_background: as in `RegionConfig`.
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
        smooth, class_weights, include_background: as in `RegionConfig`.
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
