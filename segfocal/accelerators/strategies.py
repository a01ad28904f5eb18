"""How Lightning runs a training on one NPU, and on several."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segfocal.parallel.strategies import UnevenDDP, mean_over_processes


class SingleNPUStrategy(SingleDeviceStrategy):
    """One NPU.

    Args:
        device: such as `npu:0`.
        precision_plugin: None computes in fp32.

    Raises:
        ValueError: the device is no NPU.
    """

    strategy_name = "single_npu"

    def __init__(self, device: str | torch.device = "npu:0", precision_plugin: Precision | None = None) -> None:
        super().__init__(device, precision_plugin=precision_plugin)
        if self.root_device.type != "npu":
            raise ValueError(f"SingleNPUStrategy(device={device}): an NPU is expected, such as npu:0")


class NPUDDPStrategy(UnevenDDP):
    """A process for each NPU, gradients averaged by HCCL.

    Lightning's own strategy wraps the model in a torch.cuda.Stream, and averages by ReduceOp.AVG, also integers, which HCCL does not
    have.

    Args:
        precision_plugin: None computes in fp32.
        **kwargs: of DistributedDataParallel.
    """

    strategy_name = "npu_ddp"

    def __init__(self, precision_plugin: Precision | None = None, **kwargs: Any) -> None:
        super().__init__(precision_plugin=precision_plugin, process_group_backend="hccl", **kwargs)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        return DistributedDataParallel(module=model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """A value over all processes; a mean in floating point, other values in the place of what was given."""
        if not isinstance(tensor, Tensor) or not dist.is_initialized():
            return tensor
        if reduce_op in ("mean", "avg", dist.ReduceOp.AVG):
            return mean_over_processes(tensor, group)
        op = getattr(dist.ReduceOp, reduce_op.upper()) if isinstance(reduce_op, str) else reduce_op
        dist.all_reduce(tensor, op=op, group=group)
        return tensor
