"""A plug-in that strikes a run at a place that is named: `plugins=[tests.reliability.faulty]`, and the place in the environment.

FAULT is "<place> <count> <what>": the process sends itself a signal when it comes to the place for the count-th time, or its group
(group-SIGTERM), or fills the disk (full). Places: `step`, `validation` and `test`, a batch of these; `save`, amid the writing of a checkpoint;
`saved`, when it has its name.
"""

from __future__ import annotations

import os
import random
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from segfocal import durable, module

_seen: dict[str, int] = {}


def strike(place: str) -> None:
    """Send the signal, if this is the place and the time."""
    where, count, name = os.environ.get("FAULT", "nowhere 0 SIGKILL").split()
    _seen[place] = _seen.get(place, 0) + 1
    if (where, int(count)) != (place, _seen[place]):
        return
    if name == "full":  # the disk
        _fill()
    elif name.startswith("group-"):  # as a scheduler does
        os.killpg(0, signal.Signals[name.removeprefix("group-")])
    else:
        os.kill(os.getpid(), signal.Signals[name])


def _fill() -> None:
    """Write into the working directory until nothing more goes there."""
    with Path("filling").open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def before(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def struck(*args: Any, **kwargs: Any) -> Any:
        strike(place)
        return function(*args, **kwargs)

    return struck


def after(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def struck(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        strike(place)
        return value

    return struck


module.SegmentationModule.training_step = before("step", module.SegmentationModule.training_step)  # type: ignore[method-assign]
module.SegmentationModule.validation_step = before("validation", module.SegmentationModule.validation_step)  # type: ignore[method-assign]
module.SegmentationModule.test_step = before("test", module.SegmentationModule.test_step)  # type: ignore[method-assign]
torch.save = before("save", torch.save)
durable.write_whole = after("saved", durable.write_whole)


def killed_while_saving() -> None:
    """KILLED_SAVES says how many: each is a process of its own, forked off here, and killed at a moment by chance of its writing."""
    real, left = durable.DurableCheckpointIO.save_checkpoint, int(os.environ.get("KILLED_SAVES", "0"))

    def save(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        nonlocal left
        started = time.monotonic()
        real(self, checkpoint, path)
        takes = time.monotonic() - started
        while left > 0:
            left -= 1
            child = os.fork()
            if child == 0:
                real(self, checkpoint, path)
                os._exit(0)
            time.sleep(random.uniform(0, takes))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for kept in Path(path).parent.glob("*.ckpt"):
                torch.load(kept, weights_only=True)
                with zipfile.ZipFile(kept) as archive:
                    assert archive.testzip() is None, kept
            print("killed", len(list(Path(path).parent.glob(".*.part"))), flush=True)

    if left:
        durable.DurableCheckpointIO.save_checkpoint = save  # type: ignore[method-assign]


killed_while_saving()
