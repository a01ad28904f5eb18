"""Which parameters matter, by Optuna, whether a sampler has chosen their values or not."""

from __future__ import annotations

import importlib.util
import random
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segfocal.sweeps.compare import sign_of, value_of
from segfocal.sweeps.record import Job, Record, said_by
from segfocal.sweeps.scale import by_powers, numbers_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

BEST = 0.25  # of the jobs: what sets their values apart from those of all
LEAST = 20  # jobs, of which that share is the five that the method wants at least
MOST_NAMES = 10  # numbers that stand for themselves, not for places on a scale
SHUFFLES = 19  # of which none may come to as much: it would by chance one time in twenty


@dataclass
class Importance:
    """
    Args:
        jobs: that it is drawn from.
        shares: by parameter, the largest first; they sum to 1.
        chance: parameters of which as much is found where the objectives are shuffled.
        reason: why there are none; empty where there is nothing to say.
    """

    jobs: int
    shares: dict[str, float] = field(default_factory=dict)
    chance: set[str] = field(default_factory=set)
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"importance of parameters: {self.reason}"
        shares = ", ".join(f"{key} {share:.2f}{' (chance)' if key in self.chance else ''}" for key, share in self.shares.items())
        return f"importance of parameters, from {self.jobs} jobs: {shares}" if shares else ""


def importance_of(record: Record, keys: list[str]) -> Importance:
    """PED-ANOVA: how far the values of the best quarter of the jobs are distributed otherwise than those of all.

    Args:
        record: of the sweep.
        keys: what it varies.

    Reference:
        Watanabe et al., PED-ANOVA, IJCAI 2023; for parameters that not all jobs have, Conditional PED-ANOVA, KDD 2026.
    """
    jobs = [job for job in record.jobs if value_of(job) is not None]
    values = [sign_of(record) * (value_of(job) or 0.0) for job in jobs]
    if len(keys) < 2:
        return Importance(len(jobs))
    if len(jobs) < LEAST:
        return Importance(len(jobs), reason=f"{len(jobs)} jobs with a value are too few, it takes {LEAST}")
    if importlib.util.find_spec("optuna") is None:
        return Importance(len(jobs), reason="needs Optuna: pip install 'segfocal[optuna]'")
    if sum(value >= sorted(values)[-round(BEST * len(values))] for value in values) > 2 * BEST * len(values):
        return Importance(len(jobs), reason="too many jobs have come to the same")
    found, shuffled = _found(jobs, keys, values)
    total = sum(found.values()) or 1.0
    shares = {key: found[key] / total for key in sorted(found, key=lambda key: -found[key])}
    return Importance(len(jobs), shares, {key for key in found if found[key] <= shuffled[key]})


def _found(jobs: list[Job], keys: list[str], values: list[float]) -> tuple[dict[str, float], dict[str, float]]:
    """What is found of each parameter, and the most that is found of it where the values are shuffled."""
    import optuna  # not for less than LEAST jobs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    columns = {key: _column([said_by(job).get(key) for job in jobs]) for key in keys}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some values occur once, that less is better, that it may change
        study = optuna.create_study()
        for place in range(len(jobs)):
            there = {key: (texts[place], kind) for key, (texts, kind) in columns.items() if texts[place] is not None}
            params, kinds = ({key: pair[part] for key, pair in there.items()} for part in (0, 1))
            study.add_trial(optuna.trial.create_trial(value=0.0, params=params, distributions=kinds))

        def of(values: list[float]) -> dict[str, float]:
            return optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial: -values[trial.number], normalize=False
            )

        draw = random.Random(0)
        shuffled = [of(draw.sample(values, len(values))) for _ in range(SHUFFLES)]
        return of(values), {key: max(each[key] for each in shuffled) for key in keys}


def _column(texts: list[str | None]) -> tuple[list[Any], BaseDistribution]:
    """The values of a parameter, None where a job has not got it, and what they are drawn from.

    A few numbers, as in a grid, are no more than names: between them there was nothing to be found.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    known = [text for text in texts if text is not None]
    numbers = numbers_of(known)
    if numbers is None or len(set(known)) <= MOST_NAMES:
        return list(texts), CategoricalDistribution(sorted(set(known)))
    values = iter(numbers)
    return [None if text is None else next(values) for text in texts], FloatDistribution(min(numbers), max(numbers), log=by_powers(numbers))
