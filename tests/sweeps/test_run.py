"""How a job is begun, and ended: the logic of it, without a sweep."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from omegaconf import OmegaConf

from hydra_plugins.segfocal_launcher import ProcessLauncher
from hydra_plugins.segfocal_sweeper import SearchSweeper
from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError
from segfocal.sweeps.elsewhere import Asked
from segfocal.sweeps.outcome import Outcome, beat
from segfocal.sweeps.process import Running
from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.run import Queue, begin, run_jobs
from segfocal.sweeps.slots import Slots
from segfocal.sweeps.watch import Watch, counted

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
    with pytest.raises(
        UserError,
        match="seed=1 objective=val/loss: objective=val/loss, not val/iou_macro: a sweep ranks .*; objective=val/loss says it for all",
    ):
        launcher.key_of(["seed=1", "objective=val/loss"])  # as an experiment may say, too


class Interrupting(Queue):
    """Asks the sweep to end while its job runs."""

    def environment(self, job: Job) -> dict[str, str]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}


@pytest.fixture
def ignored() -> Iterator[None]:
    """SIGINT, as by a shell for what it runs in the background."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("ignored")
def test_a_signal_that_a_shell_has_told_to_be_ignored_ends_no_sweep_but_can_end_its_jobs(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text("import signal; assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN")
    record = Record(tmp_path, "train", [], "val/iou_macro", [Job(0, "key", ["seed=1"])])
    run_jobs(record, Interrupting(record.jobs), [str(program)], Slots(1), Watch(record, []))
    assert record.jobs[0].state == "finished", record.jobs[0].failure
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    asked = Asked(tmp_path / ".stop")
    os.kill(os.getpid(), signal.SIGINT)
    asked.forget()
    assert asked.by == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def running(tmp_path: Path, program: str) -> Running:
    read, write = os.pipe()
    job = Running(Job(0, "key", []), ["-c", program], tmp_path, dict(os.environ), read)
    os.close(read)
    os.close(write)
    return job


def test_a_job_that_was_asked_to_end_is_interrupted_however_it_ends(tmp_path: Path) -> None:
    """While Python itself starts, it is with 1."""
    asked = running(tmp_path, "import signal, time; signal.signal(2, lambda *_: exit(1)); print('begun', flush=True); time.sleep(60)")
    while not (tmp_path / "console.log").read_text():
        time.sleep(0.01)
    asked.ask_to_end()
    asked.finish(time.monotonic() + 20)
    outcome = asked.outcome()
    assert outcome is not None and (asked.process.returncode, outcome.state) == (1, "interrupted")
    failed = running(tmp_path, "exit(1)")
    failed.process.wait(20)
    failed.ask_to_end()
    outcome = failed.outcome()
    assert outcome is not None and outcome.state == "failed"


@pytest.mark.parametrize(("signals", "stays"), [(1, False), (2, True)])
def test_jobs_that_are_not_waited_for_find_the_mark(tmp_path: Path, signals: int, stays: bool) -> None:
    asked = Asked(tmp_path / ".stop")
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGINT)
    asked.forget()
    assert (tmp_path / ".stop").exists() == stays
    Asked(tmp_path / ".stop").forget()  # of the next sweep there
    assert not (tmp_path / ".stop").exists()


def test_a_job_that_was_not_waited_for_is_not_started_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    record, job = interrupted(tmp_path, kept=True)
    record.save()
    beat(tmp_path / "0")
    launcher = launcher_of(tmp_path)
    assert launcher.config is not None
    with pytest.raises(UserError, match="job 0 still runs: wait for it"):
        launcher._record(tmp_path, launcher.config, SweepConfig(), [])
    Outcome("interrupted", 1.0).note(tmp_path / "0")
    assert launcher._record(tmp_path, launcher.config, SweepConfig(), []).jobs == [job]


def test_a_grid_is_handed_over_without_being_composed(tmp_path: Path) -> None:
    sweeper = SearchSweeper(max_batch_size=None, params=None)
    sweeper.config, sweeper.launcher = OmegaConf.create({"sweep": {}, "hydra": {"sweep": {"dir": str(tmp_path)}}}), Mock(ProcessLauncher)
    sweeper.launcher.launch.return_value = []
    sweeper.hydra_context = Mock()  # composes
    sweeper.sweep(["seed=0,1", "loss=ce"])
    sweeper.launcher.launch.assert_called_once_with([["seed=0", "loss=ce"], ["seed=1", "loss=ce"]], 0)
    sweeper.hydra_context.config_loader.load_sweep_config.assert_not_called()


@pytest.mark.parametrize(("many", "shown"), [(8, False), (9, True)])
def test_many_jobs_are_composed_with_progress(monkeypatch: pytest.MonkeyPatch, many: int, shown: bool) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(counted([[]] * many)) == [[]] * many
    assert ("composing the jobs" in terminal.getvalue()) is shown


def test_a_configuration_that_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])

    def record(**composed: Any) -> Record:
        launcher = launcher_of(tmp_path, **composed)
        assert launcher.config is not None
        return launcher._record(tmp_path, launcher.config, SweepConfig(), ["loss", "seed"])

    first = {"optimizer": {"lr": 0.1}, "loss": {"name": "ce"}, "seed": 0, "out": "runs", "sweep": {"jobs": 1}}
    begun = record(**first)
    begun.add("key", ["seed=0"])
    begun.save()
    assert record(**{**first, "loss": {"name": "dice", "smooth": 1}, "seed": 1, "out": "x", "sweep": {"jobs": 2}}) == begun
    said = r"^the configuration has changed since .* was begun \(%s\): sweep.dir=<another directory>, or undo the change$"
    for changed, key in [({"optimizer": {"lr": 0.2}}, "optimizer.lr"), ({"optimizer": {"lr": 0.1, "eps": 1}}, "optimizer.eps")]:
        with pytest.raises(UserError, match=said % key):
            record(**{**first, **changed})
    with pytest.raises(UserError, match=said % "seed=0"):
        begun.add("another", ["seed=0"])  # as where the option of a swept group was edited
    begun.base = {}  # of an older release
    begun.add("another", ["seed=0"])
    begun.save()
    assert record(optimizer={"lr": 0.2}) == begun
