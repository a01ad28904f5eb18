"""`data.cache=disk`: the file of decoded samples, in `segfocal.data.cache.cache_dir()/samples`.

Samples, then the kind and a checksum of each, then their number. It is written under another name until it is whole. Its own name says
which data set and settings it is for, which samples, and how they are now: the next run takes it up, and what has changed replaces it.
Runs on other samples of the data, of another seed or data.limit, have files of their own, the latest of which are kept.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from segfocal.data.cache import cache_dir, digest
from segfocal.data.room import free_disk
from segfocal.data.source import Array, Source
from segfocal.data.store import Layout, Stored, advice, fill, in_threads, mapped, room, summary

VERSION = 2  # of the file and of how samples are read
END = 8  # bytes of the number
OTHERS = 3  # so many files of other samples of the same data are kept
FORGOTTEN = 24 * 3600  # seconds after which an unfinished file is of a run that was killed

log = logging.getLogger("segfocal")


def on_disk(source: Source, layout: Layout, cache_gb: float | None, taken: int, what: str, where: str, again: bool = False) -> Source:
    """Samples from a file, which is written where there is none that is whole and of these samples as they are now.

    Args:
        source, layout: of the samples.
        cache_gb: the most that all caches of the run may take; None takes half of what is free.
        taken: what they take already, in bytes.
        what: to call the samples in the log.
        where: the data set.
        again: decode, whatever is there.
    """
    started, path = time.monotonic(), file_of(source, layout, what, where)
    folder = path.parent
    try:
        older = replaced_by(path)
        free = free_disk(folder) + sum(old.stat().st_size for old in older)
        count = layout.fitting(room(cache_gb, free, taken))
        kinds = None if again else kept(path, layout)
        how = "taken up from"
        if kinds is None or (cache_gb is not None and len(kinds) != count):
            if layout.size(count) > free_disk(folder):  # there is no room for both; what is replaced is of no use to anybody
                remove(older, folder)
            kinds = write(path, source, layout, count) if count else np.empty(0, np.uint8)
            how = "written to"
            remove([old for old in older if old != path], folder)
    except OSError as error:
        log.warning("%s cannot be written (%s): samples are decoded each time", path, error.strerror or error)
        return source
    if not count:
        how = "none written to"
    stored = Stored(source, layout, path, kinds)
    more = "" if len(kinds) == len(source) else advice(layout, cache_gb, free, f"more room in {folder} (XDG_CACHE_HOME names another)")
    log.info("data.cache=disk: %s, %s %s in %.1f s%s", summary(stored, what), how, path, time.monotonic() - started, more)
    return stored


def file_of(source: Source, layout: Layout, what: str, where: str) -> Path:
    """What the file of these samples is called: by data set and settings, by names, by what they are now."""
    identities = "\n".join(source.identity(index) for index in range(len(source)))
    said = f"{where} {what} {source.settings}", "\n".join(source.names), f"{VERSION} {layout.text} {identities}"
    return cache_dir() / "samples" / ("-".join(digest(text).hex() for text in said) + ".bin")


def replaced_by(path: Path) -> list[Path]:
    """The files of the same samples as they are or were, and those of other samples of the data set but for the latest."""
    family, names, _ = path.stem.split("-")
    same = list(path.parent.glob(f"{family}-{names}-*.bin"))
    others = sorted(set(path.parent.glob(f"{family}-*.bin")) - set(same), key=lambda other: other.stat().st_mtime)
    return same + others[:-OTHERS]


def kept(path: Path, layout: Layout) -> Array | None:
    """The kinds of the samples in a file; None where there is none, or it is damaged."""
    if not path.is_file():
        return None
    length = path.stat().st_size
    if length > END:
        buffer = mapped(path, length)
        count = int(buffer[-END:].view("<u8")[0])
        if 0 < count <= len(layout.sizes) and length == layout.size(count) + 5 * count + END:
            kinds, sums = np.split(buffer[layout.size(count) : -END].copy(), [count])
            if sums.tobytes() == checksums(buffer, layout, kinds).tobytes():
                return kinds
    log.warning("%s is damaged: the samples are decoded again", path)
    return None


def checksums(buffer: Array, layout: Layout, kinds: Array) -> Array:
    """Of each sample and its kind, 32 bits."""
    found = in_threads(
        lambda index: zlib.crc32(layout.place(buffer, index).data, int(kinds[index])), len(kinds), "looking through the cache"
    )
    return np.array(found, "<u4")


def write(path: Path, source: Source, layout: Layout, count: int) -> Array:
    """Decode the first samples into a file, which bears its name once it is whole; returns their kinds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.stem}-", suffix=".tmp", delete=False) as file:
        try:
            length = layout.size(count)
            reserve(file.fileno(), length)
            buffer = np.memmap(file, np.uint8, "r+", shape=(length,))
            kinds = fill(source, layout, buffer, count)
            sums = checksums(buffer, layout, kinds)
            buffer.flush()
            file.seek(length)
            file.write(kinds.tobytes() + sums.tobytes() + np.array([count], "<u8").tobytes())
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink()
            raise
    return kinds


def reserve(file: int, length: int) -> None:
    """Take the room before it is written to: a disk that is full is an error here, and would kill the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, length)
    else:
        os.ftruncate(file, length)


def remove(older: list[Path], folder: Path) -> None:
    """Delete files of the same data set, and what killed runs have left."""
    forgotten = [path for path in folder.glob("*.tmp") if time.time() - path.stat().st_mtime > FORGOTTEN]
    for path in [*older, *forgotten]:
        with suppress(OSError):
            path.unlink()
