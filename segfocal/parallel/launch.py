"""Starts the processes of a run on one machine, and sees that they end together. Imports no torch.

Lightning would start them from the first, after its data has been checked, and where one fails kill that first process, too: no exit code
would say why. torchrun ends with 1 whatever happened, and a page of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segfocal.parallel.place import OURS
from segfocal.stopping import CODES

PARENT = "SEGFOCAL_PARENT"  # the pipe whose end tells a process that the one which started it is gone
FOLLOW = 3.0  # seconds that the others have to end by themselves when one has failed
INTERRUPT = 60.0  # and when the run is interrupted, from the first that has ended: a long validation is ended before
DOUBLED = 1.0  # within which a signal is the first once more: timeout(1) sends it to the process and to its group
LOOK_EVERY = 0.05
LOST = 1  # exit code of a process that ends because another has; not above that one's, for srun takes the highest


def launch(count: int) -> int:
    """Run this very command once for each device; returns the exit code of the run."""
    with tempfile.TemporaryDirectory(prefix="segfocal-") as folder, held_pipe() as pipe:
        processes = [_start(rank, count, Path(folder, "meet"), pipe) for rank in range(count)]
        signals = _forwarded(processes)
        try:
            _wait(processes, signals)
        finally:
            ended = [process.poll() for process in processes]
            for process, code in zip(processes, ended, strict=True):
                if code != 0:
                    with contextlib.suppress(ProcessLookupError):  # it and its data workers, a group of their own
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
    if signals and any(code != 0 for code in ended):
        return CODES[signal.Signals(signals[0])]
    failed = max((code for code in ended if code), default=0)
    killed = [(rank, -code) for rank, code in enumerate(ended) if code is not None and code < 0]
    if not killed or failed > LOST:
        return failed
    rank, number = killed[0]
    hint = ": memory ran out, most likely" if number == signal.SIGKILL else ""
    print(f"process {rank} of {count} was ended by {signal.Signals(number).name}{hint}", file=sys.stderr)
    return 128 + number


@contextlib.contextmanager
def held_pipe() -> Iterator[int]:
    """The end to read of a pipe that closes when this process ends, however it does."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def _start(rank: int, count: int, meet: Path, pipe: int) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, OURS: meet, PARENT: pipe}
    return subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, **{name: str(value) for name, value in place.items()}},
        pass_fds=[pipe],
        start_new_session=True,  # Ctrl-C comes here alone, and is passed on once
    )


def _forwarded(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """From here on the first signal that ends a run goes to its processes; returns the list of those that have come."""
    come: list[int] = []

    first = 0.0

    def forward(number: int, frame: Any) -> None:
        nonlocal first
        if not come:  # one is enough: a second would interrupt what the first has begun
            first = time.monotonic()
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)
        elif time.monotonic() - first < DOUBLED:
            return
        come.append(number)

    for number in CODES:
        if signal.getsignal(number) != signal.SIG_IGN:  # as by nohup, or for what a script has put into the background
            signal.signal(number, forward)
    return come


def _wait(processes: list[subprocess.Popen[bytes]], signals: list[int]) -> None:
    """Until all have ended, one has failed or been interrupted and the others have had their time, or a second signal has come."""
    deadline = None
    while None in (codes := [process.poll() for process in processes]):
        if deadline is None and (any(codes) or (signals and 0 in codes)):
            deadline = time.monotonic() + (INTERRUPT if signals else FOLLOW)
        if (deadline is not None and time.monotonic() > deadline) or len(signals) > 1:
            return
        time.sleep(LOOK_EVERY)


def end_with_parent() -> None:
    """In a process that `launch` or a sweep has started: end when that is gone, killed even."""
    if pipe := os.environ.pop(PARENT, None):
        threading.Thread(target=_until_closed, args=(int(pipe),), daemon=True).start()


def _until_closed(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)
