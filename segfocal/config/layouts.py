"""Layouts of images and masks in files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag, Fraction, Index, Positive, Scale
from segfocal.config.data import DATA, DataConfig
from segfocal.config.labels import from_text, rules
from segfocal.config.public_sets import CITYSCAPES_CLASSES, VOC_CLASSES
from segfocal.config.task import Mode, TaskConfig


def no_folder(root: str | None) -> list[str]:
    """A line where a root is no folder."""
    return [] if Path(root or "").is_dir() else [f"data.root={root}: no such folder (seen from {Path.cwd()})"]


@dataclass(config=STRICT, kw_only=True)
class FilesConfig(DataConfig):
    """What all layouts of files take.

    Args:
        root: the folder that everything is in.
        fractions: shares of train, val and test where the splits are drawn, by seed; they sum to 1.
        stratify: give each split its share of the images of each class, the rarest class first, for which each mask is read, whatever `check` says.
        splits: instead of drawing, the splits of an earlier run: its splits.json, or what that holds. A run that goes on and an
            evaluation take those of the checkpoint: samples that have come since are in none.
        group: a regular expression that finds in a sample's name what it shares with those that are nearly the same picture; its first
            pair of parentheses does, if it has one: `"data.group='_(.+)'"` finds the road 386RS in 1025762_386RS. A group is never in
            two splits.
        overlap: what is done where an image is in two splits, pixel by pixel: `refuse` or `allow`.
        label_map: what is in a mask -> class id, or `ignore`: values `7`, ranges of values `128-255`, colours `255-0-0`, and `else`.
            What is not named is an error. null: the values are class ids.
        exif: photographs whose EXIF tag asks for a rotation: `apply` rotates the image, `ignore` takes it as stored;
            null refuses them.
        scale: images and masks are read at this share of their height and width, up to 4: above 1 enlarged, for what is thinner than
            a network can follow; null leaves them.
        max_megapixels: larger images, as stored and at `scale`, are refused before they are decoded.
    """

    root: str | None = None
    fractions: Annotated[list[Fraction], Field(min_length=3, max_length=3)] = Field(default_factory=lambda: [0.7, 0.15, 0.15])
    stratify: Flag = True
    splits: str | dict[str, list[str]] | None = None
    group: str | None = None
    overlap: Literal["refuse", "allow"] = "refuse"
    label_map: Annotated[dict[int | str, Index | Literal["ignore"]] | None, BeforeValidator(from_text)] = None
    exif: Literal["apply", "ignore"] | None = None
    scale: Scale | None = None
    max_megapixels: Positive = 200.0

    def __post_init__(self) -> None:
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"data.fractions={self.fractions}: the shares of train, val and test must sum to 1")
        for key in ("group", "match"):
            _check_pattern(f"data.{key}", getattr(self, key, None))
        if self.label_map is not None:
            rules(self.label_map)

    def problems(self, task: TaskConfig) -> list[str]:
        missing = [] if self.root else ["data.root is not said: where the images and masks are, as in data.root=/path/to/data"]
        if task.classes is None:
            return missing
        last = task.num_ids - 1
        return missing + [
            f"data.label_map: {value} -> {label}: a class goes from 0 to {last}, or is ignore"
            for value, label in (self.label_map or {}).items()
            if label != "ignore" and label > last
        ]


def _check_pattern(key: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{key}={pattern}: not a regular expression ({error})") from None


@DATA.config("folder")
@dataclass(config=STRICT, kw_only=True)
class FolderConfig(FilesConfig):
    """Images and masks in two folders of one root.

    Args:
        images, masks: the folders, relative to root. For `task=multilabel` masks holds a folder a class.
        mask_suffix: what a mask's stem has after the image's: `_mask` pairs a.jpg with a_mask.png.
        match: a regular expression that finds in the names of image and mask what they share; null: the whole name.
        split: how the splits are told apart: `files` train.txt, val.txt, test.txt in root, a name a line; `folders`
            images/train, masks/train, ...; `fractions` drawn; `auto` the first of these that is there.
    """

    name: Literal["folder"] = "folder"
    images: str = "images"
    masks: str = "masks"
    mask_suffix: str = ""
    match: str | None = None
    split: Literal["auto", "files", "folders", "fractions"] = "auto"


@DATA.config("manifest")
@dataclass(config=STRICT, kw_only=True)
class ManifestConfig(FilesConfig):
    """A table that names image and mask of each sample.

    Args:
        root: what the table's paths are relative to, and must not leave; null takes the table's folder.
        file: the table, .csv or .jsonl, with columns image, mask (for `task=multilabel` a column a class instead), and, where there
            are any, split (train, val or test; without it they are drawn) and group.
    """

    name: Literal["manifest"] = "manifest"
    file: str | None = None

    def problems(self, task: TaskConfig) -> list[str]:
        if self.file is None:
            return ["data.file is not said: the table of images and masks, as in data.file=/path/to/data.csv"]
        return [problem for problem in super().problems(task) if not problem.startswith("data.root")]


@DATA.config("coco")
@dataclass(config=STRICT, kw_only=True)
class CocoConfig(FilesConfig):
    """Polygons and run lengths in JSON files of the COCO form.

    Args:
        annotations: the JSON file, relative to root, with {split} for train, val and test where each has one; of one file for all the
            splits are drawn.
        images: the folder of the images, relative to root; may have {split}, too.
        categories: category -> name of a class, `background` or `ignore`; null: categories have the names of the classes.
            Where several lie on a pixel, the smallest annotation counts; crowds are ignored.
    """

    name: Literal["coco"] = "coco"
    annotations: str = "annotations/{split}.json"
    images: str = "images"
    categories: dict[str, str] | None = None

    def problems(self, task: TaskConfig) -> list[str]:
        unused = ["data.label_map is not for data=coco: data.categories names the classes"] if self.label_map is not None else []
        allowed = [*(task.classes or []), "background", "ignore"]
        return (
            super().problems(task)
            + unused
            + [
                f"data.categories: {name} -> {target}: must be one of {', '.join(allowed)}"
                for name, target in (self.categories or {}).items()
                if task.classes is not None and target not in allowed
            ]
        )


@DATA.config("cityscapes")
@dataclass(config=STRICT, kw_only=True)
class CityscapesConfig(FilesConfig):
    """leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/, as they are unpacked; the official test split has no labels.

    Args:
        label_map: of the labelIds; null takes the 19 classes that are evaluated.
    """

    name: Literal["cityscapes"] = "cityscapes"

    def known_classes(self, mode: Mode) -> list[str] | None:
        return list(CITYSCAPES_CLASSES) if mode == "multiclass" and self.label_map is None else None

    def problems(self, task: TaskConfig) -> list[str]:
        usual = (
            self.label_map is not None or task.classes is None or (task.name, task.num_classes) == ("multiclass", len(CITYSCAPES_CLASSES))
        )
        hint = (
            "data.label_map is not said, as in 'data.label_map={26:1,else:0}'; without it, leave out task.classes and take task=multiclass"
        )
        return super().problems(task) + ([] if usual else [hint])


@DATA.config("voc")
@dataclass(config=STRICT, kw_only=True)
class VocConfig(FilesConfig):
    """JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/, as in Pascal VOC 2007 to 2012."""

    name: Literal["voc"] = "voc"

    def known_classes(self, mode: Mode) -> list[str] | None:
        return list(VOC_CLASSES) if mode == "multiclass" and self.label_map is None else None
