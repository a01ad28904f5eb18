"""What is right and wrong with a data set, step by step: the check before training, with all that it finds."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from rich.progress import track

from segfocal.config.sampling import RareClassConfig, SamplingConfig, UniformConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.faults import Fault, counted
from segfocal.data.source import Array
from segfocal.data.splits import named
from segfocal.data.stats import SplitStats

NEARLY_EMPTY = 9  # so few pixels of a class in an image are a slip of the brush rather than a thing
INVERTED = 0.5  # a foreground beyond this share of the pixels is hardly what is looked for
CLASSES = "classes"  # the step that says how much there is of each
CROPS = 300  # drawn to see which classes they show


@dataclass
class Step:
    """
    Args:
        title: what was looked at.
        found: what there is, a line each.
        faults: what keeps the data from being used.
        warnings: what should be looked at.
    """

    title: str
    found: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Analysis:
    """
    Args:
        steps: in order.
        stats: of each split.
        crops: sampling -> share of an epoch's crops that show each class; empty where there are faults.
        suggested: overrides.
    """

    steps: list[Step]
    stats: dict[str, SplitStats]
    crops: dict[str, list[float]] = field(default_factory=dict)
    suggested: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[Fault]:
        return [fault for step in self.steps for fault in step.faults]


def look(data: SegmentationData) -> Analysis:
    """Read what has to be read, and say what there is and what is wrong: the check that every training starts with."""
    seen = data.inspect()
    stats = seen.stats
    usable = sum(found.images for found in stats.values())
    total = sum(map(len, data.sources.values()))
    asked = f"{usable} of {total} samples can be used" if data.config.check != "off" else f"{usable} of {total} samples were looked at"
    steps = [
        Step("images and masks", [", ".join(f"{len(source)} in {split}" for split, source in data.sources.items())], seen.pairs),
        Step("files and labels", [asked], seen.samples),
    ]
    if stats:
        steps += [_splits(data, stats, seen.shared), _classes(data, stats), _sizes(data, stats)]
    return Analysis(steps, stats)


def analyse(data: SegmentationData, settle: Callable[[SplitStats], list[str]] = lambda train: []) -> Analysis:
    """`look`, and where nothing is wrong, what crops show and what suits the data.

    Args:
        data: not looked at yet.
        settle: tells `data` what is chosen by the training split, and says so, a line each.
    """
    found = look(data)
    if not found.faults:
        if chosen := settle(found.stats["train"]):
            found.steps.append(Step("recipe", chosen))
        found.crops = crop_shares(data)
        found.steps.append(_crops(data, found.crops))
        found.suggested = suggestion(data, found.stats, found.crops)
    return found


def notes(found: Analysis) -> list[str]:
    """What a run says before it trains."""
    classes = [line for step in found.steps for line in step.found if step.title == CLASSES]
    return classes + [f"warning: {line}" for step in found.steps for line in step.warnings]


def _names(data: SegmentationData, split: str, stats: SplitStats) -> list[str]:
    """The names behind the rows of the statistics, among which samples with faults are missing."""
    names = data.sources[split].names
    return [names[row] for row in stats.rows]


def _splits(data: SegmentationData, stats: dict[str, SplitStats], shared: list[Fault]) -> Step:
    step = Step("splits", [], shared)
    by_content: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    by_look: dict[bytes, list[tuple[str, str, bytes]]] = defaultdict(list)
    for split, found in stats.items():
        for name, content, look in zip(_names(data, split, found), found.contents, found.looks, strict=True):
            by_content[content].append((split, name))
            if any(look):  # a plain surface looks like any other
                by_look[look].append((split, name, content))
    twice = [items for items in by_content.values() if len(items) > 1 and len({split for split, _ in items}) == 1]
    if twice:
        pairs = [f"{a[1]} is {b[1]}" for a, b, *_ in twice]
        step.warnings.append(f"{counted(len(twice), 'image is', 'images are')} there twice in a split: {named(pairs)}")
    alike = [
        items for items in by_look.values() if len({split for split, _, _ in items}) > 1 and len({content for _, _, content in items}) > 1
    ]
    if alike:
        pairs = [" looks like ".join(f"{split}/{name}" for split, name, _ in _of_two_splits(items)) for items in alike]
        images = counted(len(alike), "image looks", "images look")
        step.warnings.append(f"{images} the same in two splits: {named(pairs)}; data.group keeps such images together")
    if not twice and not alike and not shared and data.config.check != "off":
        step.found.append("no image is there twice")
    if "test" not in stats:
        step.warnings.append("there is no test split: figures at the end will be those of val, which has chosen the checkpoint")
    return step


def _of_two_splits(items: list[tuple[str, str, bytes]]) -> list[tuple[str, str, bytes]]:
    first = items[0]
    return [first, next(item for item in items if item[0] != first[0])]


def _classes(data: SegmentationData, stats: dict[str, SplitStats]) -> Step:
    task = data.task
    step = Step(CLASSES)
    first = 1 if task.name == "multiclass" else 0
    for split, found in stats.items():
        shares = zip(task.class_names, found.positives, found.valid, strict=True)
        shown = ", ".join(f"{name} {positives / max(1, valid):.2%}" for name, positives, valid in shares)
        step.found.append(f"{split}: {counted(found.images, 'image', 'images')}; of the pixels {shown}")
        absent = [name for name, count in zip(task.class_names, found.positives, strict=True) if count == 0]
        if absent and not found.whole:
            step.warnings.append(
                f"no pixel of {', '.join(absent)} in the {found.images} of {found.total} samples of {split} that were read"
            )
        elif absent:
            step.warnings.append(f"no pixel of {', '.join(absent)} in {split}: {_without(split, len(absent) >= task.num_classes - first)}")
        names = _names(data, split, found)
        ignored = [name for name, row in zip(names, found.valid_NC, strict=True) if not row.any()]
        if ignored:
            masks = counted(len(ignored), f"mask of {split} has", f"masks of {split} have")
            step.warnings.append(f"{masks} no pixel that counts, all are ignored: {named(ignored)}")
        for label in range(first, task.num_classes):
            few = [name for name, row in zip(names, found.pixels_NC[:, label], strict=True) if 0 < row <= NEARLY_EMPTY]
            if few:
                kind = task.class_names[label]
                masks = counted(len(few), f"mask of {split} has", f"masks of {split} have")
                step.warnings.append(f"{masks} {NEARLY_EMPTY} pixels or fewer of {kind}: {named(few)}")
        empty = int((found.pixels_NC[:, first:].sum(1) == 0).sum())
        if empty:
            step.found.append(f"{split}: {counted(empty, 'image', 'images')} without any of {', '.join(task.class_names[first:])}")
    if "train" in stats and task.name == "binary" and stats["train"].prior[0] > INVERTED:
        share = stats["train"].prior[0]
        step.warnings.append(
            f"{share:.0%} of the training pixels are {task.class_names[0]}: are the masks inverted? 'data.label_map={{0:1,1:0}}'"
        )
    return step


def _without(split: str, everything: bool) -> str:
    """What it means that a class is in no mask of a split, or that everything but the background is in none."""
    if split == "train":
        return "it cannot be learned"
    if split == "val" and everything:
        return "the best checkpoint cannot be told, nor a threshold fitted: put images with it into val, or draw others by seed="
    return "there will be no figure"


def _sizes(data: SegmentationData, stats: dict[str, SplitStats]) -> Step:
    sizes = np.array([size for found in stats.values() for size in found.sizes])
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    most = kinds[np.argsort(-counts, kind="stable")]
    shown = ", ".join(f"{width} x {height}" for height, width in most[:3])
    low, middle, high = (np.quantile(sizes, share, axis=0, method="nearest") for share in (0, 0.5, 1))
    step = Step("sizes", [f"{len(kinds)} different, most often {shown}" if len(kinds) > 1 else f"all images are {shown}"])
    if len(kinds) > 1:
        step.found.append(f"height {low[0]} to {high[0]}, middle {middle[0]}; width {low[1]} to {high[1]}, middle {middle[1]}")
    if data.config.crop and "train" in stats:
        small = sum(height < data.config.crop[0] or width < data.config.crop[1] for height, width in stats["train"].sizes)
        if small:
            images = counted(small, "training image is", "training images are")
            step.warnings.append(f"{images} smaller than data.crop={data.config.crop}, and padded")
    return step


def crop_shares(data: SegmentationData) -> dict[str, list[float]]:
    """Of an epoch's crops, the share that shows each class: drawn as training draws them, with each way of sampling."""
    others: list[SamplingConfig] = [UniformConfig()]
    if data.measured["train"].whole:
        others.append(RareClassConfig())
    shares = {}
    for name, config in {config.name: config for config in (*others, data.sampling)}.items():  # the run's own settings last
        dataset, sampler = data.training(config)
        keys = list(islice(sampler, CROPS))
        seen = [
            _shown(dataset[key].mask, data)
            for key in track(keys, f"drawing crops, sampling={name}", transient=True, disable=not sys.stdout.isatty())
        ]
        shares[name] = np.mean(seen, axis=0).tolist()
    return shares


def _shown(mask: Array, data: SegmentationData) -> Array:
    """Which classes a crop shows."""
    if data.task.name == "multilabel":
        planes: Array = (mask == 1).any((0, 1))
        return planes
    ids = [1] if data.task.name == "binary" else range(data.task.num_classes)
    return np.array([(mask == label).any() for label in ids])


def _crops(data: SegmentationData, crops: dict[str, list[float]]) -> Step:
    step = Step("crops that show a class")
    for name, shares in crops.items():
        own = " (this configuration)" if name == data.sampling.name else ""
        shown = ", ".join(f"{kind} {share:.0%}" for kind, share in zip(data.task.class_names, shares, strict=True))
        step.found.append(f"sampling={name}{own}: {shown}")
    return step


def suggestion(data: SegmentationData, stats: dict[str, SplitStats], crops: dict[str, list[float]]) -> list[str]:
    """Overrides that suit the data."""
    found = []
    train = stats["train"]
    sizes = np.array(train.sizes)
    side = int(np.quantile(sizes.min(1), 0.1)) // 32 * 32
    best = max(64, min(side, 512 if np.median(sizes) >= 1500 else 256))
    if data.config.crop != [best, best]:
        found.append(f"data.crop=[{best},{best}]")
    first = 1 if data.task.name == "multiclass" else 0
    there = [label for label in range(first, data.task.num_classes) if train.positives[label] > 0]
    if there and data.sampling.name == "uniform":
        rarest = min(there, key=lambda label: train.prior[label])
        if crops["uniform"][rarest] < min(0.6, crops.get("rare_class", crops["uniform"])[rarest]):
            found.append("sampling=rare_class")
    gigabytes = float(sizes.prod(1).sum()) * (len(train.mean_std[0]) + 1) / 1e9
    if gigabytes < 2 and data.config.cache == "none" and data.config.name not in ("synthetic", "streaming"):
        found.append("data.cache=ram")
    if data.augment.name == "none":
        found.append("augment=medium" if train.images < 1000 else "augment=light")
    return found
