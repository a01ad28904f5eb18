"""Running the jobs of a sweep, so many at once, until each has come to something."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from segfocal.config.run import AUTO
from segfocal.errors import UserError
from segfocal.parallel.launch import held_pipe
from segfocal.rundir import kept_checkpoints
from segfocal.stopping import CODES
from segfocal.sweeps.outcome import cleared
from segfocal.sweeps.process import GRACE, Running
from segfocal.sweeps.record import Job, Record, of_sweep
from segfocal.sweeps.slots import Slots
from segfocal.sweeps.watch import Watch

Handler = Callable[[int, FrameType | None], None]
LOOK_EVERY = 0.2  # seconds between two looks at the jobs


class Stopped(Exception):
    """The sweep was asked to end, by a signal of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = CODES[signal.Signals(number)]


class Queue:
    """What runs next.

    Args:
        jobs: those of the record to run.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)

    def next(self) -> Job | None:
        """The next job; None where there is none left."""
        return self.jobs.pop(0) if self.jobs else None

    def environment(self, job: Job) -> dict[str, str]:
        """What a job is told beside its command line."""
        return {}

    def ended(self, job: Job) -> None:
        """A job has come to something."""


def run_jobs(record: Record, queue: Queue, program: Sequence[str], slots: Slots, watch: Watch) -> None:
    """Run jobs; the record is written whenever one begins or ends.

    Args:
        record: of the sweep.
        queue: those of it to run.
        program: the words of the command line before a job's overrides.
        slots: how many at once.
        watch: shows how they stand.

    Raises:
        Stopped: by SIGINT, SIGTERM or SIGUSR1, after the running jobs have ended and are recorded.
        UserError: the queue cannot go on; likewise.
    """
    running: dict[int, Running] = {}
    usual = {number: signal.signal(number, heard(number, _stop)) for number in CODES}
    with held_pipe() as pipe:  # around all of it: jobs are killed when it closes
        try:
            while True:
                for slot in sorted(set(range(slots.count)) - set(running)):
                    if job := queue.next():
                        running[slot] = _start(record, job, program, {**slots.environment(slot), **queue.environment(job)}, pipe)
                if not running:
                    break
                watch.show(record, list(running.values()))
                time.sleep(LOOK_EVERY)
                for slot in list(running):
                    if _ended(record, queue, running[slot]):
                        watch.ended(running.pop(slot).job)
        except (Stopped, UserError):
            for number in usual:
                signal.signal(number, signal.SIG_IGN)  # once is enough: what follows takes seconds
            _end_all(record, queue, list(running.values()))
            raise
        finally:
            for number, handler in usual.items():
                signal.signal(number, handler)


def heard(number: int, stop: Handler) -> Handler:
    """What answers a signal: what a shell has told to be ignored stays so, but not by SIG_IGN, which jobs would inherit: SIGINT ends them."""
    return _deaf if signal.getsignal(number) == signal.SIG_IGN else stop


def _deaf(number: int, frame: FrameType | None) -> None:
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _start(record: Record, job: Job, program: Sequence[str], env: dict[str, str], pipe: int) -> Running:
    words = begin(record, job, program)
    record.save()
    return Running(job, words, record.directory / job.directory, env, pipe)


def begin(record: Record, job: Job, program: Sequence[str]) -> list[str]:
    """Note that a job runs, in a directory of its own, or where it was interrupted; returns its command line."""
    goes_on = job.state == "interrupted" and bool(kept_checkpoints(record.directory / job.directory))
    job.attempts += 1
    if not goes_on:
        job.directory = str(job.number) if job.attempts == 1 else f"{job.number}-{job.attempts}"
    cleared(record.directory / job.directory)
    words = [*program, *(line for line in job.overrides if not of_sweep(line))]
    if goes_on:  # not from what its own ckpt= names: it is past that
        words = [*(word for word in words if not word.lstrip("+").startswith("ckpt=")), f"ckpt={AUTO}"]
    job.state, job.failure, job.objective = "running", None, None
    return words


def _ended(record: Record, queue: Queue, running: Running) -> bool:
    outcome = running.outcome()
    if outcome is None:
        return False
    outcome.put(running.job)
    tell(record, queue, running.job)
    return True


def tell(record: Record, queue: Queue, job: Job) -> None:
    """A job has ended, and its record says how."""
    record.save()  # before: a study that has been told and a job that runs again would not agree
    queue.ended(job)
    record.save()


def _end_all(record: Record, queue: Queue, running: list[Running]) -> None:
    for each in running:
        each.ask_to_end()
    deadline = time.monotonic() + GRACE
    for each in running:
        each.finish(deadline)
        with suppress(OSError, UserError):  # a full disk: the record says `running`, which is taken as interrupted
            _ended(record, queue, each)
