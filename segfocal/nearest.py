"""What somebody who mistyped a name probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 200  # of a name that is looked for: the time that it takes grows with its length


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three, the nearest first."""
    return difflib.get_close_matches(name[:LONGEST], sorted(known), n=3, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str], most: int = 12) -> str:
    """A tail for an error message: the nearest known names, or all of them where none is near and they are few."""
    known = sorted(known)
    if near := nearest(name, known):
        return "; did you mean " + " or ".join(near) + "?"
    if known and len(known) <= most:
        return "; there are " + ", ".join(known)
    return ""
