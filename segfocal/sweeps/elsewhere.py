"""Jobs that another launcher of Hydra takes to where there is room for them: joblib, ray, submitit.

What it is handed is a `Task`, which starts the program's own command there as a process, as the launcher of this program does here, and
leaves a note of what it came to. So a job is the same wherever it runs, and whatever becomes of the process that was to run it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from segfocal.errors import UserError, first_line
from segfocal.rundir import quoted, shown_path
from segfocal.stopping import CODES
from segfocal.sweeps.outcome import beats, settle
from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.run import Queue, Stopped, begin, heard, tell
from segfocal.sweeps.task import LOOK_EVERY, STOP, Task, Work, claim
from segfocal.sweeps.watch import Watch

NO_WAIT = 2  # signals after which jobs are not waited for


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
            Stopped: by SIGINT, SIGTERM or SIGUSR1, after the jobs have ended and are recorded.
            UserError: the launcher can begin no job, or the queue cannot go on.
        """
        asked, left = Asked(record.directory / STOP), list[Job]()
        batches = Batches(self.name, Handing(self), asked, record, queue, program, watch)
        try:
            while not asked.by and (jobs := left or list(islice(iter(queue.next, None), self.most))):
                left = batches.run(jobs)
        finally:
            asked.forget()
        if asked.by:
            raise Stopped(asked.by[0])


@dataclass
class Batches:
    """Jobs that are handed over together, until each has come to something.

    Args:
        name: of the launcher.
        hands: hands them over.
        asked: whether they are to end.
        record, queue: of the sweep.
        program: the words of the command line before a job's overrides.
        watch: shows how they stand.
    """

    name: str
    hands: Handing
    asked: Asked
    record: Record
    queue: Queue
    program: list[str]
    watch: Watch

    def run(self, jobs: list[Job]) -> list[Job]:
        """Run jobs; returns those that have had no turn, for another was killed together with what was to run it."""
        before = [replace(job) for job in jobs]
        self._hand(jobs)
        lost = self._wait(jobs)
        left = [job for job, as_before in zip(jobs, before, strict=True) if job.state == "running" and self._call_off(job, as_before)]
        for job in jobs:
            if job.state == "running":
                job.state, job.failure = "interrupted", "its process was ended (out of memory, or out of time?)"
                self.watch.ended(job)
        self.record.save()
        none_begun = len(left) == len(jobs) and not self.asked.by
        problem = self.hands.problem or ("it has ended without beginning a job" if none_begun else "")
        if lost or none_begun:
            raise lost or UserError(f"hydra/launcher={self.name}: {problem}")
        if problem:
            print(f"hydra/launcher={self.name}: {problem}", flush=True)
        return left

    def _hand(self, jobs: list[Job]) -> None:
        works = [Work(job, begin(self.record, job, self.program), {"HYDRA_FULL_ERROR": "1", **self.queue.environment(job)}) for job in jobs]
        self.record.save()
        look = f"python -m segfocal.sweep {shown_path(self.record.directory)}"
        print(f"hydra/launcher={self.name}: jobs handed over: {len(jobs)}; those that have ended: {look}", flush=True)
        self.hands.hand(Task(self.record.directory, works, str(Path.cwd()), socket.gethostname(), os.getpid()))

    def _wait(self, jobs: list[Job]) -> UserError | None:
        """Until all have ended, or are not to be waited for; returns why the queue cannot go on."""
        lost = None
        while (self.hands.busy() or self._run_on(jobs)) and len(self.asked.by) < NO_WAIT:
            time.sleep(LOOK_EVERY)
            self.asked.listen()
            lost = lost or self._settle()
            if lost:
                self.asked.to_end()
            self.watch.show(self.record, [])
        return lost or self._settle()

    def _settle(self) -> UserError | None:
        """Record and tell what has ended; returns why that cannot go on."""
        try:
            for job in settle(self.record):
                tell(self.record, self.queue, job)
                self.watch.ended(job)
        except UserError as error:
            return error
        return None

    def _run_on(self, jobs: list[Job]) -> bool:
        """Whether jobs run on where their launcher has given up, for another was killed."""
        return any(job.state == "running" and beats(self.record.directory / job.directory) for job in jobs)

    def _call_off(self, job: Job, before: Job) -> bool:
        """Whether a job has had no turn, and will have none; its record is as before, but for the attempt."""
        if not claim(self.record.directory, job):
            return False
        vars(job).update({**vars(before), "attempts": job.attempts})
        return True


class Handing(threading.Thread):
    """Hands tasks to a launcher, one after the other; `problem` says what went wrong with the last one as a whole.

    Another thread, for the signals are the main one's; a single one, for the processes that ray starts end with the thread that did.

    Args:
        through: the launcher.
    """

    def __init__(self, through: Elsewhere) -> None:
        super().__init__(daemon=True)
        self.through, self.tasks, self.done, self.problem = through, SimpleQueue[Task](), threading.Event(), ""
        self.start()

    def hand(self, task: Task) -> None:
        """Begin with a task."""
        self.done.clear()
        self.problem = ""
        self.tasks.put(task)

    def busy(self) -> bool:
        """Whether the launcher has not returned yet."""
        return not self.done.is_set()

    def run(self) -> None:
        while True:
            try:
                self._launch(self.tasks.get())
            except Exception as error:  # of any library
                self.problem = first_line(error)
            self.done.set()

    def _launch(self, task: Task) -> None:
        where = f"hydra.sweep.dir={quoted(task.directory)}"
        lines = [[where, f"hydra.sweep.subdir='{work.job.directory}'", "hydra/job_logging=none"] for work in task.works]
        through = self.through
        through.launcher.setup(hydra_context=through.context, task_function=task, config=through.config)
        for done in through.launcher.launch(lines, 0):
            _ = done.return_value  # raises what the task has raised


class Asked:
    """SIGINT, SIGTERM and SIGUSR1 ask the jobs to end, wherever they are; a second one does not wait for them.

    Args:
        mark: the file that tells them.
    """

    def __init__(self, mark: Path) -> None:
        self.mark, self.by = mark, list[int]()
        self.usual = {number: signal.getsignal(number) for number in CODES}
        self.handlers = {number: heard(number, self._stop) for number in CODES}
        mark.unlink(missing_ok=True)
        self.listen()

    def listen(self) -> None:
        """Again and again: ray puts handlers of its own in the place of these."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def to_end(self) -> None:
        self.mark.touch()

    def forget(self) -> None:
        """As before; but what was not waited for finds the mark, which the next sweep here takes away."""
        for number, handler in self.usual.items():
            signal.signal(number, handler)
        if len(self.by) < NO_WAIT:
            self.mark.unlink(missing_ok=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.by.append(number)
        self.to_end()
