"""How the jobs of a sweep are run."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag


@dataclass(config=STRICT, kw_only=True)
class SweepConfig:
    """
    Args:
        name: the option.
        jobs: how many run at once; null: as many as there are GPUs for, and one where there is none.
        gpus_per_job: GPUs that each job sees, where the machine has any and the profile wants them.
        retry_failed: whether the same command, given again, also runs the jobs that failed.
        dir: the directory of the sweep; null: the one that this command has begun, else a new one.
    """

    name: str = "grid"
    jobs: Count | None = None
    gpus_per_job: Count = 1
    retry_failed: Flag = True
    dir: str | None = None
