"""Class weights that follow their loss to its device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Given = TypeVar("Given", bound=list[float] | float | None)


class ClassWeights(nn.Module):
    """Weights as a tensor; not part of the state dict, as the configuration says them already.

    Args:
        weights: one number for each class, one number, or None.
        name: what they are called in messages.
    """

    buffer: Tensor | None

    def __init__(self, weights: Sequence[float] | float | None, name: str = "class_weights") -> None:
        super().__init__()
        self.name = name
        self.weights = weights
        self.register_buffer("buffer", None if weights is None else torch.tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self, logits_NCHW: Tensor) -> Tensor | None:
        """The weights, of shape (C,) or (), or None; on the device of the logits, and in their precision but fp32 at least.

        Raises:
            ValueError: where there are not as many weights as channels.
        """
        if self.buffer is None:
            return None
        if self.buffer.dim() == 1 and len(self.buffer) != logits_NCHW.shape[1]:
            raise ValueError(f"{self.name}={self.weights}: {len(self.buffer)} numbers for logits with {logits_NCHW.shape[1]} channels")
        dtype = torch.promote_types(logits_NCHW.dtype, torch.float32)
        if self.buffer.dtype == dtype and self.buffer.device == logits_NCHW.device:
            return self.buffer
        # fp64, which fp32 would round, or a loss that nobody moved to the device: right, at the price of a copy in every step
        return torch.tensor(self.weights, dtype=dtype, device=logits_NCHW.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassWeights:
        """Follow to another device, but not to another precision: `half().double()` would leave rounded weights behind."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.buffer is not None:
            self.buffer = torch.tensor(self.weights, dtype=torch.float32, device=self.buffer.device)
        return self

    def extra_repr(self) -> str:
        return str(self.weights)


def per_channel(weight: Tensor, logits_NCHW: Tensor) -> Tensor:
    """Shape (C,) as (C, 1, 1), and () as (1, 1, 1): it broadcasts over the logits."""
    return weight.reshape(-1, *[1] * (logits_NCHW.dim() - 2))


def numbers(weights: Given | str) -> Given:
    """Weights that are given as numbers.

    Raises:
        ValueError: for a word: the training data is not known here, see `LossConfig.balanced`.
    """
    if isinstance(weights, str):
        raise ValueError(f"weights {weights!r} are no numbers yet: resolve them with `config.balanced(counts, task)` first")
    return weights
