"""What `data.label_map` says: which numbers or colours of a mask are which class."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Label = int | Literal["ignore"]
LabelMapping = Mapping[int | str, Label]
OTHER = "else"
HIGHEST = 65535  # the largest value of a mask

COLOUR = re.compile(r"(\d{1,3})-(\d{1,3})-(\d{1,3})")
RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass
class Rules:
    """
    Args:
        ranges: first value, last value and the label of both and all between.
        colours: red, green, blue and their label.
        other: the label of everything else; None: everything else is an error.
    """

    ranges: list[tuple[int, int, Label]] = field(default_factory=list)
    colours: dict[tuple[int, int, int], Label] = field(default_factory=dict)
    other: Label | None = None

    @property
    def thresholds(self) -> bool:
        """Whether neighbouring values mean the same: values that are a little off do no harm then."""
        return any(last > first for first, last, _ in self.ranges)


def from_text(value: Any) -> Any:
    """A map from the text `0:0,255:1`, as a recipe has it: what a command line says would be merged into a mapping, and replaces a text.

    Raises:
        ValueError: for what is said twice.
    """
    if not isinstance(value, str):
        return value
    found: dict[str, int | str] = {}
    for pair in value.split(","):
        key, label = (part.strip() for part in pair.rpartition(":")[::2])
        if key in found:  # a mapping could not tell rules() of it
            raise ValueError(f"data.label_map: {key} is said twice")
        found[key] = int(label) if label.isdecimal() else label
    return found


def rules(label_map: LabelMapping) -> Rules:
    """Read a label map: keys are values (7), ranges of values (128-255), colours (255-0-0), or else.

    Raises:
        ValueError: for a key that is none of them, for values said twice, and for colours beside values.
    """
    if not label_map:
        raise ValueError("data.label_map={}: names nothing; leave it out, and the values are ids")
    found = Rules()
    for key, label in label_map.items():
        text = str(key)
        if text == OTHER:
            found.other = label
        elif match := COLOUR.fullmatch(text):
            red, green, blue = (int(part) for part in match.groups())
            if max(red, green, blue) > 255:
                raise ValueError(f"data.label_map: {text}: the parts of a colour go from 0 to 255")
            if (red, green, blue) in found.colours:  # 0-0-0 and 00-0-0
                raise ValueError(f"data.label_map: {text} is said twice")
            found.colours[red, green, blue] = label
        elif match := RANGE.fullmatch(text):
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last or last > HIGHEST:
                raise ValueError(f"data.label_map: {text}: values go from 0 to {HIGHEST}, the lower one first")
            found.ranges.append((first, last, label))
        else:
            raise ValueError(f"data.label_map: {text}: a key is a value (7), a range (128-255), a colour (255-0-0), or {OTHER}")
    if found.colours and found.ranges:
        raise ValueError("data.label_map: has colours and values: a mask holds one or the other")
    ordered = sorted(found.ranges)
    for (_, last, _), (first, _, _) in itertools.pairwise(ordered):
        if first <= last:
            raise ValueError(f"data.label_map: {first} is said twice")
    return found
