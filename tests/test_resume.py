"""A run that is killed and goes on ends bit for bit where it would have ended: through the command line, with all that is drawn by chance."""

from __future__ import annotations

import csv
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT, Result, started

EPOCHS = 6
CHANCE = [  # samples, crops, augmentation, pasting, dropout, which fpn has
    "model=fpn",
    "model.encoder=tu-test_resnet",
    "data=synthetic",
    "data.size=64",
    "data.train=32",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "data.crop=[32,32]",
    "sampling=rare_class",
    "augment=strong",
    "augment.copy_paste=0.5",
    "callbacks.ema=0.9",
    "callbacks.overlays=0",
    "trainer.test=false",
    "report=false",
    f"trainer.max_epochs={EPOCHS}",
    "profile=cpu",
    "logger=csv",
]
HOW = {
    "ram": ["data.cache=ram", "data.num_workers=0", "scheduler=onecycle", "objective=val/loss"],
    "disk": ["data.cache=disk", "data.num_workers=1", "scheduler=plateau", "scheduler.patience=1", "optimizer.lr=1e-6"],
}
# Where a run lies, that it went on, and what nobody reads.
ASIDE = ("dirpath", "_path", ".ckpt", "/config/ckpt", "/config/out", "/current_score", "scheduler_progress")


def kept(run_dir: Path, which: str = "last") -> dict[str, Any]:
    return dict(torch.load(run_dir / "checkpoints" / f"{which}.ckpt", weights_only=True))


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


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    one, other = dict(leaves(first)), dict(leaves(second))
    assert one.keys() == other.keys()
    return [place for place, value in one.items() if not same(value, other[place])]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def killed(cwd: Path, *overrides: str) -> tuple[Path, str]:
    """Start a run and kill it and its workers some time after the first epoch is kept; returns its directory, and when that was."""
    found: list[Path] = []
    with started(str(ROOT / "train.py"), *overrides, "out=cut", cwd=cwd) as process:
        while not found and process.runs:
            time.sleep(0.005)
            found = list(cwd.glob("cut/*/checkpoints/last.ckpt"))
        delay = random.uniform(0, 0.4)  # an epoch takes about 0.3 s
        time.sleep(delay)
        process.kill()
        done = process.result()
    assert done.code == -signal.SIGKILL, done.err
    assert found, done.err
    return found[0].parents[1], f"killed {delay:.3f} s after the first epoch was kept"


@pytest.mark.parametrize("how", HOW)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, cli: Callable[..., Result], how: str) -> None:
    overrides = [*CHANCE, *HOW[how]]
    cut, when = killed(tmp_path, *overrides)
    steps, done = kept(cut)["global_step"], kept(cut)["epoch"] + 1
    assert 1 <= done < EPOCHS, when
    rest = cli("train", *overrides, f"ckpt={cut}", "out=rest")
    assert rest.code == 0, f"{when}: {rest.err}"
    whole = cli("train", *overrides, "out=whole", XDG_CACHE_HOME=str(tmp_path / "elsewhere"))
    assert whole.code == 0, whole.err
    (resumed,), (never_cut,) = tmp_path.glob("rest/*"), tmp_path.glob("whole/*")
    for which in ("last", "best"):
        assert differing(kept(never_cut, which), kept(resumed, which)) == [], when
    assert {"state_dict", "current_model_state", "averaging_state", "optimizer_states"} <= kept(resumed).keys()
    expected = [row for row in rows(never_cut) if int(row["step"]) >= steps]
    assert len([row for row in expected if row["val/loss"]]) == EPOCHS - done
    assert rows(resumed) == expected, when
