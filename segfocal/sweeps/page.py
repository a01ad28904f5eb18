"""What a sweep came to, as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any
from urllib.parse import quote

from segfocal import __version__
from segfocal.report.html import rendered
from segfocal.sweeps.answer import UNKNOWN, Answer, apart, commands, figures, least_p, number, shown
from segfocal.sweeps.compare import MINIMISED, Group, seed_of, value_of
from segfocal.sweeps.record import Job, told_apart
from segfocal.sweeps.scale import by_powers, numbers_of
from segfocal.sweeps.watch import clock


def page_of(answer: Answer) -> str:
    """HTML in one file: without a network, in the light and in the dark, on paper."""
    record = answer.record
    values = any(value_of(job) is not None for job in record.jobs)
    return rendered(
        "sweep.html.j2",
        ["sweep.js"],
        data=chart_data(answer),
        answer=answer,
        record=record,
        name=record.directory.absolute().name,
        tiles=tiles(answer) if values else [],
        commands=commands(answer),
        figures=figures,
        number=number,
        value_of=value_of,
        seed_of=seed_of,
        shown=shown,
        told_apart=told_apart,
        clock=clock,
        note=least_p(answer),
        link=lambda job: link(answer, job),
        classes=classes(answer),
        importance=shares(answer),
        drawn=values,
        version=__version__,
    )


def tiles(answer: Answer) -> list[dict[str, str]]:
    """Which is best, is it more than chance, how many there were, how long it took."""
    record, best = answer.record, answer.best
    assert best is not None
    counts = {
        state: sum(job.state == state for job in record.jobs)
        for state in ("finished", "pruned", "failed", "interrupted", "running", "waiting")
    }
    seconds = sum(job.seconds for job in record.jobs)
    return [
        {
            "question": "What is best?",
            "value": number(best.mean),
            "unit": record.objective + (f", mean of {len(best.by_seed)}" if answer.seeds else ""),
            "note": called(answer, best),
        },
        _chance(answer, best),
        {
            "question": "How many ran?",
            "value": f"{counts['finished']} of {len(record.jobs)}",
            "unit": "jobs finished",
            "note": ", ".join(f"{count} {state}" for state, count in counts.items() if count and state != "finished"),
        },
        {
            "question": "How long?",
            "value": clock(seconds),
            "unit": "of all jobs together",
            "note": f"{clock(seconds / max(1, counts['finished'] + counts['pruned'] + counts['failed']))} a job",
        },
    ]


def _chance(answer: Answer, best: Group) -> dict[str, str]:
    tile = {"question": "More than chance?", "value": UNKNOWN, "unit": "", "note": "seed=0,1,2,... would tell how far it moves by itself"}
    if not answer.seeds:
        return tile | {"unit": "one seed"}
    spread = f"standard deviation over seeds {number(best.deviation)}"
    to_first = best.difference is not None
    other = best if to_first else next((group for group in answer.groups[1:] if group.difference), None)
    if other is None or other.difference is None:
        return tile | {"unit": "nothing to compare with", "note": spread}
    p = other.difference.p
    return tile | {
        "value": UNKNOWN if p is None else f"p = {p:.3g}",
        "unit": f"against the {'first' if to_first else 'second'}, {apart(other.difference)}",
        "note": spread if to_first else f"{spread}; {called(answer, other)}",
    }


def called(answer: Answer, group: Group) -> str:
    """A group by what tells it from the others."""
    if answer.record.against == "first":
        return f"changed: {group.values[0]}"
    said = [f"{key}={value}" for key, value in zip(answer.keys, group.values, strict=True) if value]
    return ", ".join(said) or f"all of seed ({len(group.jobs)})"


def link(answer: Answer, job: Job) -> str:
    """To the report of a job, from the page; empty where there is none."""
    path = f"{job.directory}/report.html"
    return f"./{quote(path)}" if job.directory and (answer.record.directory / path).is_file() else ""


def chart_data(answer: Answer) -> dict[str, Any]:
    """For `sweep.js`: what is varied, and each job that has a value."""
    jobs = [job for job in answer.record.jobs if value_of(job) is not None]
    said = [told_apart(answer.record, job) for job in jobs]
    return {
        "objective": answer.record.objective,
        "minimised": answer.record.objective == MINIMISED,
        "parameters": [parameter(key, [each.get(key, UNKNOWN) for each in said]) for key in answer.keys],
        "jobs": [{"number": job.number, "value": value_of(job), "seed": seed_of(job) if answer.seeds else ""} for job in jobs],
    }


def parameter(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """A value for each job: numbers where all are, else places in the order in which they come up."""
    numbers = numbers_of(texts)
    if numbers is None:
        kinds = list(dict.fromkeys(texts))
        return {"name": name, "texts": list(texts), "kinds": kinds, "places": [kinds.index(text) for text in texts], "log": False}
    return {"name": name, "texts": list(texts), "kinds": None, "places": numbers, "log": by_powers(numbers)}


def classes(answer: Answer) -> dict[str, Any] | None:
    """IoU of the classes of the best group, and of the one it is measured against; None where the runs left no figures.

    That is the one that the sweep began with, or where it is the best itself, the second.
    """
    best = answer.best
    others = sorted((group for group in answer.groups if group is not best), key=lambda group: group.jobs[0].number)
    if best is None or not others:
        return None
    first = best.jobs[0].number < others[0].jobs[0].number
    other = answer.groups[1] if first else others[0]
    of_best, of_other = _class_figures(answer, best), _class_figures(answer, other)
    names = [name for name in of_best if name in of_other]
    if not names:
        return None
    labels = ["the best", "the second" if first else "the first"]
    groups = [
        {
            "name": name,
            "colour": "var(--accent)",
            "bars": [
                {"label": label, "striped": place > 0, "cell": {"value": value, "text": f"{value:.3f}", "interval": "", "ends": None}}
                for place, (label, value) in enumerate(zip(labels, (of_best[name], of_other[name]), strict=True))
            ],
        }
        for name in names
    ]
    return {"groups": groups, "labels": labels, "names": [called(answer, best), called(answer, other)]}


def shares(answer: Answer) -> list[dict[str, Any]]:
    """A bar for each parameter, the most important first."""
    chance = answer.importance.chance
    return [
        {
            "name": key,
            "colour": "var(--accent)",
            "bars": [
                {"label": "share", "striped": key in chance, "cell": {"value": share, "text": f"{share:.2f}", "interval": "", "ends": None}}
            ],
        }
        for key, share in answer.importance.shares.items()
    ]


def _class_figures(answer: Answer, group: Group) -> dict[str, float]:
    """IoU by class, the mean over the jobs of a group that have it."""
    found: dict[str, list[float]] = {}
    for job in group.jobs:
        if value_of(job) is None:
            continue
        try:
            figures = json.loads((answer.record.directory / job.directory / "metrics.json").read_text(encoding="utf-8"))
            known = {key: value for key, value in figures.items() if key.startswith("iou/") and type(value) in (int, float)}
        except (OSError, ValueError, AttributeError):
            continue  # report and figures of a run can have been deleted
        for key, value in known.items():
            if 0 <= value <= 1:
                found.setdefault(key.removeprefix("iou/"), []).append(value)
    return {name: fmean(values) for name, values in found.items()}
