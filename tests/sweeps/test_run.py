"""How a job is begun, and ended: the logic of it, without a sweep."""

from __future__ import annotations

from pathlib import Path

from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.run import begin

PROGRAM = ["train.py"]


def interrupted(tmp_path: Path, *overrides: str, kept: bool) -> tuple[Record, Job]:
    job = Job(0, "key", list(overrides), "interrupted", "0", attempts=1)
    checkpoints = tmp_path / "0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (tmp_path / "0" / ".run").touch()
    if kept:
        (checkpoints / "last.ckpt").touch()
    return Record(tmp_path, "train", [], "val/iou_macro", [job]), job


def test_a_job_goes_on_with_its_own_checkpoint_whatever_it_began_from(tmp_path: Path) -> None:
    record, job = interrupted(tmp_path, "ckpt=base", "seed=1", kept=True)
    assert begin(record, job, PROGRAM) == ["train.py", "seed=1", "ckpt=auto"]
    assert (job.directory, job.overrides) == ("0", ["ckpt=base", "seed=1"])


def test_a_job_without_a_checkpoint_begins_anew_where_no_run_lies(tmp_path: Path) -> None:
    record, job = interrupted(tmp_path, "ckpt=base", "seed=1", kept=False)
    assert begin(record, job, PROGRAM) == ["train.py", "ckpt=base", "seed=1"]
    assert job.directory == "0-2"


def test_a_job_is_not_told_what_the_sweep_is(tmp_path: Path) -> None:
    job = Job(0, "key", ["sweep=lab", "++sweep.sampler=null", "sweep.jobs=2", "+sweep.space={seed: '0,1'}", "seed=1"])
    assert begin(Record(tmp_path, "train", [], "val/iou_macro", [job]), job, PROGRAM) == ["train.py", "seed=1"]
