"""What keeps the processes of a training together, beside the strategy."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from segfocal.parallel.strategies import send_buffers
from segfocal.stopping import listen

Share = TypeVar("Share")


class Together(Callback):
    """Stands behind the average of the weights, whose buffers are those that are validated.

    Signals are answered here: Lightning's own way, a broadcast from within the handler, waits for processes that are in the middle of
    something else.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        listen()

    on_test_start = on_train_start

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if dist.is_initialized():
            send_buffers(pl_module)


def of_all_processes(share: Share) -> list[Share]:
    """What each process has, on all of them; plain Python objects."""
    if not dist.is_initialized():
        return [share]
    shares = [share] * dist.get_world_size()
    dist.all_gather_object(shares, share)
    return shares
