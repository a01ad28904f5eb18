"""Measurements of samples, kept from run to run: a file that has not changed is not read again.

They lie in `$XDG_CACHE_HOME/segfocal` (`~/.cache/segfocal`), a file for each way to read the samples. They are plain arrays; a file that
cannot be read is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np

from segfocal.data.measure import SampleStats

VERSION = 1  # of what is measured and how it is kept

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where it all lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segfocal"


def digest(text: str) -> bytes:
    """What a sample is known by: 16 bytes of a text that names its files, their sizes and times."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:16]


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
                arrays = {name: file[name] for name in ("ids", "pixels", "valid", "size", "channel_sums", "points", "ends")}
            points = np.split(arrays["points"], arrays["ends"][:-1])
            columns = zip(*(arrays[name] for name in ("ids", "pixels", "valid", "size", "channel_sums")), points, strict=True)
            return {
                bytes(key): SampleStats(pixels, valid, (int(size[0]), int(size[1])), sums, places)
                for key, pixels, valid, size, sums, places in columns
            }
        except Exception as error:  # damaged, of another layout, not readable: whatever NumPy and zipfile meet
            if self.path.exists():
                log.warning("%s cannot be read (%s): the data is read again", self.path, error)
            return {}

    def save(self, known: dict[bytes, SampleStats]) -> None:
        """Keep what is known, in one step; a directory that cannot be written to keeps nothing."""
        samples = list(known.values())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, suffix=".tmp", delete=False) as file:
                np.savez(
                    file,
                    ids=np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16),
                    pixels=np.stack([sample.pixels for sample in samples]),
                    valid=np.stack([sample.valid for sample in samples]),
                    size=np.array([sample.size for sample in samples]),
                    channel_sums=np.stack([sample.channel_sums for sample in samples]),
                    points=np.concatenate([sample.points for sample in samples]),
                    ends=np.cumsum([len(sample.points) for sample in samples]),
                )
            os.replace(file.name, self.path)
        except OSError as error:
            log.warning("%s cannot be written (%s): the next run reads the data again", self.path, error)
