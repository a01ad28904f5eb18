"""What surrounds `hydra.main`: mistakes said before it runs, failures said in one line, a sweep's answer after it."""

from __future__ import annotations

import atexit
import functools
import gc
import itertools
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

from segfocal.config.parse import mistakes, sweeps
from segfocal.config.schema import CONF, register_schemas
from segfocal.errors import UserError
from segfocal.nearest import did_you_mean
from segfocal.sweep import Job, write_summary

# Where torch_npu is installed, torch would import it, whatever the profile: even broken, and in every process that loads data.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

# Python ends by looking for cycles among all that torch and its like have made: more than a second, for memory that is freed anyway.
atexit.register(gc.freeze)

MISTAKE = 2  # exit code of what the user can mend
INTERRUPTED = 130  # as shells say it of Ctrl-C
# Hydra's flags: those that a word follows, and those that stand alone.
WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i"}
WITH_VALUE |= {"--experimental-rerun"}
SWEEPS = {"--multirun", "-m"}
ALONE = SWEEPS | {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--shell-completion", "-sc"}
_SWEPT: list[Job] = []  # what the jobs of this process's sweep came to


def start(main: Callable[[], Any], schema: type, config_name: str) -> None:
    """Check the command line, run it, and where it was a sweep end with the table of its jobs."""
    try:
        _start(main, schema, config_name)
    except KeyboardInterrupt:  # while the configuration is composed; in a job it is `job` that meets it
        sys.exit(INTERRUPTED)


def _start(main: Callable[[], Any], schema: type, config_name: str) -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(config_name))
        return
    if "--json" in sys.argv and "json" in schema.__annotations__:
        sys.argv = [word for word in sys.argv if word != "--json"] + ["json=true"]
    flags, overrides = parted(sys.argv[1:])
    completes = bool({"-sc", "--shell-completion"} & set(flags))  # the line is still being written
    if not completes:
        sys.argv[1:] = [*flags, *overrides]  # Hydra takes no flag behind an override
    problems = [] if completes else [*unknown(flags), *mistakes(schema, config_name, overrides)]
    if not problems and not completes and not SWEEPS & set(flags):
        problems = sweeps(overrides)
    if problems:
        for line in problems:
            print(line, file=sys.stderr)
        sys.exit(MISTAKE)
    main()
    if _SWEPT:
        failed = write_summary(_SWEPT)
        sys.exit(1 if failed else 0)


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
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


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
        try:
            return function(composed)
        except UserError as error:
            print(error, file=sys.stderr)
            _remove_if_not_started(run_dir())
            sys.exit(MISTAKE)
        except KeyboardInterrupt:
            _remove_if_not_started(run_dir())
            sys.exit(INTERRUPTED)

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


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Flags, each with the value that follows it, and overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in WITH_VALUE:
            flags += itertools.islice(words, 1)
    return flags, overrides


def unknown(flags: list[str]) -> list[str]:
    """A line for each flag that there is not."""
    known = WITH_VALUE | ALONE
    given = [word.partition("=")[0] for word in flags if word.startswith("-")]
    return [f"{flag}: no such flag{did_you_mean(flag, {*known, '--json'})}; see --help" for flag in given if flag not in known]
