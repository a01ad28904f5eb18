"""Optimisers and learning-rate schedules, built from their configuration."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from segfocal.config.optim import (
    OPTIMIZERS,
    SCHEDULERS,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    OptimizerConfig,
    PlateauConfig,
    PolyConfig,
    SGDConfig,
)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Weights, which decay, and one-dimensional parameters (biases, normalisation), which do not; the encoder's by themselves where their rate is another."""
    assert config.encoder_lr_scale != "auto", "the recipe has settled it"
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.encoder_lr_scale == 1:
        return _decayed_and_free([parameter for _, parameter in trained], config.lr, config.weight_decay)
    encoder = [parameter for name, parameter in trained if name.startswith("encoder.")]
    others = [parameter for name, parameter in trained if not name.startswith("encoder.")]
    slower = _decayed_and_free(encoder, config.lr * config.encoder_lr_scale, config.weight_decay)
    return _decayed_and_free(others, config.lr, config.weight_decay) + slower  # the rate that curves show is the first


def _decayed_and_free(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


@OPTIMIZERS.builder(AdamWConfig)
def adamw(config: AdamWConfig, model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=(config.betas[0], config.betas[1]))


@OPTIMIZERS.builder(SGDConfig)
def sgd(config: SGDConfig, model: nn.Module) -> Optimizer:
    groups = parameter_groups(model, config)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def fuse(groups: list[dict[str, Any]], fused: bool) -> None:
    """Have parameter groups stepped in one kernel, or not, where their optimiser can; in a checkpoint it is said by whoever wrote it."""
    for group in groups:
        if "fused" in group:
            group["fused"] = fused or None


def withhold(optimizer: Optimizer, bad: Tensor) -> None:
    """Have the next step of an optimiser change nothing where `bad` is true, on an accelerator without waiting to know.

    A fused optimiser of an accelerator leaves such a step out, as it does for a GradScaler. Others there take it with a gradient of zero:
    momentum and weight decay go on. On a CPU no optimiser has anything to do.

    Args:
        bad: a scalar on the device of the gradient.
    """
    if bad.device.type == "cpu":
        if bad:
            optimizer.zero_grad(set_to_none=True)
    elif optimizer.param_groups[0].get("fused"):
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # what torch's fused optimisers look for
    else:
        for gradient in gradients(optimizer):
            local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            local.masked_fill_(bad, 0)


def start_momentum(optimizer: Optimizer) -> None:
    """Let momentum be there, as zero: where its first step is left out, torch's fused SGD goes on with what lay in memory before."""
    for group in optimizer.param_groups:
        if isinstance(optimizer, SGD) and group["fused"] and group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """All that there are of an optimiser's parameters."""
    return [parameter.grad for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]


def warmed_up(share: float, warmup: float) -> tuple[float, float]:
    """The factor of a linear warm-up over the first `warmup` of training, and the share done of what follows."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3), 0.0
    return 1.0, (share - warmup) / max(1e-12, 1 - warmup)


@SCHEDULERS.builder(ConstantConfig)
def constant(config: ConstantConfig, optimizer: Optimizer, steps: int, minimise: bool) -> dict[str, Any]:
    return _each_step(LambdaLR(optimizer, lambda step: 1.0))


@SCHEDULERS.builder(PolyConfig)
def poly(config: PolyConfig, optimizer: Optimizer, steps: int, minimise: bool) -> dict[str, Any]:
    def factor(step: int) -> float:
        warm, share = warmed_up(step / steps, config.warmup)
        return warm * math.pow(max(0.0, 1 - share), config.power)

    return _each_step(LambdaLR(optimizer, factor))


@SCHEDULERS.builder(CosineConfig)
def cosine(config: CosineConfig, optimizer: Optimizer, steps: int, minimise: bool) -> dict[str, Any]:
    def factor(step: int) -> float:
        warm, share = warmed_up(step / steps, config.warmup)
        return warm * (1 + math.cos(math.pi * min(1.0, share))) / 2

    return _each_step(LambdaLR(optimizer, factor))


@SCHEDULERS.builder(OneCycleConfig)
def onecycle(config: OneCycleConfig, optimizer: Optimizer, steps: int, minimise: bool) -> dict[str, Any]:
    """As torch's OneCycleLR without its momentum; that one stores the number of steps, so that no run could be made longer."""
    low, lowest = 1 / config.div_factor, 1e-4 / config.div_factor

    def factor(step: int) -> float:
        share = step / max(1, steps - 1)
        if share < config.pct_start:
            return _between(low, 1.0, share / config.pct_start)
        return _between(1.0, lowest, min(1.0, (share - config.pct_start) / (1 - config.pct_start)))

    return _each_step(LambdaLR(optimizer, factor))


@SCHEDULERS.builder(PlateauConfig)
def plateau(config: PlateauConfig, optimizer: Optimizer, steps: int, minimise: bool) -> dict[str, Any]:
    mode: Literal["min", "max"] = "min" if minimise else "max"
    return {"scheduler": ReduceLROnPlateau(optimizer, mode, config.factor, config.patience), "interval": "epoch"}


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The optimiser of a model's parameters."""
    optimizer: Optimizer = OPTIMIZERS.build(config, model)
    return optimizer


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _each_step(scheduler: Any) -> dict[str, Any]:
    return {"scheduler": scheduler, "interval": "step"}
