"""How a run is shared out among several devices."""

from __future__ import annotations

from typing import Any, Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag
from segfocal.registry import Registry

STRATEGIES = Registry("strategy", "segfocal.parallel.strategies")


@dataclass(config=STRICT, kw_only=True)
class StrategyConfig:
    """
    Args:
        name: the option.
    """

    name: str


@STRATEGIES.config("single")
@dataclass(config=STRICT, kw_only=True)
class SingleConfig(StrategyConfig):
    """One device."""

    name: Literal["single"] = "single"


@dataclass(config=STRICT, kw_only=True)
class SharedConfig(StrategyConfig):
    """
    Args:
        sync_batchnorm: BatchNorm takes its statistics from the batches of all devices; not on a CPU.
    """

    sync_batchnorm: Flag = False


@STRATEGIES.config("ddp")
@dataclass(config=STRICT, kw_only=True)
class DDPConfig(SharedConfig):
    """
    Args:
        find_unused_parameters: look in each step for weights that had no part in it; costs time, and some models want it.
    """

    name: Literal["ddp"] = "ddp"
    find_unused_parameters: Flag = False


@STRATEGIES.config("fsdp")
@dataclass(config=STRICT, kw_only=True)
class FSDPConfig(SharedConfig):
    """Weights, gradients and the optimiser's state are divided among the devices."""

    name: Literal["fsdp"] = "fsdp"


def strategy_problems(
    strategy: StrategyConfig, devices: int | list[int] | None, profile: Any, precision: str | None, ema: float | str | None
) -> list[str]:
    """What does not go together, whatever the machine.

    Args:
        strategy: of the run.
        devices: `trainer.devices`.
        profile: `ProfileConfig`.
        precision: `trainer.precision`.
        ema: `callbacks.ema`.
    """
    problems, accelerator = [], profile.accelerator
    count = len(devices) if isinstance(devices, list) else devices or 1
    shown = str(devices).replace(" ", "")
    if isinstance(devices, list) and (not devices or len(set(devices)) < len(devices)):
        problems.append(f"trainer.devices={shown}: numbers of devices, each once, as in [0,1]")
    if isinstance(devices, list) and accelerator == "cpu":
        problems.append(f"trainer.devices={shown}: a CPU has no numbers: say how many processes, as in trainer.devices={count}")
    if strategy.name == "single" and count > 1:
        problems.append(f"trainer.devices={shown} with strategy=single: strategy=ddp trains on several devices")
    if accelerator == "cpu" and getattr(strategy, "sync_batchnorm", False):
        problems.append("strategy.sync_batchnorm=true: torch has it for no CPU (profile=cpu): strategy.sync_batchnorm=false")
    if strategy.name == "fsdp":
        if ema is not None:
            problems.append(
                f"strategy=fsdp: the average of the weights is not divided among devices (callbacks.ema={ema}): callbacks.ema=null"
            )
        if profile.compile:
            problems.append(f"strategy=fsdp: weights that are divided are not compiled: profile.compile=false, not {profile.compile}")
        if accelerator == "npu":
            problems.append("strategy=fsdp: not on NPUs (profile=ascend): strategy=ddp")
        if (precision or profile.precision) == "16-mixed":
            problems.append("strategy=fsdp: not with the scaled gradients of trainer.precision=16-mixed: bf16-mixed or 32-true")
    return problems
