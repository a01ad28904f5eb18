"""How a process of several ends when the run fails: the first to fail says why, the others end without a word. Imports no torch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

from segfocal.parallel.launch import LOST
from segfocal.parallel.place import OURS, here

_FIRST: list[Callable[[], bool]] = []  # how the processes agree on who failed first; set by `team`, once they know of each other

GONE = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")  # of gloo and NCCL, when a process has been killed


def agreed_by(first: Callable[[], bool]) -> None:
    """From here on `first()` says whether this process is the first to fail."""
    _FIRST[:] = [first]


def speaks() -> bool:
    """Whether it is for this process to say why the run fails."""
    place = here()
    if place.world == 1:
        return True
    if not _FIRST:  # what fails this early fails in each process of the machine
        return place.local_rank == 0
    try:
        return _FIRST[0]()
    except Exception:  # whom to ask has gone: so another was first
        return False


def end(error: BaseException, code: int) -> NoReturn:
    """End a process of several at once, without waiting for the others: they may wait for this one.

    Args:
        error: what happened; a UserError is said in its own words.
        code: exit code of the process that was first.
    """
    gone = isinstance(error, RuntimeError) and any(words in str(error) for words in GONE)
    if isinstance(error, KeyboardInterrupt):  # it comes to all, and is nobody's failure
        pass
    elif not speaks():
        code = LOST
    elif gone:
        code = LOST
        if OURS not in os.environ:  # else `launch` says which one, and how it has ended
            print(f"another process of the run has ended ({str(error).splitlines()[0][:200]})", file=sys.stderr)
    elif code == 1:
        traceback.print_exception(error)
    else:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def keep_quiet() -> None:
    """In all processes but the first: what they would say has been said."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
