"""What the charts of the page are drawn from, as plain data."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segfocal.metrics.scores import score_edges
from segfocal.report.evaluated import Evaluated
from segfocal.report.overlay import class_colours

POINTS = 400  # of a curve, and of the learning rate
ALL_POINTS = 12_000  # of all curves of a kind
BACKDROP = 0.5  # a class of a larger share of the pixels would cover every picture: it is shown when somebody asks
SHOWN_AT_FIRST = 12  # classes; with more, the worst of them


def chart_data(evaluated: list[Evaluated]) -> dict[str, Any]:
    """For `charts.js`: the classes and, for each checkpoint, its curves, its confusion, its images and its training."""
    task = evaluated[0].task
    points = max(40, min(POINTS, ALL_POINTS // (len(evaluated) * task.num_classes)))
    return {
        "task": task.name,
        "classes": [{"name": name, "colour": "rgb({}, {}, {})".format(*colour)} for name, colour in class_colours(task)],
        "first": _first(evaluated[0]),
        "backdrop": [
            label for label, name in enumerate(task.class_names) if (evaluated[0].figures.get(f"pixel_share/{name}") or 0) > BACKDROP
        ],
        "checkpoints": [
            {
                "name": item.name,
                "curves": _curves(item, points),
                "confusion": item.confusion.tolist() if task.name == "multiclass" else None,
                "images": [_rounded(value) for value in item.images.mean_iou(tuned=not item.decision.plain).tolist()],
                "training": training(item.run_dir, task.class_names),
            }
            for item in evaluated
        ],
    }


def _first(item: Evaluated) -> list[int]:
    """Classes whose curves are shown before anybody asks."""
    order = sorted(range(item.task.num_classes), key=lambda label: item.figures.get(f"iou/{item.task.class_names[label]}") or 0.0)
    return sorted(order[:SHOWN_AT_FIRST])


def training(run_dir: Path | None, classes: list[str]) -> dict[str, Any] | None:
    """Loss, IoU and learning rate of a run, from its metrics.csv; None where there is none."""
    path = run_dir / "metrics.csv" if run_dir else None
    if path is None or not path.is_file():
        return None
    epochs: dict[int, dict[str, float | None]] = {}
    rates: list[tuple[float | None, float | None]] = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
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
        "epochs": list(epochs),
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


def _listed(values: Sequence[float]) -> list[float | None]:
    return [_rounded(value) for value in values]


def _curves(item: Evaluated, points: int) -> list[dict[str, Any]]:
    """PROVISIONAL until metrics/curves.py."""
    result = []
    temperature = item.decision.temperature or [1.0]
    edges = score_edges()
    for label in range(item.task.num_classes):
        negative, positive = item.histogram[label].double()
        tp, fp = (counts.flip(0).cumsum(0).flip(0) for counts in (positive, negative))
        total, negatives = tp[0], fp[0]
        probability = torch.sigmoid(edges[:-1] / temperature[min(label, len(temperature) - 1)])
        keep = torch.cat(
            [
                torch.searchsorted(probability, torch.linspace(0, 1, points // 2, dtype=torch.float64)).clamp(max=len(tp) - 1),
                torch.searchsorted(-fp / negatives.clamp(min=1), -torch.logspace(-6, 0, points // 2, dtype=torch.float64)).clamp(
                    max=len(tp) - 1
                ),
            ]
        ).unique()
        tp, fp, probability = tp[keep], fp[keep], probability[keep]
        bins = (torch.sigmoid(edges[:-1] / temperature[0]) * 15).long().clamp(max=14)
        count = torch.zeros(15, dtype=torch.float64).index_add_(0, bins, positive + negative)
        hit = torch.zeros(15, dtype=torch.float64).index_add_(0, bins, positive)
        some = count > 0
        result.append(
            {
                "threshold": _listed(probability.tolist()),
                "fpr": _listed((fp / negatives).tolist()),
                "recall": _listed((tp / total).tolist()),
                "precision": _listed((tp / (tp + fp)).tolist()),
                "iou": _listed((tp / (total + fp)).tolist()),
                "f": _listed((2 * tp / (total + tp + fp)).tolist()),
                "chosen": item.decision.thresholds[label] if item.decision.thresholds else None,
                "predicted": _listed(((torch.arange(15) + 0.5) / 15)[some].tolist()),
                "observed": _listed((hit / count)[some].tolist()),
                "pixels": [int(n) for n in count[some]],
            }
        )
    return result
