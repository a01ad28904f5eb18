"""How the jobs of a sweep are run, and by what a search chooses them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag, Index

Sampler = Literal["tpe", "gp", "qmc", "cmaes", "nsga2"]
Pruner = Literal["median", "asha", "hyperband"]
SEVERAL = ("tpe", "gp", "qmc", "nsga2")  # samplers that take more than one objective


@dataclass(config=STRICT, kw_only=True)
class Conditional:
    """A parameter that there is only where others have been chosen.

    Args:
        when: values of parameters that stand before it in the space, or that the command line says; any of several with commas.
        values: as for any parameter; one alone, too.
    """

    when: dict[str, str]
    values: str


@dataclass(config=STRICT, kw_only=True)
class SweepConfig:
    """
    Args:
        name: the option.
        jobs: how many run at once; null: as many as there are GPUs or NPUs for, and one where there is none.
        gpus_per_job: GPUs or NPUs that each job sees, where the machine has any and the profile wants them.
        retry_failed: whether the same command, given again, also runs the jobs that failed; those of a search are over.
        dir: the directory of the sweep; null: the one that this command has begun, else a new one.
        sampler: what chooses the values of each trial; null: none does, every combination is a job.
        seed: of the sampler.
        trials: how many the study comes to, all that work on it together.
        space: parameters and their values in Hydra's grammar; the command line's own go before, null leaves one out. Without a
            sampler all combinations.
        one_at_a_time: the first value of each parameter, and jobs that differ from that in one alone, in the place of all combinations; each
            of these with every `seed`.
        also: figures to optimise beside `objective`.
        pruner: what stops trials that fall behind; null: none.
        prune_after: epochs that each trial is left alone.
        storage: where the study is kept: the URL of a database, or a journal file; null: a journal in the directory of the sweep.
        study: its name there.
        warm_start: a sweep's directory or a storage whose trials this study begins with.
    """

    name: str = "grid"
    jobs: Count | None = None
    gpus_per_job: Count = 1
    retry_failed: Flag = True
    dir: str | None = None
    sampler: Sampler | None = None
    seed: Index = 0
    trials: Count = 20
    space: dict[str, str | Conditional | None] = Field(default_factory=dict)
    one_at_a_time: Flag = False
    also: list[str] = Field(default_factory=list)
    pruner: Pruner | None = None
    prune_after: Count = 1
    storage: str | None = None
    study: str = "segfocal"
    warm_start: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.sampler is None:
            searching = {
                "also": self.also,
                "pruner": self.pruner,
                "storage": self.storage,
                "warm_start": self.warm_start,
            }
            problems = [f"sweep.{key}: is for a search: sweep.sampler=tpe" for key, value in searching.items() if value]
        elif self.one_at_a_time:
            problems = [f"sweep.one_at_a_time=true: sweep.sampler={self.sampler} chooses by itself: sweep.sampler=null"]
        elif self.also and self.sampler not in SEVERAL:
            problems = [f"sweep.also={shown(self.also)}: sweep.sampler={self.sampler} takes one objective: sweep.sampler=nsga2"]
        elif self.also and self.pruner:
            problems = [f"sweep.pruner={self.pruner}: trials of several objectives cannot be compared before their end: sweep.pruner=null"]
        if problems:
            raise ValueError("\n".join(problems))


def shown(names: list[str]) -> str:
    """A list as it is typed."""
    return f"[{','.join(names)}]"
