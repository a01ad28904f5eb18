"""What evaluation hands to those who show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics.images import ImageTable, Why
from segfocal.report.overlay import Array


@dataclass
class Evaluated:
    """A checkpoint and what it came to on a split.

    Args:
        name: what tells it from the others.
        checkpoint: its file.
        split: that it was evaluated on.
        task: with its classes.
        figures: by name; None is what is not defined. Those by the checkpoint's own decision begin with `tuned/`.
        intervals: 95 % intervals over images, by the same names.
        confusion: int64 counts by the plain rule, (C, C) or (C, 2, 2).
        histogram: int64 counts of scores, (C, 2, bins).
        images: the counts of each image.
        decision: that lies in the checkpoint.
        about: what else lies in it: config, epoch, versions.
        run_dir: of its training, with metrics.csv; None where the checkpoint lies elsewhere.
    """

    name: str
    checkpoint: Path
    split: str
    task: TaskConfig
    figures: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    confusion: Tensor
    histogram: Tensor
    images: ImageTable
    decision: Decision
    about: dict[str, Any]
    run_dir: Path | None = None


@dataclass
class Shown:
    """An image of the gallery.

    Args:
        name: of the sample.
        why: it was chosen.
        figure: the mean IoU of the image; None where no class is there.
        image: (H, W, 3) uint8.
        truth, prediction: class ids (H, W), or 0/1 (H, W, C) for binary and multilabel; other values of the truth are ignored.
    """

    name: str
    why: Why
    figure: float | None
    image: Array
    truth: Array
    prediction: Array
