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
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from segfocal.config.parse import mistakes
from segfocal.config.run import TrainConfig

ROOT = Path(__file__).parents[1]
IMPORTED = ("segfocal.cli", "segfocal.engine", "segfocal.evaluation", "segfocal.prediction.run", "segfocal.export.command")
IMPORTED += ("torch.utils.tensorboard", "hydra_plugins.segfocal_launcher", "hydra_plugins.segfocal_sweeper")


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

    def wait(self, pid: int) -> int:
        """The exit code of one that is waited for, negative for a signal."""
        self._tell({"wait": pid})
        return int(self._answer())

    def poll(self, pid: int) -> int | None:
        """The exit code of one that has ended, and None of one that runs."""
        self._tell({"poll": pid})
        return int(said) if (said := self._answer().strip()) else None

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
    """Fork for each line of standard input that is a command; returns in the processes that are to become commands."""
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if "words" not in asked:
            pid, status = os.waitpid(asked["wait"], 0) if "wait" in asked else os.waitpid(asked["poll"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if pid else "", flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            return Command(**asked)
        os.setpgid(pid, pid)  # before anybody is told of it
        print(pid, flush=True)
    os._exit(0)


def become(command: Command) -> NoReturn:
    """Go on as `python <words>` does, and end without taking apart what was imported: that takes longer than most commands do."""
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, command.out, os.O_WRONLY), (2, command.err, os.O_WRONLY)):
        os.dup2(os.open(path, how), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    os.chdir(command.cwd)
    os.environ.clear()
    os.environ.update(command.env)
    sys.orig_argv = [sys.executable, *command.words]  # by which the processes of several devices are started
    sys.path[1:1] = command.env.get("PYTHONPATH", "").split(os.pathsep)
    code: Any = 0
    try:
        executed(command)
    except SystemExit as leaving:
        code = leaving.code
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # what Python does first when it ends: it waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def executed(command: Command) -> None:
    first, *words = command.words
    if first == "-m":
        sys.argv, sys.path[0] = words, command.cwd
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *words], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    mistakes(TrainConfig, "train", [])  # Hydra and its grammar, too, begin slowly
    gc.freeze()  # or each command would end by looking for cycles in all of it
    become(serve())
