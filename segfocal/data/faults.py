"""What is wrong with the data, in parts: for a line on the console, for JSON, for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segfocal.errors import UserError, escaped

MOST_SHOWN = 12  # lines in one error


@dataclass(frozen=True)
class Fault:
    """
    Args:
        where: the file, the folder or the key.
        found: what is there.
        expected: what should be.
        mend: the override that mends it, or what else does.
    """

    where: str
    found: str
    expected: str = ""
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: " + "; ".join(part for part in (self.found, self.expected, self.mend) if part)
        return escaped(text)


class BadFileError(UserError):
    """A file that cannot be used. Arguments as of `Fault`."""

    def __init__(self, where: object, found: str, expected: str = "", mend: str = "") -> None:
        super().__init__(str(where), found, expected, mend)  # as they are: workers pickle it
        self.fault = Fault(str(where), found, expected, mend)

    def __str__(self) -> str:
        return str(self.fault)


def counted(count: int, one: str, more: str) -> str:
    """`1 mask is` or `2 masks are`."""
    return f"{count} {one if count == 1 else more}"


def told(faults: Sequence[Fault], where: str) -> UserError:
    """All faults of a pass in one error, a line each.

    Args:
        faults: one or more.
        where: what the data is called.
    """
    lines = [str(fault) for fault in faults[:MOST_SHOWN]]
    if len(faults) > MOST_SHOWN:
        lines.append(f"... and {len(faults) - MOST_SHOWN} more: python -m segfocal.analyze with the same overrides shows all")
    return UserError("\n".join([*([f"{where}: cannot be used, for {len(faults)} faults:"] if len(faults) > 1 else []), *lines]))
