"""A job as a trial of a study: it reports after each validation, and is told whether to stop."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segfocal.config.sweep import Pruner
from segfocal.errors import first_line

if TYPE_CHECKING:
    from optuna import Trial

log = logging.getLogger("segfocal")

VARIABLE = "SEGFOCAL_TRIAL"  # of the environment: by it a job knows its trial
BEST = "best"  # the attribute of a trial with its objectives, where the first of them is best


class Pruned(Exception):
    """A job has stopped because its study has told it to.

    Args:
        epoch: after which.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")
        self.epoch = epoch


@dataclass
class TrialOfJob:
    """
    Args:
        storage: of the study.
        study: its name.
        number: of the trial.
        objectives: figures of the validation.
        pruner: what stops trials.
        prune_after: epochs that each is left alone.
        epochs: that each is to train for.
    """

    storage: str
    study: str
    number: int
    objectives: list[str]
    pruner: Pruner | None
    prune_after: int
    epochs: int

    @property
    def environment(self) -> dict[str, str]:
        """What the job is told."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of_this_process(cls) -> TrialOfJob | None:
        """The trial that this process is; None where it is no job of a search."""
        said = os.environ.get(VARIABLE)
        return cls(**json.loads(said)) if said else None


class Reporter:
    """Tells a study how its trial stands.

    Args:
        about: the trial of this process.
    """

    def __init__(self, about: TrialOfJob) -> None:
        import optuna  # jobs of a search alone

        from segfocal.sweeps.samplers import build_pruner
        from segfocal.sweeps.storage import LOST, open_storage

        self.lost = LOST
        pruner = build_pruner(about.pruner, about.prune_after, about.epochs)
        self.study = optuna.load_study(study_name=about.study, storage=open_storage(about.storage), pruner=pruner)
        self.about = about
        self.trial: Trial = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[about.number]._trial_id)

    def report(self, epoch: int, figures: Mapping[str, Any]) -> bool:
        """Whether to stop, by the figures of a validation."""
        values = [float(figures.get(name, math.nan)) for name in self.about.objectives]
        if not all(map(math.isfinite, values)):
            return False
        try:
            return self._told(epoch, values)
        except self.lost as error:
            log.warning("epoch %d was not reported to the study: %s", epoch, first_line(error))
            return False

    def _told(self, epoch: int, values: list[float]) -> bool:
        if len(values) > 1:
            self._keep(values)
            return False
        self.trial.report(values[0], epoch)
        return self.about.pruner is not None and self.trial.should_prune()

    def _keep(self, values: list[float]) -> None:
        """All objectives where the first is best, as the checkpoint is chosen."""
        sign = 1 if self.study.directions[0].name == "MAXIMIZE" else -1
        before = self.trial.user_attrs.get(BEST)
        if before is None or sign * values[0] > sign * before[0]:
            self.trial.set_user_attr(BEST, values)
