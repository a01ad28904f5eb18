"""What is known of a folder of predictions: by what they were made, and the shares of the classes in each image.

`prediction.json` says the first, `shares.csv` the second. Rows are added to the table as images are done, so that a run that was cut
off goes on after the last of them; at the end it is written anew, in the order of the names. Of two processes at once, either would
write it without the rows of the other: one holds the folder.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import IO, Any

from segfocal.cells import harmless
from segfocal.errors import UserError
from segfocal.rundir import lock
from segfocal.wholefile import write_whole

RECORD, SHARES, LOCK = "prediction.json", "shares.csv", ".lock"
FORMAT = 1


class Ledger:
    """The folder of predictions `out`, which nothing is written into before the first image is done.

    Args:
        out: the folder.
        settings: all that predictions depend on, besides the image; plain data.
        about: what else the record is to say.
        classes: their names.

    Raises:
        UserError: it holds predictions that were made otherwise.
    """

    def __init__(self, out: Path, settings: dict[str, Any], about: dict[str, Any], classes: list[str]) -> None:
        self.out, self.classes = out, classes
        self.content = {"format": FORMAT, "settings": settings, **about}
        self.header = ["image", "height", "width", *(f"{figure}/{name}" for name in classes for figure in ("pixels", "share")), "file"]
        self.rows = self._before()
        self.held: IO[str] | None = None

    def has(self, name: str) -> bool:
        """Whether an image of that name was done before."""
        return _cell(name) in self.rows

    def other(self, name: str, path: Path) -> str | None:
        """The file of another image that was done by that name."""
        said = self.rows[_cell(name)][-1] if self.has(name) else _file(path)
        return None if said == _file(path) else said

    def add(self, name: str, path: Path, size: tuple[int, int], pixels: list[int]) -> None:
        """An image is done; `start` has been called.

        Args:
            name: of the image.
            path: its file.
            size: height and width.
            pixels: of each class.
        """
        row = [_cell(name), str(size[0]), str(size[1])]
        for count in pixels:
            row += [str(count), f"{count / (size[0] * size[1]):.6g}"]
        row.append(_file(path))
        self.rows[row[0]] = row
        with (self.out / SHARES).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(row)  # with "\n" alone at its end, a "\r" in a name would not be quoted

    def start(self) -> None:
        """Hold the folder, and say by what predictions are made, before the first of a run is there; a row that was cut off goes.

        Raises:
            UserError: another process works there, or has made other predictions there meanwhile.
        """
        if self.held is None:
            self.out.mkdir(parents=True, exist_ok=True)
            self.held = lock(self.out / LOCK, "out")
            self.rows = self._before()
            write_whole(self.out / RECORD, lambda file: file.write(json.dumps(self.content, indent=2).encode()))
            self._write()

    def finish(self) -> None:
        """Bring the table into order."""
        if self.held is not None:
            self._write()

    def close(self) -> None:
        """Leave the folder to others."""
        if self.held is not None:
            self.held.close()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.header, *(self.rows[name] for name in sorted(self.rows))])
        write_whole(self.out / SHARES, lambda file: file.write(text.getvalue().encode()))

    def _before(self) -> dict[str, list[str]]:
        """The rows of earlier runs; raises UserError where their predictions were made otherwise."""
        if not (self.out / RECORD).exists():
            return {}
        self._check(self.content["settings"])
        return self._read()

    def _check(self, settings: dict[str, Any]) -> None:
        try:
            before = json.loads((self.out / RECORD).read_text(encoding="utf-8"))["settings"]
            differing = [key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"out={self.out}: its {RECORD} cannot be read: choose another folder, or remove it") from None
        if "checkpoint" in differing:
            raise UserError(f"out={self.out}: holds predictions of another checkpoint: choose another folder")
        if differing:
            made = ", ".join(f"{key}={before.get(key)} (now {settings.get(key)})".replace("'", "") for key in differing)
            raise UserError(f"out={self.out}: holds predictions that were made with {made}: choose another folder")

    def _read(self) -> dict[str, list[str]]:
        """The rows that are whole; the last may have been cut off."""
        try:
            with (self.out / SHARES).open(encoding="utf-8", errors="replace", newline="") as file:
                text = file.read()
        except OSError:
            return {}
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
        whole = [row for row in rows[1:] if len(row) == len(self.header)]
        return {(name := harmless(row[0])): [name, *row[1:]] for row in whole} if rows and rows[0] == self.header else {}


def _file(path: Path) -> str:
    return _text(str(path.resolve()))


def _cell(name: str) -> str:
    return harmless(_text(name))


def _text(name: str) -> str:
    """Names of files need not be UTF-8; tables are."""
    return name.encode("utf-8", errors="backslashreplace").decode()
