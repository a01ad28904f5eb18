"""Runs that are struck and go on, and what they come to beside one that never was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.conftest import ROOT, Result, run

CHANCE = [  # samples, crops, augmentation, pasting, dropout, which fpn has
    "plugins=[tests.reliability.faulty]",
    "model=fpn",
    "model.encoder=tu-test_resnet",
    "data=synthetic",
    "data.size=64",
    "data.train=32",
    "data.val=8",
    "data.test=4",
    "data.batch_size=4",
    "data.crop=[32,32]",
    "sampling=rare_class",
    "augment=strong",
    "augment.copy_paste=0.5",
    "callbacks.ema=0.9",
    "callbacks.overlays=0",
    "trainer.test=false",
    "trainer.max_epochs=4",
    "report=false",
    "profile=cpu",
    "logger=csv",
]
# Where a run lies, that it went on, and what nobody reads.
ASIDE = ("dirpath", "_path", ".ckpt", "/config/ckpt", "/config/out", "/current_score", "scheduler_progress")


def train(cwd: Path, *overrides: str, fault: str | None = None) -> Result:
    """train.py to its end, or until it is struck."""
    env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")} | ({"FAULT": fault} if fault else {})
    return run(str(ROOT / "train.py"), *overrides, cwd=cwd, env=env)


def kept(run_dir: Path, which: str = "last") -> dict[str, Any]:
    return dict(torch.load(run_dir / "checkpoints" / f"{which}.ckpt", weights_only=True))


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The places in which two checkpoints are not the same."""
    one, other = dict(leaves(first)), dict(leaves(second))
    return [place for place in {**one, **other} if place not in one or place not in other or not same(one[place], other[place])]


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All that a checkpoint holds, and where."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{place}/{key}")
    elif not any(part in place for part in ASIDE):
        yield place, tree


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return bool(type(one) is type(other) and one == other)
