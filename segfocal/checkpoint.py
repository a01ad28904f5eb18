"""What a checkpoint holds, how it is read without running anything, and how it is written so that it is never half there.

A checkpoint is plain data: Lightning's own keys (weights in `state_dict`, optimiser, schedule, progress) and ours under
`segfocal`. Every reading is `weights_only=True`, said each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import segfocal
from segfocal import shared_weights
from segfocal.config.data import DataConfig
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.errors import UserError

FORMAT = 1
KEYS = ("format", "config", "classes", "mean", "std")


def about(
    config: dict[str, Any], classes: list[str], mean: list[float], std: list[float], splits: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """What a checkpoint says of the run, besides weights and state.

    Args:
        config: the resolved configuration as a plain dictionary.
        classes: their names, in the order of the head's channels.
        mean, std: of each image channel, of pixels in 0..1.
        splits: the names of the samples of each, where they were drawn.
    """
    versions = {
        "segfocal": segfocal.__version__,
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "segmentation_models_pytorch": str(smp.__version__),
    }
    return {"format": FORMAT, "config": config, "classes": classes, "mean": mean, "std": std, "splits": splits, "versions": versions}


def locate(ckpt: str, which: str) -> Path:
    """The file that `ckpt=` means: itself, or `which` (best, last) of a run directory.

    Raises:
        UserError: there is none.
    """
    path = Path(ckpt)
    if "://" in ckpt:
        raise UserError(f"ckpt={ckpt}: checkpoints are read from files, not from the network")
    if path.is_dir():
        found = path / "checkpoints" / f"{which}.ckpt"
        if not found.is_file():
            raise UserError(f"ckpt={ckpt}: no checkpoints/{which}.ckpt in that directory")
        return found
    if not path.is_file():
        raise UserError(f"ckpt={ckpt}: no such file or run directory (seen from {Path.cwd()})")
    return path


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data on the CPU; of safetensors the weights and what they say of themselves.

    Raises:
        UserError: damaged, holding more than plain data, or not one of this program.
    """
    content = shared_weights.read(path) if path.suffix == shared_weights.SUFFIX else _load(path)
    ours = content.get("segfocal") if isinstance(content, dict) else None
    if not isinstance(ours, dict) or any(key not in ours for key in KEYS) or "state_dict" not in content:
        raise UserError(f"{path}: not a checkpoint of this program")
    if ours["format"] != FORMAT:
        raise UserError(
            f"{path}: written in format {ours['format']}, this version reads {FORMAT}: "
            f"use the version that wrote it ({ours.get('versions')})"
        )
    return dict(content)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ...
        first = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint: damaged, or it holds more than plain data ({first})") from None


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: Path) -> None:
    """Put the weights into a model; every one must be there and fit.

    Raises:
        UserError: naming the first that does not, or that is not finite.
    """
    state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items() if name.startswith("model.")}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{path}: its weights do not fit its configuration: {lines[0] if lines else error}") from None
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {name} holds NaN or infinity: the training has diverged, take an earlier checkpoint")


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def decision_of(content: dict[str, Any], task: TaskConfig, path: Path) -> Decision:
    """How the checkpoint's logits become classes; the plain rule where nothing was fitted.

    Raises:
        UserError: what it holds is not for its classes.
    """
    try:
        return Decision.of(content["segfocal"].get("decision"), task)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: its thresholds cannot be used: {error}") from None


def check_same_model(checkpoint: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Going on needs the same task, model, optimiser and schedule; raises UserError with every key that differs."""
    if "optimizer_states" not in checkpoint:
        raise UserError(f"ckpt={path}: holds the weights alone: training goes on from checkpoints of a training")
    stored = checkpoint["segfocal"]["config"]
    differing = [
        f"{group}.{key}={config[group].get(key)} (the checkpoint: {stored[group].get(key)})"
        for group in ("task", "model", "optimizer", "scheduler")
        for key in sorted({*config[group], *stored[group]} - {"weights", "lr", "weight_decay"})
        if config[group].get(key) != stored[group].get(key)
    ]
    if differing:
        raise UserError(f"ckpt={path}: it cannot be gone on from with " + ", ".join(differing))


def bring_best(resumed: Path, run_dir: Path) -> None:
    """Copy the best checkpoint beside the one that is gone on from: it may stay the best."""
    best = resumed.with_name("best.ckpt")
    if best.is_file():
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        shutil.copy(best, run_dir / "checkpoints" / "best.ckpt")


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C counts when the block has ended: raised amid torch.save, it comes out as an error of its archive, or not at all."""
    if threading.current_thread() is not threading.main_thread():  # Python's handlers run in the main thread alone
        yield
        return
    waiting: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if waiting:
            signal.raise_signal(signal.SIGINT)


class DurableCheckpointIO(TorchCheckpointIO):
    """A checkpoint is there in full or not at all: written beside its place, flushed to the disk, then renamed.

    Tensors are saved from the CPU, so that any machine reads them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with interrupts_wait():
            self._write(tree_map(lambda item: item.detach().cpu() if isinstance(item, Tensor) else item, checkpoint), Path(path))

    def _write(self, on_cpu: dict[str, Any], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with temporary.open("wb") as file:
                torch.save(on_cpu, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename too
        finally:
            os.close(directory)


def with_splits(config: DataConfig, content: dict[str, Any]) -> DataConfig:
    """Data that is split as it was for a checkpoint, where its splits were drawn: the seed would draw others of other samples."""
    splits = content["segfocal"].get("splits")
    if splits is None or not hasattr(config, "splits"):
        return config
    return dataclasses.replace(config, splits=splits)  # type: ignore[call-arg]  # layouts that draw have it
