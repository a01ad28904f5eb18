"""What all losses share: the configuration they derive from, and the types and messages of their options. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.balance import ClassCounts
from segfocal.config.base import STRICT, NonNegative, allowed, shown
from segfocal.config.task import TaskConfig

Reduction = Literal["none", "sum", "mean", "batchwise_mean"]
Denominator = Literal["elements", "pixels", "logits", "weights", "positives", "classes"]
Form = Literal["softmax", "sigmoid"]
ReducedForm = Literal["paper", "continuous"]
Backend = Literal["auto", "compiled", "eager"]


Weights = Annotated[list[NonNegative], Field(min_length=1)]
GivenWeights = Annotated[Weights | None, allowed("a list of numbers >= 0 (one for each class), or null")]
Smoothing = Annotated[float, Field(strict=True, ge=0, lt=1)]
FROM_DATA = "auto, inverse, sqrt_inverse, median_frequency or effective_number (from the training data)"


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


def check_loss(config: object, task: TaskConfig) -> list[str]:
    """What does not fit between loss and task: messages of one line; none where all is well or the configuration has no `problems`."""
    problems: Callable[[TaskConfig], list[str]] | None = getattr(config, "problems", None)
    return problems(task) if problems else []


def length_problems(key: str, weights: Sequence[float], task: TaskConfig) -> list[str]:
    if task.classes is None or len(weights) == len(task.classes):
        return []
    names = ", ".join(task.classes)
    return [f"{key}={shown(weights)}: {len(weights)} numbers for {len(task.classes)} classes; give one for each of {names}"]


def alpha_list_problems(alpha: list[float], task: TaskConfig) -> list[str]:
    given = f"loss.alpha={shown(alpha)}"
    if task.name == "binary":
        return [f"{given}: task=binary takes one number from 0 to 1, a on the foreground and 1 - a on the rest"]
    found = length_problems("loss.alpha", alpha, task)
    if task.name == "multilabel" and max(alpha) > 1:
        found.append(f"{given}: task=multilabel takes numbers from 0 to 1, a on the positives of a class and 1 - a on its negatives")
    return found
