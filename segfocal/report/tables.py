"""The tables of the page, as text and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segfocal.report.evaluated import Evaluated
from segfocal.report.overlay import class_colours
from segfocal.report.summary import fitted, interval, number, percent, rule, tail

if TYPE_CHECKING:
    from segfocal.metrics.bootstrap import Difference

COUNTED = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}  # by each way to decide
RANKED = {"auroc": "AUROC", "ap": "AP", "ece": "ECE"}
SURE = 0.05  # a difference with a smaller p-value stands out
LONGEST = 500  # signs of a value of the configuration: splits may be millions
LOWEST = 1e-5  # share of the pixels at which a bar is empty


def rows(item: Evaluated) -> list[dict[str, Any]]:
    """A row a class, and their mean where there are several."""
    chosen = item.decision.offsets or item.decision.thresholds
    found = [
        {**_row(item, f"/{name}"), "name": name, "colour": "rgb({}, {}, {})".format(*colour), "chosen": chosen[label] if chosen else None}
        for label, (name, colour) in enumerate(class_colours(item.task))
    ]
    if len(found) > 1:
        found.append({**_row(item, "_macro"), "name": "mean", "colour": "", "chosen": None})
    return found


def _row(item: Evaluated, end: str) -> dict[str, Any]:
    share = item.figures.get("pixel_share" + end)
    return {
        "plain": [_cell(item, key + end) for key in COUNTED],
        "tuned": [] if item.decision.plain else [_cell(item, f"tuned/{key}{end}") for key in COUNTED],
        "ranked": [_cell(item, key + end) for key in RANKED],
        "share": {"value": share, "text": "" if end == "_macro" else percent(share), "interval": "", "ends": None},
    }


def compared(evaluated: Sequence[Evaluated], differences: Sequence[Mapping[str, Difference]]) -> dict[str, Any]:
    """A row a checkpoint; the best of each column is marked, and from the second on what it has more than the first.

    Where one has nothing fitted, its plain rule stands beside what is fitted of the others.
    """
    end, any_fitted = tail(evaluated[0]), not all(item.decision.plain for item in evaluated)
    keys = [key + end for key in ("iou", "dice", "precision", "recall", "auroc", "ap", "ece")]
    titles = [title if end[0] == "/" else f"mean {title}" for title in (*COUNTED.values(), *RANKED.values())]
    if any_fitted:
        keys[1:1], titles[1:1] = [f"tuned/{keys[0]}"], [f"{titles[0]}, fitted"]
    cells = [[_cell(item, key.removeprefix("tuned/") if item.decision.plain else key) for key in keys] for item in evaluated]
    for key, column in zip(keys, zip(*cells, strict=True), strict=True):
        known = [cell["value"] for cell in column if cell["value"] is not None]
        best = (min if key.startswith("ece") else max)(known, default=None)
        for cell in column:
            cell["best"] = best is not None and cell["value"] == best
    ious = list(zip(keys, titles, strict=True))[: 1 + any_fitted]
    changed = [(key, title) for key, title in ious if any(key in found for found in differences)]
    return {
        "titles": titles,
        "changes": [f"{title} beyond 1" for _, title in changed],
        "rows": [
            {
                "name": item.name,
                "cells": line,
                "changes": [_change(differences[place - 1].get(key) if place else None) for key, _ in changed],
            }
            for place, (item, line) in enumerate(zip(evaluated, cells, strict=True))
        ],
    }


def _change(found: Difference | None) -> dict[str, Any]:
    if found is None:
        return {"value": None, "text": "", "interval": "", "sure": False}
    ends = f"{found.low:+.3f} to {found.high:+.3f}"
    return {"value": found.value, "text": f"{found.value:+.3f}", "interval": f"{ends}, p = {found.p:.3f}", "sure": found.p < SURE}


def _cell(item: Evaluated, name: str) -> dict[str, Any]:
    value = item.figures.get(name)
    return {"value": value, "text": number(value), "interval": interval(item, name), "ends": item.intervals.get(name)}


def bars(evaluated: list[Evaluated]) -> list[dict[str, Any]]:
    """IoU of each class: a bar for each checkpoint, and one for what it decides by where that is not the plain rule."""
    tables = [(item, rows(item)) for item in evaluated]
    result = []
    for place, row in enumerate(tables[0][1]):
        lines = []
        for count, (item, table) in enumerate(tables, start=1):
            called = [str(count)] if len(evaluated) > 1 else []
            lines.append({"label": ", ".join([*called, rule(item)]), "cell": table[place]["plain"][0], "striped": False})
            if table[place]["tuned"]:
                lines.append({"label": ", ".join([*called, fitted(item)]), "cell": table[place]["tuned"][0], "striped": True})
        result.append({"name": row["name"], "colour": row["colour"], "bars": lines})
    return result


def shares(item: Evaluated) -> list[dict[str, Any]]:
    """How much of each class there is; bars on a scale of powers of ten."""
    there = (item.images.plain[..., 0] + item.images.plain[..., 2] > 0).sum(axis=0).tolist()
    result = []
    for (name, colour), images in zip(class_colours(item.task), there, strict=True):
        share = item.figures.get(f"pixel_share/{name}") or 0.0
        width = 100 * max(0.0, 1 - math.log(max(share, LOWEST)) / math.log(LOWEST))
        result.append(
            {"name": name, "colour": "rgb({}, {}, {})".format(*colour), "share": percent(share), "images": images, "width": round(width, 1)}
        )
    return result


def outcomes(item: Evaluated) -> list[dict[str, Any]]:
    """For binary and multilabel: of the pixels of each class, and of the others, how many are marked as it. Empty for multiclass."""
    if item.task.name == "multiclass":
        return []
    result = []
    for name, counts in zip(item.task.class_names, item.confusion.tolist(), strict=True):
        lines = []
        for title, (no, yes) in ((f"not {name}", counts[0]), (name, counts[1])):
            total = no + yes
            cells = [
                {"count": f"{count:,}", "share": count / total if total else 0.0, "text": percent(count / total if total else None)}
                for count in (no, yes)
            ]
            lines.append({"title": title, "cells": cells})
        result.append({"name": name, "lines": lines})
    return result


def settings(item: Evaluated) -> list[tuple[str, list[tuple[str, str]]]]:
    """The configuration of the training: each group with its keys and values, the keys of no group first."""
    config = item.about.get("config") or {}
    alone = [(key, _value(value)) for key, value in config.items() if not isinstance(value, dict)]
    groups = [
        (group, [(key, _value(value)) for key, value in content.items()]) for group, content in config.items() if isinstance(content, dict)
    ]
    return [("run", alone), *groups]


def _value(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)[:LONGEST]
