"""Which parameters matter, by Optuna, whether a sampler has chosen their values or not."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segfocal.sweeps.compare import SEED, sign_of, value_of
from segfocal.sweeps.record import Job, Record, said_by
from segfocal.sweeps.scale import by_powers, numbers_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

BEST = 0.25  # of the jobs: what sets their values apart from those of all
LEAST = 20  # jobs, of which that share is the five that the method wants at least


@dataclass
class Importance:
    """
    Args:
        jobs: that it is drawn from.
        shares: by parameter, the largest first; they sum to 1.
        reason: why there are none; empty where there is nothing to say.
    """

    jobs: int
    shares: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"importance of parameters: {self.reason}"
        shares = ", ".join(f"{key} {share:.2f}" for key, share in self.shares.items())
        return f"importance of parameters, from {self.jobs} jobs: {shares}" if shares else ""


def importance_of(record: Record, keys: list[str]) -> Importance:
    """PED-ANOVA: how far the values of the best quarter of the jobs are distributed otherwise than those of all.

    Args:
        record: of the sweep.
        keys: what it varies; where the seed is among them, what matters less than it is chance.

    Reference:
        Watanabe et al., PED-ANOVA, IJCAI 2023; for parameters that not all jobs have, Conditional PED-ANOVA, KDD 2026.
    """
    jobs = [job for job in record.jobs if value_of(job) is not None]
    if len(keys) < 2:
        return Importance(len(jobs))
    if len(jobs) < LEAST:
        return Importance(len(jobs), reason=f"{len(jobs)} jobs with a value are too few, it takes {LEAST}")
    if importlib.util.find_spec("optuna") is None:
        return Importance(len(jobs), reason="needs Optuna: pip install 'segfocal[optuna]'")
    shares = _shares(jobs, keys, sign_of(record))
    return Importance(len(jobs), shares, "" if shares else "the best quarter of the jobs is no better than the rest")


def _shares(jobs: list[Job], keys: list[str], sign: int) -> dict[str, float]:
    import optuna  # not for less than LEAST jobs

    values = [sign * (value_of(job) or 0.0) for job in jobs]
    if sum(value >= sorted(values)[-round(BEST * len(values))] for value in values) > 2 * BEST * len(values):
        return {}  # so many are equal
    columns = {key: _column([said_by(job).get(key) for job in jobs], key != SEED) for key in keys}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some values occur once
        study = optuna.create_study(direction="maximize")
        for place, value in enumerate(values):
            there = {key: (texts[place], kind) for key, (texts, kind) in columns.items() if texts[place] is not None}
            params, kinds = ({key: pair[part] for key, pair in there.items()} for part in (0, 1))
            study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=kinds))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _column(texts: list[str | None], ordered: bool) -> tuple[list[Any], BaseDistribution]:
    """The values of a parameter, None where a job has not got it, and what they are drawn from: numbers may be no more than names."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    known = [text for text in texts if text is not None]
    numbers = numbers_of(known) if ordered else None
    if numbers is None:
        return list(texts), CategoricalDistribution(sorted(set(known)))
    values = iter(numbers)
    return [None if text is None else next(values) for text in texts], FloatDistribution(min(numbers), max(numbers), log=by_powers(numbers))
