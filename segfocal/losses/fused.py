"""The focal family as one operation: sums over each image, with the gradient written out.

The gradient is not kept from the forward pass but computed in the backward pass, from the logits: that needs the logits, which the model
holds anyway, and no memory but the gradient itself; it is right under any upstream gradient, as often as it is asked for. A softmax
keeps three numbers for each pixel. Without a gradient, only the value is computed; a gradient of the gradient takes the plain formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segfocal.config.loss import Backend
from segfocal.losses import backend
from segfocal.losses.kernels import Focus, sigmoid_gradient, sigmoid_value, softmax_gradient, softmax_value
from segfocal.losses.targets import Labels

Plain = Callable[[Tensor], Tensor]


class Sums(NamedTuple):
    """Sums over each image, (N,): values; factors where normalised, else None; how many labels are out of range."""

    value_N: Tensor
    factor_N: Tensor | None
    wrong_N: Tensor


def sigmoid_sums(
    focus: Focus,
    which: Backend,
    plain: Plain,
    logits_NCHW: Tensor,
    labels: Labels,
    positive: Tensor | None,
    negative: Tensor | None,
    gamma: Tensor | None,
) -> Sums:
    """Sums of sigmoid focal losses.

    Args:
        focus: what is constant; its axis does not matter.
        which: the backend.
        plain: logits -> sums of values (N,) by plain formulas, for a gradient of the gradient.
        logits_NCHW, labels: the batch.
        positive, negative: weights that broadcast to the logits; or None.
        gamma: for each class, (C, 1, 1); or None.
    """
    value, wrong, *factors = _SigmoidSums.apply(logits_NCHW, (focus, which, plain, labels.raw_NKHW, positive, negative, gamma))
    return Sums(value, factors[0] if factors else None, wrong)


def softmax_sums(
    focus: Focus, which: Backend, plain: Plain, logits_NCHW: Tensor, labels: Labels, weight: Tensor | None, gamma: Tensor | None
) -> Sums:
    """Sums of softmax focal losses; see `sigmoid_sums`. Weight and gamma, for each class: (C, 1, 1); or None."""
    value, wrong, *factors = _SoftmaxSums.apply(logits_NCHW, (focus, which, plain, labels.raw_NKHW, weight, gamma))
    return Sums(value, factors[0] if factors else None, wrong)


class _SigmoidSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, settings: tuple[Any, ...]) -> tuple[Tensor, ...]:
        focus, which, ctx.plain, *others = settings
        ctx.save_for_backward(logits, *others)
        layout = _Layout(logits)
        ctx.call = focus._replace(axis=layout.axis), which
        sums = backend.run(sigmoid_value, ctx.call[0], which, *layout.all(logits, *others))
        return _outputs(ctx, sums)

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor, *_: Tensor | None) -> tuple[Tensor | None, None]:
        logits, *others = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx.plain, logits, upstream_N), None
        layout = _Layout(logits)
        (gradient,) = backend.run(sigmoid_gradient, *ctx.call, *layout.all(logits, *others), upstream_N.reshape(-1, 1, 1, 1))
        return layout.back(gradient), None


class _SoftmaxSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, settings: tuple[Any, ...]) -> tuple[Tensor, ...]:
        focus, which, ctx.plain, label, weight, gamma = settings
        layout = _Layout(logits)
        ctx.call = focus._replace(axis=layout.axis), which
        outputs = backend.run(softmax_value, ctx.call[0], which, *layout.all(logits, label, weight, gamma))
        value, wrong, peak, level, slope, *factors = outputs
        ctx.save_for_backward(logits, label, peak, level, slope)
        return _outputs(ctx, (value, wrong, *factors))

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor, *_: Tensor | None) -> tuple[Tensor | None, None]:
        logits, label, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx.plain, logits, upstream_N), None
        layout = _Layout(logits)
        (gradient,) = backend.run(softmax_gradient, *ctx.call, *layout.all(logits, label), *kept, upstream_N.reshape(-1, 1, 1, 1))
        return layout.back(gradient), None


def _outputs(ctx: Any, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sums over each image, of which the first has a gradient."""
    value, *others = (each.flatten(1).sum(1) for each in sums)
    ctx.mark_non_differentiable(*others)
    return value, *others


def _differentiable(plain: Plain, logits: Tensor, upstream_N: Tensor) -> Tensor:
    """The gradient as a function that has a gradient itself."""
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(plain(logits), logits, upstream_N, create_graph=True)
    return gradient


class _Layout:
    """Tensors seen with four axes, as they lie in memory: classes first, or last as in channels_last; a copy where they lie otherwise."""

    def __init__(self, logits: Tensor) -> None:
        self.shape = logits.shape
        last = logits.movedim(1, -1)
        self.axis = 3 if logits.shape[1] > 1 and not logits.is_contiguous() and last.is_contiguous() else 1

    def all(self, logits: Tensor, *others: Tensor | None) -> list[Tensor | None]:
        return [self._view(tensor) if tensor is not None else None for tensor in (logits, *others)]

    def _view(self, tensor: Tensor) -> Tensor:
        """(N, C, R, W), or (N, R, W, C); what is broadcast along images, rows or columns stays so."""
        if tensor.dim() < len(self.shape):
            tensor = tensor.reshape(*[1] * (len(self.shape) - tensor.dim()), *tensor.shape)
        space = tensor.shape[2:]
        rows, columns = space[:-1].numel(), space[-1] if space else 1
        # Contiguous: Inductor's code for inputs in different layouts was seen to write beyond its buffers.
        if self.axis == 1:
            return tensor.contiguous().reshape(tensor.shape[0], tensor.shape[1], rows, columns)
        return tensor.movedim(1, -1).contiguous().reshape(tensor.shape[0], rows, columns, tensor.shape[1])

    def back(self, gradient: Tensor) -> Tensor:
        if self.axis == 1:
            return gradient.reshape(self.shape)
        return gradient.contiguous().reshape(self.shape[0], *self.shape[2:], self.shape[1]).movedim(-1, 1)
