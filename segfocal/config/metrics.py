"""What is fitted on the validation split, and how."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag, Positive


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
