"""What surrounds `hydra.main`: mistakes said before it runs, failures said in one line, what it came to written down."""

from __future__ import annotations

import atexit
import functools
import gc
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segfocal.config import launchers
from segfocal.config.commandline import COMPLETES, SWEEPS, parted, run_dir_of, unknown
from segfocal.config.layouts import FilesConfig, no_folder
from segfocal.config.parse import mistakes, sweeps
from segfocal.config.run import is_auto, probability_problems
from segfocal.config.schema import CONF, register_schemas
from segfocal.errors import INTERRUPTED, MISTAKE, Interrupted, UserError, paths_told
from segfocal.parallel import ending
from segfocal.parallel.launch import end_with_parent, launch
from segfocal.parallel.place import here, processes_to_start, started_problems
from segfocal.rundir import RESULT, RUN, find_run, quoted, shown_path, unwritable
from segfocal.stopping import listen
from segfocal.sweeps.record import key_of_run
from segfocal.sweeps.trial import Pruned
from segfocal.wholefile import write_whole

SHOWS = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}  # flags by which nothing is run

# Where torch_npu is installed, torch would import it, whatever the profile: even broken, and in every process that loads data.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

# Python ends by looking for cycles among all that torch and its like have made: more than a second, for memory that is freed anyway.
atexit.register(gc.freeze)


def start(main: Callable[[], Any], schema: type, config_name: str) -> None:
    """Check the command line, and run it."""
    try:
        with paths_told():
            _start(main, schema, config_name)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)
    except KeyboardInterrupt:  # while the configuration is composed; in a job it is `job` that meets it
        sys.exit(INTERRUPTED)


def _start(main: Callable[[], Any], schema: type, config_name: str) -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(config_name))
        return
    if "--json" in sys.argv and "json" in schema.__annotations__:
        sys.argv = [word for word in sys.argv if word != "--json"] + ["json=true"]
    flags, overrides = parted(sys.argv[1:])
    completes = bool(COMPLETES & set(flags))  # the line is still being written
    runs = not SHOWS & {flag.partition("=")[0] for flag in flags}
    runs_here = runs and not any(override.startswith(f"{launchers.GROUP}=") for override in overrides)  # else the data may lie elsewhere
    if not completes:
        sys.argv[1:] = [*flags, *overrides]  # Hydra takes no flag behind an override
    end_with_parent()
    place, jobs, sweep = here(), list[Any](), bool(SWEEPS & set(flags))

    def look(config: Any) -> list[str]:
        jobs.append(config)
        auto = ["ckpt=auto: a sweep goes on by itself, given the same command again: leave it out"] if sweep and is_auto(config) else []
        named = run_dir_of(overrides)
        data = getattr(config, "data", None)
        missing = (
            no_folder(data.root) if runs_here and isinstance(data, FilesConfig) and data.root else []
        )  # torch would take seconds before
        locked = unwritable(str(named), "hydra.run.dir") if named else []
        return [*auto, *missing, *locked, *probability_problems(config), *started_problems(config, place, sweep)]

    problems = [] if completes else [*unknown(flags), *mistakes(schema, config_name, overrides, look)]
    if not problems and not completes and not sweep:
        problems = sweeps(overrides)
    if problems:
        for line in problems if ending.speaks() else []:
            print(line, file=sys.stderr)
        sys.exit(MISTAKE)
    if runs and is_auto(jobs[0]) and (found := run_dir_of(overrides) or find_run(jobs[0].out, key_of_run(jobs[0]))):
        if (found / RESULT).is_file():
            print(f"{shown_path(found)}: this run has ended: leave out ckpt=auto for another, or ckpt={shown_path(found)} to go on from it")
            return
        sys.argv.append(f"hydra.run.dir={quoted(found)}")
    if runs and (count := processes_to_start(jobs[0], place)):
        sys.exit(launch(count))
    if place.rank > 0:
        _follow()
    main()


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
        with paths_told():
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
    """A job of `hydra.main`: a mistake of the user is one line and exit code 2; what it came to stands in `result.json`."""

    @functools.wraps(function)
    def wrapped(composed: DictConfig) -> float:
        place = here()
        told = {}
        listen()
        try:
            with paths_told():
                value = function(composed)
        except UserError as error:
            if place.rank == 0:
                _remove_if_not_started(run_dir())
            if place.world > 1:
                ending.end(error, MISTAKE)
            print(error, file=sys.stderr)
            sys.exit(MISTAKE)
        except KeyboardInterrupt as error:
            if place.rank == 0:
                _remove_if_not_started(run_dir())
            code = error.code if isinstance(error, Interrupted) else INTERRUPTED
            if place.world > 1:
                ending.end(error, code)
            sys.exit(code)
        except Pruned as pruned:
            value, told = math.nan, {"pruned": pruned.epoch}
        except Exception as error:
            if place.world > 1:
                ending.end(error, 1)
            raise
        if place.rank == 0:
            result = {"objective": composed.get("objective"), "value": None if math.isnan(value) else value, **told}
            write_whole(run_dir() / RESULT, lambda file: file.write(json.dumps(result).encode()))
        return value

    return wrapped


def _remove_if_not_started(directory: Path) -> None:
    """A directory with nothing but the log was made for a run that never was."""
    if {path.name for path in directory.iterdir()} <= {f"{HydraConfig.get().job.name}.log", RUN}:
        logging.shutdown()  # the log is open
        shutil.rmtree(directory)


def run_dir() -> Path:
    """The directory of the job that Hydra is running."""
    return Path(HydraConfig.get().runtime.output_dir)
