"""What of Hydra's own configuration may be set: where directories lie, and what runs the jobs of a sweep.

The rest of it can import and run anything: launchers, sweepers and callbacks by `_target_`, handlers of its logs by `class` and `()`,
search paths by the import of a package. docs/reliability.md lists what is allowed.
"""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from segfocal.config.schema import CONF
from segfocal.nearest import did_you_mean

SETTABLE = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode")
OPTIONS = {
    "hydra/launcher": ("processes", "basic", "joblib", "ray", "submitit_local", "submitit_slurm"),
    "hydra/sweeper": ("search", "basic"),
}
LAUNCHER = (  # of `hydra.launcher`: numbers and names; what would be a command of a shell or another Python is not among them
    *("n_jobs", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "gpus_per_task", "cpus_per_gpu"),
    *("mem_gb", "mem_per_cpu", "mem_per_gpu", "partition", "qos", "account", "constraint", "gres", "exclude", "comment", "name"),
    *("array_parallelism", "max_num_timeout", "signal_delay_s", "stderr_to_stdout"),
    *("ray.init.address", "ray.init.num_cpus", "ray.init.num_gpus", "ray.remote.num_cpus", "ray.remote.num_gpus"),
)
COMMANDS = ("setup", "teardown", "python", "srun_args", "additional_parameters")  # of launchers that hand jobs to a cluster
TARGETS = {
    "launcher": re.compile(r"hydra_plugins\.\w+(\.\w+)?\.\w*Launcher|hydra\._internal\.core_plugins\.basic_launcher\.BasicLauncher"),
    "sweeper": re.compile(r"hydra_plugins\.segfocal_sweeper\.SearchSweeper|hydra\._internal\.core_plugins\.basic_sweeper\.BasicSweeper"),
}
NONE = ("callbacks", "searchpath", "env", "job.env_set", "job.env_copy", "sweeper.params")  # what must be empty
LOGS = {"job_logging": "run", "hydra_logging": "quiet"}
ALLOWED = f"of Hydra's own may be set {', '.join(SETTABLE)}, {', '.join(OPTIONS)} and what docs/reliability.md lists of hydra.launcher"
FILES = "is not what a file may set: " + ALLOWED


def is_hydras(override: Override) -> bool:
    """Whether it is about Hydra itself, or puts something into its configuration."""
    return any(re.match(r"hydra\b", name or "") for name in (override.key_or_group, override.package))


def refused(overrides: list[Override], runs: bool) -> dict[int, str]:
    """A line for each override of a command line that is not taken, by its place; nothing of it may be composed.

    Args:
        overrides: of the command line.
        runs: whether Hydra runs the program, so that its own configuration is of use.
    """
    found = {place: _why(item, runs) for place, item in enumerate(overrides)}
    return {place: f"{overrides[place].input_line}: {why}" for place, why in found.items() if why}


def _why(item: Override, runs: bool) -> str:
    key, value = item.key_or_group, (item.input_line or "").partition("=")[2]
    if not is_hydras(item):
        is_group = (CONF / key).is_dir() or key == "local"
        return f"no such option: options of {key} are names, not paths" if is_group and ("/" in value or ".." in value) else ""
    if not runs:
        return "is for train.py and evaluate.py: this command does not run in a directory of its own"
    if key in OPTIONS and not item.is_delete() and item.package is None:
        wrong = [name for name in value.split(",") if name not in OPTIONS[key]]
        return f"no such option{did_you_mean(wrong[0], OPTIONS[key])}" if wrong else ""
    if item.is_delete() or item.package is not None or not (key in SETTABLE or key.removeprefix("hydra.launcher.") in LAUNCHER):
        return ALLOWED
    return ""


def foreign(hydra: DictConfig) -> list[str]:
    """A line for each thing in Hydra's composed configuration that files have brought there, and that would import or run something."""
    problems = [f"hydra.{key}: {FILES}" for key in NONE if OmegaConf.select(hydra, key)]
    for part, allowed in TARGETS.items():
        target = str(OmegaConf.select(hydra, f"{part}._target_"))
        if not allowed.fullmatch(target):
            problems.append(f"hydra.{part}._target_={target}: {FILES}")
    problems += [f"hydra.launcher.{key}: {FILES}" for key in COMMANDS if OmegaConf.select(hydra, f"launcher.{key}")]
    for part, option in LOGS.items():
        if OmegaConf.to_container(hydra[part]) != _shipped(part, option):
            problems.append(f"hydra.{part}: {FILES}")
    return problems


def _shipped(part: str, option: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / part / f"{option}.yaml"))
