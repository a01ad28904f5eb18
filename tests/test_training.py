"""Training as a whole: repeatable, resumable, and what is kept is plain data."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segfocal import checkpoint as checkpoints
from segfocal.callbacks import LastEpoch
from segfocal.config.data import DATA
from segfocal.config.parse import CONF, parse
from segfocal.config.run import EvaluateConfig, TrainConfig
from segfocal.config.schema import register_schemas
from segfocal.durable import DurableCheckpointIO
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.unlearned import Unlearned

TINY = [
    "model.encoder=tu-test_resnet",  # of timm's, for tests: half a million weights
    "data.size=64",
    "data.train=8",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "trainer.max_epochs=2",
    "profile=cpu",
    "data.num_workers=0",
]


def configured(*overrides: str, program: str = "train") -> Any:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(program, list(overrides))
    return parse(TrainConfig if program == "train" else EvaluateConfig, composed)


def trained(out: Path, *overrides: str) -> dict[str, Any]:
    """Train; what metrics.json and the last checkpoint hold."""
    out.mkdir()
    fit(configured(*TINY, *overrides), out)
    last = checkpoints.read(out / "checkpoints" / "last.ckpt")
    return {"metrics": figures(out), "weights": last["state_dict"], "curve": curve(out)}


def figures(out: Path) -> dict[str, Any]:
    content = json.loads((out / "metrics.json").read_text())
    content.pop("checkpoint")
    return dict(content)


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_two_runs_are_the_same_run_whatever_the_workers(tmp_path: Path, mode: str) -> None:
    first = trained(tmp_path / "a", f"task={mode}")
    second = trained(tmp_path / "b", f"task={mode}", "data.num_workers=2")
    assert first["metrics"] == second["metrics"]
    assert first["curve"] == second["curve"]
    assert equal(first["weights"], second["weights"])


def test_the_objective_may_be_the_loss(tmp_path: Path) -> None:
    lowest = fit(configured(*TINY, "objective=val/loss", "logger=csv"), tmp_path)
    assert lowest == pytest.approx(min(float(row["val/loss"]) for row in curve(tmp_path) if row["val/loss"]), rel=1e-6)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert not equal(trained(tmp_path / "a")["weights"], trained(tmp_path / "b", "seed=1")["weights"])


@pytest.mark.parametrize(
    "settings",
    [
        ["scheduler=onecycle", "callbacks.ema=0.9", "sampling=rare_class"],
        ["scheduler=plateau", "optimizer=sgd", "trainer.accumulate=2"],
    ],
    ids=" ".join,
)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write = DurableCheckpointIO.save_checkpoint

    def copy_the_first(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(self, checkpoint, path, storage_options)
        if checkpoint["epoch"] == 0 and Path(path).name == "last.ckpt":  # the state of a run that was killed here
            shutil.copytree(Path(path).parent, tmp_path / "cut" / "checkpoints")

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", copy_the_first)
    whole = trained(tmp_path / "whole", "trainer.max_epochs=3", *settings)
    rest = trained(tmp_path / "rest", "trainer.max_epochs=3", f"ckpt={tmp_path / 'cut'}", *settings)
    assert equal(whole["weights"], rest["weights"])
    assert whole["metrics"] == rest["metrics"]
    assert [row["val/iou_macro"] for row in whole["curve"] if row["val/iou_macro"]][1:] == [
        row["val/iou_macro"] for row in rest["curve"] if row["val/iou_macro"]
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished multiclass run, with an average of the weights."""
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(out, "task=multiclass", "callbacks.ema=0.5", "callbacks.overlays=2")
    return out


@pytest.mark.xdist_group("finished")
def test_going_on_with_another_model_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.encoder=resnet34 \(the checkpoint: tu-test_resnet\)"):
        fit(configured(*TINY, "task=multiclass", "model.encoder=resnet34", f"ckpt={finished}"), tmp_path)


@pytest.mark.xdist_group("finished")
def test_a_run_directory_holds_what_is_promised(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        ".run",
        "checkpoints",
        "config.yaml",
        "images.csv",
        "metrics.csv",
        "metrics.json",
        "overlays",
        "report.html",
        "splits.json",
        "tensorboard",
    }
    splits = json.loads((finished / "splits.json").read_text())
    assert {split: len(names) for split, names in splits.items()} == {"train": 8, "val": 4, "test": 4}
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert {path.name for path in (finished / "overlays").iterdir()} == {"epoch_001.png", "epoch_002.png", "evaluation.png"}
    board = EventAccumulator(str(finished / "tensorboard"))
    board.Reload()
    assert board.Tags()["images"] == ["overlays"]
    assert {"train/loss", "val/iou_macro", "val/iou/pore", "val/auroc/pore"} <= set(board.Tags()["scalars"])
    found = {key: value for key, value in figures(finished).items() if key not in ("split", "decision", "intervals")}
    assert all(value is None or isinstance(value, int | float) for value in found.values())
    steps = [float(row["train/loss"]) for row in curve(finished) if row["train/loss"]]
    assert len(steps) == 2
    assert all(math.isfinite(value) for value in steps)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(plain(key) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool) or (isinstance(value, torch.Tensor) and value.device.type == "cpu")


@pytest.mark.xdist_group("finished")
def test_what_the_training_split_has_decided_is_kept_with_the_run(finished: Path) -> None:
    kept: Any = OmegaConf.to_container(OmegaConf.load(finished / "config.yaml"))
    assert kept["sampling"] == {"name": "rare_class", "share": 0.5, "temperature": 0.01}
    assert (type(kept["augment"]["vflip"]), type(kept["augment"]["rotate90"]), kept["model"]["bias_prior"]) == (float, float, True)
    weights = kept["loss"]["terms"]["ce"]["class_weights"]
    assert len(weights) == 5 and max(weights) == weights[4] > 1, "pores are the rarest"
    assert checkpoints.read(finished / "checkpoints" / "best.ckpt")["segfocal"]["config"] == kept


@pytest.mark.xdist_group("finished")
def test_a_checkpoint_is_plain_data(finished: Path) -> None:
    content = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert plain(content)
    ours = content["segfocal"]
    assert ours["classes"] == ours["config"]["task"]["classes"]
    assert ours["config"]["loss"]["name"] == "sum"
    assert len(ours["mean"]) == len(ours["std"]) == 3
    assert ours["reading"] == {"exif": None, "scale": None}
    config = configured(*TINY, "task=multiclass")
    train = DATA.build(config.data, config.task, 3, config.seed)["train"]
    labels = np.concatenate([train.read(index)[1].ravel() for index in range(8)])
    counts = np.bincount(labels[labels != 255], minlength=5)
    assert ours["shares"] == pytest.approx((counts / counts.sum()).tolist())
    assert ours["versions"]["torch"] == str(torch.__version__)
    assert set(ours["metrics"]) >= {"iou_macro", "auroc_macro", "ap_macro"}


@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize("which", ["run directory", "file"])
def test_evaluation_from_the_checkpoint_alone_repeats_the_figures(finished: Path, tmp_path: Path, which: str) -> None:
    ckpt = finished if which == "run directory" else finished / "checkpoints" / "best.ckpt"
    evaluate(configured(f"ckpt={ckpt}", "profile=cpu", program="evaluate"), tmp_path)
    assert figures(tmp_path) == figures(finished)
    assert (tmp_path / "overlays" / "evaluation.png").is_file()


@pytest.mark.xdist_group("finished")
def test_evaluation_on_other_splits_and_data(finished: Path, tmp_path: Path) -> None:
    evaluate(configured(f"ckpt={finished}", "split=val", "data.limit=2", "profile=cpu", program="evaluate"), tmp_path)
    assert figures(tmp_path)["split"] == "val"
    assert figures(tmp_path) != figures(finished)
    with pytest.raises(UserError, match=r"data.root: the checkpoint was trained on data=synthetic, which has no such key"):
        evaluate(configured(f"ckpt={finished}", "data.root=/elsewhere", program="evaluate"), tmp_path)


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, path = DurableCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_interrupt_amid_writing_waits_until_the_checkpoint_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within torch.save came out as an error of the archive, or was lost."""
    real, path = torch.save, tmp_path / "last.ckpt"

    class Interrupted(io.FileIO):
        def write(self, data: Any) -> int:
            signal.raise_signal(signal.SIGINT)
            return super().write(data)

    def save(content: Any, file: Any) -> None:
        with Interrupted(file.name, "wb") as interrupted:
            real(content, interrupted)

    monkeypatch.setattr(torch, "save", save)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            DurableCheckpointIO().save_checkpoint({"a": torch.ones(1000)}, path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.load(path, weights_only=True)["a"].sum() == 1000


def test_validation_and_saving_follow_validate_every(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "segfocal"):
        result = trained(tmp_path / "a", "trainer.max_epochs=5", "trainer.validate_every=2", "logger=csv", "callbacks.keep_best=9")
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert ["val/iou_macro" in line for line in lines] == [
        False,
        True,
        False,
        True,
        True,
    ]  # nothing of an earlier epoch; the last in any case
    assert len([row for row in result["curve"] if row["val/iou_macro"]]) == 3
    kept = sorted((tmp_path / "a" / "checkpoints").glob("best-*.ckpt"))
    assert [checkpoints.read(path)["epoch"] for path in kept] == [1, 3, 4]
    assert not (tmp_path / "a" / "tensorboard").exists()


def test_the_last_epoch_is_validated_also_where_a_run_goes_on_in_the_middle_of_it(tmp_path: Path) -> None:
    trainer = SimpleNamespace(current_epoch=8, max_epochs=9, check_val_every_n_epoch=20)
    LastEpoch().on_train_start(trainer, None)  # type: ignore[arg-type]  # Lightning begins no epoch then
    assert trainer.check_val_every_n_epoch == 1
    only = trained(tmp_path / "a", "trainer.max_epochs=2", "trainer.validate_every=20", "logger=csv")
    assert [bool(row["val/iou_macro"]) for row in only["curve"]].count(True) == 1


def test_what_is_found_is_asked_after_validations_and_of_what_can_be_learned(caplog: pytest.LogCaptureFixture) -> None:
    """Recall 0 in a validation before the stated step says nothing; neither does a class that no training mask has."""
    config = configured("task=multilabel", "callbacks.unlearned_after=300")
    first, second, third = config.task.class_names
    watch, module = (
        Unlearned(config, [True, True, False]),
        SimpleNamespace(figures={f"recall/{name}": 0.0 for name in (first, second, third)}),
    )
    with caplog.at_level(logging.WARNING, "segfocal"):
        watch.on_validation_end(SimpleNamespace(global_step=275), module)  # type: ignore[arg-type]
        watch.on_train_epoch_end(SimpleNamespace(global_step=330), module)  # type: ignore[arg-type]
        assert not caplog.messages
        module.figures[f"recall/{first}"] = 0.6
        watch.on_validation_end(SimpleNamespace(global_step=550), module)  # type: ignore[arg-type]
    (line,) = caplog.messages
    assert line.startswith(f"after 550 steps nothing of {second} is found (recall 0 in validation): ")


def test_the_line_of_an_epoch_names_the_rarest_of_several_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for task, named in (("multiclass", True), ("binary", False)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "segfocal"):
            trained(tmp_path / task, f"task={task}", "trainer.max_epochs=1")
        (line,) = [message for message in caplog.messages if message.startswith("epoch 1 of 1 ")]
        assert bool(re.search(r"IoU of the rarest class \(rust\) [01]\.\d{4}$", line)) is named and ("rarest" in line) is named


def test_classes_of_which_nothing_is_found_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At a rate that moves nothing, with a bias at the share of the class, all is background; then cracks are weighted so that all is crack."""
    still = ["optimizer.lr=1e-12", "scheduler=constant", "model.bias_prior=true", "callbacks.ema=null", "trainer.max_epochs=3"]
    still += ["loss=focal", "sampling=uniform"]
    with caplog.at_level(logging.WARNING, "segfocal"):
        trained(tmp_path / "none", *still, "callbacks.unlearned_after=3")
        trained(tmp_path / "early", *still, "callbacks.unlearned_after=7")
        trained(tmp_path / "off", *still, "callbacks.unlearned_after=null")
    (line,) = [record.getMessage() for record in caplog.records if "nothing of" in record.getMessage()]
    assert line == (
        "after 4 steps nothing of crack is found (recall 0 in validation): sampling=rare_class cuts crops around them; "
        "loss=ce_dice weights them, and counts their overlap; a larger optimizer.lr or trainer.max_epochs brings it further"
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING, "segfocal"):
        rate = ["optimizer.lr=0.01", "sampling=uniform", "augment=light"]
        learned = trained(tmp_path / "learned", *rate, "callbacks.unlearned_after=1", "loss=focal", "loss.alpha=0.99", "callbacks.ema=null")
    assert learned["metrics"]["recall/crack"] > 0 and "nothing of" not in caplog.text


def test_early_stopping_ends_a_run_that_does_not_improve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stays ended where it is gone on with, as after a kill in its evaluation; with more patience it goes on."""
    still = [
        *TINY,
        "trainer.max_epochs=9",
        "optimizer.lr=1e-12",
        "scheduler=constant",
        "report=false",
        "callbacks.overlays=0",
        "logger=none",
    ]
    last = tmp_path / "checkpoints" / "last.ckpt"
    fit(configured(*still, "callbacks.early_stopping=2"), tmp_path)
    ended = checkpoints.read(last)["epoch"]
    assert ended < 7
    with caplog.at_level(logging.INFO, "segfocal"):
        fit(configured(*still, "callbacks.early_stopping=2", "ckpt=auto"), tmp_path)
    assert checkpoints.read(last)["epoch"] == ended
    assert "callbacks.early_stopping=2: the last 2 validations were no better, no epoch follows" in caplog.messages
    fit(configured(*still, "callbacks.early_stopping=3", "ckpt=auto"), tmp_path)
    assert checkpoints.read(last)["epoch"] == ended + 1
