"""Jobs that other launchers take: each of them for real, with two jobs of `tiny.py`."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.conftest import installed
from tests.sweeps.test_launcher import Sweep, jobs, seen, spawned_sweep, started  # noqa: F401  # a fixture

STATES = ("state", "attempts")


def told(tmp_path: Path) -> dict[str, tuple[object, object]]:
    return {gamma: (job["state"], job["attempts"]) for gamma, job in jobs(tmp_path).items()}


def test_joblib(spawned_sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    """One is killed, and the same command goes on with it."""
    installed("hydra_plugins.hydra_joblib_launcher", "joblib")
    command = ("hydra/launcher=joblib", "sweep.jobs=2", "loss.gamma=0,2")
    done = spawned_sweep(*command, TINY_FAULTS="kill:2")
    assert done.code == 1, done.err
    assert "job 1 interrupted: killed by SIGKILL" in done.out
    assert told(tmp_path) == {"0": ("finished", 1), "2": ("interrupted", 1)}
    again = spawned_sweep(*command)
    assert again.code == 0, again.err
    assert "1 of 2 jobs have ended before" in again.out
    assert "reproduce the best: python tiny.py loss=focal profile=cpu loss.gamma=0\n" in again.out
    assert told(tmp_path) == {"0": ("finished", 1), "2": ("finished", 2)}
    (found,) = (tmp_path / "runs").glob("*-sweep")
    assert seen(tmp_path, "1")["ckpt"] == "auto"  # from where it stopped
    assert (found / "sweep.csv").read_text().count("finished") == 2 and (found / "sweep.html").is_file()


def test_ray(spawned_sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    """One fails."""
    installed("hydra_plugins.hydra_ray_launcher", "ray")
    done = spawned_sweep("hydra/launcher=ray", "loss.gamma=0,5", TINY_FAULTS="raise:5")
    assert done.code == 1, done.err
    assert "job 1 failed: RuntimeError: the network has left the building" in done.out
    assert told(tmp_path) == {"0": ("finished", 1), "5": ("failed", 1)}


def test_submitit(spawned_sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    """A search, two trials at once in one study."""
    installed("hydra_plugins.hydra_submitit_launcher", "slurm")
    search = ("sweep.sampler=qmc", "sweep.trials=2", "sweep.jobs=2", "sweep.storage=sqlite:///x.db", "loss.gamma=interval(0,5)")
    done = spawned_sweep("hydra/launcher=submitit_local", *search)
    assert done.code == 0, done.err
    assert done.out.count("jobs handed over: 2") == 1
    recorded = jobs(tmp_path).values()
    assert [(job["state"], job["trials"]) for job in recorded] == [("finished", [0]), ("finished", [1])]


def test_a_launcher_that_is_asked_to_end_ends_its_jobs(spawned_sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    """Hydra's own, for it is always there; the grid is one with conditions."""
    grid = ("task=multiclass", "sweep=focal_study", "loss=focal", "loss.form=softmax", "loss.gamma=1,0", "seed=0")
    process = started(tmp_path, "hydra/launcher=basic", *grid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: the same command goes on with what is left" in out
    assert told(tmp_path) == {"1": ("finished", 1), "0": ("interrupted", 1)}
