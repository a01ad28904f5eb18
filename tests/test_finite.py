"""Losses and gradients that are not finite: found before the update, said with the samples, and nothing is left of them."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from segfocal import checkpoint as checkpoints
from segfocal.data.dataset import Batch
from segfocal.errors import UserError
from segfocal.finite import FiniteSteps
from tests.checkpoints import train_config
from tests.conftest import ROOT, Result, run, spawn
from tests.faulty import SEEN
from tests.reliability.chained import differing, kept

RUN = [  # four batches an epoch
    "model.encoder=tu-test_resnet",
    "data.size=64",
    "data.train=16",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.precision=32-true",
    "trainer.test=false",
    "callbacks.overlays=0",
    "logger=csv",
    "profile=cpu",
    "report=false",
    "plugins=[tests.faulty]",
    "loss=faulty",
]
LOWER = "lower optimizer.lr=0.0015, or look at the options of loss=faulty"
SKIP = "trainer.nonfinite=skip leaves such steps out"


def train(cwd: Path, *overrides: str) -> Result:
    return run(str(ROOT / "train.py"), *RUN, *overrides, cwd=cwd)


def run_of(cwd: Path, out: str = "runs") -> Path:
    (found,) = (cwd / out).iterdir()
    return found


def names(cwd: Path, *batches: int, seen: str = SEEN, out: str = "runs") -> list[str]:
    """Of the samples that the training batches had, counted from 1."""
    split = json.loads((run_of(cwd, out) / "splits.json").read_text())["train"]
    places = json.loads((cwd / seen).read_text())
    return [split[place] for number in batches for place in places[number - 1]]


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_a_loss_that_is_not_finite_ends_the_run_before_its_step(tmp_path: Path) -> None:
    done = train(tmp_path, "loss.at=[6]")
    last = run_of(tmp_path) / "checkpoints" / "last.ckpt"
    line = (
        f"epoch 2, step 6: the loss is nan, for the samples {', '.join(names(tmp_path, 6))}; the images are finite; "
        f"the step was not taken; {LOWER}; {SKIP}; the newest checkpoint is {last.relative_to(tmp_path)}\n"
    )
    assert (done.code, done.err) == (2, line)
    assert {path.name for path in last.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert checkpoints.read(last)["epoch"] == 0


def test_a_gradient_that_is_not_finite_is_told_from_its_loss(tmp_path: Path) -> None:
    more = ["trainer.accumulate=2", "trainer.precision=bf16-mixed", "trainer.gradient_clip=0"]
    done = train(tmp_path, "loss.how=gradient", "loss.at=[1]", *more)
    both = ", ".join(names(tmp_path, 1, 2))
    assert done.code == 2
    said = rf"epoch 1, step 1: the gradient is (inf|nan), though the loss is finite, for the samples {both}; the images are finite; "
    lower = "lower optimizer.lr=0.0015, trainer.gradient_clip=1, take trainer.precision=32-true, or look at the options of loss=faulty"
    assert re.fullmatch(said + f"the step was not taken; {lower}; {SKIP}; there is no checkpoint yet\n", done.err), done.err


def test_a_run_that_leaves_a_step_out_is_the_run_in_which_that_step_changed_nothing(tmp_path: Path) -> None:
    """Weights, their average, moments and BatchNorm's statistics, bit by bit; the loss is NaN in the first of two batches of a step."""
    more = ["trainer.accumulate=2", "callbacks.ema=0.9"]
    skipped = train(tmp_path, *more, "trainer.nonfinite=skip", "loss.at=[3]", "loss.held=[99]", "out=skipped")
    held = train(tmp_path, *more, "loss.at=[99]", "loss.held=[2]", "out=held")
    assert (skipped.code, held.code) == (0, 0), skipped.err + held.err
    aside = ("/loss/at/0", "/loss/held/0", "/trainer/nonfinite", "/skipped")
    found, expected = (run_of(tmp_path, out) for out in ("skipped", "held"))
    for which in ("last", "best"):
        assert [place for place in differing(kept(found, which), kept(expected, which)) if not place.endswith(aside)] == []
    assert any("running_var" in name for name in kept(found)["state_dict"])
    samples = ", ".join(names(tmp_path, 3, out="held"))
    assert f"epoch 1, step 2: the loss is nan, for the samples {samples}; the images are finite; the step is left out\n" in skipped.out
    assert skipped.out.count("left out") == 2
    assert "1 step was left out, since loss or gradient were not finite (trainer.nonfinite=skip)" in skipped.out
    assert losses(found)[0] != losses(expected)[0]  # the mean of three batches, and of four
    assert math.isfinite(losses(found)[0])
    assert losses(found)[1] == losses(expected)[1]


def test_steps_are_left_out_up_to_a_limit_also_when_the_run_goes_on(tmp_path: Path) -> None:
    skip = ["trainer.nonfinite=skip", "trainer.nonfinite_limit=3"]
    done = train(tmp_path, *skip, "loss.at=[2,4,5,6,7]")
    assert done.code == 2
    assert re.match(r"epoch 2, step 6: .*; that are 3 steps in a row, trainer.nonfinite_limit=3; lower [^;]*; the newest", done.err)
    assert len(done.err.splitlines()) == 1
    assert re.findall(r"step (\d): .* the step is left out", done.out) == ["2", "4", "5"]
    rest = train(tmp_path, *skip, "loss.at=[1,2]", f"ckpt={run_of(tmp_path)}", "out=rest")
    assert rest.code == 2
    last = run_of(tmp_path) / "checkpoints" / "last.ckpt"
    assert rest.err.startswith("epoch 2, step 6: ")
    assert rest.err.endswith(
        f"; the newest checkpoint is {last.relative_to(tmp_path)}\n"
    )  # the one it went on from: it has none of its own


def test_an_epoch_of_which_every_step_is_left_out_has_no_loss(tmp_path: Path) -> None:
    done = train(tmp_path, "trainer.nonfinite=skip", "loss.at=[5,6,7,8]", "trainer.max_epochs=2")
    assert (done.code, "epoch 2 of 2  train/loss nan" in done.out) == (0, True), done.err
    assert len(losses(run_of(tmp_path))) == 1


@pytest.mark.parametrize(
    ("split", "factor", "where"),
    [
        (16, "null", r"epoch 1, step \d: the loss is nan"),
        (16, "1e25", r"epoch 1, step \d: BatchNorm's statistics are not finite"),  # the loss is: BatchNorm divides by an infinite deviation
        (4, "null", "validation of epoch 1: scores are nan"),
    ],
)
def test_an_image_out_of_all_bounds_is_named(tmp_path: Path, split: int, factor: str, where: str) -> None:
    done = train(tmp_path, "augment=light", "loss.image=2", f"loss.split={split}", f"loss.factor={factor}")
    assert done.code == 2
    name = json.loads((run_of(tmp_path) / "splits.json").read_text())["train" if split == 16 else "val"][2]
    assert re.match(where, done.err), done.err
    assert re.search(rf"; of the normalised images {name} holds (nan|9.03e\+27); .*look at these images: mend them or", done.err), done.err
    assert len(done.err.splitlines()) == 1


def test_a_training_that_diverges_ends_with_a_line(tmp_path: Path) -> None:
    done = train(tmp_path, "optimizer.lr=1e20", "scheduler=constant", "loss=focal")
    assert done.code == 2
    assert re.match(r"epoch 1, step 2: the loss is nan, for .*; lower optimizer.lr=1e\+20, or look at .* loss=focal; ", done.err), done.err
    assert len(done.err.splitlines()) == 1


def test_an_objective_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    more = ["objective=val/loss", "trainer.max_epochs=3"]
    done = train(tmp_path, *more, "loss.validations=[1,3]", "out=some")
    assert done.code == 0, done.err
    assert kept(run_of(tmp_path, "some"), "best")["epoch"] == 1
    none = train(tmp_path, *more, "loss.validations=[-1]", "callbacks.early_stopping=2", "out=none")
    assert none.code == 0, none.err
    directory = run_of(tmp_path, "none")
    assert kept(directory)["epoch"] == 1  # two validations without a better one
    assert not (directory / "checkpoints" / "best.ckpt").exists()
    assert "val/loss was no number in any validation: there is no best checkpoint, and the last one is evaluated" in none.out
    assert json.loads((directory / "result.json").read_text())["value"] is None
    with pytest.raises(UserError, match=r"no checkpoints/best.ckpt .*: no objective was a number yet: ckpt=.*last.ckpt"):
        checkpoints.locate(str(directory), "best")


def test_a_validation_holds_no_memory_of_a_worker() -> None:
    """Each piece of it is a file that is open: systems allow 1024, and validations have more batches."""
    watch, batch = FiniteSteps(train_config()), Batch(torch.ones(2, 3, 8, 8), torch.zeros(2, 8, 8), torch.arange(2).share_memory_())
    watch.on_validation_batch_end(Trainer(logger=False, enable_checkpointing=False), None, torch.ones(2, 1, 8, 8), batch)
    assert not any(part.is_shared() for batch in watch.validated for part in batch)
    assert watch.validated[0][0].tolist() == [0, 1]


@pytest.mark.timeout(250)
def test_of_two_processes_the_one_with_the_samples_is_heard(tmp_path: Path) -> None:
    """The second's loss is NaN twice: both leave the first such step out, and end at the second.

    Between them lies a validation of three batches, of which one process has two: BatchNorm's statistics must not be sent with each.
    """
    two = [
        "strategy=ddp",
        "trainer.devices=2",
        "data.val=9",
        "trainer.nonfinite=skip",
        "trainer.nonfinite_limit=2",
        "loss.rank=1",
        "loss.at=[2,3]",
    ]
    done = spawn(str(ROOT / "train.py"), *RUN, *two, cwd=tmp_path)
    assert done.code == 2, done.err
    told = [", ".join(names(tmp_path, number, seen=f"1{SEEN}")) for number in (2, 3)]
    assert done.out.count("the step is left out") == 1
    assert f"epoch 1, step 2: the loss is nan, for the samples {told[0]}; the images are finite; the step is left out\n" in done.out
    assert re.match(f"epoch 2, step 3: the loss is nan, for the samples {told[1]}; .*; that are 2 steps in a row", done.err), done.err
    assert len(done.err.splitlines()) == 1
    weights: dict[str, Any] = kept(run_of(tmp_path))["state_dict"]
    assert all(bool(value.isfinite().all()) for value in weights.values())
