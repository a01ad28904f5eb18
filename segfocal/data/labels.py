"""From the numbers or colours in masks to class ids."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from segfocal.config.labels import HIGHEST, Label, LabelMapping, rules
from segfocal.config.task import TaskConfig
from segfocal.data.faults import BadFileError, counted
from segfocal.data.source import Array

UNKNOWN = 65535
MOST_NAMED = 5  # strange values in a message


class LabelMap:
    """A look-up table; what means nothing is an error.

    Args:
        task: which ids there are.
        label_map: see `segfocal.config.labels`; null takes the values as ids.
    """

    def __init__(self, task: TaskConfig, label_map: LabelMapping | None) -> None:
        self.task, self.label_map = task, label_map
        self.rules = rules(label_map if label_map is not None else {value: value for value in range(task.num_ids)})

    @property
    def colours(self) -> bool:
        """Whether it is colours that are looked up."""
        return bool(self.rules.colours)

    @cached_property
    def table(self) -> Array:
        """Value, or red, green and blue in one number -> id."""
        other = UNKNOWN if self.rules.other is None else self._id(self.rules.other)
        table = np.full(2**24 if self.colours else HIGHEST + 1, other, np.uint16)
        if not self.colours and self.rules.other is None:
            table[self.task.ignore_index] = self.task.ignore_index
        for first, last, label in self.rules.ranges:
            table[first : last + 1] = self._id(label)
        for (red, green, blue), label in self.rules.colours.items():
            table[_packed(np.array([red, green, blue]))] = self._id(label)
        return table

    @cached_property
    def strange(self) -> Array:
        """1 for the values of 8 bit that mean nothing."""
        flags: Array = (self.table[:256] == UNKNOWN).astype(np.uint8)
        return flags

    @cached_property
    def short(self) -> Array:
        """What the other values of 8 bit become."""
        return self.table[:256].astype(np.uint8)

    def __call__(self, values: Array, where: object) -> Array:
        """Class ids (H, W) uint8.

        Args:
            values: of a mask, (H, W), or its colours, (H, W, 3).
            where: the file, for messages.

        Raises:
            BadFileError: where some mean nothing.
        """
        if values.dtype == np.uint8 and not self.colours and not cv2.LUT(values, self.strange).any():
            return cv2.LUT(values, self.short)  # a fifth of the time of what follows, which is for all values
        numbers = _packed(values) if self.colours else values
        ids = self.table[numbers]
        if (ids == UNKNOWN).any():
            strange, counts = np.unique(numbers[ids == UNKNOWN], return_counts=True)
            most = np.argsort(-counts, kind="stable")[:MOST_NAMED]
            shown = ", ".join(f"{self._shown(strange[item])} ({counted(counts[item], 'pixel', 'pixels')})" for item in most)
            kind = "colours" if self.colours else "values"
            more = ", ..." if len(strange) > MOST_NAMED else ""
            raise BadFileError(where, f"{kind} {shown}{more}", *self._allowed(np.unique(numbers)))
        return ids.astype(np.uint8)

    def _id(self, label: Label) -> int:
        return self.task.ignore_index if label == "ignore" else int(label)

    def _shown(self, number: int) -> str:
        return f"{number >> 16}-{number >> 8 & 255}-{number & 255}" if self.colours else str(number)

    def _allowed(self, found: Array) -> tuple[str, str]:
        """What is expected, and the override."""
        last = self.task.num_ids - 1
        if self.label_map is not None:
            named = ", ".join(str(key) for key in self.label_map)
            return f"data.label_map names {named}", f"add them, as a class from 0 to {last}, as ignore, or by else:ignore"
        if self.task.name == "binary" and len(found) > 3 and found[0] == 0 and found[-1] == 255:
            example = "0-127:0,128-255:1"  # grey borders: scaled, or saved as JPEG before
        elif self.task.name == "binary" and (found > 0).sum() > 1:
            example = "0:0,else:1"
        else:
            values = found[found > 0]
            example = "0:0," + ",".join(f"{value}:{min(label, last)}" for label, value in enumerate(values[:last], start=1))
            if len(values) > last:
                example += ",else:ignore"
        mend = f"map them, as in 'data.label_map={{{example}}}'" + ("" if self.task.name == "binary" else ", or name more classes")
        return f"ids 0 to {last} and ignore_index={self.task.ignore_index} are expected", mend


def _packed(colours: Array) -> Array:
    wide: Array = colours.astype(np.uint32)
    packed: Array = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed
