"""Which sample comes when: functions of seed and epoch, without a state that a checkpoint would have to hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]  # epoch and index: all that a worker needs to draw a sample's augmentation


class EpochSampler(Sampler[Key]):
    """A permutation of the samples for each epoch.

    Args:
        length: number of samples.
        seed: of the run.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])


class SameSizeBatches(Sampler[list[Key]]):
    """Batches of whole images of one size, in order of the samples: no image is padded because of its neighbours.

    Args:
        sizes: height and width of each sample.
        batch_size: the most in a batch.
    """

    def __init__(self, sizes: list[tuple[int, int]], batch_size: int) -> None:
        self.batches: list[list[Key]] = []
        for _, group in groupby(sorted(range(len(sizes)), key=lambda index: sizes[index]), key=lambda index: sizes[index]):
            keys = [(0, index) for index in group]
            self.batches += [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)
