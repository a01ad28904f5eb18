"""`data=cityscapes` and `data=voc`: public data sets as they are unpacked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from segfocal.config.data import DATA
from segfocal.config.layouts import CityscapesConfig, VocConfig
from segfocal.config.public_sets import CITYSCAPES_LABELS
from segfocal.config.task import TaskConfig
from segfocal.data.assemble import sources_of
from segfocal.data.faults import Fault, counted
from segfocal.data.files import Listing, MaskFiles, Sample
from segfocal.data.folder import existing_root
from segfocal.data.source import Sources
from segfocal.data.splits import named
from segfocal.errors import UserError

CITYSCAPES_IMAGE, CITYSCAPES_MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


@DATA.builder(CityscapesConfig)
def cityscapes_sources(config: CityscapesConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits train and val; a city is a group."""
    root = existing_root(config.root)
    config = dataclasses.replace(config, label_map=config.label_map or CITYSCAPES_LABELS)
    listing = Listing()
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; data=cityscapes expects leftImg8bit/ and gtFine/ below data.root")
        samples = []
        for image in sorted(folder.glob(f"*/*{CITYSCAPES_IMAGE}")):
            name = f"{image.parent.name}/{image.name.removesuffix(CITYSCAPES_IMAGE)}"
            samples.append(Sample(name, image, [root / "gtFine" / split / f"{name}{CITYSCAPES_MASK}"], image.parent.name))
        listing.splits[split] = _with_masks(samples, listing.faults)
    return sources_of(listing, MaskFiles(config, task), config, task, channels, seed, f"data.root={config.root}")


@DATA.builder(VocConfig)
def voc_sources(config: VocConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits that ImageSets/Segmentation names."""
    root = existing_root(config.root)
    lists = root / "ImageSets" / "Segmentation"
    if not (lists / "train.txt").is_file():
        raise UserError(
            f"{lists / 'train.txt'}: no such file; data=voc expects ImageSets/, JPEGImages/ and SegmentationClass/ below data.root"
        )
    listing = Listing()
    for split in ("train", "val", "test"):
        path = lists / f"{split}.txt"
        names = path.read_text(encoding="utf-8", errors="replace").split() if path.is_file() else []
        samples = [Sample(name, root / "JPEGImages" / f"{name}.jpg", [root / "SegmentationClass" / f"{name}.png"]) for name in names]
        listing.splits[split] = _with_masks(samples, listing.faults)
    return sources_of(listing, MaskFiles(config, task), config, task, channels, seed, f"data.root={config.root}")


def _with_masks(samples: list[Sample], faults: list[Fault]) -> list[Sample]:
    """The samples whose files are there."""
    whole = [sample for sample in samples if sample.image.is_file() and sample.masks[0].is_file()]
    for what, missing in (
        ("image", [str(sample.image) for sample in samples if not sample.image.is_file()]),
        ("mask", [str(sample.masks[0]) for sample in samples if not sample.masks[0].is_file()]),
    ):
        if missing:
            found = f"{counted(len(missing), f'{what} is', f'{what}s are')} not there: {named([Path(item).name for item in missing])}"
            faults.append(Fault(str(Path(missing[0]).parent), found))
    return whole
