"""Strategies for Lightning, as processes with unequal numbers of validation batches need them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor

from segfocal.config.strategy import STRATEGIES, DDPConfig, FSDPConfig, StrategyConfig
from segfocal.parallel.place import Place


def mean_over_processes(tensor: Tensor, group: Any = None) -> Tensor:
    """In floating point also of integers: Lightning rounds the mean number of images down, and divides a loss by it."""
    tensor = tensor.clone() if tensor.is_floating_point() else tensor.float()
    dist.all_reduce(tensor, group=group)
    return tensor / dist.get_world_size(group)


class UnevenDDP(DDPStrategy):
    """Lightning's, for processes with unequal numbers of validation batches.

    Lightning validates through DistributedDataParallel, which sends BatchNorm's statistics around at each batch: the process with a
    batch more would wait for ever. Here each process validates by itself; `SameBuffers` has sent them before.
    """

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        if isinstance(tensor, Tensor) and reduce_op in ("mean", "avg"):
            return mean_over_processes(tensor, group)
        return super().reduce(tensor, group, reduce_op)


class UnevenFSDP(ModelParallelStrategy):
    """Lightning's strategy for torch's `fully_shard`; see `segfocal.parallel.sharded`."""

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        if isinstance(tensor, Tensor) and reduce_op in ("mean", "avg"):
            return mean_over_processes(tensor, group)
        return super().reduce(tensor, group, reduce_op)


@STRATEGIES.builder(DDPConfig)
def ddp(config: DDPConfig, place: Place) -> Strategy:
    return UnevenDDP(find_unused_parameters=config.find_unused_parameters)


@STRATEGIES.builder(FSDPConfig)
def fsdp(config: FSDPConfig, place: Place) -> Strategy:
    return UnevenFSDP(data_parallel_size=place.world, tensor_parallel_size=1, save_distributed_checkpoint=False)


def lightning_strategy(config: StrategyConfig, place: Place) -> Strategy:
    """The strategy of a run of several processes."""
    strategy: Strategy = STRATEGIES.build(config, place)
    return strategy


def send_buffers(module: torch.nn.Module) -> None:
    """BatchNorm's statistics, and what else is no weight, as the leading process has them: it is what is saved."""
    for buffer in module.buffers():
        if buffer.numel():
            dist.broadcast(buffer, 0)
