"""The pictures of the page: images as JPEG, labels as bytes that a script colours."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from segfocal.config.task import TaskConfig
from segfocal.report.evaluated import Shown
from segfocal.report.overlay import Array
from segfocal.report.smaller import smaller

WIDTHS = (640, 480, 320, 160)  # widest picture; the next where all of them together would be too large
BUDGET = 5_000_000  # characters of all pictures; the script of the charts takes two million more
IGNORED = 255  # id of multiclass labels that count nowhere, whatever the task calls it
MISSES = {"worst": "one of the worst", "best": "one of the best", "random": "chosen at random"}


@dataclass(frozen=True)
class Drawn:
    """A picture as the page holds it.

    Args:
        name, why, figure: as in `Shown`.
        alt: what it shows, in words.
        width, height: as it is stored.
        picture: a JPEG, as a data URI.
        labels: zlib-compressed bytes in base64: of multiclass the true ids, then the predicted ones; else a plane for each class, of
            1 where it is true + 2 where it is predicted + 4 where it is ignored.
    """

    name: str
    why: str
    figure: float | None
    alt: str
    width: int
    height: int
    picture: str
    labels: str


def gallery(shown: list[Shown], task: TaskConfig) -> list[Drawn]:
    """The pictures in their order, as large as fits in the page."""
    drawn: list[Drawn] = []
    for width in WIDTHS:
        drawn = [_drawn(item, task, width) for item in shown]
        if sum(len(item.picture) + len(item.labels) for item in drawn) <= BUDGET:
            break
    return drawn


def shrunk(item: Shown, task: TaskConfig, widest: int = WIDTHS[0]) -> Shown:
    """No larger than the page has it."""
    height, width = item.image.shape[:2]
    scale = min(1.0, widest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image, truth, prediction = smaller(item.image, item.truth, item.prediction, task, size)
    return replace(item, image=image, truth=truth, prediction=prediction)


def _drawn(item: Shown, task: TaskConfig, widest: int) -> Drawn:
    item = shrunk(item, task, widest)
    height, width = item.image.shape[:2]
    content = io.BytesIO()
    Image.fromarray(item.image).save(content, "JPEG", quality=85, subsampling=0)
    return Drawn(
        item.name,
        item.why,
        item.figure,
        f"{item.name}, {MISSES[item.why]}" + ("" if item.figure is None else f", IoU {item.figure:.3f}"),
        width,
        height,
        "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode(),
        base64.b64encode(zlib.compress(_planes(item.truth, item.prediction, task).tobytes(), 9)).decode(),
    )


def _planes(truth: Array, prediction: Array, task: TaskConfig) -> Array:
    if task.name == "multiclass":
        return np.stack([np.where(labels < task.num_classes, labels, IGNORED) for labels in (truth, prediction)]).astype(np.uint8)
    codes = (truth == 1) + 2 * (prediction == 1) + 4 * (truth > 1)
    planes: Array = np.moveaxis(codes, -1, 0).astype(np.uint8)
    return planes
