"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from segfocal.data.faults import Fault, counted
from segfocal.data.formats import IMAGE_SUFFIXES
from segfocal.data.splits import composed, named
from segfocal.nearest import did_you_mean


class Files(dict[str, Path]):
    """Name -> file. Names are as written; they are looked up alike however accents are."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[str, str] = {}

    def __setitem__(self, name: str, file: Path) -> None:
        super().__setitem__(name, file)
        self.written[composed(name)] = name

    def __contains__(self, name: object) -> bool:
        return composed(str(name)) in self.written

    def __missing__(self, name: str) -> Path:
        return super().__getitem__(self.written[composed(name)])


def by_name(
    folder: Path,
    endings: tuple[str, ...],
    key: str,
    faults: list[Fault],
    tail: str = "",
    match: str | None = None,
    but: str | None = None,
) -> dict[str, Path]:
    """Name -> file, of a folder and the folders in it; hidden files are passed over.

    A name is the path below the folder without its ending, or what a regular expression finds in that.

    Args:
        folder: where to look.
        endings: of files that count, in small letters.
        key: of the configuration that named the folder.
        faults: names that are there twice, and a folder that is not there or empty, are told here.
        tail: what names end with, and do not count with.
        match: the regular expression; null: the whole name.
        but: what names end with that do not count at all; null: all do.
    """
    if not folder.is_dir():
        near = did_you_mean(folder.name, [item.name for item in folder.parent.iterdir() if item.is_dir()]) if folder.parent.is_dir() else ""
        faults.append(Fault(str(folder), "no such folder", mend=f"{key} names it{near}"))
        return {}
    found = Files()
    for path in files_below(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if path.suffix.lower() not in endings or not name.endswith(tail) or (but is not None and name.endswith(but)):
            continue
        name = name.removesuffix(tail)
        if match is not None:
            hit = re.search(match, name)
            shared = None if hit is None else hit[1] if hit.re.groups else hit[0]
            if shared is None:
                faults.append(Fault(str(path), f"data.match={match} finds nothing in its name"))
                continue
            name = shared
        if name in found:
            faults.append(Fault(str(folder), f"{found[name].name} and {path.name} are the same sample", mend="keep one"))
            continue
        found[name] = path
    if not found:
        ends = f" that end in {tail!r} (data.mask_suffix)" if tail else ""
        faults.append(
            Fault(str(folder), "no images" if key == "data.images" else "no masks", f"files of {', '.join(endings)}{ends} are expected")
        )
    return found


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and of the folders in it, but hidden ones, by name; links are followed."""
    found: list[Path] = []
    seen: set[str] = set()  # links may lead in circles
    for place, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(files) if not name.startswith(".")]
    return sorted(found)


def unpaired(images: dict[str, Path], masks: dict[str, Path], folder: Path, of: Path, suffix: str) -> list[Fault]:
    """Images without masks, and masks without images."""
    faults = []
    if missing := sorted(name for name in images if name not in masks):
        mend = _missing_mend(missing, len(images), masks, folder, suffix)
        have = "has" if len(missing) == 1 else "have"
        faults.append(Fault(str(folder), f"{len(missing)} of {len(images)} images {have} no mask: {named(missing)}", mend=mend))
    if orphans := sorted(name for name in masks if name not in images):
        others = [path for path in of.glob(f"{glob.escape(orphans[0])}.*") if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir()]
        what = f"{others[0].name} is {'a folder' if others[0].is_dir() else 'not read: save it as PNG'}" if others else ""
        faults.append(
            Fault(str(folder), f"{counted(len(orphans), 'mask has', 'masks have')} no image in {of}: {named(orphans)}", mend=what)
        )
    return faults


def _missing_mend(missing: list[str], images: int, masks: dict[str, Path], folder: Path, suffix: str) -> str:
    """What to do about images without masks."""
    if more := _suffix_between(missing[0], masks):
        return f"data.mask_suffix={more}{suffix}"
    if below := sorted({place for place, _, name in (other.rpartition("/") for other in masks) if place and name == missing[0]}):
        return f"data.masks={folder.name}/{below[0]} names one folder; task=multilabel reads one for each class"
    if 2 * len(missing) < images:
        return "where nothing is to be seen a mask is empty, not left out: draw it, or take the image away"
    return "data.mask_suffix or data.match say how names go together"


def _suffix_between(name: str, masks: dict[str, Path]) -> str:
    """What masks add to the names of images, where they add anything."""
    tails = {other.removeprefix(name) for other in masks if other.startswith(name)}
    return tails.pop() if len(tails) == 1 else ""
