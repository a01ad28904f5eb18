"""What a sweep came to: a table, best first, on the console and as CSV, a page, and the commands to go on with."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segfocal.report.table import written
from segfocal.rundir import quoted, shown_path
from segfocal.sweeps.compare import Difference, Group, best_first, groups_of, pareto, sign_of, value_of
from segfocal.sweeps.importance import Importance, importance_of
from segfocal.sweeps.record import SEED, Job, Record, brief, says_how, told_apart, varied_in

UNKNOWN = "–"
WIDE = 200  # columns, for a log; a terminal says how many it has


@dataclass
class Answer:
    """
    Args:
        record: of the sweep.
        keys: what it varies, but for the seed.
        seeds: whether it varies the seed.
        groups: of jobs that differ only in that, best first.
        importance: of what it varies.
    """

    record: Record
    keys: list[str]
    seeds: bool
    groups: list[Group]
    importance: Importance

    @property
    def best(self) -> Group | None:
        """None before any job has a value."""
        return self.groups[0] if self.groups and self.groups[0].mean is not None else None

    @property
    def best_job(self) -> Job | None:
        """The best of the best group."""
        jobs = [job for job in self.best.jobs if value_of(job) is not None] if self.best else []
        return max(jobs, key=lambda job: sign_of(self.record) * (value_of(job) or 0.0), default=None)

    @property
    def failures(self) -> list[tuple[Job, str]]:
        return [(job, job.failure) for job in self.record.jobs if job.failure]


def answer_of(record: Record) -> Answer:
    swept = varied_in(record)
    keys = [key for key in swept if key != SEED]
    groups = groups_of(record, keys) if SEED in swept else _alone(record, keys)
    return Answer(record, keys, SEED in swept, groups, importance_of(record, swept if record.against == "best" else []))


def _alone(record: Record, keys: list[str]) -> list[Group]:
    return [Group([told_apart(record, job).get(key, "") for key in keys], [job]) for job in best_first(record)]


def write_answer(record: Record, page: bool = True) -> None:
    """Print the answer, and write sweep.csv and, where it is wanted, sweep.html beside the jobs' directories."""
    answer = answer_of(record)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table(answer))  # also where nothing can be written
    path = record.directory / "sweep.csv"
    written(path, as_csv(answer))
    if shares := answer.importance.shares:
        found = answer.importance
        rows: list[list[Any]] = [
            ["parameter", "importance", "chance", "jobs"],
            *([key, share, key in found.chance, found.jobs] for key, share in shares.items()),
        ]
        written(record.directory / "importance.csv", _csv(rows))
    for note in filter(None, (least_p(answer), str(answer.importance))):
        print(note)
    for job, failure in answer.failures:
        print(f"job {job.number} {job.state}: {failure}")
    for what, command in commands(answer).items():
        print(f"{what}: {command}")
    print(f"table: {shown_path(path)}")
    if page:
        from segfocal.sweeps.page import page_of  # Plotly comes with it

        path = record.directory / "sweep.html"
        written(path, page_of(answer))
        print(f"page: {shown_path(path)}")


def table(answer: Answer) -> Table:
    """A row for each group, or where no seed is varied for each job."""
    record = answer.record
    front = pareto(record) if record.others and not answer.seeds else set()
    drawn = Table(title=f"{len(record.jobs)} jobs, best first" + (f"; {len(front)} that no other betters: *" if front else ""))
    names = shortest(answer.keys)
    numbers = ["sd", "seeds", f"to the {record.against}", "p"] if answer.seeds else list(record.others)
    for header in ("" if answer.seeds else "job", *answer.keys, record.objective, *numbers, *([] if answer.seeds else ["directory"])):
        right = header in ("", "job", record.objective, *numbers)
        parts = re.sub(r"([./]|the )", r"\1\n", names.get(header, header))  # a line each, for columns of numbers are not folded
        drawn.add_column(Text(parts), overflow="fold", justify="right" if right else "left", no_wrap=right)
    for place, group in enumerate(answer.groups, start=1):
        job = group.jobs[0]
        values = [Text(brief(value)) for value in group.values]
        if answer.seeds:
            drawn.add_row(str(place), *values, *figures(group))
        else:
            where = shown_path(record.directory / job.directory) if job.directory else ""
            label = f"{'*' if job.number in front else ''}{job.number}"
            drawn.add_row(label, *values, shown(job), *map(number, _others(record, job)), Text(where))
    return drawn


def shortest(keys: Sequence[str]) -> dict[str, str]:
    """Each key by as many of its last parts as tell it from the others."""

    def ends(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[place:]) for place in reversed(range(len(parts)))]

    return {
        key: next(end for end in ends(key) if end == key or all(end not in ends(other) for other in keys if other != key)) for key in keys
    }


def _others(record: Record, job: Job) -> list[float | None]:
    """What a job came to in the further objectives."""
    return [*job.others, *[None] * (len(record.others) - len(job.others))]


def figures(group: Group) -> list[str]:
    """Mean, standard deviation, how many seeds, the difference with its interval, and its p-value, as text."""
    difference = group.difference
    return [
        number(group.mean),
        number(group.deviation),
        f"{len(group.by_seed)}" if group.complete else f"{len(group.by_seed)} of {len(group.jobs)}",
        "" if difference is None else apart(difference),
        "" if difference is None else UNKNOWN if difference.p is None else f"{difference.p:.3g}",
    ]


def apart(difference: Difference) -> str:
    """With its interval, where there is one."""
    return f"{difference.value:+.4f}" + ("" if difference.margin is None else f" ±{difference.margin:.4f}")


def number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def shown(job: Job) -> str:
    """Its objective, or why it has none."""
    value = value_of(job)
    return job.said if job.state != "finished" else "undefined" if value is None else f"{value:.4f}"


def least_p(answer: Answer) -> str:
    """What few seeds cannot tell; empty where no seed is varied."""
    pairs = max((group.difference.pairs for group in answer.groups if group.difference), default=0)
    if pairs < 2:
        return f"p: a single seed in common with the {answer.record.against} cannot tell whether a difference is chance" if pairs else ""
    return f"±: 95 % interval (Student's t); p: paired over seeds, by flipping signs; with {pairs} seeds none below {2 ** (1 - pairs):.3g} is possible"


def commands(answer: Answer) -> dict[str, str]:
    """What reproduces the best job, and what evaluates it, as a shell takes it; none before any job has a value."""
    job, program = answer.best_job, answer.record.program
    if job is None:
        return {}
    words = ["python", f"{program}.py", *(line for line in job.overrides if not says_how(line))]
    found = {"reproduce the best": shlex.join(words)}
    if program == "train":
        found["evaluate it"] = shlex.join(["python", "evaluate.py", f"ckpt={_value(answer.record.directory / job.directory)}"])
    return found


def _value(path: Path) -> str:
    """A path as one would type it here; what Hydra's grammar would read as something else is quoted for it."""
    typed = shown_path(path)
    return typed if re.fullmatch(r"[\w./-]+", typed, re.ASCII) else quoted(Path(typed))


def as_csv(answer: Answer) -> str:
    """A row for each job, best first; where seeds are varied, with the figures of its group."""
    own = ["mean", "sd", "seeds", f"to_{answer.record.against}", "margin", "p"] if answer.seeds else []
    swept = [*answer.keys, *([SEED] if answer.seeds else [])]
    record = answer.record
    rows: list[list[Any]] = [["job", *swept, record.objective, *record.others, *own, "directory", "state", "failure", "seconds"]]
    for group in answer.groups:
        difference = group.difference
        between = [difference.value, difference.margin, difference.p] if difference else [None] * 3
        of_group = [group.mean, group.deviation, len(group.by_seed), *between]
        for job in group.jobs:
            said = told_apart(record, job)
            end = [job.directory, job.state, job.failure, round(job.seconds, 1)]
            values = [said.get(key, "") for key in swept]
            rows.append([job.number, *values, value_of(job), *_others(record, job), *(of_group if own else []), *end])
    return _csv(rows)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
