"""What a pack is: its description, and samples as bytes.

A pack is a folder with `pack.json`, and for each split a folder with shards in litdata's format, and `samples.npz`: names, measurements and
checksums. Nothing in it is a pickle.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segfocal.config.task import TaskConfig
from segfocal.data.source import Array
from segfocal.data.splits import SPLITS
from segfocal.errors import UserError

FORMAT = 1
DESCRIPTION = "pack.json"
SAMPLES = "samples.npz"


SAFE = re.compile(r"[0-9A-Za-z_]+(/[0-9A-Za-z][0-9A-Za-z_.-]*)?")  # of files: the description may come from anywhere


class Shard(NamedTuple):
    """
    Args:
        file: its name in the pack.
        bytes: its length.
        samples: how many it holds.
    """

    file: str
    bytes: int
    samples: int


class Description(NamedTuple):
    """
    Args:
        format: of the pack.
        task, classes, ignore_index, channels: what masks and images are made for.
        digest: of all samples: two packs of one digest are the same.
        splits: the shards of each.
        exif, scale: how the files were read, as in `FilesConfig`.
    """

    format: int
    task: str
    classes: list[str]
    ignore_index: int
    channels: int
    digest: str
    splits: dict[str, list[Shard]]
    exif: str | None = None
    scale: float | None = None

    def dumps(self) -> str:
        splits = {split: [shard._asdict() for shard in shards] for split, shards in self.splits.items()}
        return json.dumps({**self._asdict(), "splits": splits}, indent=1) + "\n"

    @classmethod
    def loads(cls, text: str | bytes, where: str) -> Description:
        """
        Raises:
            UserError: of another format, or not the description of a pack.
        """
        try:
            plain: dict[str, Any] = json.loads(text)
            if plain["format"] == FORMAT:
                splits = {split: [Shard(**shard) for shard in shards] for split, shards in plain["splits"].items()}
                names = [plain["digest"], *(shard.file for shards in splits.values() for shard in shards)]
                if not all(SAFE.fullmatch(name) for name in names) or not set(splits) <= set(SPLITS):
                    raise ValueError("names that lead elsewhere")
                return cls(**{**plain, "splits": splits})
            found = plain["format"]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{where}: not the description of a pack, or damaged: pack again with python -m segfocal.pack") from None
        raise UserError(f"{where}: a pack of format {found}, this version reads {FORMAT}: pack again with python -m segfocal.pack")

    def check(self, task: TaskConfig, channels: int, where: str) -> None:
        """Raise UserError where the pack is made for another task than a run's, with the overrides that fit it."""
        packed = _overrides(self.task, self.classes, self.ignore_index, self.channels)
        wanted = _overrides(task.name, task.class_names, task.ignore_index, channels)
        if packed != wanted:
            mend = " ".join(override for override in packed if override not in wanted)
            has = " ".join(override for override in wanted if override not in packed)
            raise UserError(f"{where}: packed for {mend}, but this run has {has}: say {mend}, or pack the data again")


def _overrides(task: str, classes: list[str], ignore_index: int, channels: int) -> list[str]:
    named = f"'task.classes=[{','.join(classes)}]'"
    return [f"task={task}", named, f"task.ignore_index={ignore_index}", f"model.in_channels={channels}"]


def encode(array: Array) -> bytes:
    """Pixels without loss: PNG for 8 bits in one or three channels, else NumPy's format, compressed."""
    file = io.BytesIO()
    if array.dtype == np.uint8 and (array.ndim == 2 or array.shape[2] == 3):
        Image.fromarray(array).save(file, "png")
        return file.getvalue()
    np.save(file, array, allow_pickle=False)
    return zlib.compress(file.getvalue(), 1)  # noise of sensors hardly compresses, however long one tries


def decode(content: bytes) -> Array:
    """What `encode` was given, or the pixels of an image file."""
    if content[:1] == b"\x78":  # zlib's first byte, and no image format's
        array: Array = np.load(io.BytesIO(zlib.decompress(content)), allow_pickle=False)
        return array
    return np.array(Image.open(io.BytesIO(content)))
