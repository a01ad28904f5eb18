"""What is refused on a machine with NPUs, through the command line: one line each, exit code 2, before data is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.accelerators.conftest import environment
from tests.conftest import ROOT, in_one_process

NOWHERE = ["data=folder", "data.root=.", "task.classes=[crack]"]  # it has no images: that is said later


@pytest.mark.timeout(250)
def test_what_a_chip_lacks(simulation: Path, tmp_path: Path) -> None:
    old = {"SIMULATED_NPU_NAME": "Ascend910A"}
    commands = [
        ("train", old, ["profile=ascend", "trainer.precision=bf16-mixed", *NOWHERE]),
        ("train", old, ["profile=ascend", "profile.precision=bf16-mixed", *NOWHERE]),
        ("train", {"SIMULATED_NPUS": "0"}, ["profile=ascend", *NOWHERE]),
        ("train", {}, ["profile=ascend", "profile.channels_last=true", "profile.compile=true", *NOWHERE]),
        ("train", {}, ["profile=gpu", *NOWHERE]),
        ("train", {}, ["profile=auto", "profile.precision=16-mixed", *NOWHERE]),
    ]
    answers = in_one_process(commands, tmp_path, {**environment(simulation), "PYTHONPATH": f"{simulation}{os.pathsep}{ROOT}"})
    lines = [
        ["trainer.precision=bf16-mixed: Ascend910A (profile=ascend) does not compute in bf16: 16-mixed or 32-true"],
        ["profile.precision=bf16-mixed: Ascend910A (profile=ascend) does not compute in bf16: 16-mixed or 32-true"],
        ["profile=ascend: torch_npu sees no NPU: "],
        ["profile.compile=true: torch.compile knows no NPU", "profile.channels_last=true: torch_npu has no such layout"],
        ["profile=gpu: no CUDA GPU is seen"],
        ["profile.precision=16-mixed: a CPU does not train in fp16"],  # auto never takes an NPU
    ]
    for done, expected in zip(answers, lines, strict=True):
        assert done.code == 2, done.err
        assert len(done.err.strip().splitlines()) == len(expected)
        for line, said in zip(done.err.strip().splitlines(), expected, strict=True):
            assert line.startswith(said)
    assert not list((tmp_path / "runs").iterdir())
