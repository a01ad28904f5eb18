"""Which sample is in which split: by files, or drawn; and that no group of alike samples is in two."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np

from segfocal.errors import UserError
from segfocal.nearest import did_you_mean

SPLITS = ("train", "val", "test")
MOST_NAMED = 5  # names in a message

Splits = dict[str, list[str]]  # the names of each split's samples


def by_files(root: Path, names: list[str]) -> Splits:
    """The splits that train.txt, val.txt and test.txt name, a stem a line.

    Raises:
        UserError: for stems that are no sample's, and for samples that are named twice.
    """
    known = set(names)
    splits: Splits = {}
    taken: dict[str, str] = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not path.is_file():
            continue
        stems = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        unknown = [stem for stem in stems if stem not in known]
        if unknown:
            raise UserError(
                f"{path}: {len(unknown)} of {len(stems)} lines name no image: {named(unknown)}{did_you_mean(unknown[0], known, most=0)}"
            )
        twice = [stem for stem in stems if stem in taken] or [stem for stem in stems if stems.count(stem) > 1]
        if twice:
            raise UserError(
                f"{path}: {named(sorted(set(twice)))} stand in {taken.get(twice[0], split)}.txt already: a sample belongs to one split"
            )
        taken.update(dict.fromkeys(stems, split))
        splits[split] = stems
    return splits


def by_fractions(names: list[str], fractions: list[float], seed: int, groups: dict[str, str] | None = None) -> Splits:
    """Splits drawn by seed; the order of the names plays no part.

    Args:
        names: of the samples.
        fractions: shares of train, val and test.
        seed: of the run.
        groups: the group of each name; a group stays together, and goes where most is missing. None: each is its own.
    """
    names, rng = sorted(names), np.random.default_rng(seed)
    if groups is None:
        ends = np.rint(np.cumsum(fractions) * len(names)).astype(int)
        parts = np.split(rng.permutation(len(names)), ends[:-1])
        return {split: [names[index] for index in sorted(part)] for split, part in zip(SPLITS, parts, strict=True)}
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(groups[name], []).append(name)
    splits: Splits = {split: [] for split in SPLITS}
    for number in rng.permutation(len(members)):
        missing = [share * len(names) - len(splits[split]) for split, share in zip(SPLITS, fractions, strict=True)]
        splits[SPLITS[int(np.argmax(missing))]] += list(members.values())[number]
    return {split: sorted(found) for split, found in splits.items()}


def groups_of(names: list[str], pattern: str, key: str) -> dict[str, str]:
    """The group of each name: what a regular expression finds in it, or what its first pair of parentheses encloses.

    Raises:
        UserError: where it finds nothing.
    """
    found = {name: re.search(pattern, name) for name in names}
    without = [name for name, match in found.items() if match is None]
    if without:
        raise UserError(f"{key}={pattern}: {len(without)} of {len(names)} names have no group: {named(without)}")
    return {name: match[1] if match.re.groups else match[0] for name, match in found.items() if match is not None}


def check_groups(splits: Splits, groups: dict[str, str], key: str) -> None:
    """Raise UserError where a group is in two splits: what is measured on one was learnt on the other."""
    of_split = {split: {groups[name] for name in names} for split, names in splits.items()}
    faults = [
        f"{key}: in {split} and in {other}, too: {named(both)}"
        for split, other in combinations(of_split, 2)
        if (both := sorted(of_split[split] & of_split[other]))
    ]
    if faults:
        raise UserError("\n".join([*faults, "keep each group in one split, or let data.split=fractions draw them"]))


def named(names: list[str]) -> str:
    """Names for a message, the first of them."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
