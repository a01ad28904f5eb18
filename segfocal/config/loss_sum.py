"""A weighted sum of losses: `loss=focal_dice`, or any others. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segfocal.config.balance import ClassCounts
from segfocal.config.base import STRICT, NonNegative, allowed
from segfocal.config.loss import LossConfig, check_loss
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES

DICE = 2.0  # where the class weights beside it say much for rare classes: those that are meant by auto where classes exclude each other
Weight = Annotated[NonNegative | Literal["auto"], allowed("a finite number >= 0, or auto (from the task)")]


def _by_name(value: Any) -> Any:
    """A list of losses as a mapping from their names, and a list of numbers as one from their places; nothing as none."""
    if not isinstance(value, list):
        return {} if value is None else value
    names = [str(item.get("name", place)) if isinstance(item, Mapping) else str(place) for place, item in enumerate(value)]
    return {
        name if names.count(name) == 1 else f"{name}_{place}": item for place, (name, item) in enumerate(zip(names, value, strict=True))
    }


@LOSSES.config("sum")
@dataclass(config=STRICT, kw_only=True)
class SumConfig(LossConfig):
    """
    Args:
        terms: losses by the names that their values are logged under, or a list of them: `[{name:focal,gamma:1},{name:dice}]`.
        weights: what each term is multiplied with, >= 0, by name or in the order of the terms; 1 where nothing is said. auto, for Dice beside
            cross-entropy with class weights: 2 where classes exclude each other, else 1.
    """

    name: Literal["sum"] = "sum"
    terms: Annotated[dict[str, Annotated[LossConfig, LOSSES.field]], BeforeValidator(_by_name)] = Field(default_factory=dict)
    weights: Annotated[dict[str, Weight], BeforeValidator(_by_name)] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weights and all(name.isdecimal() for name in self.weights) and len(self.weights) == len(self.terms):
            self.weights = dict(zip(self.terms, self.weights.values(), strict=True))

    @property
    def wants_prior(self) -> bool:  # type: ignore[override]  # a constant of the other classes, here a matter of the terms
        """Whether one of the terms wants it."""
        return any(getattr(term, "wants_prior", False) for term in self.terms.values())

    def problems(self, task: TaskConfig) -> list[str]:
        if not self.terms:
            return ["loss.terms is empty: name losses, as in 'loss.terms=[{name:focal,gamma:1},{name:dice}]', or take loss=focal_dice"]
        found = [
            f"loss.weights.{name}={weight}: there is no such term; terms are {', '.join(self.terms)}"
            for name, weight in self.weights.items()
            if name not in self.terms
        ]
        found += [
            f"loss.weights.{name}=auto: is for Dice: say a number"
            for name, weight in self.weights.items()
            if weight == "auto" and getattr(self.terms.get(name), "name", "dice") != "dice"
        ]
        for name, term in self.terms.items():
            found += [problem.replace("loss.", f"loss.terms.{name}.") for problem in check_loss(term, task)]
        return found

    def balanced(self, counts: ClassCounts, task: TaskConfig) -> SumConfig:
        auto = DICE if task.name == "multiclass" else 1.0
        weights: dict[str, float | Literal["auto"]] = {name: auto if weight == "auto" else weight for name, weight in self.weights.items()}
        return replace(self, terms={name: balanced(term, counts, task) for name, term in self.terms.items()}, weights=weights)


def balanced(config: LossConfig, counts: ClassCounts, task: TaskConfig) -> LossConfig:
    """`config.balanced`, of a plug-in's that derives from nothing, too."""
    return config.balanced(counts, task) if isinstance(config, LossConfig) else config
