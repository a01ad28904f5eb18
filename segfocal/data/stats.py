"""The numbers of a split that model, loss and sampling start from."""

from __future__ import annotations

import numpy as np

from segfocal.config.balance import ClassCounts
from segfocal.config.task import TaskConfig
from segfocal.data.measure import SampleStats
from segfocal.data.source import Array


class SplitStats:
    """Counts of a split.

    Args:
        samples: what was measured of each.
    """

    def __init__(self, samples: list[SampleStats]) -> None:
        self.pixels_NC: Array = np.stack([sample.pixels for sample in samples])
        """Pixels of each class in each image."""
        self.points = [sample.points for sample in samples]
        """Places of each class in each image, see `SampleStats`."""
        self.sizes = [sample.size for sample in samples]
        """Height and width of each image."""
        self.contents = [sample.content for sample in samples]
        """What each image is known by, pixel by pixel."""
        self.looks = [sample.look for sample in samples]
        """What each image has in common with those that look the same."""
        self.valid_NC: Array = np.stack([sample.valid for sample in samples])
        """Pixels in each image that are not ignored, for each class."""
        self.positives: Array = self.pixels_NC.sum(0)
        """Pixels of each class."""
        self.valid: Array = self.valid_NC.sum(0)
        """Pixels of each class that are not ignored."""
        self.present: Array = (self.pixels_NC > 0).sum(0)
        """Images in which each class occurs."""
        self.valid_where_present: Array = (self.valid_NC * (self.pixels_NC > 0)).sum(0)
        """Pixels of those images that are not ignored."""
        self.channel_sums: Array = np.sum([sample.channel_sums for sample in samples], axis=0)
        self.images = len(samples)

    @property
    def prior(self) -> list[float]:
        """Share of the valid pixels that are of each class; half a pixel for a class that is absent."""
        share: list[float] = (np.maximum(self.positives, 0.5) / np.maximum(self.valid, 1)).tolist()
        return share

    @property
    def counts(self) -> ClassCounts:
        """What class weights are taken from."""
        return ClassCounts(
            self.positives.tolist(), self.valid.tolist(), self.present.tolist(), self.valid_where_present.tolist(), self.images
        )

    @property
    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel."""
        count, total, squares = self.channel_sums
        mean = total / np.maximum(count, 1)
        std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 1e-8))
        return mean.tolist(), std.tolist()


def report(stats: dict[str, SplitStats], task: TaskConfig) -> list[str]:
    """What there is of each class, a line a split, and what cannot be learned or judged."""
    lines = []
    for split, found in stats.items():
        shares = ", ".join(
            f"{name} {positives / max(1, valid):.2%}"
            for name, positives, valid in zip(task.class_names, found.positives, found.valid, strict=True)
        )
        lines.append(f"{split}: {found.images} images; of the pixels {shares}")
    for split, found in stats.items():
        absent = [name for name, count in zip(task.class_names, found.positives, strict=True) if count == 0]
        if absent:
            lines.append(
                f"warning: no pixel of {', '.join(absent)} in {split}: " + ("cannot be learned" if split == "train" else "no figure there")
            )
    return lines
