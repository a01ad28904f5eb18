"""The samplers and pruners of Optuna by their names."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna import Study, pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from segfocal.config.sweep import Pruner, Sampler
from segfocal.errors import UserError

# Of each: the seed of the study, and one that every trial has for itself.
SAMPLERS: dict[Sampler, Callable[[int, int], samplers.BaseSampler]] = {
    "tpe": lambda study, trial: samplers.TPESampler(seed=trial),
    "gp": lambda study, trial: samplers.GPSampler(seed=trial, warn_independent_sampling=False),
    "qmc": lambda study, trial: samplers.QMCSampler(
        seed=study,  # its trials are points of one sequence
        scramble=True,
        independent_sampler=samplers.RandomSampler(trial),
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    ),
    "cmaes": lambda study, trial: samplers.CmaEsSampler(seed=trial, warn_independent_sampling=False),
    "nsga2": lambda study, trial: samplers.NSGAIISampler(seed=trial, population_size=20),
}
NEEDS = {"gp": ("scipy", "torch"), "cmaes": ("cmaes",), "qmc": ("scipy",)}  # beside Optuna


class Seeded(samplers.BaseSampler):
    """A sampler whose random numbers are a function of the seed and the number of the trial.

    So a study that goes on, or that several processes work on, does not draw again what it has drawn.

    Args:
        name: of the sampler.
        seed: of the study.
    """

    def __init__(self, name: Sampler, seed: int) -> None:
        missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"sweep.sampler={name}: needs {' and '.join(missing)}: pip install 'segfocal[optuna]'")
        self.name, self.seed = name, seed
        self.inner = self._made(0)

    def _made(self, trial: int) -> samplers.BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {trial}".encode()).digest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # that Optuna may change it: its version is pinned
            return SAMPLERS[self.name](self.seed, int.from_bytes(digest[:4], "big"))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner = self._made(trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)


def build_pruner(name: Pruner | None, after: int, epochs: int) -> pruners.BasePruner:
    """What stops trials.

    Args:
        name: of the pruner; None never stops one.
        after: epochs that each trial is left alone.
        epochs: of a trial that is not stopped.
    """
    match name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=after)
        case "asha":
            return pruners.SuccessiveHalvingPruner(min_resource=after, reduction_factor=3)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=after, max_resource=epochs, reduction_factor=3)
        case None:
            return pruners.NopPruner()
