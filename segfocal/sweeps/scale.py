"""The values of a parameter on an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

LOG_FROM = 30  # largest over smallest value, from which an axis goes by powers of ten


def numbers_of(texts: Sequence[str]) -> list[float] | None:
    """The values as numbers; None where one of them is none."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def by_powers(numbers: Sequence[float]) -> bool:
    """Whether they are so far apart that their logarithms say more."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_FROM
