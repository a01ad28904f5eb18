"""Going on from a training whose state has been prepared, or is another's: a line, and nothing is written or removed elsewhere."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segfocal import checkpoint as checkpoints
from segfocal.durable import DurableCheckpointIO
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.module import SegmentationModule
from tests.test_training import TINY, configured

pytestmark = pytest.mark.xdist_group("hostile")

WORDS = [*TINY, "report=false", "callbacks.overlays=0", "callbacks.ema=0.5", "trainer.test=false", "logger=none"]
UNFIT = r"^ckpt=\S+last.ckpt: its state is not one to go on from \("


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with an average of the weights."""
    out = tmp_path_factory.mktemp("restored") / "run"
    out.mkdir()
    fit(configured(*WORDS), out)
    return out


def moment(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["optimizer_states"][0]["state"][0].__setitem__("exp_avg", value)


def kept(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        for state in content["callbacks"].values():
            if key in state:
                state[key] = value

    return spoil


def in_group(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["optimizer_states"][0]["param_groups"][0].__setitem__(key, value)


def weight(value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state_dict"].__setitem__("model.segmentation_head.0.bias", value)


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "moments of another shape": (moment(torch.zeros(2)), UNFIT + "optimizer_states"),  # kernels would write behind their end
    "moments that are a text": (moment("x"), UNFIT + "optimizer_states"),
    "a rate that is a text": (in_group("lr", "x"), UNFIT),
    "fewer weights in a group": (in_group("params", [0]), UNFIT),
    "no optimiser": (lambda content: content.update(optimizer_states=[]), UNFIT),
    "optimisers that are a text": (lambda content: content.update(optimizer_states="x"), UNFIT + "optimizer_states"),
    "a schedule that is a text": (lambda content: content["lr_schedulers"][0].update(total_steps="x", last_epoch="y"), UNFIT),
    "schedules that are a list of texts": (lambda content: content.update(lr_schedulers=["x"]), UNFIT + "lr_schedulers"),
    "loops that are missing": (lambda content: content.pop("loops"), UNFIT + "loops"),
    "loops of another program": (lambda content: content.update(loops={"fit_loop": {"x": 1}}), UNFIT),
    "an epoch below zero": (lambda content: content.update(epoch=-1), UNFIT + "epoch"),
    "no version of Lightning": (lambda content: content.pop("pytorch-lightning_version"), UNFIT),
    "a best that is the folder above": (kept("kth_best_model_path", "/x/.."), UNFIT + "callbacks"),
    "a best that is not a checkpoint": (kept("best_model_path", "/etc/passwd"), UNFIT + "callbacks"),
    "bests that are a list": (kept("best_k_models", [["x"]]), UNFIT + "callbacks"),
    "an average of other weights": (lambda content: content.update(current_model_state={"x": torch.ones(1)}), UNFIT),
    "weights of NaN": (weight(torch.tensor([torch.nan])), r"last.ckpt: segmentation_head.0.bias holds NaN or infinity"),
    "weights of another shape": (weight(torch.ones(3)), r"last.ckpt: its weights do not fit its configuration: .*segmentation_head.0.bias"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_state_that_does_not_fit_is_a_line(run: Path, tmp_path: Path, kind: str) -> None:
    spoil, said = SPOILT[kind]
    content = checkpoints.read(run / "checkpoints" / "last.ckpt")
    spoil(content)
    torch.save(content, tmp_path / "last.ckpt")
    out = tmp_path / "below" / "run"
    out.mkdir(parents=True)
    (tmp_path / "below" / "theirs").touch()
    with pytest.raises(UserError, match=said) as caught:
        fit(configured(*WORDS, "trainer.max_epochs=3", f"ckpt={tmp_path / 'last.ckpt'}"), out)
    assert str(caught.value).isprintable()
    assert (tmp_path / "below" / "theirs").exists()
    assert not list(out.glob("checkpoints/*.ckpt"))


def test_a_loss_of_a_plug_in_is_named_and_not_loaded(run: Path, tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text("raise SystemExit('loaded')")
    content = checkpoints.read(run / "checkpoints" / "last.ckpt")
    content["segfocal"]["config"] |= {"plugins": ["canary"], "loss": {"name": "power", "exponent": 3.0}}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(UserError, match=r"was trained with loss=power of plugins=\[canary\], which no checkpoint loads"):
            fit(configured(*WORDS, "trainer.max_epochs=3", f"ckpt={tmp_path / 'last.ckpt'}"), tmp_path)


@pytest.mark.parametrize("where", ["training_step", "on_validation_epoch_end"])
def test_a_flaw_of_a_program_is_no_matter_of_the_state(run: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a loss, in the first step, nor of what comes after it."""

    def broken(*_: Any) -> None:
        raise ValueError("a flaw of ours")

    monkeypatch.setattr(SegmentationModule, where, broken)
    with pytest.raises(ValueError, match="a flaw of ours"):
        fit(configured(*WORDS, "trainer.max_epochs=3", f"ckpt={run}"), tmp_path)


def test_a_disk_that_is_full_after_the_first_step_is_no_matter_of_the_state(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): make room"):
        fit(configured(*WORDS, "trainer.max_epochs=3", "callbacks.save_every=1", f"ckpt={run}"), tmp_path)


def test_without_an_average_the_weights_that_were_trained_are_gone_on_with(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that the moments are of; a rate of next to nothing leaves them as they are."""
    with caplog.at_level(logging.INFO, "segfocal"):
        fit(configured(*WORDS, "callbacks.ema=null", "optimizer.lr=1e-30", "trainer.max_epochs=3", f"ckpt={run}"), tmp_path)
    assert "callbacks.ema=null: going on from the weights that were trained, not from their average" in caplog.messages
    before, after = (checkpoints.read(path / "checkpoints" / "last.ckpt") for path in (run, tmp_path))
    name = "model.segmentation_head.0.weight"
    assert torch.equal(after["state_dict"][name], before["current_model_state"][name])
    assert not torch.equal(after["state_dict"][name], before["state_dict"][name])


def test_pretrained_weights_are_not_asked_for_again_and_that_no_epoch_is_left_is_said(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(configured(*WORDS, "trainer.max_epochs=1", "model.weights=/gone/encoder.pth", f"ckpt={run}"), tmp_path)
    (said,) = [line for line in caplog.messages if "max_epochs" in line]
    assert said.endswith("last.ckpt: 2 epochs are done, trainer.max_epochs=1 leaves none to train: a larger one goes on")


def test_fewer_epochs_than_are_done_are_refused_in_words_of_ours(run: Path, tmp_path: Path) -> None:
    content = checkpoints.read(run / "checkpoints" / "last.ckpt")
    content["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready=4, started=4, processed=4, completed=3)
    torch.save(content | {"epoch": 3}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"^ckpt=\S+last.ckpt: 4 epochs are done, trainer.max_epochs=2 leaves none to train"):
        fit(configured(*WORDS, f"ckpt={tmp_path / 'last.ckpt'}"), tmp_path)
