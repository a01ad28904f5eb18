"""Which sample comes when, and where it is cropped: functions of seed and epoch, without a state that a checkpoint would have to hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from typing import NamedTuple, Protocol

import numpy as np

from segfocal.config.sampling import SAMPLING, ForegroundConfig, RareClassConfig, UniformConfig
from segfocal.config.task import TaskConfig
from segfocal.data.source import Array, Point
from segfocal.data.stats import SplitStats

REPEATS = 10  # the most an epoch aims at an image for the sake of one class, on average: what few images have would be learned by heart
WINDOW = 8  # shards that samples are drawn from at a time, so that a batch holds what was not stored together


class Key(NamedTuple):
    """All that a worker needs to draw a sample's crop and augmentation.

    Args:
        epoch: of training; 0 for evaluation.
        sample: its place in the split.
        repeat: how often the epoch has shown the sample before.
        point: the pixel that the crop has to show; None: it may lie anywhere.
    """

    epoch: int
    sample: int
    repeat: int = 0
    point: Point | None = None


Aimed = Callable[[np.random.Generator], tuple[int, Point]]  # draws a sample and a pixel of it


class EpochSampler:
    """As many draws for each epoch as there are samples: of a permutation of the samples, and a share aimed at pixels.

    Args:
        length: number of samples.
        seed: of the run.
        share: of the draws that are aimed, spread evenly over the epoch and so over each batch.
        aimed: draws those.

    Where samples lie in shards, `blocks` is the number of samples in each. More than `WINDOW` of them come one after the other, in an order
    drawn for each epoch, and samples are drawn from about so many at a time: no shard is fetched for a few samples and again later.
    """

    def __init__(self, length: int, seed: int, share: float = 0.0, aimed: Aimed | None = None) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self.share, self.aimed = share, aimed
        self.blocks: list[int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order, aims = self._drawn(rng)
        seen: Counter[int] = Counter()
        for place in range(self.length):
            index, point = int(next(order)), None
            if self.aimed is not None and self._aims(place + 1) > self._aims(place):
                index, point = next(aims)
            yield Key(self.epoch, index, seen[index], point)
            seen[index] += 1

    def _aims(self, place: int) -> int:
        """How many draws were aimed before this one of the epoch, those of all epochs before included."""
        return int((self.epoch * self.length + place) * self.share)

    def _drawn(self, rng: np.random.Generator) -> tuple[Iterator[int], Iterator[tuple[int, Point]]]:
        """Samples, and those that are aimed at with their pixels, in the order in which they come."""
        order, aimed = rng.permutation(self.length), self.aimed
        aims = (aimed(rng) for _ in range(self._aims(self.length) - self._aims(0))) if aimed else iter(())
        if self.blocks is None or len(self.blocks) <= WINDOW:
            return iter(order), aims
        place, found = rng.permutation(len(self.blocks)), list(aims)
        turns = _turns(np.array([index for index, _ in found], int), self.blocks, place, rng)
        return iter(order[np.argsort(_turns(order, self.blocks, place, rng))]), (found[number] for number in np.argsort(turns))


def _turns(samples: Array, blocks: list[int], place: Array, rng: np.random.Generator) -> Array:
    """Draw when each sample has its turn: the blocks stand in a circle, and a sample comes up to `WINDOW` places after its block's."""
    block = np.searchsorted(np.cumsum(blocks), samples, "right")
    turns: Array = (place[block] + WINDOW * rng.random(len(samples))) % len(blocks)
    return turns


@SAMPLING.builder(UniformConfig)
def uniform(config: UniformConfig, stats: SplitStats, task: TaskConfig, seed: int) -> EpochSampler:
    """Every sample once."""
    return EpochSampler(stats.total, seed)


@SAMPLING.builder(ForegroundConfig)
def foreground(config: ForegroundConfig, stats: SplitStats, task: TaskConfig, seed: int) -> EpochSampler:
    """A share aimed at the foreground: a sample with any of it, a class that is there, a pixel of that class, each drawn evenly."""
    first = 1 if task.name == "multiclass" else 0
    points = [places[places[:, 0] >= first] for places in stats.points]
    samples = np.flatnonzero([len(places) > 0 for places in points])  # not a list: each draw would copy it

    def aimed(rng: np.random.Generator) -> tuple[int, Point]:
        index = int(rng.choice(samples))
        label = rng.choice(np.unique(points[index][:, 0]))
        return index, _one(points[index], label, rng)

    return EpochSampler(stats.total, seed, config.share, aimed)


@SAMPLING.builder(RareClassConfig)
def rare_class(config: RareClassConfig, stats: SplitStats, task: TaskConfig, seed: int) -> EpochSampler:
    """A share aimed at rare classes: a class drawn by its rarity, a sample that has it and a pixel of it, drawn evenly.

    Reference:
        Hoyer et al., DAFormer, arXiv 2111.14887, equations 6 and 7.
    """
    chance = class_chances(stats, config.temperature, config.share * stats.total)
    holders = [np.flatnonzero(stats.pixels_NC[:, label]) for label in range(len(chance))]

    def aimed(rng: np.random.Generator) -> tuple[int, Point]:
        label = rng.choice(len(chance), p=chance)
        index = int(rng.choice(holders[label]))
        return index, _one(stats.points[index], label, rng)

    return EpochSampler(stats.total, seed, config.share, aimed)


def class_chances(stats: SplitStats, temperature: float, draws: float) -> Array:
    """softmax((1 - f_c) / T) over the classes that occur, f_c the share of the pixels that are of class c; 0 for those that do not.

    No class has more than would be `REPEATS` draws for each image that shows it; the others have what is left, in proportion.

    Args:
        stats: of the training split.
        temperature: T.
        draws: in an epoch.
    """
    frequency = stats.positives / np.maximum(stats.valid, 1)
    there = stats.positives > 0
    least = frequency[there].min()
    tiny = np.finfo(float).tiny  # for a class so frequent that nothing would be left of it
    weight = np.where(there, np.maximum(np.exp(np.minimum(least - frequency, 0) / temperature), tiny), 0.0)
    most = REPEATS * stats.present / max(draws, 1)
    if most.sum() <= 1:
        return np.asarray(most / most.sum())
    chances, full = weight / weight.sum(), np.zeros(len(weight), bool)
    while (over := ~full & (chances > most)).any():
        full |= over
        chances = np.where(full, most, weight * ((1 - most[full].sum()) / weight[~full].sum()))
    return np.asarray(chances)


def _one(points: Array, label: int, rng: np.random.Generator) -> Point:
    _, row, column = rng.choice(points[points[:, 0] == label])
    return int(row), int(column)


class BatchesOfKeys(Protocol):
    """What a loader asks for batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Key]]: ...


class SameSizeBatches:
    """Batches of whole images of one size: no image is padded because of its neighbours. The one of most pixels comes first, so that memory
    which does not suffice is met at once; those of as many follow in order of the samples.

    Args:
        sizes: height and width of each sample.
        batch_size: the most in a batch.
    """

    def __init__(self, sizes: list[tuple[int, int]], batch_size: int) -> None:
        self.batches: list[list[Key]] = []
        for _, group in groupby(sorted(range(len(sizes)), key=lambda index: sizes[index]), key=lambda index: sizes[index]):
            keys = [Key(0, index) for index in group]
            self.batches += [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        self.batches.sort(key=lambda keys: -len(keys) * math.prod(sizes[keys[0].sample]))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class FromBatch:
    """The batches of an epoch from `start` on, where a run goes on in the middle of it.

    Args:
        batches: those of an epoch.
    """

    def __init__(self, batches: BatchesOfKeys) -> None:
        self.batches, self.start = batches, 0
        self.sampler = getattr(batches, "sampler", None)
        """What Lightning tells the epoch."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return islice(iter(self.batches), self.start, None)


class RankBatches:
    """The batches of one process of several, dealt in turn: none is shown twice, and none is padded.

    Args:
        batches: those of all processes, in the same order on each.
        rank: of the process, from 0.
        world: how many there are.
        equal: deal as many to each and leave out the last few, as training wants it, for the processes wait for each other at each step;
            else deal all.
    """

    def __init__(self, batches: BatchesOfKeys, rank: int, world: int, equal: bool) -> None:
        self.batches, self.rank, self.world, self.equal = batches, rank, world, equal
        self.sampler = getattr(batches, "sampler", None)
        """What Lightning tells the epoch."""

    def __len__(self) -> int:
        return len(self.batches) // self.world if self.equal else len(range(self.rank, len(self.batches), self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        return islice(islice(iter(self.batches), self.rank, None, self.world), len(self))
