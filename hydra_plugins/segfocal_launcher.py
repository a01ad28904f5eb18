"""The launcher that Hydra's sweeper hands its jobs to: `hydra/launcher=processes`, the default.

Hydra takes plug-ins from the package hydra_plugins alone, wherever parts of it lie: so this stands here, and all it does in `segfocal.sweeps`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segfocal.config.commandline import SWEEPS, parted
from segfocal.config.parse import parse
from segfocal.config.sweep import SweepConfig
from segfocal.errors import MISTAKE, UserError
from segfocal.rundir import lock, shown_path, unwritable
from segfocal.sweeps.answer import write_answer
from segfocal.sweeps.elsewhere import Elsewhere
from segfocal.sweeps.outcome import beats, settle
from segfocal.sweeps.record import LOCK, Against, Job, Record, base_of, command_of, differs, job_key, read, swept_keys
from segfocal.sweeps.run import Queue, Stopped, run_jobs
from segfocal.sweeps.slots import slots_of
from segfocal.sweeps.watch import Watch, counted

OBJECTIVE = "objective"
RANKED = "a sweep ranks its jobs by one and the same: a sweep for each, or, in a search, sweep.also=[val/loss]"


class ProcessLauncher(Launcher):
    """Each job is the program's own command in a process of its own: one that dies takes no other with it.

    A sweep is recorded in its directory. The same command, given again, runs what has not finished and leaves the rest alone.

    Args:
        elsewhere: what runs the jobs where another launcher is asked for; None: this machine, by this one.
    """

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.elsewhere = elsewhere

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        asked: list[Job] = []
        lines = [list(overrides) for overrides in job_overrides]

        def queue_of(record: Record, config: SweepConfig) -> Queue:
            asked.extend(record.add(self.key_of(overrides), overrides) for overrides in counted(lines))
            jobs = list({job.number: job for job in asked}.values())  # lr=1e-3,0.001 is one job, said twice
            left = [job for job in jobs if job.state != "finished" and (config.retry_failed or job.state != "failed")]
            if len(left) < len(jobs):
                print(f"{len(jobs) - len(left)} of {len(jobs)} jobs have ended before, in {shown_path(record.directory)}", flush=True)
            return Queue(left)

        self.run(queue_of, swept_keys(lines))
        if any(job.state != "finished" for job in asked):
            sys.exit(1)
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective) for job in asked]

    def run(self, queue_of: Callable[[Record, SweepConfig], Queue], keys: list[str]) -> Record:
        """Run the jobs of a queue to their end, and write what they came to; the process ends where it is asked to.

        Args:
            queue_of: makes the queue of the sweep's record.
            keys: what the jobs differ in.
        """
        config = self.config
        assert config is not None
        directory = Path(config.hydra.sweep.dir).absolute()
        if wrong := unwritable(str(directory), "sweep.dir"):
            print(wrong[0], file=sys.stderr)
            sys.exit(MISTAKE)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            if OBJECTIVE in keys:
                raise UserError(f"{OBJECTIVE}: {RANKED}")
            sweep = parse(SweepConfig, config.sweep)
            holding = lock(directory / LOCK, "sweep.dir")
            try:
                record = self._record(directory, config, sweep, keys)
                runs = self._runner(sweep, config)
                queue = queue_of(record, sweep)
                record.save()
                with Watch(record, keys) as watch:
                    runs(record, queue, _program(), watch)
            finally:
                holding.close()
        except UserError as error:
            print(error, file=sys.stderr)
            if {path.name for path in directory.iterdir()} <= {LOCK, "multirun.yaml"}:  # the latter is of hydra/sweeper=basic
                shutil.rmtree(directory)  # it was made for a sweep that never was
            sys.exit(MISTAKE)
        except Stopped as stopped:
            write_answer(record, page=False)
            print(f"interrupted: the same command goes on with what is left, in {shown_path(directory)}", flush=True)
            sys.exit(stopped.code)
        write_answer(record, page=bool(config.get("report", True)))
        return record

    def _runner(self, sweep: SweepConfig, config: DictConfig) -> Callable[[Record, Queue, list[str], Watch], None]:
        """What runs the jobs of a queue: another launcher, or processes of this machine."""
        if self.elsewhere:
            return self.elsewhere.run_jobs
        slots = slots_of(sweep, str(config.profile.accelerator))
        return lambda record, queue, program, watch: run_jobs(record, queue, program, slots, watch)

    def _record(self, directory: Path, config: DictConfig, sweep: SweepConfig, keys: list[str]) -> Record:
        program, base = str(config.hydra.job.name), base_of(_plain(config, resolve=False))  # what is swept may be needed to resolve it
        command = command_of(parted(sys.argv[1:])[1])
        known = read(directory)
        if known is None:
            objective = str(config.get(OBJECTIVE, "iou_macro"))
            against: Against = "first" if sweep.one_at_a_time else "best"
            return Record(directory, program, command, objective, others=sweep.also, against=against, base=base)
        if (known.program, known.command) != (program, command):
            raise UserError(
                f"sweep.dir={shown_path(directory)}: holds another sweep, of `{known.program}.py -m {' '.join(known.command)}`: "
                "sweep.dir=<another directory>"
            )
        if key := differs(known.base, base, keys):
            raise UserError(known.changed(key))
        settle(known)
        for job in known.jobs:
            if job.state in ("running", "interrupted") and beats(directory / job.directory):
                raise UserError(
                    f"{shown_path(directory)}: job {job.number} still runs: wait for it, or end it (scancel), half a minute before"
                )
        for job in known.jobs:
            if job.state == "running":  # the sweep was killed, and the job with it
                job.state, job.failure = "interrupted", "killed with the sweep"
        return known

    def key_of(self, overrides: list[str]) -> str:
        """What a job's command line is recognised by.

        Raises:
            UserError: its objective is not that of the sweep.
        """
        assert self.context is not None and self.config is not None
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        if composed.get(OBJECTIVE) != self.config.get(OBJECTIVE):  # of an experiment, say
            own, ranked = composed.get(OBJECTIVE), self.config.get(OBJECTIVE)
            raise UserError(f"{' '.join(overrides)}: {OBJECTIVE}={own}, not {ranked}: {RANKED}; {OBJECTIVE}={own} says it for all")
        return job_key(_plain(composed, resolve=True))


def _plain(composed: DictConfig, resolve: bool) -> dict[str, Any]:
    """What is composed, but for Hydra's own."""
    names = [str(name) for name in composed if name != "hydra"]
    plain = OmegaConf.to_container(OmegaConf.masked_copy(composed, names), resolve=resolve)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _program() -> list[str]:
    """The command line of this process without what is swept: the program, and flags of Hydra's own."""
    flags, _ = parted(sys.argv[1:])
    return [str(Path(sys.argv[0]).absolute()), *(word for word in flags if word not in SWEEPS)]
