"""Launchers of others that take the jobs of a sweep to where there is room for them: `hydra/launcher=joblib|ray|submitit_local|submitit_slurm`.

Their plug-ins bring the options; here stands what this program has otherwise.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

GROUP = "hydra/launcher"


@dataclass
class Other:
    """
    Args:
        package: of its plug-in.
        extra: that installs it.
        defaults: what differs from the plug-in's own.
        all_at_once: whether it starts whatever it is handed.
    """

    package: str
    extra: str
    defaults: dict[str, Any]
    all_at_once: bool = False


MINUTES = 24 * 60  # that submitit gives a job; its own hour is soon over
OTHERS = {
    "joblib": Other("hydra_joblib_launcher", "joblib", {"n_jobs": "${sweep.jobs}"}),
    "ray": Other(
        "hydra_ray_launcher",
        "ray",
        {
            "ray": {
                "init": {"num_cpus": None, "num_gpus": None, "include_dashboard": False, "log_to_driver": False, "logging_level": "error"},
                "remote": {"num_cpus": 1, "num_gpus": 0, "max_retries": 0},  # the same command goes on with a job that died
            }
        },
    ),
    "submitit_local": Other("hydra_submitit_launcher", "slurm", {"timeout_min": MINUTES, "gpus_per_node": 0}, all_at_once=True),
    "submitit_slurm": Other("hydra_submitit_launcher", "slurm", {"timeout_min": MINUTES}),
}


def prepare(name: str) -> list[str]:
    """Put our defaults of a launcher before its plug-in's; returns what is wrong where it is not installed."""
    other = OTHERS.get(name)
    if other is None:
        return []
    if importlib.util.find_spec(f"hydra_plugins.{other.package}") is None:
        return [f"{GROUP}={name}: its plug-in is not installed: pip install 'segfocal[{other.extra}]'"]
    Plugins.instance()  # imports them, and they tell Hydra of their options
    store = ConfigStore.instance()
    merged = OmegaConf.merge(OmegaConf.to_container(OmegaConf.structured(store.load(f"{GROUP}/{name}.yaml").node)), other.defaults)
    store.store(group=GROUP, name=name, node=merged)
    return []
