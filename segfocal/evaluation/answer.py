"""What an evaluation leaves: a table on the console, metrics.json, a table of the images, report.html."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from segfocal.errors import UserError
from segfocal.evaluation.judge import Judged
from segfocal.metrics.bootstrap import Difference, check_same, compare
from segfocal.report.evaluated import Evaluated
from segfocal.report.page import page
from segfocal.report.table import comparison, table, write_json, written
from segfocal.rundir import shown_path

log = logging.getLogger("segfocal")

Differences = dict[str, Difference]


def answer(judged: list[Judged], out: Path, draws: int, report: bool, as_json: bool = False) -> None:
    """Write everything, and print what one wants to know first.

    Args:
        judged: one or more checkpoints on the same split; the first is what the others are compared with.
        out: an existing directory.
        draws: of the bootstrap; 0 compares without p-values.
        report: whether report.html is written.
        as_json: print JSON in place of the table.
    """
    evaluated = [item.evaluated for item in judged]
    differences = [differences_of(evaluated[0], other, draws) for other in evaluated[1:]]
    content = figures_of(evaluated[0]) if len(evaluated) == 1 else {"checkpoints": [figures_of(item) for item in evaluated]}
    if differences:
        content["differences"] = [{name: asdict(value) for name, value in item.items()} for item in differences]
    paths = {"checkpoint": evaluated[0].checkpoint} if len(evaluated) == 1 else {}
    write_json(out / "metrics.json", content)
    paths["figures"] = out / "metrics.json"
    for number, item in enumerate(evaluated):
        paths[f"images {number}" if number else "images"] = place = out / (f"images_{number}.csv" if len(evaluated) > 1 else "images.csv")
        item.images.write_csv(place)
    if report:
        paths["report"] = out / "report.html"
        written(paths["report"], page(evaluated, judged[0].shown, differences))
    if (out / "overlays" / "evaluation.png").is_file():
        paths["pictures"] = out / "overlays" / "evaluation.png"
    if as_json:
        sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
    else:
        console = Console(width=max(Console().width, 160))
        for item in evaluated:
            console.print(table(item))
        for item, found in zip(evaluated[1:], differences, strict=True):
            console.print(comparison(evaluated[0], item, found))
    for name, place in paths.items():
        log.info("%-10s %s", name, shown_path(place))


def figures_of(evaluated: Evaluated) -> dict[str, Any]:
    """What metrics.json holds of a checkpoint."""
    return {
        "split": evaluated.split,
        "checkpoint": str(evaluated.checkpoint),
        "epoch": evaluated.about["epoch"],
        "decision": evaluated.decision.as_dict(),
        **evaluated.figures,
        "intervals": {name: list(ends) for name, ends in evaluated.intervals.items()},
    }


def differences_of(first: Evaluated, other: Evaluated, draws: int) -> Differences:
    """What the other has more, with intervals and p-values over the same images; by the plain rule, and by the stored decisions."""
    try:
        check_same(first.images, other.images)
        if not draws:
            return {}
        found = compare(first.images, other.images, tuned=False, draws=draws)
    except ValueError as error:
        raise UserError(f"{other.name} and {first.name} cannot be compared: {error}") from None
    if first.decision.plain and other.decision.plain:
        return found
    return found | {f"tuned/{name}": value for name, value in compare(first.images, other.images, tuned=True, draws=draws).items()}
