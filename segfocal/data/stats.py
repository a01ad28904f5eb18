"""One pass over the samples before training: every fault at once, and the numbers that model and loss start from."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rich.progress import track

from segfocal.config.balance import ClassCounts
from segfocal.config.task import TaskConfig
from segfocal.data.cache import StatsCache, digest
from segfocal.data.measure import SampleStats, measure
from segfocal.data.source import Array, Source
from segfocal.errors import UserError

log = logging.getLogger("segfocal")

MOST_FAULTS = 12  # lines in one error


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
        valid_NC: Array = np.stack([sample.valid for sample in samples])
        self.positives: Array = self.pixels_NC.sum(0)
        """Pixels of each class."""
        self.valid: Array = valid_NC.sum(0)
        """Pixels of each class that are not ignored."""
        self.present: Array = (self.pixels_NC > 0).sum(0)
        """Images in which each class occurs."""
        self.valid_where_present: Array = (valid_NC * (self.pixels_NC > 0)).sum(0)
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


def scan(sources: dict[str, Source], task: TaskConfig, where: str, again: bool = False) -> dict[str, SplitStats]:
    """Measure every sample that has changed since it was last measured, in threads, with a progress bar.

    Args:
        sources: the splits.
        task: what the masks should hold.
        where: what to call the data in messages, as `data.root=/path`.
        again: measure those, too, that have not changed.

    Raises:
        UserError: a line for each file that cannot be used; or no pixel of any foreground class in the training masks.
    """
    jobs = [(source, index) for source in sources.values() for index in range(len(source))]
    settings = "\n".join(sorted({source.settings for source in sources.values()}))
    cache = StatsCache(f"{settings} {task.name} {task.num_classes} {task.ignore_index}")
    keys = [digest(source.identity(index)) for source, index in jobs]
    known = {} if again else cache.load()
    known |= {key: sample for key, (source, index) in zip(keys, jobs, strict=True) if (sample := source.known(index)) is not None}
    missing = [number for number, key in enumerate(keys) if key not in known]
    faults = []
    for number, result in zip(missing, _measured([jobs[number] for number in missing], task), strict=True):
        if isinstance(result, SampleStats):
            known[keys[number]] = result
        else:
            faults.append(result)
    if len(missing) < len(jobs):
        log.info(
            "%d of %d samples have not changed since they were last checked; data.check=full checks all",
            len(jobs) - len(missing),
            len(jobs),
        )
    if missing and known:
        cache.save(known)
    if faults:
        more = [f"... and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise UserError("\n".join([f"{where}: {len(faults)} of {len(jobs)} samples cannot be used:", *faults[:MOST_FAULTS], *more]))
    samples = iter([known[key] for key in keys])
    stats = {split: SplitStats([next(samples) for _ in range(len(source))]) for split, source in sources.items()}
    if "train" in stats:
        _check_foreground(stats["train"], task, where)
    return stats


def _measured(jobs: list[tuple[Source, int]], task: TaskConfig) -> list[SampleStats | str]:
    """Measurements, or what is wrong with a sample."""

    def one(job: tuple[Source, int]) -> SampleStats | str:
        source, index = job
        try:
            return measure(*source.read(index), task)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        quiet = len(jobs) < 200 or not sys.stdout.isatty()
        return list(track(pool.map(one, jobs), description="checking the data", total=len(jobs), transient=True, disable=quiet))


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
