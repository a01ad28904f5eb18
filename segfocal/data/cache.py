"""Measurements of samples, kept from run to run: a file that has not changed is not read again.

They lie in `$XDG_CACHE_HOME/segfocal` (`~/.cache/segfocal`), a file for each way to read the samples. They are plain arrays; a file that
cannot be read is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segfocal.data.measure import SampleStats
from segfocal.data.source import Array

VERSION = 4  # of what is measured and how it is kept

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where it all lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segfocal"


def digest(text: str) -> bytes:
    """What a sample is known by: 16 bytes of a text that names its files, their sizes and times."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:16]


def as_arrays(samples: list[SampleStats]) -> dict[str, Array]:
    """Measurements as plain arrays, for a file."""
    return {
        "pixels": np.stack([sample.pixels for sample in samples]),
        "valid": np.stack([sample.valid for sample in samples]),
        "size": np.array([sample.size for sample in samples]),
        "channel_sums": np.stack([sample.channel_sums for sample in samples]),
        "points": np.concatenate([sample.points for sample in samples]),
        "ends": np.cumsum([len(sample.points) for sample in samples]),
        "content": as_rows([sample.content for sample in samples]),
        "look": as_rows([sample.look for sample in samples]),
    }


def from_arrays(arrays: Mapping[str, Array]) -> list[SampleStats]:
    """What `as_arrays` was given."""
    points = np.split(arrays["points"], arrays["ends"][:-1])
    columns = [arrays[name] for name in ("pixels", "valid", "size", "channel_sums")]
    return [
        SampleStats(pixels, valid, (int(size[0]), int(size[1])), sums, places, bytes(content), bytes(look))
        for pixels, valid, size, sums, places, content, look in zip(*columns, points, arrays["content"], arrays["look"], strict=True)
    ]


def as_rows(texts: list[bytes]) -> Array:
    """Texts of one length, a row each: NumPy's own type for them would drop zeros at their end."""
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), -1)


class StatsCache:
    """
    Args:
        settings: all that the measurements depend on, but for the samples.
    """

    def __init__(self, settings: str) -> None:
        self.path = cache_dir() / f"{digest(f'{VERSION} {settings}').hex()}.npz"

    def load(self) -> dict[bytes, SampleStats]:
        """What is known, by `digest`."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {bytes(key): sample for key, sample in zip(file["ids"], from_arrays(dict(file)), strict=True)}
        except Exception as error:  # damaged, of another layout, not readable: whatever NumPy and zipfile meet
            if self.path.exists():
                log.warning("%s cannot be read (%s): the data is read again", self.path, error)
            return {}

    def save(self, known: dict[bytes, SampleStats]) -> None:
        """Keep what is known, in one step; a directory that cannot be written to keeps nothing."""
        part = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                arrays: dict[str, Any] = {"ids": as_rows(list(known)), **as_arrays(list(known.values()))}
                np.savez(file, **arrays)
            os.replace(part, self.path)
        except OSError as error:
            with suppress(OSError):  # where the folder cannot be, neither can this
                part.unlink()
            log.warning("%s cannot be written (%s): the next run reads the data again", self.path, error)
