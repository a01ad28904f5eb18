"""Batches and gradients that the tests of losses share."""

from __future__ import annotations

import torch


def sample(mode, seed=0):
    """Logits in fp64, and labels of which a fifth is ignored, 255."""
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    shape = (2, 4, 5) if mode == "multiclass" else (2, classes, 4, 5)
    logits = 2 * torch.randn((2, classes, 4, 5), generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255)


def gradient(loss, logits, target):
    """The value, and its gradient."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad
