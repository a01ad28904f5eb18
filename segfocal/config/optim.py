"""Optimisers and learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag, Fraction, NonNegative, OpenFraction, Positive, allowed
from segfocal.registry import Registry

OPTIMIZERS = Registry("optimizer", "segfocal.optim")
SCHEDULERS = Registry("scheduler", "segfocal.optim")

Momentum = Annotated[float, Field(strict=True, ge=0, lt=1)]


@dataclass(config=STRICT, kw_only=True)
class OptimizerConfig:
    """
    Args:
        lr: the (highest) learning rate.
        weight_decay: on convolution and linear weights; biases and normalisation layers have none.
        encoder_lr_scale: times `lr` is the encoder's. Below 1 it keeps more of what pretrained weights know; `auto` is 0.3 where there are
            any (`model.weights`), else 1.
    """

    name: str
    lr: Positive = 1e-3
    weight_decay: NonNegative = 1e-2
    encoder_lr_scale: Annotated[Positive | Literal["auto"], allowed("a number above 0, or auto (from model.weights)")] = 1.0


@OPTIMIZERS.config("adamw")
@dataclass(config=STRICT, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    betas: Annotated[list[Momentum], Field(min_length=2, max_length=2)] = Field(default_factory=lambda: [0.9, 0.999])


@OPTIMIZERS.config("sgd")
@dataclass(config=STRICT, kw_only=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 1e-2
    weight_decay: NonNegative = 1e-4
    momentum: Momentum = 0.9
    nesterov: Flag = True

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov=true needs optimizer.momentum above 0")


@dataclass(config=STRICT, kw_only=True)
class SchedulerConfig:
    """Every schedule but `plateau` moves after each step and knows how many steps there will be."""

    name: str


@SCHEDULERS.config("constant")
@dataclass(config=STRICT, kw_only=True)
class ConstantConfig(SchedulerConfig):
    """lr stays."""

    name: Literal["constant"] = "constant"


@SCHEDULERS.config("poly")
@dataclass(config=STRICT, kw_only=True)
class PolyConfig(SchedulerConfig):
    """lr * (1 - t)^power, t the share of training done (DeepLab, arXiv 1606.00915), after a linear warm-up over `warmup` of it."""

    name: Literal["poly"] = "poly"
    power: Positive = 0.9
    warmup: Fraction = 0.05


@SCHEDULERS.config("cosine")
@dataclass(config=STRICT, kw_only=True)
class CosineConfig(SchedulerConfig):
    """lr * (1 + cos(pi t)) / 2 (arXiv 1608.03983, no restarts), after a linear warm-up over `warmup` of training."""

    name: Literal["cosine"] = "cosine"
    warmup: Fraction = 0.05


@SCHEDULERS.config("onecycle")
@dataclass(config=STRICT, kw_only=True)
class OneCycleConfig(SchedulerConfig):
    """One cycle (arXiv 1708.07120, learning rate alone): up from lr / div_factor over `pct_start` of training, then down to nearly 0."""

    name: Literal["onecycle"] = "onecycle"
    pct_start: OpenFraction = 0.3
    div_factor: Positive = 25.0


@SCHEDULERS.config("plateau")
@dataclass(config=STRICT, kw_only=True)
class PlateauConfig(SchedulerConfig):
    """lr * factor whenever the objective has not improved for `patience` validations."""

    name: Literal["plateau"] = "plateau"
    factor: OpenFraction = 0.5
    patience: Count = 5
