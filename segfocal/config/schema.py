"""What Hydra is told of the configuration classes: a node with their defaults for each, under schema/.

The nodes are untyped on purpose: types and ranges are checked in one place, by the classes (`parse`), for all mistakes at
once. Hydra needs the nodes to know the keys, their defaults, and what tab completion may offer.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from segfocal.config import layouts, loss_entropy, loss_focal, loss_overlap, loss_sum, run, streaming  # noqa: F401  # they register themselves
from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DATA
from segfocal.config.export import ExportConfig
from segfocal.config.inference import InferenceConfig
from segfocal.config.metrics import MetricsConfig
from segfocal.config.optim import OPTIMIZERS, SCHEDULERS
from segfocal.config.predict import PredictConfig
from segfocal.config.profile import ProfileConfig
from segfocal.config.sampling import SAMPLING
from segfocal.config.strategy import STRATEGIES
from segfocal.config.sweep import SweepConfig
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES, Registry
from segfocal.rundir import new_dir
from segfocal.sweeps.place import sweep_dir

CONF = Path(__file__).parents[2] / "conf"
REGISTRIES = (DATA, LOSSES, OPTIMIZERS, SAMPLING, SCHEDULERS, STRATEGIES)
SINGLE = {
    "task": TaskConfig,
    "augment": AugmentConfig,
    "model": run.ModelConfig,
    "trainer": run.TrainerConfig,
    "profile": ProfileConfig,
    "callbacks": run.CallbacksConfig,
    "logger": run.LoggerConfig,
    "metrics": MetricsConfig,
    "inference": InferenceConfig,
    "sweep": SweepConfig,
    "train": run.TrainConfig,
    "evaluate": run.EvaluateConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
}


@functools.cache
def register_schemas() -> None:
    """Tell Hydra of every built-in configuration class, and OmegaConf of our resolver."""
    store = ConfigStore.instance()
    for name, cls in SINGLE.items():
        store.store(group="schema", name=name, node=_defaults(cls))
    for registry in REGISTRIES:
        for name, cls in registry.classes().items():
            _store(registry, name, cls)
    store.store(
        group="hydra/launcher", name="processes", node={"_target_": "hydra_plugins.segfocal_launcher.ProcessLauncher"}
    )  # as Hydra has it
    store.store(
        group="hydra/sweeper",
        name="search",
        node={"_target_": "hydra_plugins.segfocal_sweeper.SearchSweeper", "max_batch_size": None, "params": None},
    )
    OmegaConf.register_new_resolver("new_dir", new_dir, replace=True)
    OmegaConf.register_new_resolver("sweep_dir", sweep_dir, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)


def options() -> str:
    """The configuration groups and their options, a line a group, for --help."""
    groups: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        groups.setdefault(path.parent.name, []).append(path.stem)
    return "\n".join(f"  {group:<10} {' '.join(names)}" for group, names in groups.items())


def load_plugins(modules: list[str], named: dict[str, list[str]]) -> list[str]:
    """Import the plug-ins that a command line names.

    Args:
        modules: of `plugins=[...]`.
        named: what each group is asked for; an installed package may bring it by an entry point.

    Returns:
        A line for each that cannot be imported.
    """
    problems = []
    for module in modules:
        if not module or module.startswith("."):
            problems.append(f"plugins=[{module}]: no name of a module, as in plugins=[my_losses]")
            continue
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            problems.append(f"plugins=[{module}]: {error}: is its folder on PYTHONPATH, or the package installed?")
    for registry in REGISTRIES:
        for name in named.get(registry.group, []):
            registry.find(name)
        for known, cls in registry.classes().items():
            _store(registry, known, cls)
    return problems


@functools.cache  # each takes a millisecond, and there are many
def _store(registry: Registry, name: str, cls: type) -> None:
    store, node = ConfigStore.instance(), {**_defaults(cls), "name": name}
    store.store(group=f"schema/{registry.group}", name=name, node=node)
    if not cls.__module__.startswith("segfocal.config"):  # a plug-in brings no YAML: its defaults are the option
        store.store(group=registry.group, name=name, node=node)


def _defaults(cls: type) -> dict[str, Any]:
    """The fields that have a default, with it."""
    found = {}
    for field in dataclasses.fields(cls):
        default = getattr(field.default, "default", field.default)  # pydantic keeps its own Field there
        factory = getattr(field.default, "default_factory", None) or field.default_factory
        if factory is not None and factory is not dataclasses.MISSING:
            found[field.name] = factory()
        elif default is not dataclasses.MISSING and not repr(default).startswith("PydanticUndefined"):
            found[field.name] = default
    return found
