"""What a job of a sweep came to, and the note of it that one which runs elsewhere leaves in its directory; until then its heart beats there."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from segfocal.sweeps.record import Job, Record, State
from segfocal.wholefile import write_whole

NOTE = "outcome.json"
BEAT = ".beat"
DEAD_AFTER = 30.0  # seconds without a beat, of which there is one a second: disks of clusters show them late


@dataclass
class Outcome:
    """
    Args:
        state: of the job.
        seconds: that this attempt took.
        objective, failure, epoch: as of a job of the record.
    """

    state: State
    seconds: float
    objective: float | None = None
    failure: str | None = None
    epoch: int | None = None

    def put(self, job: Job) -> None:
        """Into the record."""
        job.state, job.objective, job.failure, job.epoch = self.state, self.objective, self.failure, self.epoch
        job.seconds += self.seconds

    def note(self, directory: Path) -> None:
        """Leave it where the sweep looks for it, however long that takes to come by."""
        write_whole(directory / NOTE, lambda file: file.write(json.dumps(asdict(self)).encode()))


def noted(directory: Path) -> Outcome | None:
    """The outcome that a job has left in its directory; None while it runs."""
    try:
        return Outcome(**json.loads((directory / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def cleared(directory: Path) -> None:
    """Make the directory of an attempt, and take away what an earlier one has noted there."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (NOTE, BEAT):
        (directory / name).unlink(missing_ok=True)


def beat(directory: Path) -> None:
    """Say that a job runs, in this process."""
    (directory / BEAT).write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")


def beats(directory: Path) -> bool:
    """Whether a job runs on, as far as can be seen from here."""
    try:
        pid, _, host = (directory / BEAT).read_text(encoding="utf-8").partition(" ")
        if time.time() - (directory / BEAT).stat().st_mtime > DEAD_AFTER:
            return False
        if host == socket.gethostname():
            os.kill(int(pid), 0)
    except (OSError, ValueError):
        return False
    return noted(directory) is None


def settle(record: Record) -> list[Job]:
    """Put into the record what jobs that ran elsewhere have come to meanwhile; returns those."""
    settled = []
    for job in record.jobs:
        if job.state == "running" and (outcome := noted(record.directory / job.directory)):
            outcome.put(job)
            settled.append(job)
    return settled
