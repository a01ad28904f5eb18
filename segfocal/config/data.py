"""Where images and masks come from, how they are split, and how training crops are cut."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag, Fraction, Index, NonNegative, Positive
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import TaskConfig
from segfocal.registry import Registry

DATA = Registry("data", "segfocal.data")


@dataclass(config=STRICT, kw_only=True)
class DataConfig:
    """
    Args:
        name: the layout.
        batch_size: crops in a training step, and at most so many whole images in an evaluation step.
        num_workers: processes that decode and augment; null takes the profile's.
        crop: height and width of training crops in pixels; null trains on whole images.
        limit: use only so many samples of each split; null uses all.
        overfit: validate and test on the training samples, to see whether a model can learn at all.
        check: `fast` reads the samples that have changed since they were last read, before anything else; `full` reads all.
        cache: keep decoded training samples: in memory that the workers share (`ram`), or in a file that stays for the next run (`disk`).
        cache_gb: the most that the cache may take, in gigabytes; null takes half of what is free.
        worker_timeout: seconds without a batch after which a worker counts as hanging; 0 waits for ever.
    """

    name: str
    batch_size: Count = 8
    num_workers: Index | None = None
    crop: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    limit: Count | None = None
    overfit: Flag = False
    check: Literal["fast", "full"] = "fast"
    cache: Literal["none", "ram", "disk"] = "none"
    cache_gb: Positive | None = None
    worker_timeout: Index = 600

    def problems(self, task: TaskConfig) -> list[str]:
        """What does not go with the task, a line each."""
        return []


@DATA.config("synthetic")
@dataclass(config=STRICT, kw_only=True)
class SyntheticConfig(DataConfig):
    """Generated pictures of surfaces with rare defects; the same for the same seed on every machine.

    Args:
        size: height and width of an image in pixels.
        train, val, test: images in each split.
        variant: another number, other images.
    """

    name: Literal["synthetic"] = "synthetic"
    size: Annotated[int, Field(strict=True, ge=64, le=2048)] = 128
    train: Count = 160
    val: Count = 32
    test: Count = 64
    variant: Index = 0

    def problems(self, task: TaskConfig) -> list[str]:
        made = SYNTHETIC_CLASSES[task.name]
        if task.num_classes == len(made):
            return []
        return [
            f"task.classes: data=synthetic makes {len(made)} classes for task={task.name} ({', '.join(made)}), "
            f"not {task.num_classes}: leave them out"
        ]


@DATA.config("folder")
@dataclass(config=STRICT, kw_only=True)
class FolderConfig(DataConfig):
    """Images and masks in two folders of one root.

    Args:
        root: the folder that holds both.
        images, masks: the folders, relative to root. For `task=multilabel` masks holds a folder a class.
        mask_suffix: what a mask's stem has after the image's: `_mask` pairs a.jpg with a_mask.png.
        split: how the splits are told apart: `files` train.txt, val.txt, test.txt in root, a stem a line; `folders`
            images/train, masks/train, ...; `fractions` drawn by seed; `auto` the first of these that is there.
        fractions: shares of train, val and test for `fractions`; they sum to 1.
        group: a regular expression that finds in an image's stem what it shares with those that are nearly the same picture; its first
            pair of parentheses does, if it has one: `"data.group='_(.+)'"` finds the road 386RS in 1025762_386RS. A group is never in
            two splits.
        label_map: mask value -> class id, or `ignore`; values not named are errors. null: the values are class ids.
        exif: photographs whose EXIF tag asks for a rotation: `apply` rotates the image, `ignore` takes it as stored;
            null refuses them unless the mask carries the same tag.
        max_megapixels: larger images are refused before they are decoded.
    """

    name: Literal["folder"] = "folder"
    root: str | None = None
    images: str = "images"
    masks: str = "masks"
    mask_suffix: str = ""
    split: Literal["auto", "files", "folders", "fractions"] = "auto"
    fractions: Annotated[list[Fraction], Field(min_length=3, max_length=3)] = Field(default_factory=lambda: [0.7, 0.15, 0.15])
    group: str | None = None
    label_map: dict[int, Index | Literal["ignore"]] | None = None
    exif: Literal["apply", "ignore"] | None = None
    max_megapixels: NonNegative = 200.0

    def __post_init__(self) -> None:
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"data.fractions={self.fractions}: the shares of train, val and test must sum to 1")
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise ValueError(f"data.group={self.group}: not a regular expression ({error})") from None

    def problems(self, task: TaskConfig) -> list[str]:
        missing = [] if self.root else ["data.root is not said: where the images and masks are, as in data.root=/path/to/data"]
        if task.classes is None:
            return missing
        last = task.num_ids - 1
        return missing + [
            f"data.label_map: {value} -> {label}: a mask value from 0 to 65535 to a class from 0 to {last}, or to ignore"
            for value, label in (self.label_map or {}).items()
            if not 0 <= value <= 65535 or (label != "ignore" and label > last)
        ]


@DATA.config("checkpoint")
@dataclass(config=STRICT, kw_only=True)
class CheckpointDataConfig:
    """For evaluation: the data that the checkpoint was trained on, with what is named here put in its place.

    Args: as in `FolderConfig`; null leaves what the checkpoint says.
    """

    name: Literal["checkpoint"] = "checkpoint"
    root: str | None = None
    images: str | None = None
    masks: str | None = None
    batch_size: Count | None = None
    num_workers: Index | None = None
    limit: Count | None = None
