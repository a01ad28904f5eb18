"""Run directories that no other run shares."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from segfocal.errors import UserError
from segfocal.wholefile import remove_unfinished

RESULT = "result.json"  # what a run came to: its objective, as sweeps read it
CHECKPOINTS = "checkpoints"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
RUN = ".run"  # which run a directory holds; locked while a process writes there
_MADE: dict[str, str] = {}


def new_dir(out: str, suffix: str = "") -> str:
    """A new directory `<out>/<date>_<time><suffix>`, made by one atomic mkdir; a number is added where the name is taken.

    Hydra asks for it as `${new_dir:...}`, more than once in a process: the same question has the same answer.
    """
    question = f"{out}\n{suffix}"
    if question not in _MADE:
        parent = Path(out)
        parent.mkdir(parents=True, exist_ok=True)
        name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S") + suffix
        number = 1
        while True:
            path = parent / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
                break
            except FileExistsError:
                number += 1
        _MADE[question] = str(path)
    return _MADE[question]


def unwritable(out: str, key: str = "out") -> list[str]:
    """What keeps a directory from being made below another, which is the value of a key; nothing where it can be."""
    path = Path(out).absolute()
    while not path.exists():
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path):  # rights alone do not say it: file systems may be full, read-only or of the kernel
            return []
    except OSError as error:
        return [f"{key}={out}: {path} is not a directory that can be written to ({error.strerror})"]


def lock(path: Path, whose: str) -> IO[str]:
    """Hold a file for this process, until it is closed or the process ends; its first line is the number of the process.

    Args:
        path: of the file.
        whose: what the directory is for, in messages.

    Raises:
        UserError: another process holds it, or nobody can.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: data workers that outlive it hold nothing
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # what is not held by another, as on some network disks
            file.close()
            raise UserError(
                f"{shown_path(path.parent)}: this disk locks no files ({error.strerror}): {whose}=<a directory on another>"
            ) from None
        file.seek(0)
        holder = file.readline().strip() or "another"
        file.close()
        raise UserError(
            f"{shown_path(path.parent)}: process {holder} is at work there: wait for it, or {whose}=<another directory>"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


@contextlib.contextmanager
def claimed(run_dir: Path, key: str, goes_on: bool) -> Iterator[None]:
    """Within the block the directory is this run's alone, and the files that a killed process has left half-written there are gone.

    Args:
        run_dir: it is there.
        key: of the run's configuration, by which `find_run` knows it.
        goes_on: whether what it holds is gone on with.

    Raises:
        UserError: another process works there, it holds another run, or it takes no files.
    """
    known = read_key(run_dir)
    if known is not None and not goes_on:
        raise UserError(f"hydra.run.dir={shown_path(run_dir)}: holds a run: ckpt=auto goes on with it, else take another directory")
    try:
        file = lock(run_dir / RUN, "hydra.run.dir")
    except OSError as error:
        raise UserError(f"hydra.run.dir={shown_path(run_dir)}: is not a directory that can be written to ({error.strerror})") from None
    with file:
        file.write(json.dumps({"key": key}))
        file.flush()
        for folder in (run_dir, run_dir / CHECKPOINTS):
            remove_unfinished(folder)
        yield


def read_key(run_dir: Path) -> str | None:
    """The key of the run that a directory holds; None where it holds none."""
    try:
        said: Any = json.loads((run_dir / RUN).read_text(encoding="utf-8").split("\n", 1)[1])
        return str(said["key"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return None


def find_run(out: str, key: str) -> Path | None:
    """The newest run below `out` of a configuration; None where there is none."""
    found = [path.parent for path in Path(out).glob(f"*/{RUN}") if read_key(path.parent) == key]
    return max(found, key=lambda path: (path / RUN).stat().st_mtime, default=None)


def kept_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run that training can go on from, the newest first.

    The best comes last: it may be newer than the previous one, but was written before its epoch had quite ended.
    """
    return [path for name in (LAST, PREVIOUS, BEST) if (path := run_dir / CHECKPOINTS / name).is_file()]


def typed_path(text: str) -> Path:
    """The path that somebody has typed, with ~ for a home folder; where there is no such user it stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def shown_path(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
