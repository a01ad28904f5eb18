"""`data=folder`: images and masks in two folders, split by files, folders or fractions."""

from __future__ import annotations

import logging
from pathlib import Path

from segfocal.config.data import DATA
from segfocal.config.layouts import FolderConfig, no_folder
from segfocal.config.task import TaskConfig
from segfocal.data.assemble import sources_of
from segfocal.data.faults import Fault
from segfocal.data.files import Listing, MaskFiles, Sample
from segfocal.data.formats import IMAGE_SUFFIXES, MASK_SUFFIXES
from segfocal.data.pairing import by_name, unpaired
from segfocal.data.source import Sources
from segfocal.data.splits import SPLITS, Splits, by_files, misnamed, named
from segfocal.errors import UserError

log = logging.getLogger("segfocal")


@DATA.builder(FolderConfig)
def folder_sources(config: FolderConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits of a root.

    Raises:
        UserError: where there is nothing to train on.
    """
    root = existing_root(config.root)
    how = _detected(root, config) if config.split == "auto" else config.split
    listing = _split_folders(root, config, task) if how == "folders" else _one_folder(root, config, task, how)
    return sources_of(listing, MaskFiles(config, task), config, task, channels, seed, f"data.root={config.root}")


def existing_root(root: str | None) -> Path:
    """The root as a path; raises UserError where it is no folder."""
    if lines := no_folder(root):
        raise UserError(lines[0])
    return Path(root or "")


def _detected(root: Path, config: FolderConfig) -> str:
    if any((root / f"{split}.txt").is_file() for split in SPLITS):
        return "files"
    return "folders" if any((root / config.images / split).is_dir() for split in SPLITS) or _other_folders(root, config) else "fractions"


def _other_folders(root: Path, config: FolderConfig) -> list[Fault]:
    """Folders that were meant for splits."""
    there = [path for path in (root / config.images).glob("*") if path.is_dir()]
    return misnamed(there, [path.name for path in there])


def _split_folders(root: Path, config: FolderConfig, task: TaskConfig) -> Listing:
    faults = _other_folders(root, config)
    there = [split for split in SPLITS if (root / config.images / split).is_dir()]
    if not there and not faults:
        raise UserError(f"data.split=folders: {root / config.images} has no folder train, val or test; data.split=fractions draws them")
    return Listing({split: _paired(root, config, task, split, faults)[1] for split in there}, faults=faults)


def _one_folder(root: Path, config: FolderConfig, task: TaskConfig, how: str) -> Listing:
    faults: list[Fault] = []
    names, samples = _paired(root, config, task, "", faults)
    if how == "fractions":
        return Listing(undrawn=samples, faults=faults)
    known = {sample.name: sample for sample in samples}
    if not any((root / f"{split}.txt").is_file() for split in SPLITS):
        raise UserError(f"data.split=files: {root} has no train.txt, val.txt or test.txt; data.split=fractions draws them")
    splits = by_files(root, names, faults, config.images)
    faults += misnamed(root.glob("*.txt"), splits)
    _unnamed(names, splits)
    return Listing({split: [known[name] for name in found if name in known] for split, found in splits.items()}, faults=faults)


def _unnamed(names: list[str], splits: Splits) -> None:
    if left := sorted(set(names).difference(*splits.values())):
        log.warning("%d of %d images %s in no split: %s", len(left), len(names), "is" if len(left) == 1 else "are", named(left))


def _paired(root: Path, config: FolderConfig, task: TaskConfig, split: str, faults: list[Fault]) -> tuple[list[str], list[Sample]]:
    """The names of all images, and those that have their masks."""
    folder = root / config.images / split
    masks_too = bool(config.mask_suffix) and folder.resolve() == (root / config.masks / split).resolve()
    images = by_name(folder, IMAGE_SUFFIXES, "data.images", faults, match=config.match, but=config.mask_suffix if masks_too else None)
    names = task.class_names if task.name == "multilabel" else [""]
    places = [root / config.masks / split / name for name in names]
    masks = [by_name(place, MASK_SUFFIXES, "data.masks", faults, config.mask_suffix, config.match) for place in places]
    for place, found in zip(places, masks, strict=True):
        if images and found:
            faults += unpaired(images, found, place, folder, config.mask_suffix)
    whole = [name for name in sorted(images) if all(name in found for found in masks)]
    return list(images), [Sample(name, images[name], [found[name] for found in masks]) for name in whole]
