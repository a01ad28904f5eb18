"""One pass over the samples before training: every fault at once, and the numbers that model and loss start from."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from rich.progress import track

from segfocal.config.balance import ClassCounts
from segfocal.config.task import TaskConfig
from segfocal.data.source import Array, Source
from segfocal.errors import UserError

MOST_FAULTS = 12  # lines in one error
STATS_CHANNELS = 256  # images that mean and standard deviation are taken from


@dataclass
class SplitStats:
    """Counts of a split.

    Args:
        positives: pixels of each class.
        valid: pixels of each class that are not ignored.
        present: images in which each class occurs.
        valid_where_present: pixels of those images that are not ignored.
        sizes: height and width of each image.
        channel_sums: count, sum and sum of squares of the pixels of each channel, images of 8 bit scaled to 0..1.
    """

    positives: Array
    valid: Array
    present: Array
    valid_where_present: Array
    sizes: list[tuple[int, int]]
    channel_sums: Array
    images: int = 0

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


@dataclass
class _Sample:
    positives: Array | None = None
    valid: Array | None = None
    size: tuple[int, int] = (0, 0)
    channel_sums: Array | float = 0.0
    fault: str | None = field(default=None)


def scan(sources: dict[str, Source], task: TaskConfig, where: str) -> dict[str, SplitStats]:
    """Decode every mask and image once, in threads, with a progress bar.

    Args:
        sources: the splits.
        task: what the masks should hold.
        where: what to call the data in messages, as `data.root=/path`.

    Raises:
        UserError: a line for each file that cannot be used; or no pixel of any foreground class in the training masks.
    """
    jobs = [(split, index) for split, source in sources.items() for index in range(len(source))]
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        results = pool.map(lambda job: _scanned(sources[job[0]], job[1], task), jobs)
        samples = list(
            track(
                results,
                description="checking the data",
                total=len(jobs),
                transient=True,
                disable=len(jobs) < 200 or not sys.stdout.isatty(),
            )
        )
    faults = [sample.fault for sample in samples if sample.fault]
    if faults:
        more = [f"... and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise UserError("\n".join([f"{where}: {len(faults)} of {len(jobs)} samples cannot be used:", *faults[:MOST_FAULTS], *more]))
    stats = {split: _summed([sample for sample, job in zip(samples, jobs, strict=True) if job[0] == split]) for split in sources}
    if "train" in stats:
        _check_foreground(stats["train"], task, where)
    return stats


def _scanned(source: Source, index: int, task: TaskConfig) -> _Sample:
    try:
        image, mask = source.read(index)
    except UserError as error:
        return _Sample(fault=str(error))
    if task.name == "multiclass":
        counts = np.bincount(mask.ravel(), minlength=256)
        positives = counts[: task.num_classes]
        valid = np.full(task.num_classes, positives.sum())
    else:
        planes = mask.reshape(-1, task.num_classes)
        positives, valid = (planes == 1).sum(0), (planes != task.ignore_index).sum(0)
    sums: Array | float = 0.0
    if index % max(1, len(source) // STATS_CHANNELS) == 0:
        pixels = image.reshape(-1, image.shape[-1])
        pixels = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
        sums = np.stack([np.full(image.shape[-1], len(pixels)), pixels.sum(0, np.float64), (pixels**2).sum(0, np.float64)])
    return _Sample(positives, valid, (image.shape[0], image.shape[1]), sums)


def _summed(samples: list[_Sample]) -> SplitStats:
    positives = np.stack([sample.positives for sample in samples if sample.positives is not None])
    valid = np.stack([sample.valid for sample in samples if sample.valid is not None])
    channel_sums = np.sum([sample.channel_sums for sample in samples if not isinstance(sample.channel_sums, float)], axis=0)
    sizes = [sample.size for sample in samples]
    return SplitStats(
        positives.sum(0), valid.sum(0), (positives > 0).sum(0), (valid * (positives > 0)).sum(0), sizes, channel_sums, len(samples)
    )


def _check_foreground(train: SplitStats, task: TaskConfig, where: str) -> None:
    """An erased foreground trains without a word and learns nothing."""
    foreground = train.positives[1:] if task.name == "multiclass" else train.positives
    if foreground.sum() > 0:
        return
    ignored = 1 - train.valid.sum() / max(1, sum(height * width for height, width in train.sizes) * len(train.valid))
    hint = (
        f"; {ignored:.1%} of the pixels are {task.ignore_index}=task.ignore_index: "
        f"if that is the foreground, data.label_map={{0:0,{task.ignore_index}:1}}"
    )
    raise UserError(f"{where}: no pixel of {', '.join(task.class_names)} in any training mask" + (hint if ignored > 0 else ""))


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
