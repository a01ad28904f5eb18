"""What lies in a run directory whatever happens while it is written."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from segfocal import checkpoint as checkpoints
from segfocal.callbacks import BestFew
from tests.conftest import ROOT, run
from tests.reliability.chained import differing, kept, train

SMALL = [
    "plugins=[tests.reliability.faulty]",
    "model=pspnet",
    "model.encoder=tu-test_resnet",
    "data=synthetic",
    "data.size=64",
    "data.train=8",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "data.crop=[64,64]",
    "data.num_workers=0",
    "callbacks.overlays=0",
    "trainer.test=false",
    "trainer.max_epochs=3",
    "report=false",
    "profile=cpu",
    "logger=csv",
]


def only(cwd: Path, pattern: str) -> Path:
    (found,) = cwd.glob(pattern)
    return found


def test_a_kill_amid_a_save_leaves_no_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(ROOT), "KILLED_SAVES": "40"}
    done = run(str(ROOT / "train.py"), *SMALL, cwd=tmp_path, env=env)
    assert done.code == 0, done.err
    left = [int(line.split()[1]) for line in done.out.splitlines() if line.startswith("killed ")]
    assert len(left) == 40
    assert left[-1] > 5, "most were killed when they had not begun, or had done"
    folder = only(tmp_path, "runs/*/checkpoints")
    assert {path.name for path in folder.iterdir() if path.suffix != ".part"} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    (folder.parent / "result.json").unlink()
    assert train(tmp_path, *SMALL, "ckpt=auto").code == 0
    assert list(folder.glob(".*.part")) == []


def test_damage_to_the_newest_is_found_and_the_one_before_is_gone_on_from(tmp_path: Path) -> None:
    assert train(tmp_path, *SMALL, "out=cut", fault="step 6 SIGKILL").code == -9
    assert train(tmp_path, *SMALL, "out=whole").code == 0
    cut, whole = only(tmp_path, "cut/*"), only(tmp_path, "whole/*")
    last = cut / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    done = train(tmp_path, *SMALL, "out=cut", "ckpt=auto")
    assert done.code == 0, done.err
    said = [line for line in done.out.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{last}: cannot be read as a checkpoint")
    assert said[0].endswith("; going on from the one before it")
    assert f"going on from {last.with_name('previous.ckpt').relative_to(tmp_path)}, after step 2\n" in done.out
    assert differing(kept(whole), kept(cut)) == []
    assert (whole / "metrics.csv").read_bytes() == (cut / "metrics.csv").read_bytes()
    assert last.with_suffix(".damaged").read_bytes() == content


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more"])
def test_where_no_checkpoint_is_whole_it_says_so(tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).write_bytes(damage)
    done = train(tmp_path, *SMALL, "ckpt=run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "cannot be read as a checkpoint" in done.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=False).returncode == 0
    )
    if not mounted:
        if os.environ.get("CI"):
            pytest.fail("CI cannot mount a file system: a full disk is not tested")
        pytest.skip("NOT TESTED on a full disk: only root can mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_a_line_and_the_checkpoints_before_it_are_whole(small_disk: Path) -> None:
    done = train(small_disk, *SMALL, "logger=[csv,tensorboard]", f"hydra.run.dir={small_disk}/run", fault="saved 3 full")
    assert done.code == 2, done.err
    assert done.err == (
        "run: cannot be written (No space left on device): make room; run/checkpoints/last.ckpt is whole, and the same command goes on "
        "with ckpt=auto\n"
    )
    run_dir = small_disk / "run"
    assert {path.name: checkpoints.read(path)["epoch"] for path in run_dir.glob("checkpoints/*.ckpt")} == {
        "best.ckpt": 0,
        "last.ckpt": 1,
        "previous.ckpt": 0,
    }
    (small_disk / "filling").unlink()
    again = train(small_disk, *SMALL, "logger=[csv,tensorboard]", f"hydra.run.dir={small_disk}/run", "ckpt=auto")
    assert again.code == 0, again.err


def test_a_directory_takes_one_run_at_a_time_and_no_second_one(tmp_path: Path) -> None:
    assert train(tmp_path, *SMALL, "hydra.run.dir=run", fault="step 3 SIGTERM").code == 143
    before = sorted((tmp_path / "run").rglob("*"))
    done = train(tmp_path, *SMALL, "hydra.run.dir=run")
    assert (done.code, done.out) == (2, "")
    assert done.err == "hydra.run.dir=run: holds a run: ckpt=auto goes on with it, else take another directory\n"
    with (tmp_path / "run" / ".run").open("r+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        done = train(tmp_path, *SMALL, "hydra.run.dir=run", "ckpt=auto")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"run: process \d+ is at work there: wait for it, or hydra.run.dir=<another directory>\n", done.err)
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize("place", ["out", "hydra.run.dir"])
def test_a_place_that_takes_no_files_is_said_before_the_data_is_read(tmp_path: Path, place: str) -> None:
    done = train(tmp_path, f"{place}=/proc/nowhere", "data=folder", "data.root=.", "task.classes=[crack]")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"{place}=/proc/nowhere: .* is not a directory that can be written to (.*)\n", done.err)


def test_a_run_that_goes_on_keeps_as_many_of_the_best_as_it_is_told_now(tmp_path: Path) -> None:
    best = ["model=unet", "objective=val/loss", "optimizer.lr=1e-3"]
    assert train(tmp_path, *SMALL, *best, "callbacks.keep_best=3", "out=cut").code == 0
    folder = only(tmp_path, "cut/*") / "checkpoints"
    assert len(list(folder.glob("best-*.ckpt"))) == 3, "the loss has fallen in each epoch"
    more = [*best, "callbacks.keep_best=2", "trainer.max_epochs=6"]
    assert train(tmp_path, *SMALL, *more, "out=rest", f"ckpt={folder.parent}").code == 0
    assert len(list((only(tmp_path, "rest/*") / "checkpoints").glob("best-*.ckpt"))) == 2


def test_processes_that_go_on_see_the_same_best_before_one_removes_what_is_too_much(tmp_path: Path) -> None:
    paths = [tmp_path / f"best-{step:06d}.ckpt" for step in (2, 4, 6)]
    for path in paths:
        path.touch()
    few = BestFew(tmp_path, filename="best-{step:06d}", monitor="val/loss", mode="min", save_top_k=3)
    few.best_k_models = {str(path): torch.tensor(score) for path, score in zip(paths, (0.3, 0.1, 0.2), strict=True)}
    few.best_model_path, few.kth_best_model_path = str(paths[1]), str(paths[0])
    leading, other = (BestFew(tmp_path, filename=few.filename, monitor="val/loss", mode="min", save_top_k=2) for _ in range(2))
    for process in (leading, other):
        process.load_state_dict(few.state_dict())
    assert sorted(other.best_k_models) == sorted(leading.best_k_models) == [str(path) for path in paths[1:]]
    for process, is_leading in ((other, False), (leading, True)):
        assert all(path.exists() for path in paths)
        trainer: Any = SimpleNamespace(is_global_zero=is_leading)
        process.on_train_start(trainer, LightningModule())
    assert sorted(tmp_path.iterdir()) == paths[1:]


def test_going_on_from_the_best_itself_it_stays_the_best(tmp_path: Path) -> None:
    """Until one is better, and that one is compared with it."""
    best = ["model=unet", "objective=val/loss"]
    assert train(tmp_path, *SMALL, *best, "out=cut", fault="step 5 SIGTERM").code == 143
    cut = only(tmp_path, "cut/*") / "checkpoints" / "best.ckpt"
    assert train(tmp_path, *SMALL, *best, "out=rest", f"ckpt={cut}", fault="step 1 SIGTERM").code == 143
    rest = only(tmp_path, "rest/*") / "checkpoints"
    assert (rest / "best.ckpt").read_bytes() == cut.read_bytes()
    assert _best_score(rest / "last.ckpt") == _best_score(cut)


def _best_score(path: Path) -> float:
    states = checkpoints.read(path)["callbacks"]
    (score,) = [state["best_model_score"] for name, state in states.items() if "KeptCheckpoint" in name and "val/loss" in name]
    return float(score)


def test_a_checkpoint_of_a_future_that_is_not_the_runs_is_not_its_best(tmp_path: Path) -> None:
    """The newest was damaged: what the epoch after the one before had for its best is not gone on with."""
    best = ["model=unet", "objective=val/loss", "callbacks.keep_best=2"]
    assert train(tmp_path, *SMALL, *best, "out=cut", fault="step 6 SIGKILL").code == -9
    folder = only(tmp_path, "cut/*") / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "best-000002.ckpt", "best-000004.ckpt", "last.ckpt", "previous.ckpt"}
    assert kept(folder.parent, "best")["global_step"] == 4
    (folder / "last.ckpt").write_bytes(b"")
    assert train(tmp_path, *SMALL, *best, "out=cut", "ckpt=auto", fault="step 1 SIGTERM").code == 143
    assert {path.name for path in folder.iterdir()} == {"best-000002.ckpt", "last.ckpt", "previous.ckpt", "last.damaged"}
