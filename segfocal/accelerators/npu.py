"""The accelerator `npu`; importing this registers it with Lightning."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry

from segfocal.accelerators.load import device_count, torch_npu
from segfocal.errors import UserError


class NPUAccelerator(Accelerator):
    """Huawei Ascend. `load` has to have imported torch_npu; until then there is no such device."""

    def setup_device(self, device: torch.device) -> None:
        """Make the device the current one.

        Raises:
            ValueError: it is no NPU. Lightning takes the CPU where it is not told the strategy of an accelerator that it does not know.
        """
        if device.type != "npu":
            raise ValueError(f"the accelerator npu was given the device {device}: use SingleNPUStrategy or NPUDDPStrategy")
        torch_npu().set_device(device)

    def setup(self, trainer: Trainer) -> None:
        torch_npu().empty_cache()

    def teardown(self) -> None:
        torch_npu().empty_cache()

    def get_device_stats(self, device: str | torch.device | int) -> dict[str, Any]:
        return dict(torch_npu().memory_stats(device))

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> list[int]:
        """Numbers of devices, from a count (-1: all), a comma-separated list of numbers, or such a list.

        Raises:
            UserError: there are not as many, or none are asked for.
        """
        there = device_count()
        if isinstance(devices, str) and "," in devices:
            devices = [int(number) for number in devices.split(",") if number.strip()]
        numbers = devices if isinstance(devices, list) else list(range(there if int(devices) == -1 else int(devices)))
        if not numbers or min(numbers) < 0 or max(numbers) >= there or len(set(numbers)) != len(numbers):
            wanted = f"{devices} NPUs are" if isinstance(devices, int) and devices != 1 else f"devices={devices} is"
            raise UserError(f"{wanted} asked for, and torch_npu sees {there}: ask for fewer, or see ASCEND_RT_VISIBLE_DEVICES")
        return numbers

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device("npu", number) for number in devices]

    @staticmethod
    def auto_device_count() -> int:
        return device_count()

    @staticmethod
    def is_available() -> bool:
        return device_count() > 0

    @staticmethod
    def name() -> str:
        return "npu"


if NPUAccelerator.name() not in AcceleratorRegistry:
    AcceleratorRegistry.register(NPUAccelerator.name(), NPUAccelerator, description=NPUAccelerator.__name__)
