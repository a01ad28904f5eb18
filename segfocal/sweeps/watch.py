"""How the jobs of a sweep stand while they run: a table that is drawn anew on a terminal, elsewhere a line for each that ends."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import track
from rich.table import Table

from segfocal.sweeps.process import Running
from segfocal.sweeps.record import CHANGED, Job, Record, brief, told_apart

MOST_ROWS = 20
QUIET = 8  # so few jobs are composed within two seconds


class Watch:
    """
    Args:
        record: of the sweep.
        keys: what its jobs differ in.
    """

    def __init__(self, record: Record, keys: list[str]) -> None:
        self.record, self.keys = record, keys
        self.live = Live(console=Console(), refresh_per_second=2, transient=True) if sys.stdout.isatty() else None

    def __enter__(self) -> Watch:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def show(self, record: Record, running: list[Running]) -> None:
        """Draw the table, on a terminal."""
        if self.live:
            self.live.update(table(record, running, self.keys))

    def ended(self, job: Job) -> None:
        """Say what a job came to."""
        value = "" if job.objective is None else f" {job.objective:.4f}"
        said = f"job {job.number} {' '.join(said_of(self.record, job, self.keys))}: {job.said}{value}, {job.seconds:.0f} s" + (
            f": {job.failure}" if job.failure and job.failure != job.state else ""
        )
        if self.live:
            self.live.console.print(said, markup=False, highlight=False)
        else:
            print(said, flush=True)


def counted(lines: list[list[str]]) -> Iterable[list[str]]:
    """Command lines; where they are many, on a terminal, with how many have been composed: each takes a good part of a second."""
    if len(lines) <= QUIET or not sys.stderr.isatty():
        return lines
    return track(lines, description="composing the jobs", transient=True, console=Console(stderr=True))


def said_of(record: Record, job: Job, keys: list[str]) -> list[str]:
    """The overrides in which a job differs from the others, or from the first."""
    if record.against == "first":
        apart = told_apart(record, job)
        return [apart.pop(CHANGED), *(f"{key}={value}" for key, value in apart.items())]
    said = [line.partition("=") for line in job.overrides]
    return [f"{key}={brief(value)}" for key, _, value in said if key.lstrip("+") in keys]


def table(record: Record, running: list[Running], keys: list[str]) -> Table:
    """The running jobs, and those that ended last; how many wait, and about how long it will take."""
    now = {each.job.number: each for each in running}
    counts = Counter(job.state for job in record.jobs)
    title = ", ".join(f"{counts[state]} {state}" for state in ("running", "finished", "failed", "interrupted", "waiting") if counts[state])
    left = time_left(record, running)
    drawn = Table(title=title + (f", about {clock(left)} left" if left is not None else ""))
    for header in ("job", "", "state", "epoch", record.objective, "time"):
        drawn.add_column(header, justify="right" if header not in ("", "state") else "left", overflow="fold")
    ended = [job for job in record.jobs if job.number not in now and job.state != "waiting"][-MOST_ROWS:]
    for job in [*ended, *(each.job for each in running)]:
        progress = now[job.number].progress() if job.number in now else None
        seconds = job.seconds + (now[job.number].seconds if job.number in now else 0)
        drawn.add_row(
            str(job.number),
            " ".join(said_of(record, job, keys)),
            job.state,
            f"{progress[0]}/{progress[1]}" if progress else "",
            "" if job.objective is None else f"{job.objective:.4f}",
            clock(seconds),
        )
    return drawn


def time_left(record: Record, running: list[Running]) -> float | None:
    """Seconds that all of it will take, by what the jobs that are over took; None before one is."""
    over = [job.seconds for job in record.jobs if job.state == "finished" and job.seconds]
    if not over or not running:
        return None
    each = sum(over) / len(over)
    waiting = sum(job.state == "waiting" for job in record.jobs)
    return (waiting * each + sum(max(0.0, each - one.seconds) for one in running)) / len(running)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
