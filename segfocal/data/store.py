"""`data.cache`: decoded samples, one after the other in a single buffer that all workers read.

In memory (`ram`) the buffer is shared between processes; on disk (`disk`) it is a file that stays, see `segfocal.data.storefile`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from segfocal.data.measure import SampleStats
from segfocal.data.room import free_memory
from segfocal.data.shared import shared_tensor
from segfocal.data.source import Array, Source
from segfocal.errors import UserError

ALIGN = 64  # bytes: where a sample may begin
KINDS: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype(np.float32)}  # of an image; 0: the sample is not kept
GB = 1e9

log = logging.getLogger("segfocal")
Found = TypeVar("Found")


class Layout:
    """Where in the buffer each sample lies: found before they are read, from the first and the sizes of all.

    Args:
        source: of the samples; the first is read.
        sizes: height and width of each.
    """

    def __init__(self, source: Source, sizes: list[tuple[int, int]]) -> None:
        image, mask = source.read(0)
        self.sizes, self.channels, self.layers = sizes, image.shape[2], mask.shape[2:]
        self.lengths = np.prod(np.array(sizes, np.int64), axis=1) * (self.channels * image.itemsize + int(np.prod(self.layers)))
        self.ends = np.cumsum(-(-self.lengths // ALIGN) * ALIGN)
        self.text = f"{sizes} {self.channels} {image.dtype} {self.layers}"

    def fitting(self, room: float) -> int:
        """How many samples, from the first on, take no more than so many bytes."""
        return int(np.searchsorted(self.ends, room, side="right"))

    def size(self, count: int) -> int:
        """Bytes of the first samples."""
        return int(self.ends[count - 1]) if count else 0

    def place(self, buffer: Array, index: int) -> Array:
        """A sample's bytes."""
        start = self.size(index)
        part: Array = buffer[start : start + int(self.lengths[index])]
        return part

    def put(self, buffer: Array, index: int, image: Array, mask: Array) -> int:
        """Keep a sample where it lies; returns its kind, 0 where it is not as the first and the sizes let expect."""
        kind = next((kind for kind, dtype in KINDS.items() if dtype == image.dtype), 0)
        expected = (*self.sizes[index], self.channels), (*self.sizes[index], *self.layers)
        place = self.place(buffer, index)
        if (image.shape, mask.shape) != expected or mask.dtype != np.uint8 or image.nbytes + mask.nbytes > len(place):
            return 0
        if kind:
            place[: image.nbytes] = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
            place[image.nbytes : image.nbytes + mask.nbytes] = mask.reshape(-1)
        return kind

    def get(self, buffer: Array, index: int, kind: int) -> tuple[Array, Array]:
        """Views of what was put."""
        place, (height, width) = self.place(buffer, index), self.sizes[index]
        length = height * width * self.channels * KINDS[kind].itemsize
        image = place[:length].view(KINDS[kind]).reshape(height, width, self.channels)
        return image, place[length : length + height * width * int(np.prod(self.layers))].reshape(height, width, *self.layers)


class Stored:
    """A source whose samples are read from a buffer; those that are not kept there are read from where they come from.

    Args:
        source: where they come from.
        layout: of the buffer.
        buffer: shared memory, or the file that is mapped.
        kinds: of the first samples.
    """

    def __init__(self, source: Source, layout: Layout, buffer: Tensor | Path, kinds: Array) -> None:
        self.source, self.names, self.settings = source, source.names, source.settings
        self.layout, self.buffer, self.kinds = layout, buffer, kinds
        self.nbytes = layout.size(len(kinds))
        self._bytes = self._viewed()  # at once: a file that another run replaces stays as it was for who has mapped it

    def __len__(self) -> int:
        return len(self.source)

    def size(self, index: int) -> tuple[int, int]:
        return self.layout.sizes[index]

    def identity(self, index: int) -> str:
        return self.source.identity(index)

    def read(self, index: int) -> tuple[Array, Array]:
        """The sample; what is kept of it cannot be written to."""
        kind = int(self.kinds[index]) if index < len(self.kinds) else 0
        return self.layout.get(self._bytes, index, kind) if kind else self.source.read(index)

    def known(self, index: int) -> SampleStats | None:
        return self.source.known(index)

    def _viewed(self) -> Array:
        view: Array = self.buffer.numpy() if isinstance(self.buffer, Tensor) else mapped(self.buffer, self.nbytes)
        view.flags.writeable = False
        return view

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are not forked: they map the buffer, and do not get a copy."""
        return {key: value for key, value in self.__dict__.items() if key != "_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bytes = self._viewed()


def mapped(path: Path, length: int) -> Array:
    """A file as an array that cannot be written to."""
    if length == 0:
        return np.empty(0, np.uint8)
    try:
        return np.asarray(np.memmap(path, np.uint8, "r", shape=(length,)))
    except (FileNotFoundError, ValueError):  # ValueError: it is shorter
        raise UserError(f"{path}: another run on the same data has replaced it: start this one again, or data.cache=ram") from None


def in_memory(source: Source, layout: Layout, cache_gb: float | None, taken: int, what: str) -> Stored:
    """Decode samples into memory that is shared between processes.

    Args:
        source, layout: of the samples.
        cache_gb: the most that all caches of the run may take; None takes half of what is free.
        taken: what they take already, in bytes.
        what: to call the samples in the log.
    """
    started, free = time.monotonic(), free_memory()
    count = layout.fitting(room(cache_gb, free, taken))
    buffer = shared_tensor((max(1, layout.size(count)),), torch.uint8)
    stored = Stored(source, layout, buffer, fill(source, layout, buffer.numpy(), count))
    more = (
        "" if count == len(source) else advice(layout, cache_gb, free, "more memory (of a container: --shm-size, too) or data.cache=disk")
    )
    log.info("data.cache=ram: %s, decoded in %.1f s%s", summary(stored, what), time.monotonic() - started, more)
    return stored


def room(cache_gb: float | None, free: int, taken: int) -> float:
    """Bytes that a cache may take beside what others of the run take already."""
    return (free + taken) / 2 - taken if cache_gb is None else min(cache_gb * GB - taken, free)


def fill(source: Source, layout: Layout, buffer: Array, count: int) -> Array:
    """Decode the first samples into a buffer, in threads; returns their kinds."""
    return np.array(in_threads(lambda index: layout.put(buffer, index, *source.read(index)), count, "decoding"), np.uint8)


def in_threads(function: Callable[[int], Found], count: int, description: str) -> list[Found]:
    """What a function says of 0, 1, ..., with a progress bar."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        quiet = count < 200 or not sys.stdout.isatty()
        try:
            return list(track(pool.map(function, range(count)), description=description, total=count, transient=True, disable=quiet))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or what has failed would be said when all others are done
            raise


def summary(stored: Stored, what: str) -> str:
    """What is kept, for the log."""
    kept = int(np.count_nonzero(stored.kinds))
    return f"{f'{kept} of ' if kept < len(stored) else ''}{len(stored)} {what} samples in {stored.nbytes / GB:.3g} GB"


def advice(layout: Layout, cache_gb: float | None, free: int, otherwise: str) -> str:
    """Why not all are kept, and what would keep them."""
    needed = layout.size(len(layout.sizes)) / GB
    asked = "half of what is free" if cache_gb is None else f"data.cache_gb={cache_gb:g}"
    remedy = f"data.cache_gb={1.01 * needed:.3g}" if needed < 0.9 * free / GB else otherwise
    return f"; {asked} has no room for the others, which are decoded each time: all need {needed:.3g} GB: {remedy}"
