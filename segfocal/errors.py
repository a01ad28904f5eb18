"""Mistakes of the user, told apart from mistakes of the program."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

MISTAKE = 2  # exit code of what the user can mend
INTERRUPTED = 130  # as shells say it of Ctrl-C
TERMINATED = 143  # as they say it of SIGTERM; also where a scheduler gives notice by SIGUSR1


class UserError(Exception):
    """Something the user can mend: printed as it is, without a traceback; the process ends with exit code 2.

    The message says what is wrong, where, what is allowed and how to mend it.
    """

    def __str__(self) -> str:
        return "\n".join(map(escaped, super().__str__().split("\n")))


@contextlib.contextmanager
def paths_told() -> Iterator[None]:
    """That no file can have a name as long as one in the block, or that nobody may look there, becomes a line; wherever a path is said, it may be."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            said = f"{str(error.filename)[:60]}...: no file has so long a name; several are said as a list, as in [a,b]"
        elif isinstance(error, PermissionError) and error.filename is not None:
            said = f"{error.filename}: {error.strerror}: another path, or the rights to this one"
        else:
            raise
        raise UserError(said) from None


def escaped(text: str) -> str:
    """A text that a terminal shows and does not obey, in one line: names in files may hold anything."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class Interrupted(KeyboardInterrupt):
    """The program was asked to end by a signal: wherever Ctrl-C is met, so is this.

    Args:
        code: with which the process ends.
    """

    def __init__(self, code: int = INTERRUPTED) -> None:
        super().__init__(code)
        self.code = code


def first_line(error: Exception, most: int = 160) -> str:
    """The first line of what a library says, or at least the kind of its error."""
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
