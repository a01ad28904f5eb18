"""Signals that ask a run to end: Ctrl-C, SIGTERM, and SIGUSR1, by which SLURM gives notice. Imports no torch.

While a training takes steps, the first one is remembered until the step is done and a checkpoint is written; a second one ends at once.
At any other time the first one ends at once: nothing would be lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from segfocal.errors import INTERRUPTED, TERMINATED, Interrupted

log = logging.getLogger("segfocal")

CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGUSR1: TERMINATED}


class _Asked:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.process = os.getpid()
        self.waits = False  # for the end of a step

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a data worker that has just been forked
            return
        again, self.number = self.number is not None, number if self.number is None else self.number
        if again or not self.waits:
            raise Interrupted(CODES[signal.Signals(number)])
        log.info("%s: a checkpoint is written after this step; once more ends at once", signal.Signals(number).name)


_ASKED = _Asked()


def listen() -> None:
    """Answer the signals; what a shell has told to be ignored, as nohup does, stays so. Once more, where a library has taken one over."""
    if threading.current_thread() is not threading.main_thread():  # Python's handlers run in the main thread alone
        return
    _ASKED.process = os.getpid()
    for number in CODES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _ASKED)


@contextlib.contextmanager
def at_step_ends() -> Iterator[None]:
    """Within the block somebody looks at `asked` after each step."""
    _ASKED.waits = True
    try:
        yield
    finally:
        _ASKED.waits = False


def asked() -> int | None:
    """The exit code of a process that was asked to end; None where it was not."""
    return None if _ASKED.number is None else CODES[signal.Signals(_ASKED.number)]


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Signals count when the block has ended: raised amid torch.save, they come out as errors of its archive, or not at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    answered = [number for number in CODES if callable(signal.getsignal(number))]
    usual = {number: signal.signal(number, lambda number, frame: waiting.append(number)) for number in answered}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for come in waiting:
            signal.raise_signal(come)
