"""Going on from a checkpoint that may come from anybody: its state fits what is trained, or a line says that it does not.

Lightning and torch put the state of a training in place as it is. A path in it may be one that is removed later, and moments of
another shape than their weights are read and written where nothing of theirs lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from segfocal.config.base import Index
from segfocal.errors import UserError, first_line
from segfocal.memory import out_of_memory
from segfocal.parallel.ending import GONE
from segfocal.registry import LOSSES
from segfocal.switches import NO_KERNEL
from segfocal.wholefile import refusal

KEPT = re.compile(r"[\w.=-]*\.ckpt")  # what a checkpoint of ours is called


@dataclass(config=ConfigDict(extra="allow"), kw_only=True)
class _Loops:
    """Of these Lightning takes what is there."""

    fit_loop: dict[str, Any]

    def __post_init__(self) -> None:
        if not all(isinstance(self.fit_loop.get(key), dict) for key in ("epoch_progress", "epoch_loop.batch_progress")):
            raise ValueError("no progress")
        current = self.fit_loop["epoch_progress"].get("current")
        if not isinstance(current, dict) or type(current.get("processed")) is not int:
            raise ValueError("no epochs")


@dataclass(config=ConfigDict(extra="allow"), kw_only=True)
class _State:
    """What Lightning goes on from."""

    epoch: Index
    global_step: Index
    loops: _Loops
    optimizer_states: Annotated[list[dict[str, Any]], Field(min_length=1)]
    lr_schedulers: Annotated[list[dict[str, Any]], Field(min_length=1)]
    callbacks: dict[str, dict[str, Any]]


def check_state(content: dict[str, Any], path: Path) -> None:
    """Look at what a training is to go on from, before any of it is used.

    Args:
        content: what `checkpoint.read` gives.
        path: of the checkpoint, for messages.

    Raises:
        UserError: it is not a state of a training.
    """
    try:
        TypeAdapter(_State).validate_python(content)
    except ValidationError as error:
        raise _unfit(path, str(error.errors(include_url=False)[0]["loc"][0])) from None
    if type(content["callbacks"].get("Means", {}).get("rows", 0)) is not int:
        raise _unfit(path, "callbacks")
    for state in content["callbacks"].values():
        paths = [value for key, value in state.items() if key.endswith("_path") and value]
        paths += list(state.get("best_k_models") or ())
        if not all(isinstance(value, str) and KEPT.fullmatch(Path(value).name) for value in paths):
            raise _unfit(path, "callbacks")


def check_loss(content: dict[str, Any], loss: str, path: Path) -> None:
    """Raise UserError where a checkpoint's loss is one of a plug-in that the command does not name: a checkpoint loads none."""
    config = content["segfocal"]["config"]
    trained, plugins = str(config["loss"].get("name"))[:60], config.get("plugins")
    if plugins and trained != loss and LOSSES.find(trained) is None:
        named = ",".join(map(str, plugins))[:200] if isinstance(plugins, list) else ""
        raise UserError(
            f"ckpt={path}: was trained with loss={trained} of plugins=[{named}], which no checkpoint loads: say both, or other ones"
        )


@contextmanager
def restoring(trainer: Trainer, path: Path | None) -> Iterator[None]:
    """What the state of a checkpoint leads to, as it is loaded and in the optimiser's first step, becomes a line.

    What fails between the two is a matter of the data, the model or the loss.
    """
    first = _FirstStep(path)
    trainer.callbacks.append(first)  # type: ignore[attr-defined]  # Lightning's Trainer has them
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of any kind, as the state is
        if path is None or not first.suspect or _told_elsewhere(error):
            raise
        raise _unfit(path, first_line(error)) from error


class _FirstStep(Callback):
    """Before the first step what torch does not look at is compared: the optimiser's numbers with the weights that they are of."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.stepped = path, False
        self.suspect = True  # whether what fails now fails by what was loaded

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers if self.path else ():
            for weight, state in optimizer.state.items():
                for value in state.values():
                    if not isinstance(value, Tensor) or (value.ndim and (value.shape, value.dtype) != (weight.shape, weight.dtype)):
                        assert self.path is not None
                        raise _unfit(self.path, "optimizer_states")
        self.suspect = False

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.suspect, self.stepped = not self.stepped, True

    def on_train_batch_end(self, *_: Any) -> None:
        self.suspect = False


def _told_elsewhere(error: Exception) -> bool:
    """Whether an error has a line of its own, whatever is gone on from."""
    words = (NO_KERNEL, "find_unused_parameters", *GONE)
    return out_of_memory(error) or refusal(error) is not None or any(said in str(error) for said in words)


def _unfit(path: Path, why: str) -> UserError:
    return UserError(f"ckpt={path}: its state is not one to go on from ({why})")
