"""What Lightning's Trainer is told where it is to run on NPUs."""

from __future__ import annotations

from typing import Any

from segfocal.accelerators.npu import NPUAccelerator
from segfocal.accelerators.precision import NPUMixedPrecision
from segfocal.accelerators.strategies import NPUDDPStrategy, SingleNPUStrategy
from segfocal.config.profile import Precision


def trainer_options(precision: Precision, devices: int | list[int] = 1, ddp: dict[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of `Trainer`; the precision stands with the strategy.

    Args:
        precision: of `load.precision_of`.
        devices: of this machine, how many or which.
        ddp: of NPUDDPStrategy, which it takes for several devices, and where these are given; else one NPU trains by itself.

    Raises:
        UserError: there are not as many devices.
    """
    numbers = NPUAccelerator.parse_devices(devices)  # before any plug-in is built
    plugin = None if precision == "32-true" else NPUMixedPrecision(precision)
    if ddp is None and len(numbers) == 1:
        strategy: SingleNPUStrategy | NPUDDPStrategy = SingleNPUStrategy(f"npu:{numbers[0]}", plugin)
    else:
        strategy = NPUDDPStrategy(precision_plugin=plugin, **(ddp or {}))
    return {"accelerator": NPUAccelerator(), "strategy": strategy, "devices": numbers}
