"""Jobs that another launcher of Hydra takes to where there is room for them: joblib, ray, submitit.

What it is handed is a `Task`, which starts the program's own command there as a process, as the launcher of this program does here, and
leaves a note of what it came to. So a job is the same wherever it runs, and whatever becomes of the process that was to run it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from segfocal.errors import UserError, first_line
from segfocal.parallel.launch import held_pipe
from segfocal.rundir import shown_path
from segfocal.sweeps.outcome import settle
from segfocal.sweeps.process import CONSOLE, GRACE, Running, quoted
from segfocal.sweeps.record import LOCK, Job, Record
from segfocal.sweeps.run import Queue, Stopped, begin, tell
from segfocal.sweeps.watch import Watch

STOP = ".stop"  # in the directory of a sweep: its jobs are to end
LOOK_EVERY = 1.0  # seconds between two looks for it: the disk may be that of a cluster


@dataclass
class Work:
    """A job, its command line, and what its environment has beside that of the process which starts it."""

    job: Job
    words: list[str]
    env: dict[str, str]


@dataclass
class Task:
    """Runs one of several jobs, in whatever process it is called in.

    Args:
        directory: of the sweep, on a disk that all machines see.
        works: which; the number of Hydra's job says the place.
        cwd: the working directory of the sweep.
        host: its machine.
        pid: its process.
    """

    directory: Path
    works: list[Work]
    cwd: str
    host: str
    pid: int

    def __call__(self, composed: object) -> None:
        work = self.works[HydraConfig.get().job.num]
        directory = self.directory / work.job.directory
        if self.over() or (directory / CONSOLE).exists():  # a cluster has begun it before, and wanted its place back
            return
        directory.mkdir(exist_ok=True)  # Hydra makes it, on some machine
        with held_pipe() as pipe, self._deaf():
            running = Running(work.job, work.words, directory, {**os.environ, **work.env}, pipe, self.cwd)
            try:
                while running.process.poll() is None and not self.over():
                    with suppress(subprocess.TimeoutExpired):
                        running.process.wait(LOOK_EVERY)
            finally:
                if running.process.poll() is None:
                    running.ask_to_end()
                running.finish(time.monotonic() + GRACE)
                if outcome := running.outcome():
                    outcome.note(directory)

    def over(self) -> bool:
        """Whether the sweep has ended, or is to; on another machine only the latter is seen."""
        if (self.directory / STOP).exists():
            return True
        if socket.gethostname() != self.host:
            return False
        with (self.directory / LOCK).open("a") as file, suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        return False

    @contextmanager
    def _deaf(self) -> Iterator[None]:
        """Ctrl-C on a terminal comes to all processes; what becomes of it is the sweep's to say."""
        if os.getpid() == self.pid:
            yield
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass
class Elsewhere:
    """
    Args:
        launcher: that takes the jobs.
        name: of its option.
        context, config: of Hydra.
        most: jobs that it is handed at once; None: all.
    """

    launcher: Launcher
    name: str
    context: HydraContext
    config: DictConfig
    most: int | None

    def run_jobs(self, record: Record, queue: Queue, program: list[str], watch: Watch) -> None:
        """As the function `run_jobs` does for processes of this machine.

        Raises:
            Stopped: by SIGINT or SIGTERM, after the jobs have ended and are recorded.
            UserError: the launcher can begin no job, or the queue cannot go on.
        """
        mark = record.directory / STOP
        mark.unlink(missing_ok=True)
        with _marking(mark) as come:
            while not come and (jobs := list(islice(iter(queue.next, None), self.most))):
                self._batch(record, queue, jobs, program, watch)
        mark.unlink(missing_ok=True)
        if come:
            raise Stopped(come[0])

    def _batch(self, record: Record, queue: Queue, jobs: list[Job], program: list[str], watch: Watch) -> None:
        before = [replace(job) for job in jobs]
        works = [Work(job, begin(record, job, program), {"HYDRA_FULL_ERROR": "1", **queue.environment(job)}) for job in jobs]
        record.save()
        look = f"python -m segfocal.sweep {shown_path(record.directory)}"
        print(f"hydra/launcher={self.name}: jobs handed over: {len(jobs)}; those that have ended: {look}", flush=True)
        problem = self._launch(Task(record.directory, works, str(Path.cwd()), socket.gethostname(), os.getpid()))
        settle(record)
        begun = False
        for job, as_before in zip(jobs, before, strict=True):
            if job.state == "running" and not (record.directory / job.directory / CONSOLE).exists():
                vars(job).update(vars(as_before))  # it has had no turn
                continue
            if job.state == "running":
                job.state, job.failure = "interrupted", problem or "its process was ended (out of memory, or out of time?)"
            begun = True
            tell(record, queue, job)
            watch.ended(job)
        record.save()
        if problem and not begun:
            raise UserError(f"hydra/launcher={self.name}: {problem}")

    def _launch(self, task: Task) -> str:
        """Hand over a task, and wait until it is done; returns what went wrong with it as a whole."""
        where = f"hydra.sweep.dir={quoted(task.directory)}"
        lines = [[where, f"hydra.sweep.subdir='{work.job.directory}'", "hydra/job_logging=none"] for work in task.works]
        self.launcher.setup(hydra_context=self.context, task_function=task, config=self.config)
        try:
            for done in self.launcher.launch(lines, 0):
                _raise_failure(done)
        except (Exception, KeyboardInterrupt) as error:  # of any library
            return first_line(error) if isinstance(error, Exception) else "interrupted"
        return ""


def _raise_failure(done: JobReturn) -> None:
    _ = done.return_value  # raises what the task has raised


@contextmanager
def _marking(mark: Path) -> Iterator[list[int]]:
    """SIGINT and SIGTERM ask the jobs to end, wherever they are; a second one ends the waiting for it. Yields those that have come."""
    come: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if come:
            raise KeyboardInterrupt
        come.append(number)
        mark.touch()

    usual = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield come
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
