"""Masks of indices, each of which stands for a colour: that an index means in one file what it means in the next.

Programs that save few colours may number them anew in each file, by how often they occur: the numbers are then of no class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segfocal.data.faults import BadFileError
from segfocal.data.source import Array


class Palettes:
    """What indices have shown so far. Each process has its own; that which checks the data sees all of what is new."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[tuple[int, ...], Path]] = {}

    def compare(self, path: Path, indices: Array, shown: Array) -> None:
        """Remember what the indices of a mask show.

        Args:
            path: of the mask.
            indices: (H, W) uint8.
            shown: the colour of each index, (256, 3).

        Raises:
            BadFileError: an index has shown another colour before.
        """
        for index in np.flatnonzero(np.bincount(indices.ravel(), minlength=256)).tolist():
            colour = tuple(shown[index].tolist())
            before, where = self.known.setdefault(index, (colour, path))
            if before != colour:
                raise BadFileError(
                    path,
                    f"index {index} shows {_named(colour)}, and in {where.name} {_named(before)}",
                    "one numbering of the colours is expected",
                    f"name the colours: 'data.label_map={{{_named(before)}:0,...}}'; or, if the numbers are right, these: {{0:0,1:1,...}}",
                )


def colours_of(image: Image.Image) -> Array:
    """The colour that each index of a loaded picture shows, (256, 3) uint8; black where the palette ends before."""
    shown = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    shown[: len(given)] = given[:256]
    return shown


def _named(colour: tuple[int, ...]) -> str:
    return "-".join(map(str, colour))
