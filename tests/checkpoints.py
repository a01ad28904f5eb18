"""Checkpoints of models that nobody has trained, as training writes them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segfocal import checkpoint as checkpoints
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.durable import DurableCheckpointIO
from segfocal.models import build_model

TINIEST = "tu-test_resnet"
MEAN, STD = [0.45, 0.4, 0.35, 0.3, 0.25, 0.2], [0.2, 0.25, 0.3, 0.25, 0.2, 0.15]


@functools.cache
def train_config(*overrides: str) -> TrainConfig:
    """Of the smallest encoder there is."""
    ((_, config),) = parse_sweep(TrainConfig, "train", [f"model.encoder={TINIEST}", "profile=cpu", *overrides], 1)
    return config  # the same for the same overrides: composing takes most of what a checkpoint does


def made(
    path: Path, *overrides: str, decision: dict[str, Any] | None = None, spoil: Callable[[dict[str, Any]], None] = lambda content: None
) -> Path:
    """A checkpoint whose weights are those of a new model, but whose BatchNorm is not.

    Args:
        path: where it is written.
        overrides: of the run that it is said to come from.
        decision: what validation is said to have chosen.
        spoil: changes its content before it is written.
    """
    config = dataclasses.replace(train_config(*overrides), out=str(path.parent))
    torch.manual_seed(0)
    model = build_model(config.model, config.task)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
    channels = config.model.in_channels
    about = checkpoints.about(dataclasses.asdict(config), config.task.class_names, MEAN[:channels], STD[:channels])
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()} | {"loss.weight": torch.ones(2)},
        "optimizer_states": [],
        "segfocal": about | {"epoch": 3, "metrics": {"iou_macro": 0.5, "iou/x": None}, "decision": decision},
    }
    spoil(content)
    DurableCheckpointIO().save_checkpoint(content, path)
    return path


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Another value for what a checkpoint says of itself."""
    return lambda content: content["segfocal"].__setitem__(name, value)


def nan_weight(content: dict[str, Any]) -> None:
    content["state_dict"]["model.encoder.model.conv1.0.weight"][0, 0, 0, 0] = torch.nan


def overflowing(content: dict[str, Any]) -> None:
    """All weights are finite, and what is computed of them is not."""
    for name, value in content["state_dict"].items():
        if value.ndim == 4:
            value.mul_(1e6)
        elif name.endswith("bn1.weight"):
            value.fill_(1e38)


class Payload:
    """What runs where a pickle is trusted."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = made(folder / "bad.ckpt")
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :]


def _spoilt(spoil: Callable[[dict[str, Any]], None], *overrides: str) -> Callable[[Path], Path]:
    return lambda folder: made(folder / "bad.ckpt", *overrides, spoil=spoil)


def _saved(content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content() if callable(content) else content, folder / "bad.ckpt")
        return folder / "bad.ckpt"

    return write


def _other_head(content: dict[str, Any]) -> None:
    """Said to be for three classes, while the head is for one."""
    content["segfocal"]["classes"] = content["segfocal"]["config"]["task"]["classes"] = ["a", "b", "c"]
    content["segfocal"]["config"]["task"]["name"] = "multilabel"


def _other_channels(content: dict[str, Any]) -> None:
    content["segfocal"]["config"]["model"]["in_channels"] = 4
    content["segfocal"] |= {"mean": MEAN[:4], "std": STD[:4]}


def _foreign_safetensors(folder: Path) -> Path:
    save_file({"weight": torch.ones(2)}, folder / "bad.safetensors")
    return folder / "bad.safetensors"


def _without_best(folder: Path) -> Path:
    (folder / "bad" / "checkpoints").mkdir(parents=True)
    return folder / "bad"


NO_CHECKPOINT = "not a checkpoint of this program"
MISFIT = "its weights do not fit its configuration: "
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (_bytes(lambda content: content[: len(content) // 2]), "cannot be read as a checkpoint: damaged"),
    "without its last byte": (_bytes(lambda content: content[:-1]), "cannot be read as a checkpoint: damaged"),
    "a flipped bit": (_bytes(_flipped), "the checksum of .* is wrong"),
    "empty": (_bytes(lambda content: b""), "cannot be read as a checkpoint: damaged"),
    "text": (_bytes(lambda content: b"nothing"), "cannot be read as a checkpoint: damaged"),
    "a whole model": (_saved(lambda: torch.nn.Linear(2, 2)), r"more than plain data \(torch\.nn\.\S+\)$"),
    "what would run": (_spoilt(lambda content: content.update(callbacks=Payload())), "more than plain data"),
    "bare weights": (_saved(lambda: torch.nn.Linear(2, 2).state_dict()), NO_CHECKPOINT),
    "of another program": (_saved({"state_dict": {}, "epoch": 3}), NO_CHECKPOINT),
    "a number": (_saved(3), NO_CHECKPOINT),
    "weights that are none": (_spoilt(lambda content: content["state_dict"].update({"model.x": "y"})), NO_CHECKPOINT),
    "safetensors of another program": (_foreign_safetensors, "safetensors of another program"),
    "NaN": (_spoilt(nan_weight), "encoder.model.conv1.0.weight holds NaN or infinity: the training has diverged"),
    "for other classes": (_spoilt(_other_head), MISFIT + ".*segmentation_head"),
    "for other channels": (_spoilt(_other_channels), MISFIT + ".*conv1.0.weight"),
    "of another encoder": (_spoilt(lambda content: content["segfocal"]["config"]["model"].update(encoder="resnet18")), MISFIT),
    "a weight too few": (_spoilt(lambda content: content["state_dict"].pop("model.encoder.model.conv1.0.weight")), MISFIT),
    "other names of classes": (_spoilt(put("classes", ["a"])), "its classes are not those of its task"),
    "other thresholds": (_spoilt(put("decision", {"mode": "multilabel", "thresholds": [0.3, 0.4]})), "its thresholds cannot be used"),
    "thresholds out of range": (_spoilt(put("decision", {"mode": "binary", "thresholds": [2.0]})), "its thresholds cannot be used"),
    "no configuration": (_spoilt(put("config", {})), NO_CHECKPOINT + ".*has no task"),
    "an unknown model": (
        _spoilt(lambda content: content["segfocal"]["config"]["model"].update(name="x")),
        "its configuration cannot be used: name=x",
    ),
    "std of zero": (_spoilt(put("std", [0.2, 0.0, 0.2])), NO_CHECKPOINT + r" \(std.1: "),
    "mean of another number of channels": (_spoilt(put("mean", [0.2])), NO_CHECKPOINT + ".*mean and std"),
    "newer": (_spoilt(put("format", 99)), "written in format 99"),
    "missing": (lambda folder: folder / "bad.ckpt", "no such file or run directory"),
    "a run without a checkpoint": (_without_best, r"no checkpoints/best.ckpt in that directory"),
}
"""Checkpoints that no command takes: how each is made, and what is said of it, in one line, after its path."""
