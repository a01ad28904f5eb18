"""What a sweep came to: a table of all its jobs, best first, on the console and as CSV."""

from __future__ import annotations

import csv

from rich.console import Console
from rich.table import Table

from segfocal.rundir import shown_path
from segfocal.sweeps.record import Job, Record, swept_keys

MINIMISED = "val/loss"


def best_first(record: Record) -> list[Job]:
    """Jobs by their objective; after them, by number, those that have none."""
    sign = 1 if record.objective == MINIMISED else -1
    return sorted(record.jobs, key=lambda job: (job.objective is None, sign * (job.objective or 0.0), job.number))


def write_summary(record: Record) -> None:
    """Print the table, and write sweep.csv beside the jobs' directories."""
    keys = swept_keys([job.overrides for job in record.jobs])
    table = Table(title=f"{len(record.jobs)} jobs, best first")
    for header in ("job", *keys, record.objective, "directory"):
        table.add_column(header, overflow="fold", justify="right" if header in ("job", record.objective) else "left")
    rows = []
    for job in best_first(record):
        said = dict(line.split("=", 1) for line in job.overrides)
        values = [said.get(key, "") for key in keys]
        shown = job.state if job.state != "finished" else "undefined" if job.objective is None else f"{job.objective:.4f}"
        table.add_row(str(job.number), *values, shown, shown_path(record.directory / job.directory) if job.directory else "")
        objective = "" if job.objective is None else job.objective
        rows.append([job.number, *values, objective, job.directory, job.state, job.failure or "", round(job.seconds, 1)])
    path = record.directory / "sweep.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["job", *keys, record.objective, "directory", "state", "failure", "seconds"], *rows])
    Console().print(table)
    for job in record.jobs:
        if job.failure:
            print(f"job {job.number} {job.state}: {job.failure}")
    print(f"table: {shown_path(path)}")
