"""What the charts of the page are drawn from, as plain data."""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from segfocal.metrics.curves import POINTS, class_curves
from segfocal.report.evaluated import Evaluated
from segfocal.report.overlay import BACKDROP, class_colours

ALL_POINTS = 12_000  # of all curves of a kind
SHOWN_AT_FIRST = 12  # classes; with more, the worst of them


def chart_data(evaluated: list[Evaluated]) -> dict[str, Any]:
    """For `charts.js`: the classes and, for each checkpoint, its curves, its confusion, its images and its training."""
    task = evaluated[0].task
    beta = evaluated[0].about.get("config", {}).get("metrics", {}).get("beta", 1.0)  # checkpoints need not have it
    points = max(40, min(POINTS, ALL_POINTS // (len(evaluated) * task.num_classes)))
    return {
        "task": task.name,
        "classes": [{"name": name, "colour": "rgb({}, {}, {})".format(*colour)} for name, colour in class_colours(task)],
        "beta": beta,
        "first": _first(evaluated[0]),
        "backdrop": [
            label for label, name in enumerate(task.class_names) if (evaluated[0].figures.get(f"pixel_share/{name}") or 0) > BACKDROP
        ],
        "checkpoints": [
            {
                "name": item.name,
                "curves": _curves(item, beta, points),
                "confusion": item.confusion.tolist() if task.name == "multiclass" else None,
                "images": [_rounded(value) for value in item.images.mean_iou(tuned=not item.decision.plain).tolist()],
                "training": training(item.run_dir, task.class_names),
            }
            for item in evaluated
        ],
    }


def _first(item: Evaluated) -> list[int]:
    """Classes whose curves are shown before anybody asks."""
    ious = [item.figures.get(f"iou/{name}") for name in item.task.class_names]
    known = [math.inf if iou is None else iou for iou in ious]  # None: the split has none of it
    return sorted(sorted(range(len(known)), key=known.__getitem__)[:SHOWN_AT_FIRST])


def training(run_dir: Path | None, classes: list[str]) -> dict[str, Any] | None:
    """Loss, IoU and learning rate of a run, from its metrics.csv; None where there is none."""
    path = run_dir / "metrics.csv" if run_dir else None
    if path is None or not path.is_file():
        return None
    epochs: dict[int, dict[str, float | None]] = {}
    rates: list[tuple[float | None, float | None]] = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):  # what can be read of it
        for row in csv.DictReader(file):
            numbers = {str(key): _number(value) for key, value in row.items()}
            rate = next((value for key, value in numbers.items() if key.startswith("lr-") and value is not None), None)
            if rate is not None:
                rates.append((numbers.get("step"), rate))
            if (epoch := numbers.get("epoch")) is not None:
                epochs.setdefault(int(epoch), {}).update({key: value for key, value in numbers.items() if value is not None})
    if not epochs:
        return None
    shown = {"train": "train/loss", "val": "val/loss", "mean": "val/iou_macro"}
    series = {name: [_rounded(values.get(key)) for values in epochs.values()] for name, key in shown.items()}
    thinned = rates[:: max(1, math.ceil(len(rates) / POINTS))]
    return {
        "epochs": [epoch + 1 for epoch in epochs],
        **series,
        "iou": [[_rounded(values.get(f"val/iou/{name}")) for values in epochs.values()] for name in classes],
        "steps": [step for step, _ in thinned],
        "rates": [_rounded(rate) for _, rate in thinned],
    }


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _curves(item: Evaluated, beta: float, points: int) -> list[dict[str, Any]]:
    temperature = [] if item.task.name == "multiclass" else item.decision.temperature
    found = class_curves(item.histogram, beta, temperature, points)
    chosen: list[float | None] = [*item.decision.thresholds] or [None] * len(found)
    return [
        {name: [_rounded(value) for value in getattr(curve, name)] for name in ("threshold", "fpr", "recall", "precision", "iou", "f_beta")}
        | {"reliability": [[_rounded(value) for value in values] for values in curve.reliability[:2]] + [curve.reliability.pixels]}
        | {"chosen": threshold}
        for curve, threshold in zip(found, chosen, strict=True)
    ]
