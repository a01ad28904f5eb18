"""The focal family as one operation: sums over each image, with the gradient written out.

On the CPU the gradient is computed with the value, which shares most of the work, for the upstream gradient that is to be expected; in
the backward pass it is handed over if that is what came, and multiplied if not. Where it has been handed over already (a retained
graph), where looking would make a device wait, and in half precisions, which lose digits to two factors, it is computed in the backward
pass from the logits. Either way there is no memory but the gradient itself. Without a gradient, only the value is computed; a gradient
of the gradient takes the plain formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segfocal.config.loss import Backend
from segfocal.losses import backend
from segfocal.losses.kernels import Focus, softmax
from segfocal.losses.targets import Labels

Plain = Callable[[Tensor], Tensor]


class Sums(NamedTuple):
    """Sums over each image, (N,): values; factors where normalised, else None; and more than 0 somewhere if labels are out of range."""

    value_N: Tensor
    factor_N: Tensor | None
    wrong: Tensor


def sums(
    kernel: backend.Kernel,
    focus: Focus,
    which: Backend,
    plain: Plain,
    logits_NCHW: Tensor,
    labels: Labels,
    *per_class: Tensor | None,
    expected_N: Tensor,
) -> Sums:
    """Sums of focal losses over each image.

    Args:
        kernel: `kernels.sigmoid` or `kernels.softmax`.
        focus: what is constant; its axis does not matter.
        which: the backend.
        plain: logits -> sums of values (N,) by plain formulas, for a gradient of the gradient.
        logits_NCHW, labels: the batch.
        per_class: weights and gamma as the kernel takes them; they broadcast to the logits.
        expected_N: what the gradient of the values will probably be multiplied with.
    """
    ahead = (
        torch.is_grad_enabled()
        and logits_NCHW.requires_grad
        and logits_NCHW.device.type == "cpu"
        and logits_NCHW.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
    )
    value, wrong, *factors = _Sums.apply(
        logits_NCHW, (kernel, focus, which, plain, labels.raw_NKHW, *per_class), expected_N if ahead else None
    )
    return Sums(value, factors[0] if factors else None, wrong)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, settings: tuple[Any, ...], upstream_N: Tensor | None) -> tuple[Tensor, ...]:
        kernel, focus, which, ctx.plain, *others = settings
        ctx.save_for_backward(logits, *others)
        ctx.set_materialize_grads(False)  # nobody looks at the gradients of the other outputs
        ctx.call = kernel, focus, which
        ctx.gradient, ctx.expected_N = None, upstream_N
        if upstream_N is None:
            sums = _run(ctx.call, logits, others, None)
        else:
            ctx.gradient, *sums = _run(ctx.call, logits, others, upstream_N)
        value_N, wrong, *factor_N = sums[0].sum((1, 2, 3)), sums[1], *[each.sum((1, 2, 3)) for each in sums[2:]]
        ctx.mark_non_differentiable(wrong, *factor_N)
        return value_N, wrong, *factor_N

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor | None, *_: None) -> tuple[Tensor | None, None, None]:
        if upstream_N is None:
            return None, None, None
        logits, *others = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx.plain, logits, upstream_N), None, None
        gradient, ctx.gradient = ctx.gradient, None
        expected_N = upstream_N if ctx.expected_N is None else ctx.expected_N
        if gradient is None:
            gradient, *_sums = _run(ctx.call, logits, others, expected_N)
        if ctx.expected_N is not None and not torch.equal(upstream_N, expected_N):
            gradient.mul_((upstream_N / expected_N).reshape(-1, *[1] * (logits.dim() - 1)))
        return gradient, None, None


def _run(call: tuple[Any, ...], logits: Tensor, others: list[Tensor | None], upstream_N: Tensor | None) -> list[Tensor]:
    """A kernel's results, the gradient in the layout of the logits."""
    kernel, focus, which = call
    layout = _Layout(logits)
    focus = focus._replace(axis=layout.axis)
    tensors = layout.all(logits, *others)
    if upstream_N is None:
        return list(backend.run(kernel, focus, which, *tensors, None))
    images, rows = logits.shape[0], layout.rows
    channels = 1 if kernel is softmax or layout.axis == 3 else logits.shape[1]
    upstream = upstream_N.reshape(-1, 1, 1, 1).expand(images, channels, rows, 1).contiguous()
    gradient, *sums = backend.run(kernel, focus, which, *tensors, upstream if layout.axis == 1 else upstream.transpose(1, 2))
    return [layout.back(gradient), *sums]


def _differentiable(plain: Plain, logits: Tensor, upstream_N: Tensor) -> Tensor:
    """The gradient as a function that has a gradient itself."""
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(plain(logits), logits, upstream_N, create_graph=True)
    return gradient


class _Layout:
    """Tensors seen with four axes, as they lie in memory: classes first, or last as in channels_last; a copy where they lie otherwise."""

    def __init__(self, logits: Tensor) -> None:
        self.shape = logits.shape
        self.rows = logits.shape[2:-1].numel()
        self.axis = 3 if logits.shape[1] > 1 and not logits.is_contiguous() and logits.movedim(1, -1).is_contiguous() else 1

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
