"""A loss of one's own: by a module that is named, by an installed package, and the README's example as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from segfocal import checkpoint as checkpoints
from tests.conftest import ROOT, Result, spawn
from tests.test_training import TINY

Cli = Callable[..., Result]
README = (ROOT / "README.md").read_text()


def example() -> str:
    found = re.search(r"```python\n(# my_losses.py\n.*?)```", README, re.DOTALL)
    assert found, "the README shows a loss of one's own"
    return found.group(1)


def test_the_readmes_loss_trains_and_is_checked(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(example())
    here = {"PYTHONPATH": str(tmp_path)}
    done = cli("train", *TINY, "plugins=[my_losses]", "loss=power", "loss.exponent=3", **here)
    assert done.code == 0, done.err
    stored = checkpoints.read(next(tmp_path.glob("runs/*/checkpoints/best.ckpt")))["segfocal"]["config"]
    assert stored["loss"] == {"name": "power", "exponent": 3.0}
    assert cli("evaluate", f"ckpt={next(tmp_path.glob('runs/*'))}").code == 0, "evaluation does not need the plug-in"
    wrong = cli("train", "plugins=[my_losses]", "loss=power", "loss.exponent=-1", "loss.exponnt=1", **here)
    assert wrong.code == 2
    assert "loss.exponnt=1: no such key; did you mean exponent?" in wrong.err
    assert "loss.exponent=-1" in wrong.err


def test_a_loss_of_an_installed_package_is_found_by_its_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(example())
    installed = tmp_path / "my_losses-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[segfocal.losses]\npower = my_losses\n")
    done = cli("train", *TINY, "trainer.max_epochs=1", "loss=power", PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.err


def test_the_readmes_loss_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(example())
    program = """
import torch
from my_losses import PowerConfig
from segfocal.config.task import TaskConfig
from segfocal.losses import build_loss
loss = build_loss(PowerConfig(exponent=1), TaskConfig(name="binary", classes=["crack"]))
print(loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]])).item())
"""
    done = spawn("-c", program, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert float(done.out) == torch.tensor(0.5).item(), done.err
