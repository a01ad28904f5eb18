"""The device of a process of several, and what Lightning is told of them all."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from segfocal.config.profile import Precision, ProfileConfig
from segfocal.config.strategy import DDPConfig, SingleConfig, StrategyConfig
from segfocal.devices import Device, resolve
from segfocal.errors import UserError
from segfocal.parallel.place import Place, here
from segfocal.parallel.strategies import lightning_strategy


@dataclass
class PlacedDevice(Device):
    """
    Args:
        place: of this process.
        strategy: by which it trains.
        numbers: of the machine's devices, one for each of its processes.
    """

    place: Place = field(default_factory=Place)
    strategy: StrategyConfig = field(default_factory=SingleConfig)
    numbers: list[int] = field(default_factory=lambda: [0])

    @property
    def torch_device(self) -> torch.device:
        kind = super().torch_device.type
        return torch.device(kind) if kind == "cpu" else torch.device(kind, self.numbers[self.place.local_rank])

    def trainer_options(self, strategy: StrategyConfig | None = None) -> dict[str, Any]:
        """What Lightning's Trainer is told.

        Args:
            strategy: of a training; evaluation is the same under all: each process has the whole model, and images of its own.
        """
        alone = self.place.world == 1
        devices: int | list[int] = len(self.numbers) if self.accelerator == "cpu" else self.numbers
        chosen: StrategyConfig = SingleConfig() if alone else strategy or DDPConfig()
        options: dict[str, Any] = {"accelerator": self.accelerator, "devices": devices, "precision": self.precision}
        if self.accelerator == "npu":
            from segfocal.accelerators.trainer import trainer_options  # no other device needs it

            options = trainer_options(self.precision, self.numbers, None if alone else _ddp_options(chosen))
        elif not alone:
            options["strategy"] = lightning_strategy(chosen, self.place)
        # Named, or Lightning would take a job of SLURM for its own and answer its signals.
        environment = LightningEnvironment() if alone else TorchElasticEnvironment()
        return options | self.switches | {"num_nodes": self.place.machines, "plugins": [environment]}


def placed(
    profile: ProfileConfig,
    precision: Precision | None = None,
    workers: int | None = None,
    strategy: StrategyConfig | None = None,
    devices: int | list[int] | None = None,
) -> PlacedDevice:
    """The device of this process.

    Args:
        profile, precision, workers: of `resolve`.
        strategy: by which it trains; None trains nothing.
        devices: `trainer.devices`.

    Raises:
        UserError: it is not there, or does not do what is asked for.
    """
    place = here()
    if (
        strategy is not None
        and devices is not None
        and place.local_world != (count := len(devices) if isinstance(devices, list) else devices)
    ):
        raise UserError(f"trainer.devices={devices}: train.py, torchrun or srun start {count} processes; there is {place.local_world}")
    numbers = devices if isinstance(devices, list) else list(range(place.local_world))
    if profile.accelerator in ("gpu", "auto") and 0 < torch.cuda.device_count() <= max(numbers):
        raise UserError(
            f"trainer.devices={devices or place.local_world}: torch sees {torch.cuda.device_count()} GPUs, numbered from 0: "
            "ask for fewer, or see CUDA_VISIBLE_DEVICES; under srun each process has to see all of them (--gpus-per-node, not --gpus-per-task)"
        )
    number = numbers[place.local_rank]
    found = resolve(profile, precision, workers, number)
    if workers is None and profile.num_workers is None and place.local_world > 1:  # the processes of a machine share its cores
        found = resolve(profile, precision, min(found.workers, max(1, (os.cpu_count() or 1) // place.local_world)), number)
    if isinstance(devices, list) and found.accelerator == "cpu":
        raise UserError(f"trainer.devices={devices}: a CPU has no numbers (profile={profile.name} has come to the CPU)")
    if getattr(strategy, "sync_batchnorm", False) and found.accelerator == "cpu":
        raise UserError(f"strategy.sync_batchnorm=true: torch has it for no CPU, which profile={profile.name} has come to")
    if strategy is not None and strategy.name == "fsdp" and found.precision == "16-mixed":
        raise UserError("strategy=fsdp: not with the scaled gradients of 16-mixed, which the device wants: trainer.precision=32-true")
    values = {item.name: getattr(found, item.name) for item in dataclasses.fields(found)}
    return PlacedDevice(**values, place=place, strategy=strategy or SingleConfig(), numbers=numbers)


def _ddp_options(strategy: StrategyConfig) -> dict[str, Any]:
    return {"find_unused_parameters": getattr(strategy, "find_unused_parameters", False)}
