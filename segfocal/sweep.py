"""What a sweep came to: a table of all its jobs, best first, on the console and as CSV."""

from __future__ import annotations

import csv

from rich.console import Console
from rich.table import Table

from segfocal.rundir import shown_path
from segfocal.sweeps.record import Job, Record, brief, swept_keys

MINIMISED = "val/loss"


def best_first(record: Record) -> list[Job]:
    """Jobs by their objective, of several objectives those first that none betters in all; after them, by number, those that have none."""
    sign = 1 if record.objective == MINIMISED else -1
    front = pareto(record)
    return sorted(record.jobs, key=lambda job: (job.objective is None, job.number not in front, sign * (job.objective or 0.0), job.number))


def pareto(record: Record) -> set[int]:
    """The numbers of the jobs that no other betters: at least as good in every objective, and better in one."""
    signs = [1 if name == MINIMISED else -1 for name in (record.objective, *record.others)]
    scores = {
        job.number: [sign * value for sign, value in zip(signs, (job.objective, *job.others), strict=True)]
        for job in record.jobs
        if job.objective is not None and len(job.others) == len(record.others)
    }

    def bettered(score: list[float]) -> bool:
        return any(other != score and all(a <= b for a, b in zip(other, score, strict=True)) for other in scores.values())

    return {number for number, score in scores.items() if not bettered(score)}


def write_summary(record: Record) -> None:
    """Print the table, and write sweep.csv beside the jobs' directories."""
    keys = swept_keys([job.overrides for job in record.jobs])
    front = pareto(record) if record.others else set()
    objectives = [record.objective, *record.others]
    table = Table(title=f"{len(record.jobs)} jobs, best first" + (f"; {len(front)} that no other betters: *" if front else ""))
    for header in ("job", *keys, *objectives, "directory"):
        table.add_column(header, overflow="fold", justify="right" if header in ("job", *objectives) else "left")
    rows = []
    for job in best_first(record):
        said = dict(line.split("=", 1) for line in job.overrides)
        values = [said.get(key, "") for key in keys]
        shown = job.said if job.state != "finished" else "undefined" if job.objective is None else f"{job.objective:.4f}"
        others = [*job.others, *[None] * (len(record.others) - len(job.others))]
        table.add_row(
            f"{'*' if job.number in front else ''}{job.number}",
            *map(brief, values),
            shown,
            *("" if other is None else f"{other:.4f}" for other in others),
            shown_path(record.directory / job.directory) if job.directory else "",
        )
        figures = ["" if figure is None else figure for figure in (job.objective, *others)]
        rows.append([job.number, *values, *figures, job.directory, job.state, job.failure or "", round(job.seconds, 1)])
    path = record.directory / "sweep.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["job", *keys, *objectives, "directory", "state", "failure", "seconds"], *rows])
    Console().print(table)
    for job in record.jobs:
        if job.failure:
            print(f"job {job.number} {job.state}: {job.failure}")
    print(f"table: {shown_path(path)}")
