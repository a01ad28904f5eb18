"""What is fitted on the validation split, and how."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag, Positive
from segfocal.config.task import Mode
from segfocal.nearest import did_you_mean

OBJECTIVES = ("iou", "dice", "ap", "auroc")  # of each class, and their means
OF_OVERLAPPING = ("best_iou",)  # binary and multilabel alone: a threshold for each class


@dataclass(config=STRICT, kw_only=True)
class MetricsConfig:
    """
    Args:
        name: the option.
        choose: what the thresholds of a class (binary, multilabel) or the logit offsets (multiclass) make as large as possible on the
            validation split: `iou`, or `fbeta`, which weighs recall `beta` times as much as precision; `none` leaves 0.5 and the
            highest score.
        beta: of `fbeta`.
        calibrate: fit a temperature, by which logits are divided before they become probabilities.
    """

    name: str = "default"
    choose: Literal["none", "iou", "fbeta"] = "iou"
    beta: Positive = 1.0
    calibrate: Flag = False

    def wants_sample(self, mode: Mode) -> bool:
        """Whether logits of pixels are needed, and not their histogram alone."""
        return mode == "multiclass" and (self.choose != "none" or self.calibrate)


def objective_problems(objective: str, mode: Mode, classes: list[str]) -> list[str]:
    """What keeps a figure from being an objective."""
    figures = [*OBJECTIVES, *(OF_OVERLAPPING if mode != "multiclass" else ())]
    known = [
        "val/loss",
        *(f"val/{figure}_macro" for figure in figures),
        *(f"val/{figure}/{label}" for figure in figures for label in classes),
    ]
    if objective in known:
        return []
    said = did_you_mean(objective, known) or f": val/loss, or val/<figure>_macro or val/<figure>/<class> of {', '.join(figures)}"
    return [f"objective={objective}: no such figure{said}"]
