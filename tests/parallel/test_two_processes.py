"""Two processes on the CPU, through the command line: what they come to is what one comes to with the batches of both."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segfocal import checkpoint as checkpoints
from segfocal.data.datamodule import SegmentationData
from segfocal.engine import fit
from segfocal.evaluation import evaluate
from segfocal.losses import build_loss
from segfocal.models import build_model
from tests.conftest import ROOT, Result, blobs, spawn, write_folder
from tests.data.test_streaming import packed
from tests.reliability.chained import differing, kept
from tests.reports import Elements
from tests.test_training import configured

pytestmark = pytest.mark.xdist_group("two processes")

# Shards, aimed samples, accumulation, averaged weights; nothing whose outcome depends on what else is in a device's batch: no BatchNorm,
# and the dropout of fpn is taken out by `PLUGIN`.
RUN = [
    "data=streaming",
    "task.classes=[blob]",
    "data.batch_size=2",
    "data.crop=[64,64]",
    "sampling=rare_class",
    "loss.terms.ce.class_weights=[3.0]",  # of the default: what is said by a word is numbers by then
    "loss.weights.dice=1",
    "model=fpn",
    "model.encoder=tu-test_convnext",
    "trainer.accumulate=2",
    "trainer.precision=32-true",
    "scheduler=constant",
    "optimizer=sgd",  # AdamW makes as much of a gradient of 1e-12 as of any other
    "optimizer.lr=0.05",
    "objective=val/loss",
    "profile=cpu",
    "logger=csv",
    "trainer.max_epochs=3",
    "callbacks.ema=0.95",  # however many epochs
    "callbacks.overlays=4",
    "report=false",
]
PLUGIN = """
import logging
from torch import nn
told = []
def forward(self, image):
    if not told:
        told.append(logging.getLogger("segfocal").warning("no dropout"))
    return image
nn.Dropout2d.forward = forward
"""
DDP = ["strategy=ddp", "trainer.devices=2"]
STEPS = 6  # of the optimiser: seven batches of two are three for each process, and two steps an epoch


def data(root: Path) -> Path:
    """15 images to train on, and of two sizes nine to validate and nine to test: three batches of five for one process, two of four for the other."""
    samples = blobs(15) + [sample for seed in (1, 2) for sample in blobs(5, seed=seed) + blobs(4, (64, 96), seed=seed)]
    rng = np.random.default_rng(0)
    for _, mask in samples:
        mask[: rng.integers(0, 40)] = 255  # the processes have unequal numbers of pixels that count
    names = write_folder(root / "folder", samples)
    for split, part in {"train": names[:15], "val": names[15:24], "test": names[24:]}.items():
        (root / "folder" / f"{split}.txt").write_text("\n".join(part) + "\n")
    return packed(root / "folder", root / "pack", "data=folder", "task.classes=[blob]", shard_bytes=60_000)


@dataclass
class Runs:
    """A run of two processes, and where it lies."""

    root: Path
    overrides: list[str]
    done: Result
    run_dir: Path

    def env(self, **more: str) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join([str(self.root), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("two")
    (root / "no_dropout.py").write_text(PLUGIN)
    overrides = [*RUN, f"data.root={data(root)}", "plugins=[no_dropout]"]
    runs = Runs(root, overrides, Result(0, "", ""), root)
    runs.done = spawn(str(ROOT / "train.py"), *overrides, *DDP, "report=true", cwd=root, env=runs.env())
    assert runs.done.code == 0, runs.done.err
    (runs.run_dir,) = (root / "runs").iterdir()
    return runs


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch: pytest.MonkeyPatch, two: Runs) -> None:
    monkeypatch.setattr(nn.Dropout2d, "forward", lambda self, image: image)
    monkeypatch.syspath_prepend(two.root)


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_weights(first: dict[str, Any], second: dict[str, Any], key: str) -> None:
    assert first[key].keys() == second[key].keys()
    for name, value in first[key].items():
        torch.testing.assert_close(value, second[key][name], rtol=1e-5, atol=1e-5, msg=name)


def test_one_process_writes_and_speaks(two: Runs) -> None:
    assert two.done.err == ""
    for words in ("device: cpu", "no dropout", "epoch 1 of 3", "epoch 3 of 3", "train: 15 images", "test: 9 images", "at its best"):
        assert two.done.out.count(words) == 1 + (words == "test: 9 images"), words  # that one heads the table, too
    step = "2 processes, strategy=ddp: a step sees 2 x 2 images x 2 accumulated, 8 in all; 1 of 7 batches are left out of each epoch"
    assert step in two.done.out
    there = {path.name for path in two.run_dir.iterdir()}
    assert there == {
        ".run",
        "checkpoints",
        "config.yaml",
        "images.csv",
        "metrics.csv",
        "metrics.json",
        "report.html",
        "overlays",
        "result.json",
        "splits.json",
        "train.log",
    }
    assert sorted(path.name for path in two.root.iterdir()) == ["folder", "no_dropout.py", "pack", "runs"]
    assert (two.run_dir / "train.log").read_text().count("epoch 2 of 3") == 1


def test_two_processes_train_as_one_with_the_batches_of_both(two: Runs, tmp_path: Path) -> None:
    fit(configured(*two.overrides, "data.batch_size=4", "data.num_workers=0", "trainer.test=false"), tmp_path)
    both, alone = kept(two.run_dir), kept(tmp_path)
    assert both["global_step"] == alone["global_step"] == STEPS
    same_weights(both, alone, "state_dict")  # the average
    same_weights(both, alone, "current_model_state")
    before = kept(two.run_dir, "best")["state_dict"]
    assert any(not torch.equal(value, before[name]) for name, value in both["current_model_state"].items())
    for mine, other in zip(rows(two.run_dir), rows(tmp_path), strict=True):
        for name, far in (("train/loss", 1e-5), ("val/auroc/blob", 1e-4)):  # a pixel on a bin's edge may come to lie in the next
            assert (mine[name] == "") == (other[name] == "")
            if mine[name]:
                assert float(mine[name]) == pytest.approx(float(other[name]), abs=far), name


def test_the_validation_loss_is_the_mean_over_the_images_of_both(two: Runs) -> None:
    """Five images on one process and four on the other: Lightning's own mean would divide by four and a half, rounded down."""
    config, last = configured(*two.overrides), kept(two.run_dir)
    data = SegmentationData(config.data, config.augment, config.task, 3, 0, 0)
    data.check()
    data.normalise(last["segfocal"]["mean"], last["segfocal"]["std"])
    model = build_model(config.model, config.task, pretrained=False)
    checkpoints.load_weights(model, last, two.run_dir)
    loss, total = build_loss(config.loss, config.task), 0.0
    with torch.no_grad():
        for batch in data.val_dataloader():
            total += len(batch.image) * float(loss(model.eval()(batch.image), batch.target))
    found = [float(row["val/loss"]) for row in rows(two.run_dir) if row["val/loss"]]
    assert found[-1] == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize("split", ["test", "val"])
def test_figures_of_two_processes_are_those_of_one(two: Runs, tmp_path: Path, split: str) -> None:
    evaluate(
        configured(
            f"ckpt={two.run_dir}",
            "profile=cpu",
            "profile.precision=32-true",
            f"split={split}",
            f"report={str(split == 'test').lower()}",
            "overlays=4",
            program="evaluate",
        ),
        tmp_path,
    )
    alone = json.loads((tmp_path / "metrics.json").read_text())
    if split == "val":  # at the epoch that was best
        found = kept(two.run_dir, "best")["segfocal"]["metrics"]
        assert found == {name: alone[name] for name in found}
        return
    assert json.loads((two.run_dir / "metrics.json").read_text()) == alone
    assert alone["intervals"]
    assert (two.run_dir / "images.csv").read_text() == (tmp_path / "images.csv").read_text()
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 1 + 9
    both, one = (json.loads(Elements((run_dir / "report.html").read_text()).data)["checkpoints"][0] for run_dir in (two.run_dir, tmp_path))
    assert [both[key] for key in ("curves", "confusion", "images")] == [one[key] for key in ("curves", "confusion", "images")]
    drawn = "overlays/evaluation.png"  # of the images of both
    assert (two.run_dir / drawn).read_bytes() == (tmp_path / drawn).read_bytes()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def alive(words: str) -> list[str]:
    """Processes whose command line has these words."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words in line:
            found.append(f"{place.parent.name} {line}")
    return found


def test_a_run_that_is_ended_leaves_nobody_and_goes_on_bit_by_bit_under_torchrun_and_alone(two: Runs, tmp_path: Path) -> None:
    more = [*two.overrides, *DDP, "trainer.test=false", "data.num_workers=1"]
    command = [sys.executable, str(ROOT / "train.py"), *more, "trainer.max_epochs=99", f"out={tmp_path / 'cut'}"]
    environment = {**os.environ, **two.env()}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=said)
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob("cut/*/checkpoints/last.ckpt"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM, (tmp_path / "said").read_text()
    while alive(str(tmp_path / "cut")) and time.monotonic() < deadline:  # data workers look once in five seconds
        time.sleep(0.1)
    assert alive(str(tmp_path / "cut")) == []
    assert (tmp_path / "said").read_text().count("the same command goes on with ckpt=auto") == 1
    assert "Traceback" not in (tmp_path / "said").read_text()
    cut = found[0].parents[1]
    assert 0 < kept(cut)["global_step"] < STEPS
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", str(ROOT / "train.py")]
    rest = spawn(*torchrun, *more, f"ckpt={cut}", "out=rest", cwd=tmp_path, env=two.env())
    assert rest.code == 0, rest.err
    (resumed,) = tmp_path.glob("rest/*")
    aside = ("/config/trainer/test", "/config/data/num_workers", "/config/report")
    differ = [place for place in differing(kept(two.run_dir), kept(resumed)) if not place.endswith(aside)]
    assert differ == []
    assert (resumed / "metrics.csv").read_bytes() == (two.run_dir / "metrics.csv").read_bytes()
    (tmp_path / "alone").mkdir()
    fit(configured(*two.overrides, "trainer.test=false", "trainer.max_epochs=4", f"ckpt={two.run_dir}"), tmp_path / "alone")
    assert kept(tmp_path / "alone")["epoch"] == 3


def rank_of(pid: str) -> str | None:
    """Of a process, by its environment."""
    try:
        variables = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((line[5:].decode() for line in variables if line.startswith(b"RANK=")), None)


def test_a_process_that_is_killed_takes_along_one_that_hangs(two: Runs, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *two.overrides,
        *DDP,
        "data.num_workers=0",
        "trainer.max_epochs=999",
        f"out={tmp_path}",
    ]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=two.root, env={**os.environ, **two.env()}, stdout=said, stderr=said)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    ranks = {rank_of(pid): int(pid) for pid in (line.split()[0] for line in alive(f"out={tmp_path}"))}
    os.kill(ranks["1"], signal.SIGSTOP)
    os.kill(ranks["0"], signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert (tmp_path / "said").read_text().endswith("\nprocess 0 of 2 was ended by SIGKILL: memory ran out, most likely\n")
    assert alive(f"out={tmp_path}") == []


def test_a_file_that_one_process_cannot_read_ends_all_with_one_line(two: Runs, tmp_path: Path) -> None:
    """Started by srun, as far as its variables go."""
    pack = tmp_path / "pack"
    subprocess.run(["cp", "-r", str(two.root / "pack"), str(pack)], check=True)
    (chunk,) = (pack / "val").glob("*.bin")
    content = bytearray(chunk.read_bytes())
    ends = np.frombuffer(content, np.uint32, 1 + 9, 4)[1:]  # of the samples: LitData has their number first, then where each begins
    content[ends[3] - 1] ^= 255  # in the fourth batch, of the second process: larger images come first
    chunk.write_bytes(content)
    port = free_port()
    both = {"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_NTASKS": "2"}
    environment = {**os.environ, **two.env(**both, MASTER_PORT=str(port), SLURM_STEP_NODELIST="127.0.0.1", MASTER_ADDR="127.0.0.1")}
    command = [sys.executable, str(ROOT / "train.py"), *two.overrides, f"data.root={pack}", "strategy=ddp"]
    ranks = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120) for process in ranks]
    assert said[0][1] == ""
    assert said[1][1].startswith(f"{chunk}: photo_18 is damaged: ")
    assert len(said[1][1].splitlines()) == 1
    assert "Traceback" not in said[0][0] + said[1][0]
    assert [process.returncode for process in ranks] == [1, 2]


def test_fsdp_trains_as_one_process_and_its_checkpoint_is_anybodys(two: Runs, tmp_path: Path) -> None:
    plain = [*two.overrides, "callbacks.ema=null", "callbacks.overlays=0", "data.num_workers=0", "trainer.test=false"]
    done = spawn(str(ROOT / "train.py"), *plain, "strategy=fsdp", "trainer.devices=2", "trainer.test=true", cwd=tmp_path, env=two.env())
    assert (done.code, done.err) == (0, "")
    (shared,) = (tmp_path / "runs").iterdir()
    (tmp_path / "alone").mkdir()
    fit(configured(*plain, "data.batch_size=4"), tmp_path / "alone")
    both, alone = kept(shared), kept(tmp_path / "alone")
    assert both["global_step"] == alone["global_step"] == STEPS
    same_weights(both, alone, "state_dict")
    losses = [[float(row["train/loss"]) for row in rows(run_dir) if row["train/loss"]] for run_dir in (shared, tmp_path / "alone")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    (tmp_path / "further").mkdir()
    fit(configured(*plain, "data.batch_size=4", "trainer.max_epochs=4", f"ckpt={shared}"), tmp_path / "further")
    assert kept(tmp_path / "further")["epoch"] == 3
    (tmp_path / "evaluated").mkdir()
    evaluate(
        configured(f"ckpt={shared}", "profile=cpu", "profile.precision=32-true", "report=false", "overlays=0", program="evaluate"),
        tmp_path / "evaluated",
    )
    assert (tmp_path / "evaluated" / "images.csv").read_text() == (shared / "images.csv").read_text()
