"""Training on the simulated NPU, by the side of the CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.accelerators.conftest import environment
from tests.accelerators.on_npu import ranks as ranks_program
from tests.conftest import ROOT, run, spawn


@pytest.mark.timeout(290)
def test_an_npu_trains_as_the_cpu_does(on_npu: Callable[..., Any]) -> None:
    found = on_npu("training")
    cpu, npu, half = found["cpu"], found["npu"], found["fp16"]
    assert npu["kinds"] == ["npu torch.float32", "weights npu torch.float32"]
    assert len(npu["losses"]) == 4
    assert npu["losses"] == pytest.approx(cpu["losses"], rel=1e-5)
    for name, value in cpu["figures"].items():
        if isinstance(value, float):
            assert npu["figures"][name] == pytest.approx(value, abs=1e-4), name
    # A step waits for nothing, makes no fp64, and has no shape that depends on values; what GradScaler asks for is once a step.
    assert npu["notes"] == [{}] * 4
    assert half["notes"] == [{"sync item": 1}] * 4
    assert found["bf16"]["notes"] == [{}, {}]  # with averaged weights
    # Steps that are not finite: nothing is left of them, nothing waits for it, and GradScaler's scale is not lowered for them.
    for run_of, notes in (("npu skips", {}), ("fp16 skips", {"sync item": 1})):
        assert found[run_of]["notes"] == [notes] * 4, run_of
        assert (found[run_of]["epochs"], found[run_of]["skipped"], found[run_of]["unchanged"]) == ([0, 1], 2, True), run_of
    assert found["fp16 skips"]["scaler"]["scale"] == half["scaler"]["scale"]
    assert found["npu stops"]["steps"] == 2  # it is known in the third
    assert found["npu stops"]["said"].startswith("epoch 1, step 1: the loss is nan, for the samples train_00")
    assert found["fp16 stops"]["said"].startswith(
        "epoch 1, step 2: the gradient is nan, though the loss is finite, for the samples train_00"
    )
    assert found["withheld"] == dict.fromkeys(found["withheld"], True)
    # Mixed precision is mixed: the model computes in half, its weights stay in single.
    assert half["kinds"] == ["npu torch.float16", "weights npu torch.float32"]
    assert found["bf16"]["kinds"] == ["npu torch.bfloat16", "weights npu torch.float32"]
    assert half["losses"] == pytest.approx(cpu["losses"], rel=0.3)
    assert half["losses"] != npu["losses"]
    # Checkpoints are of no device: each goes on from the other's, and is evaluated on the other.
    for run_of in ("npu", "cpu", "fp16", "bf16"):
        assert found[run_of]["devices"] == ["cpu"]
        assert found[run_of]["statistics moved"]
    for resumed in ("npu from npu", "npu from cpu", "cpu from npu"):
        assert found[resumed]["losses"] == pytest.approx(cpu["losses"][2:], rel=1e-5), resumed
    scale, more = half["scaler"], found["fp16 from fp16"]["scaler"]
    assert (scale["_growth_tracker"], more["_growth_tracker"]) == (4, 6)
    evaluated = found["evaluated"]
    for run_of in ("npu", "cpu"):
        there, here = (evaluated[f"{run_of} on {device}"] for device in ("npu", "cpu"))
        assert there["iou_macro"] is not None
        assert there["iou_macro"] == pytest.approx(here["iou_macro"], abs=1e-6)
        assert there["auroc_macro"] == pytest.approx(here["auroc_macro"], abs=1e-6)
        assert (there["pictures on"], here["pictures on"]) == (["npu"], ["cpu"])


@pytest.mark.timeout(290)
def test_the_command_line_on_an_npu_and_its_checkpoint_without_one(simulation: Path, tmp_path: Path) -> None:
    data = ["data.size=64", "data.train=4", "data.val=2", "data.test=2", "data.batch_size=2"]
    small = [*data, "model.encoder=tu-resnet10t", "callbacks.overlays=0", "trainer.max_epochs=1", "data.num_workers=1", "report=false"]
    trained = run(str(ROOT / "train.py"), "profile=ascend", *small, cwd=tmp_path, env=environment(simulation))
    assert trained.code == 0, trained.err[-3000:]
    assert "device: npu (Ascend910B), precision 16-mixed" in trained.out + trained.err
    assert "GradScaler" not in trained.out
    (run_dir,) = (tmp_path / "runs").iterdir()
    # torch_npu is not even there.
    arguments = [f"ckpt={run_dir}", "profile=cpu", "report=false", "overlays=0", "out=evaluated"]
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    evaluated = run(str(ROOT / "evaluate.py"), *arguments, cwd=tmp_path, env=env)
    assert evaluated.code == 0, evaluated.err[-3000:]
    (figures,) = (tmp_path / "evaluated").glob("*/metrics.json")
    assert json.loads(figures.read_text())["iou_macro"] is not None


@pytest.mark.timeout(290)
def test_the_command_line_on_two_npus(simulation: Path, tmp_path: Path) -> None:
    data = [
        "data.size=64",
        "data.train=8",
        "data.val=3",
        "data.test=3",
        "data.batch_size=2",
        "data.num_workers=0",
        "model.encoder=tu-resnet10t",
    ]
    shared = ["profile=ascend", "strategy=ddp", "trainer.devices=2", "trainer.max_epochs=1", "trainer.precision=32-true", "report=false"]
    done = spawn(str(ROOT / "train.py"), *data, *shared, cwd=tmp_path, env=environment(simulation, SIMULATED_NPUS="2"))
    said = [line for line in done.err.splitlines() if "Time stats are currently only collected for CPU and CUDA" not in line]  # torch's own
    assert (done.code, said) == (0, [])
    assert done.out.count("device: npu (Ascend910B)") == 1
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert len((run_dir / "images.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.timeout(290)
def test_two_processes_train_as_one(simulation: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, **environment(simulation, SIMULATED_NPUS="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)}
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}  # what torchrun sets
    ranks = [{**both, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    command = [sys.executable, "-m", "tests.accelerators.on_npu.ranks", str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT, env={**env, **rank}, stderr=subprocess.PIPE, text=True) for rank in ranks]
    alone = ranks_program.alone()
    errors = [process.communicate(timeout=250)[1][-3000:] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert [first["device"], second["device"]] == ["npu:0", "npu:1"]
    assert [first["current"], second["current"]] == [0, 1]
    assert first["backend"] == "hccl"
    for rank in (first, second):
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        for mine, others in zip(rank["weights"], alone["weights"], strict=True):
            assert mine == pytest.approx(others, abs=1e-6)
        assert rank["mean of integers"] == [0.5, 5.0]  # Lightning's own rounds down
        assert rank["sum of integers"] == [1, 10]
        assert rank["mean"] == [0.5]
        assert rank["told"] == "rank 0"
        assert rank["logged"] == first["pixels"] + second["pixels"]
    assert first["weights"] == second["weights"]
