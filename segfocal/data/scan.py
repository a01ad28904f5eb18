"""One pass over the samples: each is read and measured once, and every fault is found."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Literal, NamedTuple

from rich.progress import track

from segfocal.config.task import TaskConfig
from segfocal.data.cache import StatsCache, digest
from segfocal.data.faults import BadFileError, Fault, counted
from segfocal.data.measure import SampleStats, measure
from segfocal.data.source import Source, Sources
from segfocal.data.splits import named
from segfocal.data.stats import SplitStats
from segfocal.errors import UserError

log = logging.getLogger("segfocal")

FEW = 200  # samples of each split that numbers are taken from without a check
QUIET = 200  # so few samples need no progress bar

OTHERS = 200_000  # measurements that are kept of samples which a run does not have, the latest of them: another split may have them

SEEN: set[bytes] = set()  # samples that this process has measured or spoken of: drawn splits are measured before they are checked

Check = Literal["fast", "full", "off"]
Job = tuple[Source, int]


class Scan(NamedTuple):
    """
    Args:
        stats: of each split; of a split with faults, of its samples that can be used.
        pairs: what is wrong with names, pairs and splits.
        samples: what is wrong with files and labels.
        shared: images that are in two splits.
    """

    stats: dict[str, SplitStats]
    pairs: list[Fault]
    samples: list[Fault]
    shared: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """All that keeps the data from being used."""
        return [*self.pairs, *self.samples, *self.shared]


def scan(sources: Sources, task: TaskConfig, where: str, check: Check = "fast", overlap: bool = False) -> Scan:
    """Measure the splits.

    Args:
        sources: the splits, and what is wrong with them already.
        task: what the masks should hold.
        where: what to call the data in messages, as `data.root=/path`.
        check: `full` reads those samples, too, that have not changed since they were last measured; `off` no more than a few of each split.
        overlap: an image may be in two splits.
    """
    rows = {split: spread(len(source), FEW if check == "off" else len(source)) for split, source in sources.items()}
    found = iter(measured([(source, row) for split, source in sources.items() for row in rows[split]], task, check == "full"))
    stats, faults = {}, []
    for split, source in sources.items():
        results = {row: next(found) for row in rows[split]}
        samples = {row: result for row, result in results.items() if isinstance(result, SampleStats)}
        faults += [result for result in results.values() if isinstance(result, Fault)]
        if samples:
            stats[split] = SplitStats(list(samples.values()), list(samples), len(source))
    faults = sorted(dict.fromkeys(faults), key=lambda fault: fault.where)
    if "train" in stats and stats["train"].whole and not faults:
        faults += no_foreground(stats["train"], task, where)
    return Scan(stats, sources.faults, faults, [] if overlap else shared_images(sources, stats, where))


def spread(length: int, most: int) -> list[int]:
    """So many places, from the first to the last."""
    return list(range(length)) if length <= most else [place * length // most for place in range(most)]


def measured(jobs: list[Job], task: TaskConfig, again: bool = False) -> list[SampleStats | Fault]:
    """Measurements, or what is wrong with a sample; what has not changed since it was last read is not read again."""
    settings = "\n".join(sorted({source.settings for source, _ in jobs}))
    cache = StatsCache(f"{settings} {task.name} {task.num_classes} {task.ignore_index}")  # how they are counted, too
    keys = [digest(source.identity(index)) for source, index in jobs]
    asked = [] if again else zip(keys, jobs, strict=True)
    stored = {key: sample for key, (source, index) in asked if (sample := source.known(index)) is not None}
    kept = {} if again or len(stored) == len(jobs) else cache.load()
    known: dict[bytes, SampleStats] = kept | stored
    missing = list({key: number for number, key in enumerate(keys) if key not in known}.values())
    read = dict(zip(missing, _read([jobs[number] for number in missing], task), strict=True))
    new = {keys[number]: result for number, result in read.items() if isinstance(result, SampleStats)}
    if new:
        used = kept | new
        used = {key: used[key] for key in keys if key in used}
        others = {key: sample for key, sample in cache.load().items() if key not in used}  # of other splits, and of other runs meanwhile
        cache.save(dict(list(others.items())[-OTHERS:]) | used)
    unchanged = sum(key in known and key not in SEEN for key in keys)
    SEEN.update(keys)
    if unchanged:
        log.info("%d of %d samples have not changed since they were last checked; data.check=full checks all", unchanged, len(jobs))
    results = {keys[number]: result for number, result in read.items()}
    return [results.get(key) or known[key] for key in keys]


def _read(jobs: list[Job], task: TaskConfig) -> Iterable[SampleStats | Fault]:
    def one(job: Job) -> SampleStats | Fault:
        source, index = job
        try:
            return measure(*source.read(index), task)
        except BadFileError as error:
            return error.fault
        except UserError as error:
            return Fault(source.names[index], str(error))

    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        quiet = len(jobs) < QUIET or not sys.stdout.isatty()
        return list(track(pool.map(one, jobs), description="checking the data", total=len(jobs), transient=True, disable=quiet))


def no_foreground(stats: SplitStats, task: TaskConfig, where: str, masks: str = "any training mask") -> list[Fault]:
    """An erased foreground trains without a word and learns nothing."""
    first = 1 if task.name == "multiclass" else 0
    foreground = stats.positives[first:]
    if foreground.sum() > 0:
        return []
    ignored = 1 - stats.valid.sum() / max(1, sum(height * width for height, width in stats.sizes) * len(stats.valid))
    hint = f"if that is the foreground, 'data.label_map={{0:0,{task.ignore_index}:1}}'"
    expected = f"{ignored:.1%} of the pixels are {task.ignore_index}=task.ignore_index" if ignored > 0 else ""
    return [Fault(where, f"no pixel of {', '.join(task.class_names[first:])} in {masks}", expected, hint if ignored > 0 else "")]


def shared_images(sources: Sources, stats: dict[str, SplitStats], where: str) -> list[Fault]:
    """Images that are in two splits, pixel by pixel: what is measured on one was learnt on the other."""
    of_split = {
        split: {content: sources[split].names[row] for content, row in zip(found.contents, found.rows, strict=True)}
        for split, found in stats.items()
    }
    return [
        Fault(
            where,
            f"{counted(len(both), f'image of {split} is', f'images of {split} are')} in {other}, too: "
            + named([f"{of_split[split][content]} is {of_split[other][content]}" for content in both]),
            "an image belongs to one split",
            "take them out of one, or say data.overlap=allow",
        )
        for split, other in combinations(of_split, 2)
        if (both := [content for content in of_split[split] if content in of_split[other]])
    ]
