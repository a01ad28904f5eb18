"""The launcher that Hydra's sweeper hands its jobs to: `hydra/launcher=processes`, the default.

Hydra takes plug-ins from the package hydra_plugins alone, wherever parts of it lie: so this stands here, and all it does in `segfocal.sweeps`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segfocal.config.commandline import SWEEPS, parted
from segfocal.config.parse import parse
from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError
from segfocal.rundir import shown_path
from segfocal.sweeps.answer import write_answer
from segfocal.sweeps.record import Job, Record, command_of, job_key, lock, read, swept_keys
from segfocal.sweeps.run import Stopped, run_jobs, slots_of
from segfocal.sweeps.watch import Watch

MISTAKE = 2


class ProcessLauncher(Launcher):
    """Each job is the program's own command in a process of its own: one that dies takes no other with it.

    A sweep is recorded in its directory. The same command, given again, runs what has not finished and leaves the rest alone.
    """

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            jobs = self._launch([list(overrides) for overrides in job_overrides])
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(MISTAKE)
        if any(job.state != "finished" for job in jobs):
            sys.exit(1)
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective) for job in jobs]

    def _launch(self, job_overrides: list[list[str]]) -> list[Job]:
        config = self.config
        assert config is not None
        sweep = parse(SweepConfig, config.sweep)
        directory = Path(config.hydra.sweep.dir).absolute()
        holding = lock(directory)
        try:
            record = self._record(directory, config)
            asked = [record.add(job_key(self._plain(overrides)), overrides) for overrides in job_overrides]
            left = [job for job in asked if job.state != "finished" and (sweep.retry_failed or job.state != "failed")]
            if len(left) < len(asked):
                print(f"{len(asked) - len(left)} of {len(asked)} jobs have ended before, in {shown_path(directory)}", flush=True)
            slots = slots_of(sweep, config.profile.accelerator in ("auto", "gpu"))
            record.save()
            with Watch(swept_keys(job_overrides)) as watch:
                run_jobs(record, left, _program(), slots, watch)
        except Stopped as stopped:
            write_answer(record, page=False)
            print(f"interrupted: the same command goes on with what is left, in {shown_path(directory)}", flush=True)
            sys.exit(128 + stopped.number)
        finally:
            holding.close()
        write_answer(record, page=bool(config.get("report", True)))
        return asked

    def _record(self, directory: Path, config: DictConfig) -> Record:
        program = str(config.hydra.job.name)
        command = command_of(parted(sys.argv[1:])[1])
        known = read(directory)
        if known is None:
            return Record(directory, program, command, str(config.get("objective", "iou_macro")))
        if (known.program, known.command) != (program, command):
            raise UserError(
                f"sweep.dir={shown_path(directory)}: holds another sweep, of `{known.program}.py -m {' '.join(known.command)}`: "
                "sweep.dir=<another directory>"
            )
        for job in known.jobs:
            if job.state == "running":  # the sweep was killed, and the job with it
                job.state, job.failure = "interrupted", "killed with the sweep"
        return known

    def _plain(self, overrides: list[str]) -> dict[str, Any]:
        assert self.context is not None and self.config is not None
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        names = [str(name) for name in composed if name != "hydra"]
        plain = OmegaConf.to_container(OmegaConf.masked_copy(composed, names), resolve=True)
        assert isinstance(plain, dict)
        return {str(name): value for name, value in plain.items()}


def _program() -> list[str]:
    """The command line of this process without what is swept: the program, and flags of Hydra's own."""
    flags, _ = parted(sys.argv[1:])
    return [str(Path(sys.argv[0]).absolute()), *(word for word in flags if word not in SWEEPS)]
