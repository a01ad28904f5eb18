"""What surrounds `hydra.main`: mistakes said before it runs, failures said in one line, a sweep's answer after it."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segfocal.config.parse import mistakes
from segfocal.config.schema import CONF, register_schemas
from segfocal.errors import UserError
from segfocal.parallel import ending
from segfocal.parallel.launch import end_with_parent, launch
from segfocal.parallel.place import here, processes_to_start, started_problems
from segfocal.sweep import Job, write_summary

# Where torch_npu is installed, torch would import it, whatever the profile: even broken, and in every process that loads data.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

MISTAKE = 2  # exit code of what the user can mend
INTERRUPTED = 130  # as shells say it of Ctrl-C
_SWEPT: list[Job] = []  # what the jobs of this process's sweep came to


def start(main: Callable[[], Any], schema: type, config_name: str) -> None:
    """Check the command line, run it, and where it was a sweep end with the table of its jobs."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(config_name))
        return
    if "--json" in sys.argv and "json" in schema.__annotations__:
        sys.argv = [word for word in sys.argv if word != "--json"] + ["json=true"]
    end_with_parent()
    place, jobs = here(), list[Any]()
    sweep = bool({"-m", "--multirun"} & set(sys.argv[1:]))

    def look(config: Any) -> list[str]:
        jobs.append(config)
        return started_problems(config, place, sweep)

    problems = mistakes(schema, config_name, overrides_in(sys.argv[1:]), look)
    if problems:
        for line in problems if ending.speaks() else []:
            print(line, file=sys.stderr)
        sys.exit(MISTAKE)
    runs = not {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"} & set(sys.argv[1:])
    if runs and (count := processes_to_start(jobs[0], place)):
        sys.exit(launch(count))
    if place.rank > 0:
        _follow()
    main()
    if _SWEPT:
        failed = write_summary(_SWEPT)
        sys.exit(1 if failed else 0)


def _follow() -> None:
    """In all processes but the first: no directory and no log of their own. The first one says where the run lies."""
    sys.argv += ["hydra.run.dir=.", "hydra/job_logging=none"]
    ending.keep_quiet()


def command(run: Callable[[list[str]], str], arguments: list[str], text: str | None) -> None:
    """What `python -m segfocal.x` does: `text` for --help, or what `run` returns; a mistake is a line on stderr and exit code 2."""
    if {"-h", "--help"} & set(arguments):
        print(text)
        return
    try:
        print(run(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


def refuse_flags(arguments: list[str], module: str) -> None:
    """Raise UserError for what looks like a flag: a command takes overrides."""
    if flags := [word for word in arguments if word.startswith("-")]:
        raise UserError(f"{flags[0]}: no such flag; see python -m {module} --help")


def help_text(config_name: str) -> str:
    """What conf/hydra/help says; Hydra would print the same after a second of looking for groups in vain."""
    register_schemas()
    said = OmegaConf.create({"hydra": {"help": OmegaConf.load(CONF / "hydra" / "help" / f"{config_name}.yaml")}})
    return str(said.hydra.help.template).replace("$$", "$")


def job(function: Callable[[DictConfig], float]) -> Callable[[DictConfig], float]:
    """A job of `hydra.main`: a mistake of the user is one line and exit code 2; in a sweep the other jobs go on."""

    @functools.wraps(function)
    def wrapped(composed: DictConfig) -> float:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _job_of_sweep(function, composed)
        place = here()
        try:
            return function(composed)
        except UserError as error:
            if place.rank == 0:
                _remove_if_not_started(run_dir())
            if place.world > 1:
                ending.end(error, MISTAKE)
            print(error, file=sys.stderr)
            sys.exit(MISTAKE)
        except KeyboardInterrupt as error:
            if place.world > 1:
                ending.end(error, INTERRUPTED)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if place.world > 1:
                ending.end(error, 1)
            raise

    return wrapped


def _job_of_sweep(function: Callable[[DictConfig], float], composed: DictConfig) -> float:
    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    print(f"\njob {settings.job.num}: {' '.join(overrides)}", flush=True)
    objective, failure = float("nan"), None
    try:
        objective = function(composed)
    except UserError as error:
        failure = str(error)
        print(failure, file=sys.stderr)
    except KeyboardInterrupt:
        write_summary(_SWEPT) if _SWEPT else None
        sys.exit(INTERRUPTED)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    _SWEPT.append(
        Job(int(settings.job.num), overrides, settings.runtime.output_dir, str(composed.get("objective", "")), objective, failure)
    )
    return objective


def _remove_if_not_started(directory: Path) -> None:
    """A directory with nothing but the log was made for a run that never was."""
    if {path.name for path in directory.iterdir()} <= {f"{HydraConfig.get().job.name}.log"}:
        logging.shutdown()  # the log is open
        shutil.rmtree(directory)


def run_dir() -> Path:
    """The directory of the job that Hydra is running."""
    return Path(HydraConfig.get().runtime.output_dir)


def overrides_in(arguments: list[str]) -> list[str]:
    """What of a command line are overrides: not Hydra's own flags, nor what follows those that take a value.

    For tab completion there are none: the line is still being written.
    """
    if "-sc" in arguments or "--shell-completion" in arguments:
        return []
    with_value = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i"}
    found, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in with_value:
            skip = True
        elif not argument.startswith("-"):
            found.append(argument)
    return found
