"""What is written of a prediction, and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from segfocal.config.predict import Kind, PredictConfig
from segfocal.config.task import TaskConfig
from segfocal.data.faults import BadFileError
from segfocal.data.source import Array
from segfocal.prediction.inputs import Item
from segfocal.prediction.predictor import HIGHEST, Prediction
from segfocal.report.overlay import labelled, strengths_of, visible
from segfocal.wholefile import write_whole

ROWS = 256  # of an image, coloured at a time: colours are blended in float64


class Outputs:
    """Files of `out`: a folder for each of `write`, and in it the folders and names of the images.

    Where classes are written apart, each has a folder of its own, as `data=folder` reads masks of `task=multilabel`.

    Args:
        config: what is written.
        task: what the labels mean.
        shares: of each class, of the pixels that it was trained with, where they are known.
    """

    def __init__(self, config: PredictConfig, task: TaskConfig, shares: list[float] | None = None) -> None:
        self.out, self.task = Path(config.out or ""), task
        self.write_kinds, self.format = config.write, config.format
        self.strengths = strengths_of(task, shares)  # of colours on an image
        self.folders = folder_names(task.class_names)

    def paths(self, item: Item) -> list[Path]:
        """All that is written for an image."""
        return [path for kind in self.write_kinds for path in self._paths(kind, item)]

    def _paths(self, kind: Kind, item: Item) -> list[Path]:
        npz = kind == "probabilities" and self.format == "npz"
        apart = (kind == "ids" and self.task.name == "multilabel") or (kind == "probabilities" and self.task.name != "binary" and not npz)
        places = [self.out / kind / folder for folder in self.folders] if apart else [self.out / kind]
        return [place / f"{item.stem}.{'npz' if npz else 'png'}" for place in places]

    def check(self, items: list[Item]) -> None:
        """Raise BadFileError where two images would be written to one file, an image be overwritten, or a place is taken."""
        targets: dict[Path, Item] = {}
        sources = {item.path.resolve() for item in items}
        for item in items:
            for path in self.paths(item):
                if (other := targets.setdefault(path, item)) is not item:
                    raise BadFileError(
                        f"{other.path} and {item.path}", f"would both be written to {path}", "rename one, or predict them apart"
                    )
                if path.resolve() in sources:
                    raise BadFileError(path, "is an image to be read, and would be overwritten", "choose another out")
                if path.is_dir():
                    raise BadFileError(path, "is a folder, and in the way of what is to be written", "choose another out")

    def done(self, item: Item) -> bool:
        """Whether all is there, and not older than the image."""
        try:
            since = item.path.stat().st_mtime_ns
            return all(path.stat().st_mtime_ns >= since for path in self.paths(item))
        except OSError:
            return False

    def taken(self, items: list[Item]) -> Path | None:
        """A file that is there already."""
        return next((path for item in items for path in self.paths(item) if path.exists()), None)

    def write(self, item: Item, prediction: Prediction) -> None:
        """Write all of an image."""
        for kind in self.write_kinds:
            for path, content in zip(self._paths(kind, item), self._contents(kind, prediction), strict=True):
                write_whole(path, content)

    def _contents(self, kind: Kind, prediction: Prediction) -> Iterator[Callable[[BinaryIO], Any]]:
        labels, scores = prediction.labels, prediction.probabilities
        if kind == "ids":
            for plane in [labels] if labels.ndim == 2 else np.moveaxis(labels, -1, 0):
                yield _png(np.ascontiguousarray(plane))
        elif kind == "probabilities":
            assert scores is not None
            if self.format == "npz":
                yield lambda file: np.savez_compressed(
                    file, probabilities=(scores / np.float32(HIGHEST)).astype(np.float16), classes=np.array(self.task.class_names)
                )
            else:
                yield from map(_png, scores)
        else:
            below = visible(prediction.image) if kind == "overlays" else np.zeros((*labels.shape[:2], 3), np.uint8)
            yield _png(self._coloured(below, labels, self.strengths if kind == "overlays" else np.ones(self.task.num_classes)))

    def _coloured(self, image: Array, labels: Array, strengths: Array) -> Array:
        """The image with colours on it; of classes that overlap the one of the fewest pixels is on top."""
        order = np.argsort(np.argsort(-np.array(pixels_of(labels, self.task)), kind="stable"))
        strengths = strengths * (1 + 1e-6 * order)  # the strongest is on top: all strips agree on it
        result = np.empty_like(image)
        for top in range(0, len(image), ROWS):
            rows = slice(top, top + ROWS)
            result[rows] = labelled(image[rows], labels[rows], self.task, strengths)
        return result


def pixels_of(labels: Array, task: TaskConfig) -> list[int]:
    """How many pixels are of each class."""
    if task.name == "multiclass":
        return [int(count) for count in np.bincount(labels.reshape(-1), minlength=task.num_classes)]
    return [int(np.count_nonzero(labels[..., number])) for number in range(task.num_classes)]


def folder_names(classes: list[str]) -> list[str]:
    """The classes' names as names of folders: nothing leaves the folder that they are in, and no two are the same."""
    found: list[str] = []
    for number, name in enumerate(classes):
        safe = re.sub(r"[/\\\x00-\x1f]", "_", name).lstrip(".")[:80] or f"class_{number}"
        while safe in found:
            safe += f"_{number}"
        found.append(safe)
    return found


def _png(array: Array) -> Callable[[BinaryIO], Any]:
    return lambda file: Image.fromarray(array).save(file, "PNG", compress_level=3)
