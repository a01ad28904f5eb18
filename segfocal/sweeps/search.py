"""A search: the study is asked for values, a job is run with them, the study is told what it came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError, first_line
from segfocal.rundir import shown_path
from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.run import Queue
from segfocal.sweeps.space import Space
from segfocal.sweeps.storage import LOST, located, printable
from segfocal.sweeps.study import GIVEN, open_study
from segfocal.sweeps.trial import BEST, TrialOfJob

DIRECTORY = "directory"  # the attribute of a trial that says which sweep runs it
AGAIN = ("waiting", "interrupted")


def begin(config: SweepConfig, space: Space, record: Record, epochs: int, key_of: Callable[[list[str]], str]) -> Search:
    """The search that a configuration says, from its beginning or where it was.

    Args:
        config: of the sweep.
        space: that is searched.
        record: of the sweep.
        epochs: that a trial trains for.
        key_of: what a command line is recognised by.

    Raises:
        UserError: the study cannot be opened, or asks for something else.
    """
    objectives = [record.objective, *record.others]
    study = open_study(config, space, objectives, epochs, record.directory, record.base)
    place = located(config.storage, record.directory)

    def about(number: int) -> TrialOfJob:
        return TrialOfJob(place, config.study, number, objectives, config.pruner, config.prune_after, epochs)

    search = Search(study, space, record, config.trials, key_of, about)
    if search.count():
        print(
            f"the study {config.study} has {search.count()} of {config.trials} trials, in {printable(place) if '://' in place else shown_path(Path(place))}",
            flush=True,
        )
    return search


class Search(Queue):
    """The jobs of a sweep, as a study asks for them.

    Args:
        study: to ask.
        space: of what it chooses.
        record: of the sweep.
        most: trials that the study comes to.
        key_of: what a command line is recognised by.
        about: what each job is told of its trial.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        record: Record,
        most: int,
        key_of: Callable[[list[str]], str],
        about: Callable[[int], TrialOfJob],
    ) -> None:
        self.study, self.space, self.record, self.most, self.key_of, self.about = study, space, record, most, key_of, about
        self.over = False
        self._adopt()
        super().__init__([job for job in record.jobs if job.state in AGAIN and job.trials])

    def next(self) -> Job | None:
        """A job that was interrupted, or that of a new trial; None when the study has had its trials."""
        if job := super().next():
            return job
        with self._storage():
            return self._new_trial()

    def _new_trial(self) -> Job | None:
        while not self.over:
            self.over = self.count() >= self.most
            if self.over:
                break
            trial = self.study.ask()
            trial.set_user_attr(DIRECTORY, str(self.record.directory))
            job = self._job_of(trial)
            if job.attempts == 0 and job.trials == [trial.number]:
                return job
            self._tell(job, trial.number)  # the same has run before
        return None

    def environment(self, job: Job) -> dict[str, str]:
        return self.about(job.trials[0]).environment

    def ended(self, job: Job) -> None:
        with self._storage():
            for number in job.trials:
                self._tell(job, number)

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """What needs the storage, which may be gone by now."""
        try:
            yield
        except LOST as error:
            raise UserError(f"sweep.storage: the study is out of reach ({first_line(error)}): the same command goes on") from None

    def count(self) -> int:
        """Trials of the study, without those yet to begin and those that were brought from another."""
        trials = self.study.get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING and GIVEN not in trial.user_attrs for trial in trials)

    def _job_of(self, trial: Trial) -> Job:
        overrides = self.space.overrides(lambda parameter: parameter.suggest(trial))
        job = self.record.add(self.key_of(overrides), overrides)
        job.trials.append(trial.number)
        self.record.save()
        return job

    def _tell(self, job: Job, number: int) -> None:
        """What a job came to; nothing yet where it goes on."""
        if job.state == "failed":
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        elif job.state == "pruned":
            self.study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        elif job.state == "finished":
            values = self._values(job)
            if values is None:
                job.failure = (
                    f"{self.record.objective if job.objective is None else ', '.join(self.record.others)} undefined: a failed trial"
                )
                self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                job.others = values[1:]
                self.study.tell(number, values, skip_if_finished=True)

    def _values(self, job: Job) -> list[float] | None:
        if job.objective is None:
            return None
        if not self.record.others:
            return [job.objective]
        found = self.study.get_trials(deepcopy=False)[job.trials[0]].user_attrs.get(BEST)
        return [job.objective, *found[1:]] if found else None

    def _adopt(self) -> None:
        """Bring study and record together, where the sweep was killed between the two."""
        jobs = {number: job for job in self.record.jobs for number in job.trials}
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.user_attrs.get(DIRECTORY) != str(self.record.directory):
                continue  # another process runs it
            if trial.number in jobs:
                self._tell(jobs[trial.number], trial.number)
            else:
                self._begin(trial)

    def _begin(self, trial: FrozenTrial) -> None:
        job = self._job_of(Trial(self.study, trial._trial_id))
        self._tell(job, trial.number)
