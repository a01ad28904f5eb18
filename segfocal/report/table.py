"""The figures as tables on the console, and files that are never half there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from segfocal.wholefile import write_whole

if TYPE_CHECKING:
    from segfocal.metrics.bootstrap import Difference
    from segfocal.report.evaluated import Evaluated

COLUMNS = {
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "auroc": "AUROC",
    "ap": "AP",
    "pixel_share": "pixels",
}
CONTOURS = {"boundary_iou": "boundary IoU", "boundary_f": "boundary F"}  # where they were asked for
NARROW = 20  # images: in simulation, 95 % intervals over ten held the truth in 88 % of cases
SURE = 0.05  # a difference with a smaller p-value is shown in bold


def table(evaluated: Evaluated) -> RenderableType:
    """A row a class, then the means; `-` where a figure is not defined.

    The IoU has its 95 % interval over images. Where a threshold or offset was fitted, the IoU with it stands beside that by the plain rule.
    """
    figures, classes, decision = evaluated.figures, evaluated.task.class_names, evaluated.decision
    count = len(evaluated.images.names)
    shown = Table(title=Text(f"{evaluated.name}, {evaluated.split}: {count} image{'' if count == 1 else 's'}"), title_justify="left")
    shown.add_column("class")
    tuned = not decision.plain
    chosen = decision.offsets or decision.thresholds
    headers = [*COLUMNS.values(), *(CONTOURS.values() if _has_contours(figures) else ())]
    headers[1:1] = ["IoU, fitted", "offset" if decision.offsets else "threshold"] if tuned else []
    for header in headers:
        shown.add_column(header, justify="right")
    for number, name in enumerate(classes):
        shown.add_row(Text(name), *_cells(evaluated, f"/{name}", f"{chosen[number]:.3g}" if tuned else None))
    if len(classes) > 1:
        shown.add_section()
        shown.add_row("mean", *_cells(evaluated, "_macro", "" if tuned else None))
    few = [f"Intervals over {count} images are too narrow, see docs/metrics.md"] if 1 < count < NARROW and evaluated.intervals else []
    notes = [Text(note) for note in [*_absent(evaluated), *few]]
    return Group(shown, *notes) if notes else shown


def _absent(evaluated: Evaluated) -> list[str]:
    """What is to be said of classes that are not there."""
    figures, names = evaluated.figures, evaluated.task.class_names
    nowhere = [name for name in names if figures.get(f"pixel_share/{name}") == 0]
    undefined = [name for name in names if f"iou/{name}" in figures and figures[f"iou/{name}"] is None]
    fitted_alone = [name for name in undefined if figures.get(f"tuned/iou/{name}") is not None]
    said = {
        f"In no mask of split={evaluated.split}: recall, AUROC and AP are not defined": nowhere,
        "Neither there nor predicted: left out of the means": [name for name in undefined if name not in fitted_alone],
        "Not there, and predicted by the fitted rule alone: left out of the plain means, and 0 in the fitted": fitted_alone,
    }
    return [f"{text}: {', '.join(those)}" for text, those in said.items() if those]


def _cells(evaluated: Evaluated, tail: str, chosen: str | None) -> list[str]:
    """A row of the table; `chosen` is the threshold or offset, None where none was fitted."""
    cells = [_shown(evaluated.figures.get(key + tail), key) for key in COLUMNS]
    if tail == "_macro":
        cells[-1] = ""
    if _has_contours(evaluated.figures):
        cells += [_shown(evaluated.figures.get(key + tail), key) for key in CONTOURS]
    cells[0] += _interval(evaluated, f"iou{tail}")
    if chosen is not None:
        cells[1:1] = [_shown(evaluated.figures.get(f"tuned/iou{tail}"), "iou") + _interval(evaluated, f"tuned/iou{tail}"), chosen]
    return cells


def _has_contours(figures: Mapping[str, float | None]) -> bool:
    return any(name.startswith("boundary_iou") for name in figures)


def _interval(evaluated: Evaluated, name: str) -> str:
    ends = evaluated.intervals.get(name)
    return f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else ""


def comparison(first: Evaluated, other: Evaluated, differences: Mapping[str, Difference]) -> RenderableType:
    """IoU of two checkpoints, a row a class: the second minus the first, its interval and p-value over the same images."""
    both = Table(title=Text(f"{other.name} minus {first.name}, {first.split}: {len(first.images.names)} images"), title_justify="left")
    both.add_column("class")
    for header in ("IoU of the first", "of the second", "difference", "95 % interval", "p"):
        both.add_column(header, justify="right")
    tails = [*(f"/{name}" for name in first.task.class_names), *(["_macro"] if len(first.task.class_names) > 1 else [])]
    for prefix, rule in (("", ""), ("tuned/", ", fitted")):
        for tail in tails:
            name = f"{prefix}iou{tail}"
            values = [item.figures.get(name, item.figures.get(f"iou{tail}")) for item in (first, other)]
            if prefix and first.decision.plain and other.decision.plain:
                continue
            found = differences.get(name)
            change = None if None in values else values[1] - values[0]  # type: ignore[operator]  # neither is None
            sure = "bold" if found is not None and found.p < SURE else ""
            label = "mean" if tail == "_macro" else tail[1:]
            both.add_row(
                Text(label + rule),
                *(_shown(value, "iou") for value in values),
                Text("-" if change is None else f"{change:+.3f}", style=sure),
                f"{found.low:+.3f} .. {found.high:+.3f}" if found else "",
                f"{found.p:.3f}" if found else "",
            )
    return both


def _shown(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if key == "pixel_share" else f"{value:.3f}"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write, then rename: the file is never half there."""
    written(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def written(path: Path, text: str) -> None:
    """Write a text; the file is never half there."""
    write_whole(path, lambda file: file.write(text.encode(errors="replace")))  # names of files need not be UTF-8
