"""Paths that one may not look at, and disks that lock nothing, are a line each."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from segfocal.errors import UserError, paths_told
from segfocal.rundir import lock
from segfocal.sweeps.record import FILE, Record, find, read


def test_what_may_not_be_looked_at_is_told() -> None:
    with pytest.raises(UserError, match=r"^/priv/data: Permission denied: another path, or the rights to this one$"), paths_told():
        raise PermissionError(errno.EACCES, "Permission denied", "/priv/data")
    with pytest.raises(OSError, match="No space left"), paths_told():
        raise OSError(errno.ENOSPC, "No space left on device", "/full")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOLCK, r"this disk locks no files \(No locks available\): hydra.run.dir=<a directory on another>$"),
        (errno.EAGAIN, r"process another is at work there: wait for it, or hydra.run.dir=<another directory>$"),
    ],
)
def test_a_disk_without_locks_is_not_taken_for_another_process(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuses)
    with pytest.raises(UserError, match=said):
        lock(tmp_path / ".run", "hydra.run.dir")


def test_a_sweep_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        Record(folder, "train", ["seed=0,1"], "val/iou_macro").save()
    plain = Path.read_text

    def may_not(path: Path, *options: object, **named: object) -> str:
        if path == theirs / FILE:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, *options, **named)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Path, "read_text", may_not)
    with pytest.raises(UserError, match="sweep.json: Permission denied$"):
        read(theirs)
    assert find(tmp_path, "train", ["seed=0,1"]) == mine
