"""Which sample is in which split: by files, or drawn; and that no group of alike samples is in two."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np

from segfocal.data.faults import Fault, counted
from segfocal.data.files import Sample
from segfocal.data.formats import IMAGE_SUFFIXES
from segfocal.data.source import Array
from segfocal.errors import UserError, escaped
from segfocal.nearest import did_you_mean

SPLITS = ("train", "val", "test")
OFTEN = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}  # what others call them
MOST_NAMED = 5  # names in a message

Splits = dict[str, list[str]]  # the names of each split's samples


def by_files(root: Path, names: list[str], faults: list[Fault], folder: str = "") -> Splits:
    """The splits that train.txt, val.txt and test.txt name, a name a line, with or without the ending of the image's file.

    Before a name may stand the folder of the images. Names of no sample, and of samples that are in another split already, are left out and told in `faults`.
    """
    known = {composed(name): name for name in names}
    splits: Splits = {}
    taken: dict[str, str] = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
        except ValueError:
            faults.append(Fault(str(path), "not UTF-8", mend="save it as UTF-8"))
            continue
        lines = [composed(line.strip()) for line in text.splitlines() if line.strip()]
        found = [_as_named(line, known, folder) for line in lines]
        unknown = [name for name in found if name not in known]
        if unknown:
            near = did_you_mean(unknown[0], known, most=0).removeprefix("; ")
            lines_name = counted(len(found), "line names", "lines name")
            faults.append(Fault(str(path), f"{len(unknown)} of {lines_name} no image: {named(unknown)}", mend=near))
        twice = {name for name, count in Counter(found).items() if count > 1 or name in taken}
        if twice:
            elsewhere = taken.get(min(twice), split)
            faults.append(Fault(str(path), f"{named(sorted(twice))} stand in {elsewhere}.txt already", "a sample belongs to one split"))
        splits[split] = [known[name] for name in dict.fromkeys(found) if name in known and name not in taken]
        taken.update(dict.fromkeys(found, split))
    return splits


def misnamed(paths: Iterable[Path], there: Iterable[str]) -> list[Fault]:
    """Of files and folders those that name a split otherwise than it is named here, where that split is not there."""
    faults = []
    for path in sorted(paths):
        name = path.name.removesuffix(".txt").lower()
        split = OFTEN.get(name, name)
        if split in SPLITS and split not in there:
            expected = f"splits are called {', '.join(SPLITS)}"
            faults.append(Fault(str(path), "no split has this name", expected, f"did you mean {split}{path.suffix}? rename it"))
    return faults


def composed(name: str) -> str:
    """A name by which it is looked up, however its accents are: macOS takes é apart (NFD), others do not (NFC)."""
    return unicodedata.normalize("NFC", name)


def _as_named(line: str, known: Collection[str], folder: str) -> str:
    """The sample that a line means: without the folder of the images before it, and .jpg and the like behind it; other dots belong to it."""
    for name in (line, line.removeprefix("./").removeprefix(composed(f"{folder}/"))):
        bare = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
        if name in known or bare in known:
            return name if name in known else bare
    return line


def draw(
    names: list[str],
    fractions: list[float],
    seed: int,
    groups: dict[str, str] | None = None,
    classes: dict[str, Array] | None = None,
) -> Splits:
    """Splits drawn by seed; the order of the names plays no part.

    Groups go one by one, those with the rarest class first, to the split that still misses most images of that class; those
    with no class at last, to the split that misses most images.

    Args:
        names: of the samples.
        fractions: shares of train, val and test.
        seed: of the run.
        groups: the group of each name, which stays together. None: each is its own.
        classes: which classes each image has, (C,) of 0 and 1. None: it plays no part.

    Reference:
        Iterative stratification: Sechidis, Tsoumakas, Vlahavas, On the stratification of multi-label data, ECML 2011, algorithm 1.
    """
    names, rng = sorted(names), np.random.default_rng(seed)
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(groups[name] if groups else name, []).append(name)
    units = list(members.values())
    # A row a unit: its images of each class, and in the last column all of them.
    has = np.array([[*(np.sum([classes[name] for name in unit], axis=0) if classes else []), len(unit)] for unit in units], float)
    missing = np.outer(fractions, has.sum(0))  # of each split
    order, waiting = rng.permutation(len(units)), np.ones(len(units), bool)
    splits: Splits = {split: [] for split in SPLITS}
    while waiting.any():
        left = has[waiting].sum(0)
        column = int(np.argmin(np.where(left[:-1] > 0, left[:-1], np.inf))) if (left[:-1] > 0).any() else -1
        for number in order[waiting[order] & (has[order, column] > 0)]:
            place = max(range(len(SPLITS)), key=lambda split: (missing[split, column], missing[split, -1]))
            splits[SPLITS[place]] += units[number]
            missing[place] -= has[number]
            waiting[number] = False
    return {split: sorted(found) for split, found in splits.items()}


def groups_of(names: list[str], pattern: str, key: str) -> dict[str, str]:
    """The group of each name: what a regular expression finds in it, or what its first pair of parentheses encloses.

    Raises:
        UserError: where it finds nothing.
    """
    matches = {name: re.search(pattern, name) for name in names}
    found = {name: match and (match[1] if match.re.groups else match[0]) for name, match in matches.items()}
    without = [name for name, group in found.items() if not group]
    if without:
        raise UserError(f"{key}={pattern}: {len(without)} of {len(names)} names have no group: {named(without)}")
    return {name: group for name, group in found.items() if group}


def torn(splits: dict[str, list[Sample]], key: str) -> list[Fault]:
    """Groups that are in two splits: what is measured on one was learnt on the other."""
    of_split = {split: {sample.group for sample in samples if sample.group is not None} for split, samples in splits.items()}
    return [
        Fault(
            key,
            f"in {split} and in {other}, too: {named(both)}",
            mend="keep each group in one split, or leave the splits to be drawn",
        )
        for split, other in combinations(of_split, 2)
        if (both := sorted(of_split[split] & of_split[other]))
    ]


def named(names: list[str], most: int = MOST_NAMED) -> str:
    """Names for a message, the first of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(escaped, names[:most])) + more
