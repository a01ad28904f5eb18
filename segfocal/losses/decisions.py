"""How a focal loss sees a pixel: one decision among the classes, or one on every class. Both plainly, as maps, and fused, as sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from segfocal.config.loss_focal import FocalConfig
from segfocal.losses import kernels
from segfocal.losses.functional import Normalized, sigmoid_focal, softmax_focal
from segfocal.losses.fused import Sums, sums
from segfocal.losses.kernels import Focus
from segfocal.losses.targets import Labels
from segfocal.losses.weights import ClassWeights, per_channel


class Decision(nn.Module, ABC):
    """What both have in common.

    Args:
        config: of the loss.
    """

    per_channel: bool

    def __init__(self, config: FocalConfig) -> None:
        super().__init__()
        self.config = config
        self.gamma = ClassWeights(config.gamma if isinstance(config.gamma, list) else None, "gamma")
        self.alpha = ClassWeights(config.alpha if not isinstance(config.alpha, str) else None, "alpha")
        self.class_weights = ClassWeights(config.class_weights, "class_weights")

    @abstractmethod
    def terms(self, logits_NCHW: Tensor, labels: Labels, normalized: Normalized = False) -> Tensor:
        """Weighted values by the plain formulas, one channel for each decision."""

    @abstractmethod
    def sums(self, logits_NCHW: Tensor, labels: Labels, expected_N: Tensor) -> Sums:
        """Their sums over each image; `expected_N` is what their gradient will probably be multiplied with."""

    @abstractmethod
    def weight(self, logits_NCHW: Tensor, labels: Labels) -> Tensor | None:
        """The weights of the elements, for the denominator of that name."""

    def _gamma(self, logits_NCHW: Tensor) -> Tensor | None:
        gamma_C = self.gamma(logits_NCHW)
        return None if gamma_C is None else per_channel(gamma_C, logits_NCHW)

    def _options(self, logits_NCHW: Tensor, normalized: Normalized) -> dict[str, Any]:
        gamma = self._gamma(logits_NCHW)
        return {
            "gamma": self.config.gamma if gamma is None else gamma,
            "normalized": normalized,
            "reduced_threshold": self.config.reduced_threshold,
            "continuous": self.config.reduced_form == "continuous",
        }

    def _focus(self, labels: Labels) -> Focus:
        config, threshold = self.config, self.config.reduced_threshold
        return Focus(
            axis=1,
            gamma=0.0 if isinstance(config.gamma, list) else float(config.gamma),
            threshold=threshold,
            scale=1.0 if threshold is None else 1 - threshold if config.reduced_form == "continuous" else threshold,
            ignore_index=labels.ignore_index,
            one_vs_rest=self.per_channel and labels.mode == "multiclass" and not labels.soft,
            soft=self.per_channel and (labels.soft or config.label_smoothing > 0),
            smoothing=config.label_smoothing,
            normalized=bool(config.normalized),
        )


class SoftmaxDecision(Decision):
    """One decision among the classes of a pixel."""

    per_channel = False

    def terms(self, logits_NCHW: Tensor, labels: Labels, normalized: Normalized = False) -> Tensor:
        return softmax_focal(
            logits_NCHW, labels.target_NKHW, labels.valid_NKHW, self._alpha(logits_NCHW), **self._options(logits_NCHW, normalized)
        )

    def sums(self, logits_NCHW: Tensor, labels: Labels, expected_N: Tensor) -> Sums:
        def plain(logits: Tensor) -> Tensor:
            return self.terms(logits, labels).flatten(1).sum(1)

        per_class = self._alpha(logits_NCHW), self._gamma(logits_NCHW)
        call = kernels.softmax, self._focus(labels), self.config.backend, plain
        return sums(*call, logits_NCHW, labels, *per_class, expected_N=expected_N)

    def weight(self, logits_NCHW: Tensor, labels: Labels) -> Tensor | None:
        alpha_C = self.alpha(logits_NCHW)
        return None if alpha_C is None else _of_pixel(alpha_C, labels)

    def _alpha(self, logits_NCHW: Tensor) -> Tensor | None:
        alpha_C = self.alpha(logits_NCHW)
        return None if alpha_C is None else per_channel(alpha_C, logits_NCHW)


class SigmoidDecision(Decision):
    """A yes or no on every class; one class in binary."""

    per_channel = True

    def terms(self, logits_NCHW: Tensor, labels: Labels, normalized: Normalized = False) -> Tensor:
        yes, valid = self._yes(logits_NCHW, labels), labels.valid_NKHW.expand_as(logits_NCHW)
        return sigmoid_focal(logits_NCHW, yes, valid, *self._sides(logits_NCHW, labels), **self._options(logits_NCHW, normalized))

    def sums(self, logits_NCHW: Tensor, labels: Labels, expected_N: Tensor) -> Sums:
        def plain(logits: Tensor) -> Tensor:
            return self.terms(logits, labels).flatten(1).sum(1)

        per_class = *self._sides(logits_NCHW, labels), self._gamma(logits_NCHW)
        call = kernels.sigmoid, self._focus(labels), self.config.backend, plain
        return sums(*call, logits_NCHW, labels, *per_class, expected_N=expected_N)

    def weight(self, logits_NCHW: Tensor, labels: Labels) -> Tensor | None:
        positive, negative = self._sides(logits_NCHW, labels)
        if positive is None or negative is None:
            return None
        yes = self._yes(logits_NCHW, labels)
        return yes * positive + (1 - yes) * negative if yes.is_floating_point() else torch.where(yes, positive, negative)

    def _yes(self, logits_NCHW: Tensor, labels: Labels) -> Tensor:
        """Which labels are positive: bool, or floats where they are soft."""
        target, smoothing = labels.target_NKHW, self.config.label_smoothing
        if not labels.soft:
            ids = torch.arange(logits_NCHW.shape[1], device=target.device)
            target = target == (per_channel(ids, logits_NCHW) if labels.mode == "multiclass" else 1)
        dtype = torch.promote_types(logits_NCHW.dtype, torch.float32)
        return target.to(dtype) * (1 - smoothing) + smoothing / 2 if smoothing else target

    def _sides(self, logits_NCHW: Tensor, labels: Labels) -> tuple[Tensor | None, Tensor | None]:
        """Weights of positives and of negatives."""
        alpha, of_class = self.alpha(logits_NCHW), self.class_weights(logits_NCHW)
        positive = negative = None
        if alpha is not None and labels.mode == "multiclass" and alpha.dim() == 1:  # of the pixel
            positive = negative = _of_pixel(alpha, labels)
        elif alpha is not None:
            positive = per_channel(alpha, logits_NCHW)
            negative = 1 - positive
        if of_class is not None:
            factor = per_channel(of_class, logits_NCHW)
            positive = factor if positive is None else factor * positive
            negative = factor if negative is None else factor * negative
        return positive, negative


def _of_pixel(alpha_C: Tensor, labels: Labels) -> Tensor:
    """The weight of each pixel's class, (N, 1, H, W)."""
    target = labels.target_NKHW
    if labels.soft:
        return (target.to(alpha_C.dtype) * per_channel(alpha_C, target)).sum(1, keepdim=True)
    return alpha_C[target.clamp(0, len(alpha_C) - 1)]  # labels out of range are told elsewhere
