"""A weighted sum of losses, which remembers what each of them was."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segfocal.config.loss_sum import SumConfig
from segfocal.config.task import TaskConfig
from segfocal.losses.weights import numbers
from segfocal.registry import LOSSES


class WeightedSum(nn.Module):
    """sum over terms of weight * loss.

    Args:
        terms: losses by name, each called as `loss(logits, target)`.
        weights: by name, >= 0; 1 where there is none.

    Attributes:
        parts: the terms of the last call by name, without their weights and without a graph; for logs.

    Raises:
        ValueError: for weights of what is no term.

    Example:
        >>> from segfocal.losses import DiceLoss, FocalLoss
        >>> loss = WeightedSum({"focal": FocalLoss("binary"), "dice": DiceLoss("binary")}, {"dice": 0.5})
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if unknown := [name for name in weights if name not in terms]:
            raise ValueError(f"weights of {', '.join(unknown)}: there is no such term; terms are {', '.join(terms)}")
        # no part of a module may be called as one of its attributes, such as `type`
        self.terms = nn.ModuleDict({f"{name}_" if hasattr(nn.ModuleDict(), name) else name: loss for name, loss in terms.items()})
        self.weights = {name: weights.get(name, 1.0) for name in terms}
        self.parts: dict[str, Tensor] = {}

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The sum, a scalar."""
        values = {name: loss(logits_NCHW, target) for name, loss in zip(self.weights, self.terms.values(), strict=True)}
        self.parts = {name: value.detach() for name, value in values.items()}
        return torch.stack([self.weights[name] * value for name, value in values.items()]).sum()

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


@LOSSES.builder(SumConfig)
def build(config: SumConfig, task: TaskConfig) -> WeightedSum:
    """The sum that a configuration describes."""
    weights = {name: numbers(weight) for name, weight in config.weights.items()}
    return WeightedSum({name: LOSSES.build(term, task) for name, term in config.terms.items()}, weights)
