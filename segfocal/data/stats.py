"""The numbers of a split that model, loss and sampling start from."""

from __future__ import annotations

import numpy as np

from segfocal.config.balance import ClassCounts
from segfocal.data.measure import SampleStats
from segfocal.data.source import Array

CONSTANT = 1e-10  # a variance of no more than this, in squares of the mean, may be what the sums were rounded by


class SplitStats:
    """Counts of a split.

    Args:
        samples: what was measured of each that was.
        rows: which ones they are; None: all.
        total: how many samples the split has; None: no more than these.
    """

    def __init__(self, samples: list[SampleStats], rows: list[int] | None = None, total: int | None = None) -> None:
        self.rows = list(range(len(samples))) if rows is None else rows
        self.total = len(samples) if total is None else total
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
    def whole(self) -> bool:
        """Whether all samples of the split were measured."""
        return self.images == self.total

    @property
    def prior(self) -> list[float]:
        """Share of the valid pixels that are of each class; half a pixel for a class that is absent."""
        share: list[float] = (np.maximum(self.positives, 0.5) / np.maximum(self.valid, 1)).tolist()
        return share

    @property
    def counts(self) -> ClassCounts:
        """What class weights are taken from."""
        return ClassCounts(
            self.positives.tolist(), self.valid.tolist(), self.present.tolist(), self.valid_where_present.tolist(), self.images, self.whole
        )

    @property
    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel; the latter is 1 where a channel is constant, but for rounding."""
        count, total, squares = self.channel_sums
        mean = total / np.maximum(count, 1)
        variance = squares / np.maximum(count, 1) - mean**2
        varies = variance > CONSTANT * mean**2
        return mean.tolist(), np.sqrt(np.where(varies, variance, 1)).tolist()
