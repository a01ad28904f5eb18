"""Run directories that no other run shares."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

RESULT = "result.json"  # what a run came to: its objective, as sweeps read it
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


def unwritable(out: str) -> list[str]:
    """What keeps a run directory from being made below `out`; nothing where it can be."""
    path = Path(out).absolute()
    while not path.exists():
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path):  # rights alone do not say it: file systems may be full, read-only or of the kernel
            return []
    except OSError as error:
        return [f"out={out}: {path} is not a directory that can be written to ({error.strerror})"]


def shown_path(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
