"""Where the file goes: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segfocal.config.export import SUFFIXES, ExportConfig
from segfocal.errors import UserError
from segfocal.rundir import shown_path


def target(config: ExportConfig, ckpt: Path) -> Path:
    """The file to write.

    Raises:
        UserError: it is there already, is the checkpoint, or its folder cannot be written to.
    """
    path = Path(config.out) if config.out is not None else ckpt.with_suffix(SUFFIXES[config.format])
    named = f"out={shown_path(path)}"
    if path.is_dir():
        raise UserError(f"{named}: is a directory")
    if path.exists() and path.samefile(ckpt):
        raise UserError(f"{named}: is the checkpoint itself: name another file")
    if path.exists() and not config.overwrite:
        raise UserError(f"{named}: is there already: name another file, or overwrite=true")
    if not path.parent.is_dir():
        raise UserError(f"{named}: there is no directory {shown_path(path.parent)}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{named}: {shown_path(path.parent)} cannot be written to: name a file elsewhere")
    return path


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when the block ends well, and is gone where it does not."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"out={shown_path(path)}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename too
    finally:
        os.close(directory)
