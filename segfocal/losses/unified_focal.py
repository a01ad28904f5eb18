"""The unified focal loss: a focal and a focal Tversky term with common parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfocal.config.loss_overlap import UnifiedFocalConfig, Variant
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean, focal_terms, sigmoid_focal, softmax_focal
from segfocal.losses.reduction import count, reduce
from segfocal.losses.region import soft_counts, steep_power
from segfocal.losses.targets import align, check_mode
from segfocal.losses.weights import per_channel
from segfocal.registry import LOSSES


class UnifiedFocalLoss(nn.Module):
    """Unified focal loss, lambda * focal term + (1 - lambda) * Tversky term.

        symmetric      focal      w_t (1 - p_t)^(1 - gamma) * -log p_t        the mean over what is not ignored
                       Tversky    (1 - mTI_c)^gamma                           the mean over the classes
        asymmetric     focal      w_t (1 - p_t)^gamma * -log p_t              w_t * -log p_t for rare pixels
                       Tversky    1 - mTI_c                                   (1 - mTI_c)^(1 - gamma) for rare classes

    with w_t = delta for rare and 1 - delta for other pixels, and mTI_c = (tp + s) / (tp + delta fn + (1 - delta) fp + s), counted over
    the batch. Rare are the foreground, and in multiclass all classes but 0. In multilabel every class is a binary task; the mean is
    taken of them.

    Where the paper's formulas and its authors' code differ, exponents and the place of lambda are the paper's; delta on false negatives,
    w_t in the symmetric variant and the mean over classes are the code's, as a sum over many classes would make little of lambda. MONAI's
    is for two classes only. Smoothing is by s pixels and not by an epsilon, so that a class without a pixel is learnt from its false
    positives. Powers below 1 go on as a straight line where 1 - mTI < 1e-6.

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        weight: lambda, from 0 to 1.
        delta: from 0 to 1; above 1/2 for rare classes.
        gamma: in [0, 1).
        variant: `asymmetric` or `symmetric`.
        smooth: s > 0, in pixels.
        ignore_index: the label of what does not count: value and gradient are exactly 0 there, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar; 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, and on the CPU for labels out of range.

    Reference:
        Yeung et al., Unified Focal loss, arXiv 2102.04525, section 3.
    """

    def __init__(
        self,
        mode: Mode,
        weight: float = 0.5,
        delta: float = 0.6,
        gamma: float = 0.5,
        variant: Variant = "asymmetric",
        smooth: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        self.mode = mode
        self.config = UnifiedFocalConfig(weight=weight, delta=delta, gamma=gamma, variant=variant, smooth=smooth)
        self.ignore_index = ignore_index

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        valid, truth = labels.valid_NKHW, labels.target_NKHW
        logits = clean(logits_NCHW, valid)
        share, delta, symmetric = self.config.weight, self.config.delta, self.config.variant == "symmetric"
        rare_power, power = (1 - self.config.gamma, 1 - self.config.gamma) if symmetric else (0.0, self.config.gamma)
        if self.mode == "multiclass":
            rare_C = (torch.arange(logits.shape[1], device=logits.device) > 0).to(logits.dtype)
            weight = per_channel(delta * rare_C + (1 - delta) * (1 - rare_C), logits)
            powers = per_channel(rare_power * rare_C + power * (1 - rare_C), logits)
            terms = softmax_focal(logits, truth, valid, weight, gamma=powers)
        elif symmetric:
            whole = torch.ones((), dtype=logits.dtype, device=logits.device)
            terms = sigmoid_focal(logits, truth, valid, delta * whole, (1 - delta) * whole, gamma=power)
        else:
            yes, no = focal_terms(logits, rare_power)[0], focal_terms(-logits, power)[0]
            terms = torch.where(valid, torch.where(truth == 1, delta * yes, (1 - delta) * no), 0.0)
        focal = reduce(terms.flatten(1).sum(1), count("elements", labels, logits.shape[1]), "mean")

        rare_power, power = (self.config.gamma, self.config.gamma) if symmetric else (1 - self.config.gamma, 1.0)
        counts = soft_counts(logits, labels)
        rare = steep_power(counts.miss(1 - delta, delta, self.config.smooth), rare_power)
        if self.mode == "multiclass":
            common = steep_power(counts.miss(1 - delta, delta, self.config.smooth)[:1], power)
            tversky = torch.cat([common, rare[1:]]).mean()
        else:
            common = steep_power(counts.opposite().miss(1 - delta, delta, self.config.smooth), power)
            tversky = torch.cat([common, rare]).mean()
        return share * focal + (1 - share) * tversky

    def extra_repr(self) -> str:
        config = self.config
        numbers = ", ".join(f"{name}={getattr(config, name)!r}" for name in ("weight", "delta", "gamma", "variant", "smooth"))
        return f"mode={self.mode!r}, {numbers}, ignore_index={self.ignore_index}"


@LOSSES.builder(UnifiedFocalConfig)
def build(config: UnifiedFocalConfig, task: TaskConfig) -> UnifiedFocalLoss:
    """The unified focal loss that a configuration describes."""
    return UnifiedFocalLoss(task.name, config.weight, config.delta, config.gamma, config.variant, config.smooth, task.ignore_index)
