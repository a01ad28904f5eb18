"""From logits to probabilities and to classes: the plain rule, or what was fitted on the validation split and lies in the checkpoint."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segfocal.config.task import Mode, TaskConfig


@dataclass(frozen=True)
class Decision:
    r"""
    .. math::
        p_c = \sigma(x_c / T_c) \quad \text{(binary, multilabel)}, \qquad p = \operatorname{softmax}(x / T) \quad \text{(multiclass)}

    Binary and multilabel decide for class c where p_c > threshold_c; multiclass for the class with the largest x_c + offset_c, the first
    of equals.

    Args:
        mode: of the task.
        temperature: T, one for each class, in multiclass a single one; empty is 1 for all.
        thresholds: probabilities in (0, 1), one for each class of binary and multilabel; empty is 0.5 for all.
        offsets: of logits, one for each class of multiclass; empty is 0 for all.
        fitted_for: what the thresholds or offsets make largest: `iou`, or `fbeta` with its beta; empty where nothing was fitted.

    Raises:
        ValueError: for numbers out of range, and for what is not of the mode.
    """

    mode: Mode
    temperature: list[float] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    fitted_for: str = ""

    def __post_init__(self) -> None:
        if not all(isinstance(values, list) for values in (self.temperature, self.thresholds, self.offsets)):
            raise ValueError("temperature, thresholds and offsets are lists")
        if not all(math.isfinite(value) and value > 0 for value in self.temperature):
            raise ValueError(f"temperature={self.temperature}: finite numbers above 0")
        if not all(0 < value < 1 for value in self.thresholds):
            raise ValueError(f"thresholds={self.thresholds}: probabilities between 0 and 1, both excluded")
        if not all(math.isfinite(value) for value in self.offsets):
            raise ValueError(f"offsets={self.offsets}: finite numbers")
        if self.thresholds if self.mode == "multiclass" else self.offsets:
            raise ValueError(f"mode={self.mode} takes {'offsets' if self.mode == 'multiclass' else 'thresholds'} alone")

    @property
    def plain(self) -> bool:
        """Whether it decides as everybody does: above 0.5, or for the highest score."""
        return not any(self.offsets) and all(threshold == 0.5 for threshold in self.thresholds)

    def probabilities(self, logits_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1], fp32 at least."""
        logits = logits_NCHW.to(torch.promote_types(logits_NCHW.dtype, torch.float32))
        if self.temperature:
            logits = logits / self._per_class(self.temperature, logits)
        return logits.softmax(1) if self.mode == "multiclass" else logits.sigmoid()

    def labels(self, logits_NCHW: Tensor) -> Tensor:
        """Class ids (N, H, W) of multiclass, else 0 and 1 (N, C, H, W); uint8."""
        if self.mode == "multiclass":
            offset = self._per_class(self.offsets, logits_NCHW) if self.offsets else 0.0
            return (logits_NCHW.float() + offset).max(1).indices.to(torch.uint8)
        # The probability against the threshold, not the logit against the threshold's: this is what others do, and rounds as they do.
        thresholds = self._per_class(self.thresholds, logits_NCHW) if self.thresholds else 0.5
        return (self.probabilities(logits_NCHW) > thresholds).to(torch.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(stored: dict[str, Any] | None, task: TaskConfig) -> Decision:
        """What `as_dict` gave; the plain rule for None.

        Raises:
            ValueError: it is not for that task.
        """
        if stored is None:
            return Decision(task.name)
        decision = Decision(**stored)
        lengths = {len(decision.thresholds), len(decision.offsets)} - {0}
        temperatures = {len(decision.temperature)} - {0}
        if (
            decision.mode != task.name
            or lengths - {task.num_classes}
            or temperatures - {1 if task.name == "multiclass" else task.num_classes}
        ):
            raise ValueError(f"a decision for {decision.mode} of other classes than {', '.join(task.class_names)}")
        return decision

    @staticmethod
    def _per_class(values: list[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).reshape(-1, *[1] * (like.ndim - 2))


def labels_of(logits: Tensor, decision: Decision) -> NDArray[np.uint8]:
    """What logits (N, C, H, W) are decided to be: class ids (N, H, W), or 0/1 (N, H, W, C) where classes may overlap or there is one."""
    labels = decision.labels(logits)
    found: NDArray[np.uint8] = (labels if decision.mode == "multiclass" else labels.permute(0, 2, 3, 1)).cpu().numpy()
    return found
