"""What a checkpoint holds, and how it is read without running anything; `durable` writes it.

A checkpoint is plain data: Lightning's own keys (weights in `state_dict`, optimiser, schedule, progress) and ours under
`segfocal`. Every reading is `weights_only=True`, said each time. Whoever only reads does not wait for Lightning to be imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import segfocal
from segfocal import shared_weights
from segfocal.config.base import Count, Fraction, Index, Number, Positive
from segfocal.config.data import DataConfig
from segfocal.config.parse import parse
from segfocal.config.run import ModelConfig
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.errors import UserError, first_line
from segfocal.models import build_model, within
from segfocal.plainfile import NotPlainError, read_plain

FORMAT = 1
GENERATED = "synthetic"  # what `data` is where a command says nothing of it
SLACK = 2**30  # bytes of weights that encoders make and throw away: their classifiers


@dataclass(kw_only=True)
class EpochHas:
    """Batches of a process and steps of the optimiser in an epoch of the run."""

    batches: Count
    steps: Count


@dataclass(config=ConfigDict(extra="allow"), kw_only=True)
class About:
    """What anything but a training needs of a checkpoint's `segfocal`; the rest of it is told, not used."""

    format: Index
    config: dict[str, Any]
    classes: list[str]
    mean: Annotated[list[Number], Field(min_length=1)]
    std: Annotated[list[Positive], Field(min_length=1)]
    epoch: Index
    epoch_has: EpochHas | None = None
    metrics: dict[str, float | None]
    decision: dict[str, Any] | None = None
    shares: list[Fraction] | None = None
    reading: dict[str, Any] | None = None
    splits: dict[str, list[str]] | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in ("task", "model", "data"):
            if not isinstance(self.config.get(group), dict):
                raise ValueError(f"its configuration has no {group}")
        if type(seed := self.config.get("seed")) is not int or seed < 0:
            raise ValueError("its configuration has no seed")
        metrics = self.config.get("metrics", {})
        if not isinstance(metrics, dict) or not _positive(metrics.get("beta", 1.0)):
            raise ValueError("its configuration has no beta of its metrics")
        if self.classes != self.config["task"].get("classes"):
            raise ValueError("its classes are not those of its task")
        if self.shares is not None and len(self.shares) != len(self.classes):
            raise ValueError("its shares are not of as many classes as it has")
        if len(self.mean) != len(self.std) or len(self.mean) != self.config["model"].get("in_channels"):
            raise ValueError("mean and std are not of as many channels as its model takes")


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def about(
    config: dict[str, Any],
    classes: list[str],
    mean: list[float],
    std: list[float],
    splits: dict[str, list[str]] | None = None,
    shares: list[float] | None = None,
    reading: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a checkpoint says of the run, besides weights and state.

    Args:
        config: the resolved configuration as a plain dictionary.
        classes: their names, in the order of the head's channels.
        mean, std: of each image channel, of pixels in 0..1.
        splits: the names of the samples of each, where they were drawn.
        shares: of each class, of the pixels of the training split.
        reading: how files were read: `exif` and `scale`.
    """
    versions = {
        "segfocal": segfocal.__version__,
        "torch": str(torch.__version__),
        "lightning": metadata.version("lightning"),
        "segmentation_models_pytorch": metadata.version("segmentation-models-pytorch"),
    }
    seen = {"mean": mean, "std": std, "shares": shares, "reading": reading}
    return {"format": FORMAT, "config": config, "classes": classes, **seen, "splits": splits, "versions": versions}


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
            last = found.with_name("last.ckpt")
            hint = f": no objective was a number yet: ckpt={last}" if last.is_file() else ""
            raise UserError(f"ckpt={ckpt}: no checkpoints/{which}.ckpt in that directory{hint}")
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
    if not isinstance(ours, dict) or type(ours.get("format")) is not int or not _are_weights(content.get("state_dict")):
        raise UserError(f"{path}: not a checkpoint of this program")
    if ours["format"] != FORMAT:
        wrote = str(ours.get("versions"))[:160]
        raise UserError(f"{path}: written in format {ours['format']}, this version reads {FORMAT}: use the version that wrote it ({wrote})")
    try:
        json.dumps(ours)  # plain data without tensors
        TypeAdapter(About).validate_python(ours)
    except TypeError as error:
        raise UserError(f"{path}: not a checkpoint of this program ({first_line(error)})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        text = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: not a checkpoint of this program ({where + ': ' if where else ''}{text})") from None
    return dict(content)


def _are_weights(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())


def _load(path: Path) -> Any:
    try:
        return read_plain(path)
    except NotPlainError as error:
        why = f"it holds more than plain data ({first_line(error)})"
    except Exception as error:  # zipfile and torch raise RuntimeError, UnpicklingError, EOFError, KeyError, ...
        why = f"damaged, or something else ({first_line(error)})"
    raise UserError(f"{path}: cannot be read as a checkpoint: {why}")


class Rebuilt(NamedTuple):
    """What a checkpoint is for, and its model with its weights, on the CPU."""

    task: TaskConfig
    architecture: ModelConfig
    decision: Decision
    model: nn.Module


def rebuild(content: dict[str, Any], path: Path) -> Rebuilt:
    """The model of a checkpoint, made anew; nothing is downloaded.

    Args:
        content: what `read` gives.
        path: of the file, for messages.

    Raises:
        UserError: what it holds does not fit together, or a weight is not finite.
    """
    stored = content["segfocal"]["config"]
    try:
        task, architecture = parse(TaskConfig, stored["task"]), parse(ModelConfig, stored["model"])
        with within(SLACK + 2 * sum(value.nbytes for value in content["state_dict"].values())):
            model = build_model(architecture, task, pretrained=False)
    except UserError as error:
        raise UserError(f"{path}: its configuration cannot be used: {first_line(error)}") from None
    load_weights(model, content, path)
    return Rebuilt(task, architecture, decision_of(content, task, path), model)


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: Path) -> None:
    """Put the weights into a model; every one must be there and fit.

    Raises:
        UserError: naming the first that does not, or that is not finite.
    """
    state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items() if name.startswith("model.")}
    for name, tensor in state.items():
        if tensor.dtype not in shared_weights.DTYPES:
            raise UserError(f"{path}: {name[:80]} is of {tensor.dtype}, which no weights of this program are")
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{path}: its weights do not fit its configuration: {lines[0][:160] if lines else first_line(error)}") from None
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
        raise UserError(f"{path}: its thresholds cannot be used: {first_line(error)}") from None


def check_same_model(checkpoint: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Going on needs the same task, model, optimiser and schedule; raises UserError with every key that differs."""
    if "optimizer_states" not in checkpoint:
        raise UserError(f"ckpt={path}: holds the weights alone: training goes on from checkpoints of a training")
    stored = checkpoint["segfocal"]["config"]
    if missing := [group for group in ("optimizer", "scheduler", "loss") if not isinstance(stored.get(group), dict)]:
        raise UserError(f"{path}: not a checkpoint of this program (its configuration has no {missing[0]})")
    _check_data_said(stored.get("data"), config["data"], path)
    differing = [
        f"{group}.{key}={config[group].get(key)} (the checkpoint: {str(stored[group].get(key))[:60]})"
        for group in ("task", "model", "optimizer", "scheduler")
        for key in sorted({*config[group], *stored[group]} - {"weights", "bias_prior", "lr", "weight_decay"}, key=str)
        if config[group].get(key) not in ("auto", stored[group].get(key))  # what is left to the recipe stays as it was
    ]
    if differing:
        raise UserError(f"ckpt={path}: it cannot be gone on from with " + ", ".join(differing))


def _check_data_said(stored: Any, config: dict[str, Any], path: Path) -> None:
    """The generated data is what a command trains on that says nothing of data: it would, without a word, for a run of the user's own."""
    if not isinstance(stored, dict) or config["name"] != GENERATED or stored.get("name") in (None, GENERATED):
        return
    place = next((f" data.{key}={str(stored[key])[:200]}" for key in ("root", "file") if stored.get(key)), "")
    raise UserError(
        f"ckpt={path}: is of a run on data={str(stored['name'])[:60]}{place}, and here no data is named: "
        "give the command of that run again, with ckpt= added"
    )


def with_splits(config: DataConfig, content: dict[str, Any]) -> DataConfig:
    """Data that is split as it was for a checkpoint, where its splits were drawn: the seed would draw others of other samples."""
    splits = content["segfocal"].get("splits")
    if splits is None or not hasattr(config, "splits"):
        return config
    return dataclasses.replace(config, splits=splits)  # type: ignore[call-arg]  # layouts that draw have it
