"""The figures as a table on the console and as metrics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = {
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "auroc": "AUROC",
    "ap": "AP",
    "pixel_share": "pixels",
}
Figures = dict[str, float | None]


def print_table(figures: Figures, classes: list[str], title: str) -> None:
    """A row a class, then the means; `-` where a figure is not defined (the class is absent)."""
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for header in COLUMNS.values():
        table.add_column(header, justify="right")
    for name in classes:
        table.add_row(name, *(_shown(figures.get(f"{key}/{name}"), key) for key in COLUMNS))
    if len(classes) > 1:
        table.add_section()
        table.add_row("mean", *(_shown(figures.get(f"{key}_macro"), key) if key != "pixel_share" else "" for key in COLUMNS))
    console = Console()
    console.print(table)
    if figures.get("absent_classes"):
        console.print(f"{figures['absent_classes']:.0f} of the classes are neither there nor predicted: left out of the means")


def _shown(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if key == "pixel_share" else f"{value:.3f}"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write, then rename: the file is never half there."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
