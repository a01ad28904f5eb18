"""A job of a sweep as a process of its own: the program's own command, in a directory that is given."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segfocal.parallel.launch import PARENT
from segfocal.rundir import RESULT, quoted
from segfocal.stopping import CODES
from segfocal.sweeps.outcome import Outcome
from segfocal.sweeps.record import Job, State

CONSOLE = "console.log"
EPOCH = re.compile(r"epoch (\d+) of (\d+)")
STOPPED = set(CODES.values())  # exit codes of a job that ended when it was asked to
GRACE = 60.0  # seconds that a job has to end in when it is asked to


class Running:
    """A job that has been started.

    Args:
        job: of the record.
        command: the words of its command line.
        directory: that it writes into.
        env: its environment.
        pipe: whose end tells it that the sweep is gone.
        cwd: the working directory of the sweep; None where this process is in it.
    """

    def __init__(self, job: Job, command: Sequence[str], directory: Path, env: dict[str, str], pipe: int, cwd: str | None = None) -> None:
        self.job, self.directory, self.asked = job, directory, False
        self.started = time.monotonic()
        with (directory / CONSOLE).open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, *command, f"hydra.run.dir={quoted(directory)}"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**env, PARENT: str(pipe)},
                pass_fds=[pipe],
                start_new_session=True,  # Ctrl-C comes to the sweep, which passes it on
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def progress(self) -> tuple[int, int] | None:
        """The epochs that are done, and how many there will be."""
        found = EPOCH.findall(_tail(self.directory / CONSOLE))
        return (int(found[-1][0]), int(found[-1][1])) if found else None

    def outcome(self) -> Outcome | None:
        """What it came to; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code == 0:
            result = _result(self.directory)
            state: State = "pruned" if "pruned" in result else "finished"
            return Outcome(state, self.seconds, result.get("value"), epoch=result.get("pruned"))
        if code in STOPPED or self.asked:  # in its first moments Ctrl-C ends Python with 1
            return Outcome("interrupted", self.seconds, failure="interrupted")
        if code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            return Outcome("interrupted", self.seconds, failure=f"killed by {signal.Signals(-code).name}{hint}")
        return Outcome("failed", self.seconds, failure=last_words(self.directory / CONSOLE))

    def ask_to_end(self) -> None:
        """As Ctrl-C does; `finish` waits for it. Nothing where it has ended by itself."""
        self.asked = self.process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    def finish(self, deadline: float) -> None:
        """Wait until it has ended, or end it, with all its children."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def last_words(console: Path) -> str:
    """The line that says why a job failed: the last one of a traceback, and of what the user can mend."""
    lines = [line.strip() for line in _tail(console).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no word"


def _result(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _tail(path: Path, size: int = 2**14) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
