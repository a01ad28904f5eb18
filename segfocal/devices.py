"""What a profile comes to on this machine."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

import torch

from segfocal.config.run import Precision, ProfileConfig
from segfocal.errors import UserError


@dataclass
class Device:
    """
    Args:
        accelerator: as Lightning names it.
        precision: as Lightning names it.
        workers: processes that load data.
        reason: why these, for the log.
    """

    accelerator: str
    precision: Precision
    workers: int
    reason: str

    def autocast(self) -> torch.autocast:
        """The precision, for what no Trainer runs."""
        kind = "cpu" if self.accelerator == "cpu" else "cuda"
        return torch.autocast(kind, torch.float16 if self.precision == "16-mixed" else torch.bfloat16, enabled=self.precision != "32-true")

    @property
    def pin_memory(self) -> bool:
        return self.accelerator != "cpu"


def resolve(profile: ProfileConfig, precision: Precision | None = None, workers: int | None = None) -> Device:
    """The device to run on.

    Args:
        profile: of the configuration.
        precision: what `trainer.precision` asks for; it goes before the profile's.
        workers: what `data.num_workers` asks for, likewise.

    Raises:
        UserError: the device is not there, or does not compute in that precision.
    """
    if profile.accelerator == "npu":
        _require_torch_npu()
    accelerator = profile.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            f"profile={profile.name}: no CUDA GPU is seen by torch {torch.__version__}: profile=auto or profile=cpu runs without one"
        )
    wanted = precision or profile.precision
    has_bf16 = cpu_has_bf16() if accelerator == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu" and wanted == "16-mixed":
        raise UserError("trainer.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true")
    chosen = wanted or ("bf16-mixed" if has_bf16 else "32-true" if accelerator == "cpu" else "16-mixed")
    if workers is None:
        workers = profile.num_workers if profile.num_workers is not None else default_workers(accelerator)
    name = torch.cuda.get_device_name() if accelerator == "gpu" else f"{torch.get_num_threads()} threads"
    why = "as asked" if wanted else "computed natively" if has_bf16 else "bf16 is not native here"
    return Device(
        accelerator, chosen, workers, f"{accelerator} ({name}), precision {chosen} ({why}), {workers} worker{'' if workers == 1 else 's'}"
    )


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 natively; elsewhere it is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def default_workers(accelerator: str) -> int:
    """On a GPU a worker for each core, at most 8; on a CPU one: the cores are busy with the model."""
    cores = os.cpu_count() or 1
    return min(8, cores) if accelerator == "gpu" else min(1, cores - 1)


def _require_torch_npu() -> None:
    if importlib.util.find_spec("torch_npu") is None:
        raise UserError(
            "profile=ascend: torch_npu is not installed: install CANN and the torch_npu of your torch's version, or run with profile=cpu"
        )
    raise UserError("profile=ascend: this version does not train on Ascend yet: run with profile=cpu or profile=gpu")
