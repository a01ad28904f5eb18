"""How a job is begun, and ended: the logic of it, without a sweep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_plugins.segfocal_launcher import ProcessLauncher
from segfocal.errors import UserError
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


def launcher_of(directory: Path, **composed: Any) -> ProcessLauncher:
    """One whose jobs compose to the configuration of the sweep with the overrides in it."""
    launcher = ProcessLauncher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(directory)}, "job": {"name": "train"}}, **composed})
    loader = SimpleNamespace(load_sweep_config=lambda config, lines: OmegaConf.merge(config, OmegaConf.from_dotlist(lines)))
    launcher.context = SimpleNamespace(config_loader=loader)  # type: ignore[assignment]
    return launcher


def test_jobs_of_different_objectives_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = launcher_of(tmp_path / "s", objective="val/iou_macro")
    with pytest.raises(SystemExit) as ended:
        launcher.launch([["objective=val/iou_macro"], ["objective=val/loss"]], 0)
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1) and said.startswith("objective: a sweep ranks its jobs by one and the same: ")
    assert not (tmp_path / "s").exists()
    launcher.key_of(["seed=1"])
    with pytest.raises(UserError, match="seed=1 objective=val/loss: objective=val/loss: a sweep ranks"):
        launcher.key_of(["seed=1", "objective=val/loss"])  # as an experiment may say, too
