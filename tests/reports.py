"""Evaluations and pictures to make reports of."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch

from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics
from segfocal.metrics.images import ImageTable
from segfocal.report.evaluated import Evaluated, Shown

HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "%{x} <b>'{{ 7 * 7 }}", "&lt;plain&gt;"]


def evaluated(
    mode: Mode = "multiclass", classes: list[str] | None = None, tuned: bool = True, name: str = "run", run_dir: Path | None = None
) -> Evaluated:
    """Six small images that a model gets mostly right; the last class is rare and mostly missed."""
    names = classes or (["crack"] if mode == "binary" else ["road", "car", "sign"])
    task, count = TaskConfig(name=mode, classes=names), len(names)
    stored = {"mode": mode, "temperature": [], "offsets": [], "thresholds": [], "fitted_for": "iou"}
    stored |= {} if not tuned else {"offsets": [0.0] * (count - 1) + [1.5]} if mode == "multiclass" else {"thresholds": [0.3125] * count}
    decision = Decision.of(stored, task)
    random = torch.Generator().manual_seed(len(names))
    metrics, table = SegmentationMetrics(mode, names, decision=decision), ImageTable(task, decision)
    for number in range(6):
        truth = (
            torch.randint(0, 40, (24, 24), generator=random) // (40 // count)
            if mode == "multiclass"
            else torch.rand(24, 24, generator=random) < 0.1
        )
        ids = truth.clamp(max=count - 1).long() if mode == "multiclass" else truth.long().expand(count, 24, 24).clone()
        ids[..., 0, :] = 255
        right = torch.nn.functional.one_hot(ids.clamp(max=count - 1), count).movedim(-1, 0) if mode == "multiclass" else (ids == 1)
        logits = 2 * right.float() - (0 if mode == "multiclass" else 1.2) + torch.randn(count, 24, 24, generator=random)
        logits[-1] -= 1
        metrics.update(logits[None], ids[None])
        table.add([f"image {number}"], logits[None], ids[None])
    figures = dict(metrics.compute())
    intervals = {
        key: (max(0.0, value - 0.0314), min(1.0, value + 0.0271))
        for key, value in figures.items()
        if value is not None and re.match(r"(tuned/)?(iou|dice|precision|recall)(/|_macro)", key)
    }
    about = {
        "epoch": 7,
        "versions": {"torch": "2"},
        "config": {"seed": 3, "model": {"name": "unet", "encoder": "resnet18"}, "loss": {"name": "focal", "gamma": 2.5}},
    }
    return Evaluated(
        name,
        Path("runs") / name / "checkpoints" / "best.ckpt",
        "test",
        task,
        figures,
        intervals,
        metrics.confusion,
        metrics.histogram,
        table,
        decision,
        about,
        run_dir,
    )


def shown(task: TaskConfig, count: int = 3, size: tuple[int, int] = (40, 60), names: list[str] | None = None) -> list[Shown]:
    """The left half is the last class, the upper half is predicted as it; the lowest rows are ignored."""
    result = []
    for number in range(count):
        image = np.full((*size, 3), 40 + 20 * (number % 5), np.uint8)
        half, depth = (size[0] // 2, size[1] // 2), () if task.name == "multiclass" else (task.num_classes,)
        truth, prediction = np.zeros((*size, *depth), np.uint8), np.zeros((*size, *depth), np.uint8)
        label = task.num_classes - 1 if task.name == "multiclass" else 1
        truth[:, : half[1]], prediction[: half[0]] = label, label
        truth[-4:] = 255
        why = ("worst", "best", "random")[number % 3]
        result.append(Shown(names[number] if names else f"image {number}", why, None if number == 2 else 0.25, image, truth, prediction))
    return result


class Elements(HTMLParser):
    """Tags with their attributes, and what stands between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "report-data":
            self.data += data
        elif not self.inside:
            self.text += data

    def having(self, tag: str, key: str) -> list[str]:
        return [str(attributes[key]) for name, attributes in self.tags if name == tag and key in attributes]
