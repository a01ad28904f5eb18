"""Running the jobs of a sweep, so many at once, until each has come to something."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from segfocal.config.run import AUTO
from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError
from segfocal.parallel.launch import held_pipe
from segfocal.sweeps.process import GRACE, Running
from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.watch import Watch

LOOK_EVERY = 0.2  # seconds between two looks at the jobs


class Stopped(Exception):
    """The sweep was asked to end, by a signal of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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


@dataclass
class Slots:
    """How many jobs run at once, and what each may use.

    Args:
        count: of jobs.
        gpus: the numbers of the GPUs, for each slot; none where jobs run on the CPU.
        threads: of the CPU, for each job.
    """

    count: int
    gpus: list[list[str]] = field(default_factory=list)
    threads: int = 1

    def environment(self, slot: int) -> dict[str, str]:
        """Of a job in a slot; what the user has set goes before."""
        env = {"OMP_NUM_THREADS": str(self.threads), "HYDRA_FULL_ERROR": "1"} | os.environ  # its advice would stand last
        if self.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[slot])
        return env


def slots_of(config: SweepConfig, on_gpu: bool) -> Slots:
    """The slots that a configuration comes to on this machine.

    Args:
        config: of the sweep.
        on_gpu: whether the jobs' profile takes GPUs.

    Raises:
        UserError: there are fewer GPUs than asked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = visible_gpus() if on_gpu else []
    if not gpus:
        count = config.jobs or 1
        return Slots(count, threads=max(1, cores // count))
    most = len(gpus) // config.gpus_per_job
    if most == 0 or (config.jobs or 0) > most:
        asked = f"sweep.jobs={config.jobs} " if config.jobs else ""
        raise UserError(
            f"{asked}sweep.gpus_per_job={config.gpus_per_job}: this machine has {len(gpus)} GPUs, enough for {most} jobs at once"
        )
    count = config.jobs or most
    groups = [gpus[slot * config.gpus_per_job : (slot + 1) * config.gpus_per_job] for slot in range(count)]
    return Slots(count, groups, max(1, cores // count))


def visible_gpus() -> list[str]:
    """The CUDA GPUs that a program would see here, without importing torch."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [number.strip() for number in said.split(",") if number.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def run_jobs(record: Record, queue: Queue, program: Sequence[str], slots: Slots, watch: Watch) -> None:
    """Run jobs; the record is written whenever one begins or ends.

    Args:
        record: of the sweep.
        queue: those of it to run.
        program: the words of the command line before a job's overrides.
        slots: how many at once.
        watch: shows how they stand.

    Raises:
        Stopped: by SIGINT or SIGTERM, after the running jobs have ended and are recorded.
        UserError: the queue cannot go on; likewise.
    """
    running: dict[int, Running] = {}
    usual = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with held_pipe() as pipe:
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


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _start(record: Record, job: Job, program: Sequence[str], env: dict[str, str], pipe: int) -> Running:
    goes_on = job.state == "interrupted" and (record.directory / job.directory).is_dir()
    if not goes_on:
        job.attempts += 1
        job.directory = str(job.number) if job.attempts == 1 else f"{job.number}-{job.attempts}"
    words = [*program, *job.overrides]
    if goes_on and not any(line.startswith("ckpt=") for line in job.overrides):
        words.append(f"ckpt={AUTO}")
    job.state, job.failure, job.objective = "running", None, None
    record.save()
    return Running(job, words, record.directory / job.directory, env, pipe)


def _ended(record: Record, queue: Queue, running: Running) -> bool:
    outcome = running.outcome()
    if outcome is None:
        return False
    job = running.job
    job.state, job.objective, job.failure, job.epoch = outcome.state, outcome.objective, outcome.failure, outcome.epoch
    job.seconds += running.seconds
    record.save()  # before: a study that has been told and a job that runs again would not agree
    queue.ended(job)
    record.save()
    return True


def _end_all(record: Record, queue: Queue, running: list[Running]) -> None:
    for each in running:
        each.ask_to_end()
    deadline = time.monotonic() + GRACE
    for each in running:
        each.finish(deadline)
        with suppress(OSError, UserError):  # a full disk: the record says `running`, which is taken as interrupted
            _ended(record, queue, each)
