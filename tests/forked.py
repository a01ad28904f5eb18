"""Commands in processes of their own that need not import torch first: they are forked off one that has.

A command of this program takes 4 to 9 s of the CPU until it begins, nearly all of it imports. Here one process imports what the
commands do, computes nothing, and forks for each command: arguments, environment, working directory, streams, exit code and signals
are the command's own. What is about what is imported when is started by `tests.conftest.spawn` instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = ("segfocal.engine", "segfocal.evaluation", "segfocal.prediction.run", "segfocal.export.command")


@dataclass
class Command:
    """What is to run.

    Args:
        words: after `python`.
        cwd: the working directory.
        env: all of the environment.
        out, err: files for what it prints.
    """

    words: list[str]
    cwd: str
    env: dict[str, str]
    out: str
    err: str


class Server:
    """The process that has imported everything, and what is asked of it."""

    _running: Server | None = None

    @classmethod
    def running(cls) -> Server:
        """The one of this process; started when it is first asked for."""
        if cls._running is None:
            cls._running = Server()
            atexit.register(cls._running.close)
        return cls._running

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "tests.forked"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, command: Command) -> int:
        """Begin; returns the number of the process, which leads a group of its own."""
        self._tell(command.__dict__)
        return int(self._answer())

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return int(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _tell(self, content: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(content) + "\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def serve() -> Command:
    """Fork for each line of standard input; returns in the processes that are to become commands."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            return Command(**json.loads(line))
        os.setpgid(pid, pid)  # before anybody is told of it
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


def become(command: Command) -> None:
    """Go on as `python <words>` does."""
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, command.out, os.O_WRONLY), (2, command.err, os.O_WRONLY)):
        os.dup2(os.open(path, how), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    os.chdir(command.cwd)
    os.environ.clear()
    os.environ.update(command.env)
    first, *words = command.words
    sys.path[1:1] = command.env.get("PYTHONPATH", "").split(os.pathsep)
    if first == "-m":
        sys.argv, sys.path[0] = words, command.cwd
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *words], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # or each command would end by looking for cycles in all of it
    become(serve())
