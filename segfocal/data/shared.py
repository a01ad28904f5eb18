"""Memory that processes share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that other processes see when it is handed to them; what it holds at first is not said."""
    storages: Any = torch.UntypedStorage  # as torch's own collation does it; the public share_memory_ makes a copy
    return torch.empty(0, dtype=dtype).set_(storages._new_shared(math.prod(shape) * dtype.itemsize)).view(shape)
