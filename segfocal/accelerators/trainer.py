"""What Lightning's Trainer is told where it is to run on NPUs."""

from __future__ import annotations

from typing import Any

from segfocal.accelerators.npu import NPUAccelerator
from segfocal.accelerators.precision import NPUMixedPrecision
from segfocal.accelerators.strategies import NPUDDPStrategy, SingleNPUStrategy
from segfocal.config.profile import Precision


def trainer_options(precision: Precision, devices: int = 1) -> dict[str, Any]:
    """Arguments of `Trainer`; the precision stands with the strategy.

    Args:
        precision: of `load.precision_of`.
        devices: of this machine.

    Raises:
        UserError: there are not as many devices.
    """
    numbers = NPUAccelerator.parse_devices(devices)  # before any plug-in is built
    plugin = None if precision == "32-true" else NPUMixedPrecision(precision)
    strategy = SingleNPUStrategy(precision_plugin=plugin) if devices == 1 else NPUDDPStrategy(precision_plugin=plugin)
    return {"accelerator": NPUAccelerator(), "strategy": strategy, "devices": numbers}
