"""Weights, gradients and the optimiser's state divided among devices, by torch's `fully_shard`."""

from __future__ import annotations

import logging
from typing import Any, cast

from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from segfocal.module import SegmentationModule

log = logging.getLogger("segfocal")


class ShardedModule(SegmentationModule):
    """Encoder, decoder and head are put together from their shares, one after the other, when their turn comes.

    In validation, where processes have unequal numbers of batches and tiles, each has all of the weights from its first batch on.
    """

    def configure_model(self) -> None:
        """Called by Lightning when the devices are known."""
        assert self.device_mesh is not None
        mesh = self.device_mesh["data_parallel"]
        for part in self.model.children():
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)
        fully_shard(self.model, mesh=mesh, reshard_after_forward=False)

    def on_validation_epoch_start(self) -> None:
        for unit in self._units():
            unit.set_reshard_after_forward(False, recurse=False)
        super().on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        for unit in self._units():
            unit.reshard()
            unit.set_reshard_after_forward(cast("nn.Module", unit) is not self.model, recurse=False)

    @property
    def _fused(self) -> bool:
        """Never: torch has not all of its fused optimisers for weights that are divided."""
        return False

    def _take_trained(self, checkpoint: dict[str, Any]) -> None:
        """Lightning has divided what it has read already, which was the average."""
        log.warning("strategy=fsdp: going on from the average of the weights, the checkpoint was trained with callbacks.ema")

    def _units(self) -> list[FSDPModule]:
        return [part for part in self.model.modules() if isinstance(part, FSDPModule)]


def with_synchronised_batchnorm(model: nn.Module) -> nn.Module:
    """Every BatchNorm takes its statistics over all processes; timm's, which hold an activation, keep it."""
    converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted
