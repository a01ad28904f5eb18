"""Sweeps through Hydra and our launcher as users start them; the program of the jobs is `tiny.py`, which trains nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from segfocal.config.parse import mistakes_of_jobs, parse
from segfocal.config.run import TrainConfig
from segfocal.config.schema import CONF, register_schemas
from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError
from segfocal.sweeps.slots import Slots, slots_of
from segfocal.sweeps.space import read_space
from tests.conftest import ROOT, Result, Started

TINY = [sys.executable, str(ROOT / "tests" / "sweeps" / "tiny.py"), "-m", "loss=focal"]
Sweep = Callable[..., Result]


def environment(**env: str) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return {**rest, "PYTHONPATH": str(ROOT), **env}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """`sweep("loss.gamma=0,1", TINY_FAULTS="kill:1")` runs a sweep in an empty directory; its jobs are real processes, it itself is forked."""

    def call(*overrides: str, **env: str) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            process = Started(Path(folder), [*TINY[1:], "profile=cpu", *overrides], tmp_path, environment(**env))
            try:
                return process.result()
            finally:
                process.end()

    return call


@pytest.fixture
def spawned_sweep(tmp_path: Path) -> Sweep:
    """Likewise, from its first import on."""

    def call(*overrides: str, **env: str) -> Result:
        command = [*TINY, "profile=cpu", *overrides]
        done = subprocess.run(command, cwd=tmp_path, env=environment(**env), capture_output=True, text=True, timeout=100, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


def directory(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "runs").glob("*-sweep")
    return found


def jobs(tmp_path: Path) -> dict[str, dict[str, object]]:
    """What is recorded of each job, by its gamma."""
    recorded = json.loads((directory(tmp_path) / "sweep.json").read_text())["jobs"]
    gammas = [next(line for line in job["overrides"] if line.startswith("loss.gamma")).partition("=")[2] for job in recorded]
    return dict(zip(gammas, recorded, strict=True))


def seen(tmp_path: Path, job: str) -> dict[str, object]:
    return json.loads((directory(tmp_path) / job / "seen.json").read_text())


def test_the_rest_finish_and_the_same_command_finishes_what_died(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("loss.gamma=0,1,2,5", TINY_FAULTS="kill:2,raise:5")
    assert done.code == 1
    first = jobs(tmp_path)
    assert {gamma: job["state"] for gamma, job in first.items()} == {"0": "finished", "1": "finished", "2": "interrupted", "5": "failed"}
    assert "job 2 interrupted: killed by SIGKILL" in done.out
    assert "job 3 failed: RuntimeError: the network has left the building" in done.out
    with (directory(tmp_path) / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss.gamma"], row["state"]) for row in rows] == [
        ("0", "finished"),
        ("1", "finished"),
        ("2", "interrupted"),
        ("5", "failed"),
    ]
    assert [row["val/iou_macro"] for row in rows] == ["1.0", "0.5", "", ""]

    untouched = (directory(tmp_path) / "0" / "seen.json").stat().st_mtime_ns
    again = sweep("loss.gamma=0,1,2,5")
    assert again.code == 0, again.err
    assert "2 of 4 jobs have ended before" in again.out
    assert "reproduce the best: python tiny.py loss=focal profile=cpu loss.gamma=0\n" in again.out
    assert "Job after job" in (directory(tmp_path) / "sweep.html").read_text()
    second = jobs(tmp_path)
    assert {gamma: (job["state"], job["attempts"]) for gamma, job in second.items()} == {
        "0": ("finished", 1),
        "1": ("finished", 1),
        "2": ("finished", 2),
        "5": ("finished", 2),
    }
    assert (directory(tmp_path) / "0" / "seen.json").stat().st_mtime_ns == untouched
    assert seen(tmp_path, "2")["ckpt"] == "auto"  # from where it stopped
    assert seen(tmp_path, "3-2")["ckpt"] is None  # a run that failed starts afresh


def test_a_job_that_is_said_twice_runs_once(spawned_sweep: Sweep, tmp_path: Path) -> None:
    command = ("loss.gamma=1e-1,0.1,0", "sweep.jobs=2")
    done = spawned_sweep(*command)
    assert done.code == 0, done.err
    assert {gamma: (job["state"], job["attempts"]) for gamma, job in jobs(tmp_path).items()} == {
        "0.1": ("finished", 1),
        "0": ("finished", 1),
    }
    assert sorted(path.parent.name for path in directory(tmp_path).glob("*/seen.json")) == ["0", "1"]
    assert "2 of 2 jobs have ended before" in spawned_sweep(*command).out


def test_failed_jobs_can_be_left_alone(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("loss.gamma=0,5", TINY_FAULTS="raise:5").code == 1
    again = sweep("loss.gamma=0,5", "sweep.retry_failed=false")
    assert again.code == 1  # it has not finished
    assert jobs(tmp_path)["5"]["attempts"] == 1


def test_jobs_run_at_once_and_share_the_cores(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("loss.gamma=0,1", "sweep.jobs=2", TINY_SECONDS="2").code == 0
    one, other = seen(tmp_path, "0"), seen(tmp_path, "1")
    assert max(float(str(each["started"])) for each in (one, other)) < min(float(str(each["ended"])) for each in (one, other))
    assert one["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))


@pytest.mark.parametrize(("said", "taken"), [(None, "4"), ("2", "2"), ("16", "4"), ("16,2", "4"), ("0", "4")])
def test_threads_of_jobs_are_not_more_than_cores(monkeypatch: pytest.MonkeyPatch, said: str | None, taken: str) -> None:
    """A cluster sets as many as the whole allocation has; threads of several jobs on one core wait for each other."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert Slots(4, threads=4).environment(0)["OMP_NUM_THREADS"] == taken


def test_each_job_sees_gpus_of_its_own(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("profile=gpu", "loss.gamma=0,1", "sweep.gpus_per_job=2", CUDA_VISIBLE_DEVICES="4,5,6,7", TINY_SECONDS="1")
    assert done.code == 0, done.err
    assert {str(seen(tmp_path, job)["CUDA_VISIBLE_DEVICES"]) for job in "01"} == {"4,5", "6,7"}
    refused = sweep("profile=gpu", "loss.gamma=0,1", "sweep.jobs=3", "sweep.dir=other", CUDA_VISIBLE_DEVICES="4,5")
    assert (refused.code, refused.err) == (2, "sweep.jobs=3 sweep.gpus_per_job=1: this machine has 2 GPUs, enough for 2 jobs at once\n")


def test_npus_are_dealt_as_gpus_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "2,3,6")
    dealt = slots_of(SweepConfig(), "npu")
    assert [dealt.environment(slot)["ASCEND_RT_VISIBLE_DEVICES"] for slot in range(dealt.count)] == ["2", "3", "6"]
    assert dealt.environment(0)["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    pairs = slots_of(SweepConfig(gpus_per_job=2), "npu")
    assert [pairs.environment(slot)["ASCEND_RT_VISIBLE_DEVICES"] for slot in range(pairs.count)] == ["2,3"]
    with pytest.raises(UserError, match="sweep.jobs=2 sweep.gpus_per_job=2: this machine has 3 NPUs, enough for 1 jobs at once"):
        slots_of(SweepConfig(gpus_per_job=2, jobs=2), "npu")
    assert (slots_of(SweepConfig(jobs=3), "cpu").count, slots_of(SweepConfig(), "cpu").devices) == (3, [])
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "")
    assert slots_of(SweepConfig(), "npu").devices == []  # the job says what is missing


def started(tmp_path: Path, *overrides: str, **env: str) -> subprocess.Popen[str]:
    """A sweep whose first job waits until it is told to end."""
    command = [*TINY, "profile=cpu", *overrides]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(TINY_FAULTS="wait:0", **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "waiting").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_sweep_that_is_asked_to_end_ends_its_jobs_and_goes_on(sweep: Sweep, tmp_path: Path, number: int, code: int) -> None:
    process = started(tmp_path, "loss.gamma=0,1")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "interrupted: the same command goes on with what is left" in out
    assert {gamma: job["state"] for gamma, job in jobs(tmp_path).items()} == {"0": "interrupted", "1": "waiting"}
    assert jobs(tmp_path)["0"]["failure"] == "interrupted"  # by itself: a training ends its step and writes a checkpoint
    assert sweep("loss.gamma=0,1").code == 0
    assert {gamma: job["attempts"] for gamma, job in jobs(tmp_path).items()} == {"0": 2, "1": 1}


def test_a_sweep_that_is_killed_takes_its_jobs_along_and_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    process = started(tmp_path, "loss.gamma=0,1")
    second = sweep("loss.gamma=0,1")
    assert second.code == 2
    assert second.err.endswith(f": process {process.pid} is at work there: wait for it, or sweep.dir=<another directory>\n")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-f", f"hydra.run.dir='{directory(tmp_path)}"], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline, "its job runs on"
        time.sleep(0.1)
    assert sweep("loss.gamma=0,1").code == 0
    assert {gamma: (job["state"], job["attempts"]) for gamma, job in jobs(tmp_path).items()} == {"0": ("finished", 2), "1": ("finished", 1)}


def test_a_directory_of_another_sweep_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("loss.gamma=0", "sweep.dir=mine").code == 0
    before = (tmp_path / "mine" / "sweep.json").read_text()
    other = sweep("loss.gamma=0,1", "sweep.dir=mine")
    assert other.code == 2
    assert other.err.startswith("sweep.dir=mine: holds another sweep, of `tiny.py -m loss.gamma=0 loss=focal profile=cpu`: ")
    assert (tmp_path / "mine" / "sweep.json").read_text() == before
    (tmp_path / "mine" / "sweep.json").write_text("{}")
    assert "not the record of a sweep" in sweep("loss.gamma=0", "sweep.dir=mine").err


def test_one_value_is_changed_at_a_time(sweep: Sweep, tmp_path: Path) -> None:
    command = ("sweep.one_at_a_time=true", "loss.gamma=0,1", "optimizer.lr=0.001,0.01", "seed=0,1", "sweep.jobs=2")
    done = sweep(*command)
    assert done.code == 0, done.err
    recorded = json.loads((directory(tmp_path) / "sweep.json").read_text())
    assert recorded["against"] == "first" and len(recorded["jobs"]) == 6
    assert recorded["jobs"][0]["overrides"][-3:] == ["loss.gamma=0", "optimizer.lr=0.001", "seed=0"]
    assert sum("+0.0000" in line for line in done.out.splitlines()) == 1  # the rate, of which this program makes nothing
    assert sweep(*command).out.startswith("6 of 6 jobs have ended before")
    search = sweep(*command, "sweep.sampler=tpe")
    assert (search.code, search.err) == (2, "sweep.one_at_a_time=true: sweep.sampler=tpe chooses by itself: sweep.sampler=null\n")


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_ablation_begins_with_the_default_and_all_its_jobs_can_be_run(task: str) -> None:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", [f"task={task}", "sweep=ablation"])
        lines = read_space(parse(SweepConfig, composed.sweep).space, [f"task={task}", "seed=0"]).one_at_a_time()
        assert mistakes_of_jobs(TrainConfig, "train", lines) == []
        first, default = parse(TrainConfig, compose("train", lines[0])), parse(TrainConfig, compose("train", [f"task={task}"]))
    assert first == default
    assert len(lines) == 23
