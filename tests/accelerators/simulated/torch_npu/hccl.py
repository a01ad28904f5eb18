"""The backend `hccl`: gloo, over the same memory. It refuses ReduceOp.AVG, as HCCL does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroupGloo, _create_work_from_future
from torch.futures import Future


def _host(tensor: torch.Tensor) -> torch.Tensor:
    return torch.ops.simulated_npu.on_host(tensor) if tensor.is_npu else tensor


def _done(result: Any) -> dist.Work:
    future = Future()
    future.set_result(result)
    return _create_work_from_future(future)


class ProcessGroupHCCL(dist.ProcessGroup):
    """Collectives of one tensor a rank; each is over when its call returns."""

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = ProcessGroupGloo(store, rank, size, timeout=timeout)

    def getBackendName(self) -> str:
        return "hccl"

    def _get_backend(self, device: torch.device) -> dist.distributed_c10d.Backend:
        return self._gloo

    def allreduce(self, tensors: Any, opts: Any = None) -> dist.Work:
        if opts is not None and opts.reduceOp == dist.ReduceOp.AVG:
            raise RuntimeError("HCCL does not support ReduceOp.AVG")
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        self._gloo.allreduce([_host(tensor) for tensor in tensors], opts or dist.AllreduceOptions()).wait()
        return _done(tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> dist.Work:
        self._gloo.broadcast([_host(tensor) for tensor in tensors], opts).wait()
        return _done(tensors)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None) -> dist.Work:
        opts = opts or dist.AllgatherOptions()
        self._gloo.allgather([[_host(tensor) for tensor in row] for row in outputs], [_host(tensor) for tensor in inputs], opts).wait()
        return _done(outputs)

    def barrier(self, opts: Any = None) -> dist.Work:
        self._gloo.barrier().wait()
        return _done(None)


dist.Backend.register_backend("hccl", ProcessGroupHCCL, devices=["npu"])
