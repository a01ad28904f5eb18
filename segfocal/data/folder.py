"""`data=folder`: images and masks in two folders, paired by their stems, split by files, folders or fractions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfocal.config.data import DATA, FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.formats import (
    IMAGE_SUFFIXES,
    LOSSY,
    MASK_SUFFIXES,
    Array,
    BadFileError,
    file_identity,
    image_size,
    read_image,
    read_mask,
)
from segfocal.data.labels import LabelMap
from segfocal.data.source import Source
from segfocal.data.splits import SPLITS, by_files, by_fractions, check_groups, groups_of, named
from segfocal.errors import UserError
from segfocal.nearest import did_you_mean


@dataclass
class Pair:
    """An image and its mask; for multilabel a mask a class."""

    stem: str
    image: Path
    masks: list[Path]


class FolderSource:
    """The pairs of a split, decoded when asked for."""

    def __init__(self, pairs: list[Pair], config: FolderConfig, task: TaskConfig, channels: int) -> None:
        self.pairs, self.config, self.channels = pairs, config, channels
        self.names = [pair.stem for pair in pairs]
        self.stacked = task.name == "multilabel"
        self.labels = LabelMap(task, config.label_map)
        self.settings = f"folder {channels} {config.label_map} {config.exif} {config.max_megapixels} {task.classes}"

    def __len__(self) -> int:
        return len(self.pairs)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.pairs[index].image, self.config.exif)

    def identity(self, index: int) -> str:
        pair = self.pairs[index]
        return "\n".join(file_identity(path) for path in (pair.image, *pair.masks))

    def read(self, index: int) -> tuple[Array, Array]:
        pair = self.pairs[index]
        image = read_image(pair.image, self.channels, self.config.exif, self.config.max_megapixels)
        masks = [self.labels(self._mask_like(path, image), path) for path in pair.masks]
        return image, np.stack(masks, axis=-1) if self.stacked else masks[0]

    def known(self, index: int) -> None:
        return None

    def _mask_like(self, path: Path, image: Array) -> Array:
        mask = read_mask(path, self.config.max_megapixels)
        if mask.shape != image.shape[:2]:
            (mask_h, mask_w), (height, width) = mask.shape, image.shape[:2]
            turned = "; it fits the image turned by 90 degrees: see data.exif" if (mask_w, mask_h) == (height, width) else ""
            raise BadFileError(f"{path}: mask of {mask_w} x {mask_h} pixels, its image has {width} x {height}{turned}")
        return mask


@DATA.builder(FolderConfig)
def folder_sources(config: FolderConfig, task: TaskConfig, channels: int, seed: int) -> dict[str, Source]:
    """The splits of a root; every fault of names and pairs in one error.

    Raises:
        UserError: folders or split files that are not there, images without masks, stems that pair twice, empty splits.
    """
    root = Path(config.root or "")
    if not root.is_dir():
        raise UserError(f"data.root={config.root}: no such folder (seen from {Path.cwd()})")
    how = _detected(root, config) if config.split == "auto" else config.split
    if how == "folders":
        pairs = {split: _pairs(root, config, task, split) for split in SPLITS if (root / config.images / split).is_dir()}
        splits = {split: [pair.stem for pair in found] for split, found in pairs.items()}
        groups = _groups(sorted(set().union(*splits.values())), config)
    else:
        every = {pair.stem: pair for pair in _pairs(root, config, task, "")}
        groups = _groups(list(every), config)
        splits = by_files(root, list(every)) if how == "files" else by_fractions(list(every), config.fractions, seed, groups)
        pairs = {split: [every[stem] for stem in stems] for split, stems in splits.items()}
    if groups is not None:
        check_groups(splits, groups, f"data.group={config.group}")
    empty = [split for split in ("train", "val") if not pairs.get(split)]
    if empty:
        raise UserError(f"data.root={config.root}: no images in {' and '.join(empty)} (data.split={how}); training needs both")
    return {split: FolderSource(found, config, task, channels) for split, found in pairs.items() if found}


def _groups(names: list[str], config: FolderConfig) -> dict[str, str] | None:
    return None if config.group is None else groups_of(names, config.group, "data.group")


def _detected(root: Path, config: FolderConfig) -> str:
    if (root / "train.txt").is_file():
        return "files"
    return "folders" if (root / config.images / "train").is_dir() else "fractions"


def _pairs(root: Path, config: FolderConfig, task: TaskConfig, split: str) -> list[Pair]:
    images = _by_stem(root / config.images / split, (*IMAGE_SUFFIXES,), "data.images")
    if task.name == "multilabel":
        folders = [root / config.masks / split / name for name in task.class_names]
    else:
        folders = [root / config.masks / split]
    masks = [_by_stem(folder, MASK_SUFFIXES + LOSSY, "data.masks", config.mask_suffix) for folder in folders]
    for folder, found in zip(folders, masks, strict=True):
        missing = sorted(set(images) - set(found))
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(images)} images have no mask: {named(missing)}; "
                f"data.mask_suffix={config.mask_suffix!r} is what a mask's name adds to the image's"
            )
        orphans = sorted(set(found) - set(images))
        if orphans:
            raise UserError(f"{folder}: {len(orphans)} masks have no image in {root / config.images / split}: {named(orphans)}")
    return [Pair(stem, image, [found[stem] for found in masks]) for stem, image in sorted(images.items())]


def _by_stem(folder: Path, suffixes: tuple[str, ...], key: str, tail: str = "") -> dict[str, Path]:
    """stem -> file; hidden files are passed over, a stem that is there twice is an error."""
    if not folder.is_dir():
        near = did_you_mean(folder.name, [item.name for item in folder.parent.iterdir() if item.is_dir()]) if folder.parent.is_dir() else ""
        raise UserError(f"{folder}: no such folder ({key}){near}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not path.stem.endswith(tail):
            continue
        stem = path.stem.removesuffix(tail)
        if stem in found:
            raise UserError(f"{folder}: {found[stem].name} and {path.name} are the same sample: keep one")
        found[stem] = path
    if not found:
        raise UserError(f"{folder}: no files of {', '.join(suffixes)}" + (f" that end in {tail!r} (data.mask_suffix)" if tail else ""))
    return found
