"""What a sweep came to: a table of all its jobs, best first, on the console and as CSV."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from segfocal.rundir import shown_path


@dataclass
class Job:
    """A job of a sweep; `objective` is NaN where it failed or had none."""

    number: int
    overrides: list[str]
    directory: str
    objective_name: str
    objective: float
    failure: str | None


def best_first(jobs: list[Job]) -> list[Job]:
    """Finished jobs by their objective, failed ones after them by number."""
    sign = 1 if jobs[0].objective_name == "val/loss" else -1
    return sorted(jobs, key=lambda job: (math.isnan(job.objective), sign * job.objective if not math.isnan(job.objective) else job.number))


def write_summary(jobs: list[Job]) -> int:
    """Print the table, write sweep.csv beside the jobs' directories; returns how many jobs failed."""
    ranked = best_first(jobs)
    name = ranked[0].objective_name or "objective"
    keys = [item.partition("=")[0] for item in ranked[0].overrides]
    table = Table(title=f"{len(jobs)} jobs, best first")
    for header in ("job", *keys, name, "directory"):
        table.add_column(header, overflow="fold", justify="right" if header in ("job", name) else "left")
    rows = []
    for job in ranked:
        values = [item.partition("=")[2] for item in job.overrides]
        shown = f"{job.objective:.4f}" if job.failure is None else "failed"
        table.add_row(str(job.number), *values, shown, shown_path(Path(job.directory)))
        rows.append([job.number, *values, "" if math.isnan(job.objective) else job.objective, job.directory, job.failure or ""])
    path = Path(ranked[0].directory).parent / "sweep.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["job", *keys, name, "directory", "failure"], *rows])
    Console().print(table)
    for job in ranked:
        if job.failure:
            print(f"job {job.number} failed: {job.failure.splitlines()[0]}")
    print(f"table: {shown_path(path)}")
    return sum(job.failure is not None for job in jobs)
