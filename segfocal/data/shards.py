"""The files of a pack, wherever they lie: in a folder, or behind a URL, from where each is copied when it is first needed.

Any number of processes may share the folder of the copies: a file is copied by one of them and appears there whole, and one that
another process has removed to make room is copied again.
"""

from __future__ import annotations

import functools
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from segfocal.errors import UserError

TRIES = 20  # times that a copy may be gone before it is opened: another process makes room
ATTEMPTS = 8  # of a request: half a minute without an answer
FOLDER = "local:"  # a folder whose files are copied like a store's
INSTALL = "pip install -c constraints.txt -e '.[streaming]'"


class Files(Protocol):
    """The files of a pack by their names in it."""

    directory: Path
    """Where they lie, or are copied to."""
    mend: str
    """What to do about a damaged one."""

    def open(self, name: str) -> BinaryIO:
        """Raises UserError where there is none."""


class FolderFiles:
    """In a folder."""

    mend = "copy the pack again, or pack again"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, name: str) -> BinaryIO:
        path = self.directory / name
        try:
            return path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: the pack is not complete: {self.mend}") from None


class Copies:
    """Behind a URL.

    Args:
        url: of the pack.
        directory: where its files are copied to, in folders of their own.
        room: the folder whose shards count against the budget.
        budget: the most bytes of shards to keep; None takes half of what is free.
    """

    mend = "remove it, and it is copied again"

    def __init__(self, url: str, directory: Path, room: Path, budget: int | None = None) -> None:
        self.url, self.directory, self.room = url.rstrip("/"), directory, room
        if budget is None:
            directory.mkdir(parents=True, exist_ok=True)
            budget = (shutil.disk_usage(room).free + sum(size for _, size, _ in self._kept())) // 2
        self.budget = budget

    def open(self, name: str) -> BinaryIO:
        path = self.directory / name
        for _ in range(TRIES):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                self._copy(name, path)
            else:
                with suppress(FileNotFoundError):  # removed since: what is open can be read
                    os.utime(path)  # when it was last used
                return file
        raise UserError(f"{path}: removed by other processes as soon as it is copied: data.shards_gb is too small for all of them")

    def _copy(self, name: str, path: Path) -> None:
        from filelock import FileLock  # torch brings it: not needed for packs in a folder

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                download(self.url, name, path)
        if path.suffix == ".bin":
            with FileLock(self.room / "room.lock"):
                self._make_room(path)

    def _make_room(self, needed: Path) -> None:
        kept = sorted(self._kept())
        taken = sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if taken > self.budget and path != needed and not _written(path):
                path.unlink(missing_ok=True)  # who has opened it reads on
                taken -= size

    def _kept(self) -> list[tuple[float, int, Path]]:
        """Shards, and what interrupted copies left: when last used, bytes, where."""
        found = []
        for path in [*self.room.rglob("*.bin"), *self.room.rglob("*.bin.*.part")]:
            try:
                about = path.stat()
            except FileNotFoundError:  # another process makes room
                continue
            found.append((about.st_mtime, about.st_size, path))
        return found


def _written(path: Path) -> bool:
    """Whether it is a part of a copy that a process is making."""
    from filelock import FileLock, Timeout  # as above

    if path.suffix != ".part":
        return False
    try:
        with FileLock(f"{path.with_suffix('').with_suffix('')}.lock", blocking=False):
            return False
    except Timeout:
        return True


def download(url: str, name: str, path: Path) -> None:
    """Copy a file of a pack; it appears whole or not at all.

    Raises:
        UserError: with what the store's client says.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if url.startswith(FOLDER):
                with Path(url.removeprefix(FOLDER), name).open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                _store(url, os.getpid()).download_fileobj(f"{url}/{name}", file)
        os.replace(part, path)
    except UserError:
        raise
    except Exception as error:  # each store's client has errors of its own
        lines = str(error).strip().splitlines()
        raise UserError(f"{url}/{name}: cannot be copied: {lines[0][:200] if lines else type(error).__name__}") from None
    finally:
        part.unlink(missing_ok=True)


@functools.cache
def _store(url: str, process: int) -> Any:
    """litdata's client of a store; one a process, for its connections do not survive a fork."""
    try:
        from litdata.streaming.downloader import get_downloader
    except ModuleNotFoundError:
        raise UserError(f"data.root={url}: shards are copied by litdata, which is not installed: {INSTALL}") from None
    options = {}
    if url.startswith("s3://"):
        from botocore.config import Config  # type: ignore[import-untyped]  # litdata brings it

        options["config"] = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS})  # litdata's own would try for hours
    return get_downloader(url, "", [], options)
