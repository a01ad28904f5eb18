"""How Lightning writes a checkpoint: it is never half there, whatever ends the process, and the one before it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map

from segfocal.checkpoint import read
from segfocal.rundir import LAST, PREVIOUS
from segfocal.stopping import later
from segfocal.wholefile import write_whole


class DurableCheckpointIO(TorchCheckpointIO):
    """A checkpoint is there in full or not at all: written beside its place, flushed to the disk, then renamed.

    Tensors are saved from the CPU, so that any machine reads them. The last checkpoint gives way only to one that is whole, and stays as
    the previous one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        on_cpu = tree_map(lambda item: item.detach().cpu() if isinstance(item, Tensor) else item, checkpoint)
        with later():
            write_whole(target, lambda file: torch.save(on_cpu, file), target.with_name(PREVIOUS) if target.name == LAST else None)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """As every other reading, whatever Lightning was told."""
        return read(Path(path))
