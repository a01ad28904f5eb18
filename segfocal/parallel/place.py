"""Which process of a run this is: read from what torchrun, srun or `launch` have set. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """
    Args:
        rank: of the process, from 0.
        world: how many processes there are.
        local_rank: of the process among those of its machine, from 0.
        local_world: how many processes its machine has.
        started_by: what started them; empty where the process is the only one.
        machine: its number, from 0.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    started_by: str = ""
    machine: int = 0

    @property
    def machines(self) -> int:
        return self.world // self.local_world


OURS = "SEGFOCAL_LAUNCHED"  # set by `launch`: the file by which its processes meet


def here(environment: MutableMapping[str, str] = os.environ) -> Place:
    """The place of this process.

    srun's variables are put beside under the names that torchrun uses, which torch and Lightning read.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "RANK" not in environment:
        _name_as_torchrun_does(environment)
        return _read(environment, "srun")
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _read(environment, "trainer.devices" if OURS in environment else "srun" if _SRUN in environment else "torchrun")
    return Place()


_SRUN = "SEGFOCAL_SRUN"


def _read(environment: MutableMapping[str, str], started_by: str) -> Place:
    rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "LOCAL_RANK" not in environment:  # who says no more starts one process on each machine
        environment.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")  # Lightning wants it said
        environment.setdefault("GROUP_RANK", environment["RANK"])
    local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
    machine = int(environment.get("GROUP_RANK", rank // local_world))  # srun may deal processes out in turns
    return Place(rank, world, int(environment["LOCAL_RANK"]), local_world, started_by, machine)


def _name_as_torchrun_does(environment: MutableMapping[str, str]) -> None:
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID", "GROUP_RANK": "SLURM_NODEID"}
    environment.update({name: environment[theirs] for name, theirs in names.items()})
    counts = tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", environment["WORLD_SIZE"]))
    environment["LOCAL_WORLD_SIZE"] = str(counts[int(environment["GROUP_RANK"])])
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    environment.setdefault("MASTER_ADDR", first_node(nodes))
    environment.setdefault("MASTER_PORT", str(15000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000))  # the same in all processes
    environment[_SRUN] = "1"


def tasks_per_node(said: str) -> list[int]:
    """How many processes each machine has, of srun's `4(x2),3`."""
    counts = []
    for tasks, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", said):
        counts += [int(tasks)] * int(times or 1)
    return counts


def first_node(nodes: str) -> str:
    """The first machine of srun's `gpu[03-05,9],cpu1`."""
    first = re.match(r"(?:[^,\[]|\[[^]]*\])*", nodes)
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", first[0] if first else nodes)


def started_problems(config: Any, place: Place, sweep: bool) -> list[str]:
    """What of a configuration does not go with the processes that there are, a line each.

    Args:
        config: `TrainConfig`, or that of a program which trains nothing.
        place: of this process.
        sweep: the command line has `-m`.
    """
    forms = "for one run leave out -m: strategy=ddp trainer.devices=2, or torchrun; for a sweep one device a job: strategy=single"
    if sweep and place.world > 1:
        return [f"-m, started by {place.started_by}: each process would run the sweep; {forms}"]
    strategy = getattr(config, "strategy", None)
    if strategy is None:
        return []
    shared, devices = strategy.name != "single", config.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    if sweep and shared:
        return [f"-m with strategy={strategy.name}: the jobs of a sweep have one device each; {forms}"]
    by = f"{place.started_by} has started {place.world} processes"
    if place.world == 1 and not place.started_by:
        if shared and count is None:
            return [f"strategy={strategy.name}: on how many devices? trainer.devices=2, or start it by torchrun or srun"]
        cores = os.cpu_count() or 1
        if count is not None and count > cores:
            return [f"trainer.devices={count}: each device takes a process, and this machine has {cores} cores: trainer.devices={cores}"]
    elif not shared and place.world > 1:
        return [f"strategy=single, and {by}: strategy=ddp"]
    elif place.world % place.local_world:
        return [f"{by}, not as many on each machine: start {place.local_world} on each"]
    elif count is not None and count != place.local_world:
        shown = str(devices).replace(" ", "")
        mend = f"leave trainer.devices out, or trainer.devices={place.local_world}"
        return [f"trainer.devices={shown}, and {by}, {place.local_world} on this machine: {mend}"]
    if max(count or 1, place.local_world) > 1 and config.data.cache == "ram":
        return ["data.cache=ram: each process of a machine would hold all samples: data.cache=disk, which they share, or none"]
    return []


def processes_to_start(config: Any, place: Place) -> int:
    """How many processes a training wants that nobody has started yet; 0 where this process does."""
    if not hasattr(config, "strategy"):
        return 0
    devices = config.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices or 1
    return count if config.strategy.name != "single" and not place.started_by and count > 1 else 0
