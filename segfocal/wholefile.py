"""Files that are there in full or not at all."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # what a place for files may say when it is written to


def write_whole(path: Path, write: Callable[[BinaryIO], Any], before: Path | None = None) -> None:
    """Written beside its place, flushed to the disk, then renamed; the rename is flushed, too.

    Args:
        path: of the file; its folder is made.
        write: what writes into the open file.
        before: where the file goes that it takes the place of.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = f"{zlib.crc32(os.fsencode(path.name)):08x}"  # for names may be as long as names can be
    temporary = path.with_name(f".{short}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what a process has left of files that it was writing when it was killed; nobody else may be writing there."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def refusal(error: BaseException) -> str | None:
    """What a place for files has said that takes no more; None where the error is another.

    torch's archive has a RuntimeError of its own, in the course of which the file's came.
    """
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    return cause.strerror if isinstance(cause, OSError) and cause.errno in FULL else None
