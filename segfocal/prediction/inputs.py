"""Which images are meant, and what each is called in what is written."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath
from typing import NamedTuple, get_args

from segfocal.config.layouts import FolderConfig
from segfocal.config.predict import Kind
from segfocal.data.faults import Fault, told
from segfocal.data.formats import IMAGE_SUFFIXES
from segfocal.data.pairing import files_below
from segfocal.prediction.ledger import RECORD
from segfocal.rundir import typed_path

MAGIC = "*?["  # what makes a pattern of a path


class Item(NamedTuple):
    """An image.

    Args:
        path: its file.
        name: below the folder that was given, its ending included.
    """

    path: Path
    name: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).with_suffix("").as_posix()


def find(given: list[str]) -> list[Item]:
    """The images of files, folders and patterns, each once; in folders those that end as images do.

    A folder that holds predictions, or masks beside their images, is passed over where it lies in a folder that is given.

    Raises:
        UserError: a line for each of them that there is nothing of.
    """
    found: dict[tuple[Path, str], Item] = {}
    faults = []
    for text in given:
        items = _items(text)
        if isinstance(items, Fault):
            faults.append(items)
        else:
            found |= {(item.path.absolute(), item.name): item for item in items}
    if faults:
        raise told(faults, "input")
    return list(found.values())


def _items(text: str) -> list[Item] | Fault:
    path = typed_path(text)
    if path.is_dir():
        return _of_folders([path], path) or Fault(f"input={text}", "no images", f"files of {', '.join(IMAGE_SUFFIXES)} are expected")
    if path.exists():
        return [Item(path, path.name)]
    if not any(sign in text for sign in MAGIC):
        return Fault(f"input={text}", f"no such file or folder (seen from {Path.cwd()})")
    base = Path(*itertools.takewhile(lambda part: not any(sign in part for sign in MAGIC), path.parts))
    if ".." in path.relative_to(base).parts:
        return Fault(f"input={text}", ".. stands behind a sign that matches", "it may stand before")
    try:
        matches = sorted(base.glob(str(path.relative_to(base))))
    except ValueError as error:
        return Fault(f"input={text}", str(error))
    seen = [match for match in matches if not any(part.startswith(".") for part in match.relative_to(base).parts)]
    return _of_folders(seen, base) or Fault(f"input={text}", "matches no image", f"files of {', '.join(IMAGE_SUFFIXES)} are expected")


def _of_folders(places: list[Path], base: Path) -> list[Item]:
    files = itertools.chain.from_iterable(files_below(place) if place.is_dir() else [place] for place in places)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not _is_told(path, base)]
    return [Item(path, path.relative_to(base).as_posix()) for path in dict.fromkeys(images)]


def _is_told(path: Path, base: Path) -> bool:
    """Whether it says what is on an image: it was written by an earlier call, or is a mask of `data=folder`."""
    between = list(itertools.takewhile(lambda folder: folder != base, path.parents))
    predicted = any(folder.name in get_args(Kind) and (folder.parent / RECORD).is_file() for folder in between)
    return predicted or any(folder.name == FolderConfig.masks and (folder.parent / FolderConfig.images).is_dir() for folder in between)
