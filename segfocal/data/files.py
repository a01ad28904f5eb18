"""Samples that are files: what every layout of `data=` comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from segfocal.config.layouts import FilesConfig
from segfocal.config.task import TaskConfig
from segfocal.data.decoders import file_identity, image_size
from segfocal.data.faults import BadFileError, Fault
from segfocal.data.formats import read_mask, read_scaled, resized, scaled
from segfocal.data.labels import LabelMap
from segfocal.data.palettes import Palettes
from segfocal.data.source import Array


@dataclass
class Sample:
    """
    Args:
        name: unique in its split.
        image: its file.
        masks: its file, or for multilabel a file a class; none where masks are drawn from annotations.
        group: what it shares with samples that are nearly the same picture; None: it is not said.
    """

    name: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    group: str | None = None


def below(folder: Path, name: str) -> Path:
    """The file that a list names; raises ValueError for one that is not there, or not below the folder: `..`, a link, an absolute path."""
    path = folder / name
    try:
        inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle (before Python 3.13), signs that no name may have
        raise ValueError(f"{name[:60]!r} names no file ({getattr(error, 'strerror', None) or error})") from None
    if not inside:
        raise ValueError(f"{name} is not below {folder}")
    if not there:
        raise ValueError(f"{name or 'an empty name'}: no such file below {folder}")
    return path


class Masks(Protocol):
    """Where the masks of samples come from."""

    settings: str
    """What they depend on beside the files."""

    def identity(self, sample: Sample) -> Iterable[str]:
        """Texts that change when the mask does."""

    def read(self, sample: Sample, size: tuple[int, int]) -> Array:
        """Class ids (H, W) or planes of 0 and 1 (H, W, C); size is what is expected, height and width."""


class MaskFiles:
    """Masks as pictures."""

    def __init__(self, config: FilesConfig, task: TaskConfig) -> None:
        self.labels = LabelMap(task, config.label_map)
        self.stacked = task.name == "multilabel"
        self.exif, self.max_megapixels = config.exif, config.max_megapixels
        self.palettes = [Palettes() for _ in range(task.num_classes if self.stacked else 1)]  # a class may have its own
        self.compared = config.label_map is None  # else it is said what numbers mean
        self.settings = str(config.label_map)

    def identity(self, sample: Sample) -> list[str]:
        return [file_identity(path) for path in sample.masks]

    def read(self, sample: Sample, size: tuple[int, int]) -> Array:
        planes = [self._plane(path, size, palettes) for path, palettes in zip(sample.masks, self.palettes, strict=True)]
        return np.stack(planes, axis=-1) if self.stacked else planes[0]

    def _plane(self, path: Path, size: tuple[int, int], palettes: Palettes) -> Array:
        labels, known = self.labels, palettes if self.compared else None
        mask = read_mask(path, self.max_megapixels, labels.colours, labels.rules.thresholds, self.exif, known)
        if mask.shape[:2] != size:
            (mask_h, mask_w), (height, width) = mask.shape[:2], size
            turned = "it fits the image turned by 90 degrees: see data.exif" if (mask_w, mask_h) == (height, width) else ""
            raise BadFileError(path, f"mask of {mask_w} x {mask_h} pixels", f"its image has {width} x {height}", turned)
        return self.labels(mask, path)


class FileSource:
    """The samples of a split, decoded when asked for."""

    def __init__(self, samples: list[Sample], masks: Masks, config: FilesConfig, task: TaskConfig, channels: int) -> None:
        self.samples, self.masks, self.config, self.channels = samples, masks, config, channels
        self.names = [sample.name for sample in samples]
        asked = f"{task.name} {task.classes} {task.ignore_index}"
        where = Path(config.root or getattr(config, "file", None) or "").absolute()  # or all data sets would share one file of measurements
        self.settings = f"{where} {asked} {channels} {config.exif} {config.scale} {config.max_megapixels} {masks.settings}"

    def __len__(self) -> int:
        return len(self.samples)

    def size(self, index: int) -> tuple[int, int]:
        return scaled(image_size(self.samples[index].image, self.config.exif), self.config.scale)

    def identity(self, index: int) -> str:
        sample = self.samples[index]
        return "\n".join([file_identity(sample.image), *self.masks.identity(sample)])

    def read(self, index: int) -> tuple[Array, Array]:
        sample, config = self.samples[index], self.config
        image, stored = read_scaled(sample.image, self.channels, config.exif, config.max_megapixels, config.scale)
        mask = self.masks.read(sample, stored)
        return image, resized(mask, (image.shape[0], image.shape[1]), cv2.INTER_NEAREST_EXACT)

    def original(self, index: int) -> Path:
        """The file of an image, for a pack."""
        return self.samples[index].image

    def known(self, index: int) -> None:
        return None


@dataclass
class Listing:
    """What a layout holds.

    Args:
        splits: the samples of each split.
        undrawn: samples of no split, which are to be drawn, instead.
        faults: what is wrong with names and pairs.
    """

    splits: dict[str, list[Sample]] = field(default_factory=dict)
    undrawn: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
