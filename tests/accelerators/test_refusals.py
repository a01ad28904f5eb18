"""profile=ascend where something is missing or does not fit: one line each that says what to do, and never a CPU in its place."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from segfocal.accelerators import load as loading
from segfocal.errors import UserError
from tests.accelerators.conftest import environment, pretend_installed
from tests.conftest import ROOT, run, spawn

TORCH = metadata.version("torch").split("+")[0]


def fake(folder: Path, version: str, code: str = "") -> Path:
    """A torch_npu that does what `code` does when it is imported."""
    (folder / "torch_npu").mkdir(parents=True)
    (folder / "torch_npu" / "__init__.py").write_text(code)
    pretend_installed(folder, version)
    return folder


@pytest.mark.parametrize("program", [["train.py"], ["evaluate.py", "ckpt=none.ckpt"]], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("version", "line"),
    [
        (
            None,
            f"profile=ascend: torch_npu is not installed: install CANN and the torch_npu of torch {TORCH} (see docs/ascend.md), or",
        ),
        ("2.1.0.post3", f"profile=ascend: torch_npu 2.1.0 is for torch 2.1.0, and torch {TORCH} is installed: install the one of"),
        (
            f"{TORCH}.post1",
            "profile=ascend: torch_npu is installed, but CANN is not set up in this shell (ASCEND_HOME_PATH is not set)",
        ),
    ],
    ids=["missing", "version", "CANN"],
)
def test_what_is_missing_is_said_before_torch_is_imported(program: list[str], version: str | None, line: str, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "torch.py").write_text("raise AssertionError('torch was imported')")
    if version:
        fake(tmp_path / "first", version, "raise AssertionError('torch_npu was imported')")
    env = {"PYTHONPATH": str(tmp_path / "first"), "ASCEND_HOME_PATH": "", "ASCEND_TOOLKIT_HOME": "", "ASCEND_OPP_PATH": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = spawn(str(ROOT / program[0]), "profile=ascend", *program[1:], cwd=tmp_path, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.code == 2
    assert done.err.strip().startswith(line)
    assert len(done.err.strip().splitlines()) == 1
    assert "profile=cpu" in done.err
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


@pytest.mark.parametrize(
    "code",
    [
        # As torch_npu has it without CANN: a traceback, and an exit with code 0.
        "import sys; print('ImportError: libhccl.so: cannot open shared object file', file=sys.stderr); sys.exit()",
        "raise ImportError('libhccl.so: cannot open shared object file')",
        "raise OSError('libhccl.so: cannot open shared object file')",
    ],
)
def test_a_torch_npu_that_cannot_be_imported(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(fake(tmp_path / "first", TORCH, code))
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    with pytest.raises(UserError) as raised:
        loading.load("ascend")
    (line,) = str(raised.value).splitlines()
    assert line.startswith("profile=ascend: torch_npu cannot be imported (")
    assert "libhccl.so: cannot open shared object file" in line
    assert "set_env.sh" in line
    assert capfd.readouterr().err == ""
    assert "torch_npu" not in sys.modules


def test_torch_npu_is_not_imported_unless_it_is_asked_for(simulation: Path) -> None:
    assert "torch_npu:_autoload" in (simulation / f"torch_npu-{metadata.version('torch')}.dist-info" / "entry_points.txt").read_text()
    code = "import segfocal.cli, torch, sys; assert 'torch_npu' not in sys.modules"
    env = {**os.environ, **environment(simulation)}
    del env["TORCH_DEVICE_BACKEND_AUTOLOAD"]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


@pytest.mark.timeout(250)
def test_what_npus_refuse(on_npu: Callable[..., Any], tmp_path: Path) -> None:
    found = on_npu("refusals")
    assert found["registered"]
    assert found["count"] == 2
    assert found["parsed"] == [[0], [0, 1], [1], [1, 0]]
    assert found["devices"] == ["npu:0", "npu:1"]
    assert found["stats"] == {"allocated_bytes.all.current": 0}
    assert found["resolved"] == ["16-mixed", "bf16-mixed", "npu"]
    assert found["reason"] == "npu (Ascend910B), precision 16-mixed (every chip has it), 3 workers"
    assert found["bf16"].startswith("UserError: trainer.precision=bf16-mixed: Ascend910A (profile=ascend) does not compute in bf16")
    assert found["none"].startswith("UserError: profile=ascend: torch_npu sees no NPU: npu-smi info")
    assert found["too many"].startswith("UserError: 3 NPUs are asked for, and torch_npu sees 2")
    assert found["another"].startswith("UserError: devices=[2] is asked for, and torch_npu sees 2")
    assert found["strategy of Lightning"].startswith("ValueError: the accelerator npu was given the device cpu")
    assert found["strategy of a CPU"].startswith("ValueError: SingleNPUStrategy(device=cpu): an NPU is expected")
    assert found["right"] == "nothing"
    for name, message in found.items():
        assert "\n" not in str(message), name
    # What was saved from an NPU is read where there is none; what is no checkpoint is said in one line.
    tagged = torch.load(tmp_path / "tagged.ckpt", map_location="cpu", weights_only=True)
    assert tagged["state_dict"]["weight"].tolist() == [0.0, 1.0, 2.0]
    done = run(str(ROOT / "evaluate.py"), f"ckpt={tmp_path / 'tagged.ckpt'}", "profile=cpu", cwd=tmp_path)
    assert done.code == 2
    assert done.err.strip() == f"{tmp_path / 'tagged.ckpt'}: not a checkpoint of this program"
