"""What a launcher of somebody else's runs of a sweep, on whatever machine: a job in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from segfocal.parallel.launch import held_pipe
from segfocal.sweeps.outcome import beat
from segfocal.sweeps.process import GRACE, Running
from segfocal.sweeps.record import Job

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
        if self.over() or not claim(self.directory, work.job):
            return
        with held_pipe() as pipe, self._deaf():
            running = Running(work.job, work.words, directory, {**os.environ, **work.env}, pipe, self.cwd)
            try:
                while running.process.poll() is None and not self.over():
                    beat(directory)
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
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    @contextmanager
    def _deaf(self) -> Iterator[None]:
        """Ctrl-C on a terminal comes to all processes; what becomes of it is the sweep's to say."""
        if os.getpid() == self.pid:
            yield
            return
        usual = signal.signal(signal.SIGINT, lambda number, frame: None)  # not SIG_IGN: the job would inherit it
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # ray blocks it, and likewise
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def claim(sweep: Path, job: Job) -> bool:
    """Whether an attempt of a job is this process's to begin, or to call off: only the first that asks may."""
    try:
        (sweep / job.directory / f".claimed-{job.attempts}").open("xb").close()
    except FileExistsError:
        return False
    return True
