"""What is refused on a machine with NPUs, each in a line; and what the accelerator says of itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from torch.utils.data import DataLoader

from segfocal.accelerators.load import load
from segfocal.config.profile import ProfileConfig
from segfocal.devices import resolve
from tests.accelerators.on_npu import answer

ASCEND = ProfileConfig(name="ascend", accelerator="npu", channels_last=False)


class Nothing(LightningModule):
    """Trains a number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, index: int) -> Any:
        return self.number.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def said(work: Callable[[], object]) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def on_another_chip() -> object:
    os.environ["SIMULATED_NPU_NAME"] = "Ascend910A"
    try:
        assert resolve(ASCEND).precision == "16-mixed"
        return resolve(ASCEND, "bf16-mixed")
    finally:
        del os.environ["SIMULATED_NPU_NAME"]


def without_devices() -> object:
    os.environ["SIMULATED_NPUS"] = "0"
    try:
        return resolve(ASCEND)
    finally:
        os.environ["SIMULATED_NPUS"] = "2"


def main(folder: Path) -> dict[str, Any]:
    load("ascend")
    from segfocal.accelerators.npu import NPUAccelerator
    from segfocal.accelerators.strategies import SingleNPUStrategy
    from segfocal.accelerators.trainer import trainer_options

    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "max_steps": 1}
    batches = DataLoader([1])
    torch.save({"state_dict": {"weight": torch.arange(3.0, device="npu:1")}}, folder / "tagged.ckpt")
    return {
        "registered": "npu" in AcceleratorRegistry,
        "count": NPUAccelerator.auto_device_count(),
        "parsed": [NPUAccelerator.parse_devices(devices) for devices in (1, -1, "1,", [1, 0])],
        "devices": [str(device) for device in NPUAccelerator.get_parallel_devices([0, 1])],
        "stats": NPUAccelerator().get_device_stats("npu:0"),
        "resolved": [resolve(ASCEND).precision, resolve(ASCEND, "bf16-mixed").precision, resolve(ASCEND).autocast().device],
        "reason": resolve(ASCEND, workers=3).reason,
        "bf16": said(on_another_chip),
        "none": said(without_devices),
        "too many": said(lambda: trainer_options("16-mixed", devices=3)),
        "another": said(lambda: NPUAccelerator.parse_devices([2])),
        "strategy of Lightning": said(lambda: Trainer(accelerator="npu", devices=1, **silent).fit(Nothing(), batches)),
        "strategy of a CPU": said(lambda: SingleNPUStrategy("cpu")),
        "right": said(lambda: Trainer(**trainer_options("32-true"), **silent).fit(Nothing(), batches)),
    }


if __name__ == "__main__":
    os.environ["SIMULATED_NPUS"] = "2"
    answer(main(Path(sys.argv[1])))
