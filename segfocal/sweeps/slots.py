"""How many jobs run at once on this machine, and what each may use of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError


@dataclass(frozen=True)
class Kind:
    """Devices that are dealt to jobs.

    Args:
        name: as messages have it.
        variable: of the environment; a process sees those that it names, by number.
        count: how many this machine has.
    """

    name: str
    variable: str
    count: Callable[[], int]

    def visible(self) -> list[str]:
        """The numbers of those that a program would see here, without importing torch."""
        said = os.environ.get(self.variable)
        if said is not None:
            return [number.strip() for number in said.split(",") if number.strip() not in ("", "-1")]
        return [str(number) for number in range(self.count())]


def _gpus() -> int:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def _npus() -> int:
    return len(list(Path("/dev").glob("davinci[0-9]*")))  # numbered from 0 in a container, whichever they are


GPU = Kind("GPUs", "CUDA_VISIBLE_DEVICES", _gpus)
NPU = Kind("NPUs", "ASCEND_RT_VISIBLE_DEVICES", _npus)
KINDS = {"auto": GPU, "gpu": GPU, "npu": NPU}  # by the accelerator of a profile


@dataclass
class Slots:
    """
    Args:
        count: of jobs at once.
        threads: of the CPU, for each job.
        variable: of the environment, that says a job its devices.
        devices: for each slot; none where jobs run on the CPU.
    """

    count: int
    threads: int = 1
    variable: str = ""
    devices: list[list[str]] = field(default_factory=list)

    def environment(self, slot: int) -> dict[str, str]:
        """Of a job in a slot; what the user has set goes before, but that threads of one job do not wait for those of another."""
        env = {"HYDRA_FULL_ERROR": "1"} | os.environ  # its advice would stand last
        said = env.get("OMP_NUM_THREADS", "")
        env["OMP_NUM_THREADS"] = str(min(int(said), self.threads) if said.isdecimal() and int(said) else self.threads)
        if self.devices:
            env[self.variable] = ",".join(self.devices[slot])
        return env


def slots_of(config: SweepConfig, accelerator: str) -> Slots:
    """The slots that a configuration comes to on this machine.

    Args:
        config: of the sweep.
        accelerator: of the jobs' profile.

    Raises:
        UserError: there are fewer devices than asked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = KINDS.get(accelerator)
    numbers = kind.visible() if kind else []
    if kind is None or not numbers:
        count = config.jobs or 1
        return Slots(count, max(1, cores // count))
    most = len(numbers) // config.gpus_per_job
    if most == 0 or (config.jobs or 0) > most:
        asked = f"sweep.jobs={config.jobs} " if config.jobs else ""
        raise UserError(
            f"{asked}sweep.gpus_per_job={config.gpus_per_job}: this machine has {len(numbers)} {kind.name}, enough for {most} jobs at once"
        )
    count = config.jobs or most
    dealt = [numbers[slot * config.gpus_per_job : (slot + 1) * config.gpus_per_job] for slot in range(count)]
    return Slots(count, max(1, cores // count), kind.variable, dealt)
