"""How Lightning writes a checkpoint: it is never half there, whatever ends the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map

from segfocal.checkpoint import read
from segfocal.wholefile import write_whole


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

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """As every other reading, whatever Lightning was told."""
        return read(Path(path))

    def _write(self, on_cpu: dict[str, Any], target: Path) -> None:
        write_whole(target, lambda file: torch.save(on_cpu, file))
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename too
        finally:
            os.close(directory)
