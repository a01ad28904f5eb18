"""Files that are there in full or not at all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Written beside its place, flushed to the disk, then renamed.

    Args:
        path: of the file; its folder is made.
        write: what writes into the open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = f"{zlib.crc32(os.fsencode(path.name)):08x}"  # for names may be as long as names can be
    temporary = path.with_name(f".{short}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
