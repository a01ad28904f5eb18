"""From the numbers in mask files to class ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segfocal.config.task import TaskConfig
from segfocal.data.formats import Array, BadFileError

UNKNOWN = 65535


class LabelMap:
    """A look-up table; values that mean nothing are errors.

    Args:
        task: which ids there are.
        label_map: mask value -> id or `ignore`; null takes the values as ids.
    """

    def __init__(self, task: TaskConfig, label_map: Mapping[int, int | str] | None) -> None:
        self.task, self.label_map = task, label_map
        self.table = np.full(65536, UNKNOWN, np.uint16)
        self.table[task.ignore_index] = task.ignore_index
        if label_map is None:
            self.table[: task.num_ids] = np.arange(task.num_ids)
        else:
            for value, label in label_map.items():
                self.table[value] = task.ignore_index if label == "ignore" else label

    def __call__(self, values: Array, path: Path) -> Array:
        """Class ids (uint8) of a mask's values; raises BadFileError where some mean nothing."""
        ids = self.table[values]
        if (ids == UNKNOWN).any():
            strange, counts = np.unique(values[ids == UNKNOWN], return_counts=True)
            shown = ", ".join(f"{value} ({count} pixels)" for value, count in zip(strange[:5], counts[:5], strict=True))
            raise BadFileError(f"{path}: values {shown}{', ...' if len(strange) > 5 else ''}; {self._allowed(np.unique(values))}")
        return ids.astype(np.uint8)

    def _allowed(self, found: Array) -> str:
        last = self.task.num_ids - 1
        if self.label_map is not None:
            return f"data.label_map names {sorted(self.label_map)}: add them, as a class from 0 to {last} or as ignore"
        example = "{0:0," + ",".join(f"{value}:{min(number, last)}" for number, value in enumerate(found[found > 0][:last], start=1)) + "}"
        return f"ids 0 to {last} and ignore_index={self.task.ignore_index} are expected: map them, as in 'data.label_map={example}'"
