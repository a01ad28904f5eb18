"""Where images and masks come from, how they are split, and how training crops are cut."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag, Index, Positive
from segfocal.config.labels import Label, from_text
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import Mode, TaskConfig
from segfocal.registry import Registry

DATA = Registry("data", "segfocal.data")
Images = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]  # then the next split begins


@dataclass(config=STRICT, kw_only=True)
class DataConfig:
    """
    Args:
        name: the layout.
        batch_size: crops in a training step, and at most so many whole images in an evaluation step; null is 8, and in training 4 where
            there would be few steps.
        num_workers: processes that decode and augment; null takes the profile's.
        crop: height and width of training crops in pixels; null trains on whole images.
        limit: use only so many samples of each split, spread over it, among them some of each class; null uses all.
        overfit: validate and test on the training samples, to see whether a model can learn at all.
        check: `fast` reads the samples that have changed since they were last read, before anything else; `full` reads all;
            `off` trusts the data, and takes the numbers that a run starts from of a few samples.
        cache: keep decoded samples of train and val: in memory that the workers share (`ram`), or in a file that stays for the next run (`disk`).
        cache_gb: the most that the cache may take, in gigabytes; null takes half of what is free.
        worker_timeout: seconds without a batch after which a worker counts as hanging; 0 waits for ever.
    """

    name: str
    batch_size: Count | None = None
    num_workers: Index | None = None
    crop: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    limit: Count | None = None
    overfit: Flag = False
    check: Literal["fast", "full", "off"] = "fast"
    cache: Literal["none", "ram", "disk"] = "none"
    cache_gb: Positive | None = None
    worker_timeout: Index = 600

    def known_classes(self, mode: Mode) -> list[str] | None:
        """The names of the classes, where the data itself says them."""
        return None

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
    train: Images = 160
    val: Images = 32
    test: Images = 64
    variant: Index = 0

    def known_classes(self, mode: Mode) -> list[str]:
        return list(SYNTHETIC_CLASSES[mode])

    def problems(self, task: TaskConfig) -> list[str]:
        made = SYNTHETIC_CLASSES[task.name]
        if task.num_classes == len(made):
            return []
        return [
            f"task.classes: data=synthetic makes {len(made)} classes for task={task.name} ({', '.join(made)}), "
            f"not {task.num_classes}: leave them out"
        ]


@DATA.config("checkpoint")
@dataclass(config=STRICT, kw_only=True)
class CheckpointDataConfig:
    """For evaluation: the data that the checkpoint was trained on, with what is named here put in its place.

    Args: as in `segfocal.config.layouts`; null leaves what the checkpoint says.
    """

    name: Literal["checkpoint"] = "checkpoint"
    root: str | None = None
    file: str | None = None
    images: str | None = None
    masks: str | None = None
    annotations: str | None = None
    label_map: Annotated[dict[int | str, Label] | None, BeforeValidator(from_text)] = None
    check: Literal["fast", "full", "off"] | None = None
    batch_size: Count | None = None
    shards_dir: str | None = None
    shards_gb: Positive | None = None
    num_workers: Index | None = None
    limit: Count | None = None
