"""What a profile comes to on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass, field
from typing import Any

import torch

from segfocal.config.profile import Precision, ProfileConfig
from segfocal.errors import UserError
from segfocal.switches import switch

log = logging.getLogger("segfocal")


@dataclass
class Device:
    """
    Args:
        accelerator: as Lightning names it.
        precision: as Lightning names it.
        workers: processes that load data.
        reason: why these, for the log.
        channels_last: memory format of the convolutions.
        switches: what Lightning's Trainer is told besides.
    """

    accelerator: str
    precision: Precision
    workers: int
    reason: str
    channels_last: bool = True
    switches: dict[str, Any] = field(default_factory=dict)

    def autocast(self) -> torch.autocast:
        """The precision, for what no Trainer runs."""
        kind = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        return torch.autocast(self.torch_device.type, kind, enabled=self.precision != "32-true")

    @property
    def torch_device(self) -> torch.device:
        """As torch names it."""
        return torch.device("cuda" if self.accelerator == "gpu" else self.accelerator)

    @property
    def pin_memory(self) -> bool:
        return self.accelerator != "cpu"


def resolve(profile: ProfileConfig, precision: Precision | None = None, workers: int | None = None, number: int = 0) -> Device:
    """The device to run on; torch's switches are set for it.

    Args:
        profile: of the configuration.
        precision: what `trainer.precision` asks for; it goes before the profile's.
        workers: what `data.num_workers` asks for, likewise.
        number: of the GPU, of several that need not be alike.

    Raises:
        UserError: the device is not there, or does not compute in that precision.
    """
    accelerator, taken = profile.accelerator, ""
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        taken = f"{_why(accelerator)}: "
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            f"profile={profile.name}: no CUDA GPU is seen by torch {torch.__version__}: profile=auto or profile=cpu runs without one"
        )
    wanted = precision or profile.precision
    asked = f"{'trainer' if precision else 'profile'}.precision={wanted}"
    if accelerator == "cpu" and wanted == "16-mixed":
        raise UserError(f"{asked}: a CPU does not train in fp16: bf16-mixed or 32-true")
    if accelerator == "npu":
        name, chosen, why = _npu(profile, wanted, asked)
    else:
        name, has_bf16 = _gpu(number) if accelerator == "gpu" else ("", cpu_has_bf16())
        if wanted == "bf16-mixed" and not has_bf16:
            if accelerator == "gpu":
                raise UserError(f"{asked}: {name} does not compute in bf16: 16-mixed or 32-true")
            log.warning("%s: this processor has no bf16 of its own (AVX512-BF16 or AMX): 32-true is faster", asked)
        chosen = wanted or ("bf16-mixed" if has_bf16 else "32-true" if accelerator == "cpu" else "16-mixed")
        why = "computed natively" if has_bf16 else "bf16 is not native here"
    switches = switch(profile, accelerator)
    if accelerator == "cpu":
        name = f"{torch.get_num_threads()} threads"
    if workers is None:
        workers = profile.num_workers if profile.num_workers is not None else default_workers(accelerator)
    shown = f"{taken}{accelerator} ({name}), precision {chosen} ({'as asked' if wanted else why}), {workers} worker{'' if workers == 1 else 's'}"
    return Device(accelerator, chosen, workers, shown, profile.channels_last, switches)


def _why(accelerator: str) -> str:
    """Why profile=auto takes it."""
    if accelerator == "gpu":
        return "profile=auto, a CUDA GPU is seen"
    npu = "; torch_npu is installed: profile=ascend takes NPUs" if importlib.util.find_spec("torch_npu") else ""
    return f"profile=auto, no CUDA GPU is seen by torch {torch.__version__}{npu}"


def _gpu(number: int) -> tuple[str, bool]:
    """The name of a GPU, and whether it computes in bf16 natively: NVIDIA's since Ampere, and all of AMD's that torch runs on."""
    return torch.cuda.get_device_name(number), bool(torch.version.hip) or torch.cuda.get_device_capability(number)[0] >= 8


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 natively; elsewhere it is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def default_workers(accelerator: str) -> int:
    """On a CPU one: the cores are busy with the model; elsewhere a worker for each core, at most 8."""
    cores = os.cpu_count() or 1
    return min(1, cores - 1) if accelerator == "cpu" else min(8, cores)


def _npu(profile: ProfileConfig, wanted: Precision | None, asked: str) -> tuple[str, Precision, str]:
    """The name of the chip, the precision, and why that."""
    from segfocal.accelerators.load import load, precision_of  # they import torch_npu, which no other profile asks for

    return load(profile.name), precision_of(wanted, profile.name, asked), "every chip has it"
