"""What is known of a sweep, in `sweep.json` of its directory: it is what the same command, given again, goes on from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segfocal.errors import UserError
from segfocal.rundir import shown_path
from segfocal.wholefile import write_whole

FILE = "sweep.json"
LOCK = ".lock"
SEED = "seed"
CHANGED = "changed"  # stands for all keys where one value is changed at a time
State = Literal["waiting", "running", "finished", "pruned", "failed", "interrupted"]
Against = Literal["best", "first"]
NO_PART = {"hydra", "out", "sweep", "report"}  # of what a job is: where it is written, and how it is run
# What the jobs of a sweep are, by which it is recognised, too.
SEARCHED = ("sweep=", "sweep.space", "sweep.sampler=", "sweep.also=", "sweep.one_at_a_time=")


@dataclass
class Job:
    """
    Args:
        number: in the order of the sweep.
        key: of its resolved configuration, by which it is recognised.
        overrides: of its command line.
        state: `interrupted` goes on from its last checkpoint.
        directory: of its last attempt, in that of the sweep.
        attempts: how often it was started.
        objective: what it came to; None before, and where the validation masks leave it undefined.
        failure: its last words, where it failed or was interrupted.
        seconds: that all attempts took.
        trials: of the study, that this is a job of; more than one where the sampler has asked for the same again.
        others: what it came to in the further objectives of a search.
        epoch: after which it was pruned.
    """

    number: int
    key: str
    overrides: list[str]
    state: State = "waiting"
    directory: str = ""
    attempts: int = 0
    objective: float | None = None
    failure: str | None = None
    seconds: float = 0.0
    trials: list[int] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    epoch: int | None = None

    @property
    def said(self) -> str:
        """The state in words."""
        return self.state if self.epoch is None else f"{self.state} after epoch {self.epoch}"


@dataclass
class Record:
    """
    Args:
        directory: of the sweep.
        program: whose jobs these are, as `train`.
        command: the overrides of the sweep, without those of `sweep`.
        objective: what jobs are compared by.
        jobs: by number.
        others: further objectives of a search.
        against: which jobs the others are compared with, where seeds are varied: the best, or the first.
        base: the configuration without what is swept, as `base_of` has it; empty in records of older releases.
    """

    directory: Path
    program: str
    command: list[str]
    objective: str
    jobs: list[Job] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    against: Against = "best"
    base: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, overrides: list[str]) -> Job:
        """The job of a configuration: the one that is known, or a new one.

        Raises:
            UserError: the same overrides were another configuration: an option that is swept has changed.
        """
        for job in self.jobs:
            if job.key == key:
                return job
        if self.base and any(job.overrides == overrides for job in self.jobs):
            raise UserError(self.changed(" ".join(overrides)))
        self.jobs.append(Job(len(self.jobs), key, overrides))
        return self.jobs[-1]

    def changed(self, what: str) -> str:
        """What is said where the configuration is not as it was."""
        return f"the configuration has changed since {shown_path(self.directory)} was begun ({what}): sweep.dir=<another directory>, or undo the change"

    def save(self) -> None:
        """Write it; the file is there in full or as it was."""
        plain = {name: value for name, value in dataclasses.asdict(self).items() if name != "directory"}
        write_whole(self.directory / FILE, lambda file: file.write(json.dumps(plain, indent=1).encode()))


def job_key(config: dict[str, Any]) -> str:
    """What jobs of the same resolved configuration have in common."""
    part = {name: value for name, value in config.items() if name not in NO_PART}
    return hashlib.sha256(json.dumps(part, sort_keys=True, default=str).encode()).hexdigest()[:16]


def base_of(config: dict[str, Any]) -> dict[str, str]:
    """Every value that is part of what jobs are, as JSON by its key."""
    return dict(_leaves({name: value for name, value in config.items() if name not in NO_PART}, ""))


def _leaves(tree: dict[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.dumps(value, default=str)


def differs(before: dict[str, str], now: dict[str, str], leave_out: Sequence[str]) -> str | None:
    """The first key in which two configurations differ; None where none does, or one is not known.

    Args:
        before, now: as `base_of` has them.
        leave_out: keys that may differ, with all that is below them.
    """
    keys = dict.fromkeys([*before, *now]) if before and now else ()
    wrong = (key for key in keys if before.get(key) != now.get(key))
    return next((key for key in wrong if not any(f"{key}.".startswith(f"{other}.") for other in leave_out)), None)


def key_of_run(config: Any) -> str:
    """What the runs of a configuration have in common, wherever they have been cut off.

    Args:
        config: `TrainConfig`, or that of another program.
    """
    return job_key({name: value for name, value in dataclasses.asdict(config).items() if name != "ckpt"})


def command_of(overrides: list[str]) -> list[str]:
    """The overrides of a sweep without those that say how it is run, by which the same command is recognised."""
    return sorted(line for line in overrides if line.lstrip("+~").startswith(SEARCHED) or not says_how(line))


def says_how(override: str) -> bool:
    """Whether it says how a sweep is run, not what its jobs are."""
    return of_sweep(override) or override.lstrip("+~").startswith(("hydra", "out="))


def of_sweep(override: str) -> bool:
    """Whether it is about the sweep; a job, which is a run by itself, would refuse some of it."""
    return override.lstrip("+~").startswith(("sweep.", "sweep="))


def varied_in(record: Record) -> list[str]:
    """What tells its jobs apart, the seed included."""
    keys = swept_keys([job.overrides for job in record.jobs])
    return keys if record.against == "best" else [CHANGED, *(key for key in keys if key == SEED)]


def told_apart(record: Record, job: Job) -> dict[str, str]:
    """The values of a job by key; where jobs are compared with the first, what is not as there in the place of all but the seed."""
    said = said_by(job)
    if record.against == "best":
        return said
    first = said_by(record.jobs[0])
    changes = [f"{key}={value}" for key, value in said.items() if key != SEED and value != first.get(key)]
    return {CHANGED: " ".join(changes) or "nothing", **({SEED: said[SEED]} if SEED in said else {})}


def said_by(job: Job) -> dict[str, str]:
    """The values of its overrides, by key."""
    return _said(job.overrides)


def _said(overrides: list[str]) -> dict[str, str]:
    parts = [line.partition("=") for line in overrides]  # `~logger` has no value
    return {key.lstrip("+"): value for key, _, value in parts}


def read(directory: Path) -> Record | None:
    """The record of a directory; None where there is none.

    Raises:
        UserError: the file is damaged, or may not be read.
    """
    path = directory / FILE
    try:
        if not path.is_file():
            return None
        plain = json.loads(path.read_text(encoding="utf-8"))
        jobs = [Job(**job) for job in plain.pop("jobs")]
        return Record(directory, **plain, jobs=jobs)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the record of a sweep ({type(error).__name__}: {error}): sweep.dir=<another directory>") from None


def find(out: Path, program: str, command: list[str]) -> Path | None:
    """The directory below `out` of the sweep that a command has begun; the newest where there are several."""
    for path in sorted(out.glob(f"*/{FILE}"), key=_written, reverse=True):
        try:
            known = read(path.parent)
        except UserError:
            continue
        if known and (known.program, known.command) == (program, command):
            return path.parent
    return None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # of somebody else
        return 0.0


def swept_keys(overrides: list[list[str]]) -> list[str]:
    """The keys in which jobs differ, in the order of the command line."""
    values: dict[str, set[str | None]] = {}
    jobs = [_said(job) for job in overrides]
    keys = dict.fromkeys(key for said in jobs for key in said)
    for said in jobs:
        for key in keys:
            values.setdefault(key, set()).add(said.get(key))
    return [key for key in keys if len(values[key]) > 1]


def brief(value: str) -> str:
    """A value as a table shows it: numbers that a sampler has drawn, to four digits."""
    try:
        return value if len(value) <= 8 else f"{float(value):.4g}"
    except ValueError:
        return value
