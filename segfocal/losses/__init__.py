"""Losses, for the application and on their own: importing them needs neither Hydra nor Lightning.

>>> from segfocal.losses import FocalLoss
>>> loss = FocalLoss("binary", alpha=0.75, gamma=2.0, ignore_index=255)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from segfocal.config.loss import check_loss
from segfocal.config.task import TaskConfig
from segfocal.losses.asymmetric import AsymmetricLoss
from segfocal.losses.ce import CrossEntropyLoss
from segfocal.losses.dice import DiceLoss
from segfocal.losses.focal import FocalLoss
from segfocal.losses.functional import sigmoid_focal, softmax_focal
from segfocal.losses.logit_adjusted import LogitAdjustedLoss
from segfocal.losses.lovasz import LovaszLoss
from segfocal.losses.ohem_ce import OhemCrossEntropyLoss
from segfocal.losses.poly import Poly1FocalLoss
from segfocal.losses.recall_ce import RecallCrossEntropyLoss
from segfocal.losses.region import FocalTverskyLoss, JaccardLoss, TverskyLoss
from segfocal.losses.unified_focal import UnifiedFocalLoss
from segfocal.losses.weighted_sum import WeightedSum
from segfocal.registry import LOSSES

__all__ = [
    "AsymmetricLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "JaccardLoss",
    "LogitAdjustedLoss",
    "LovaszLoss",
    "OhemCrossEntropyLoss",
    "Poly1FocalLoss",
    "RecallCrossEntropyLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "WeightedSum",
    "build_loss",
    "sigmoid_focal",
    "softmax_focal",
]


def build_loss(config: Any, task: TaskConfig) -> nn.Module:
    """Build the loss that a configuration describes; call it as `loss(logits, target)`.

    Args:
        config: a registered configuration, or a plain mapping such as `{"name": "focal", "gamma": 1.0}`.
        task: what is to be segmented; it gives the mode and the ignore_index.

    Raises:
        ValueError: for unknown names and keys, values out of range, and what does not fit the task.

    Example:
        >>> loss = build_loss({"name": "focal", "gamma": 1.0}, TaskConfig(name="binary"))
    """
    config = LOSSES.validate(config)
    if problems := check_loss(config, task):
        raise ValueError("\n".join(problems))
    loss: nn.Module = LOSSES.build(config, task)
    return loss
