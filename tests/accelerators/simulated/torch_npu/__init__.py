"""What `import torch_npu` does, on a simulated device: names the backend, and puts `torch.npu`, autocast, GradScaler and hccl in place."""

from __future__ import annotations

from pathlib import Path

import torch

torch.ops.load_library(str(Path(__file__).parents[1] / "npu.so"))
torch.utils.rename_privateuse1_backend("npu")

from torch_npu import npu  # noqa: E402

torch._register_device_module("npu", npu)
torch.utils.generate_methods_for_privateuse1_backend()

from torch_npu import hccl  # noqa: E402, F401

_plain_to = torch.nn.Module.to


def _to(module: torch.nn.Module, *args: object, **kwargs: object) -> torch.nn.Module:
    """As torch_npu has it: no channels_last."""
    if kwargs.get("memory_format", torch.contiguous_format) not in (torch.contiguous_format, torch.preserve_format):
        raise RuntimeError("Only contiguous_format or preserve_format is supported.")
    return _plain_to(module, *args, **kwargs)


torch.nn.Module.to = _to
