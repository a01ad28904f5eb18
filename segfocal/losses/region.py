"""Overlap losses from soft counts of true positives, false positives and false negatives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segfocal.config.loss_overlap import FocalTverskyConfig, JaccardConfig, RegionConfig, TverskyConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.functional import clean
from segfocal.losses.reduction import over_processes
from segfocal.losses.targets import Labels, align, check_mode
from segfocal.losses.weights import ClassWeights, per_channel
from segfocal.registry import LOSSES

STEEPEST = 1e-6  # below this a power under 1 goes on as a straight line: the slope of u^g at 0 is infinite


class SoftCounts(NamedTuple):
    """Soft counts of each class over the batch, of all processes; tn_C only means something where classes decide for themselves."""

    tp_C: Tensor
    fp_C: Tensor
    fn_C: Tensor
    tn_C: Tensor

    def miss(self, alpha: float, beta: float, smooth: float) -> Tensor:
        """1 - (tp + s) / (tp + alpha fp + beta fn + s), without the difference of two numbers near 1."""
        wrong_C = alpha * self.fp_C + beta * self.fn_C
        return wrong_C / (self.tp_C + wrong_C + smooth)

    def opposite(self) -> SoftCounts:
        """The counts of what is not of the class."""
        return SoftCounts(self.tn_C, self.fn_C, self.fp_C, self.tp_C)


def soft_counts(logits_NCHW: Tensor, labels: Labels) -> SoftCounts:
    """Count with probabilities for predictions; what is ignored is in no count.

    Args:
        logits_NCHW: after `clean`.
        labels: from `align`, checked; hard labels.
    """
    if labels.mode == "multiclass":
        probability = logits_NCHW.softmax(1)
        truth = labels.target_NKHW == per_channel(torch.arange(logits_NCHW.shape[1], device=logits_NCHW.device), logits_NCHW)
        rest = 1 - probability
    else:
        probability, rest = logits_NCHW.sigmoid(), (-logits_NCHW).sigmoid()
        truth = labels.target_NKHW == 1
    yes, no = truth & labels.valid_NKHW, ~truth & labels.valid_NKHW
    axes = [axis for axis in range(logits_NCHW.dim()) if axis != 1]
    # one stack: one exchange between the processes
    parts = [torch.where(where, value, 0.0).sum(axes) for where, value in ((yes, probability), (no, probability), (yes, rest), (no, rest))]
    return SoftCounts(*over_processes(torch.stack(parts)))


def steep_power(u: Tensor, gamma: float) -> Tensor:
    """u^gamma for u >= 0 with a finite slope at 0: for gamma < 1 a straight line through 0 below `STEEPEST`."""
    if gamma >= 1:
        return u**gamma
    return torch.where(u > STEEPEST, u.clamp_min(STEEPEST) ** gamma, u * STEEPEST ** (gamma - 1))


class RegionLoss(nn.Module):
    """What the losses of overlap share, the mean over classes of

        (1 - TI)^gamma        TI = (tp + s) / (tp + alpha fp + beta fn + s)

    Args:
        mode: `binary`, `multiclass` or `multilabel`.
        config: what the loss was given.
        alpha, beta, gamma: see above.
        ignore_index: the label of what does not count.
        smooth: s; None: what the configuration has.
    """

    def __init__(
        self,
        mode: Mode,
        config: RegionConfig,
        alpha: float,
        beta: float,
        gamma: float,
        ignore_index: int | None,
        smooth: float | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        if problems := config.problems(TaskConfig(name=mode)):
            raise ValueError("; ".join(problems))
        self.mode = mode
        self.config = config
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.smooth = config.smooth if smooth is None else smooth
        self.ignore_index = ignore_index
        self.class_weights = ClassWeights(config.class_weights)

    def forward(self, logits_NCHW: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; see the class for shapes."""
        labels = align(self.mode, logits_NCHW, target, self.ignore_index).check()
        logits = clean(logits_NCHW, labels.valid_NKHW)
        weight_C = self.class_weights(logits)
        loss_C = steep_power(soft_counts(logits, labels).miss(self.alpha, self.beta, self.smooth), self.gamma)
        first = 0 if self.config.include_background else 1
        if weight_C is None:
            return loss_C[first:].mean()
        weight_C = weight_C[first:]
        return torch.div((weight_C * loss_C[first:]).sum(), weight_C.sum().clamp_min(torch.finfo(weight_C.dtype).tiny))

    def extra_repr(self) -> str:
        config = self.config
        own = [f"{name}={getattr(config, name)}" for name in ("alpha", "beta", "gamma") if hasattr(config, name)]
        shared = [f"smooth={config.smooth}", f"include_background={config.include_background}", f"ignore_index={self.ignore_index}"]
        return ", ".join([f"mode={self.mode!r}", *own, *shared])


class JaccardLoss(RegionLoss):
    """Soft Jaccard loss (IoU), the mean over classes of

        1 - (tp + s) / (tp + fp + fn + s)        soft counts over all pixels of the batch that are not ignored

    SMP's JaccardLoss is exactly 0, with a gradient of 0, for a class without a pixel in the batch, so false positives on empty masks go
    unpunished; it also multiplies ignored pixels by 0, which leaves the NaN of a NaN. Here the smoothing s keeps empty classes in the
    loss, and what is ignored is replaced.

    Args:
        mode: `binary`, `multiclass` (probabilities from a softmax) or `multilabel` (from sigmoids, as in binary).
        smooth: s > 0, in pixels.
        class_weights: a weight >= 0 for each class in the mean over classes; None: all the same. Not in binary.
        include_background: whether class 0 counts in multiclass.
        ignore_index: the label of what does not count: no part in any sum, and a gradient of exactly 0, whatever the logits.

    Shape:
        - logits: (N, 1, H, W) in binary, else (N, C, H, W); fp16 and bf16 are computed in fp32.
        - target: (N, H, W) or (N, 1, H, W); in multilabel (N, C, H, W).
        - returns: a scalar in [0, 1); 0 where everything is ignored.

    Raises:
        ValueError: for shapes that do not go together, integer logits, as many weights as there are not channels, and on the CPU for
            labels out of range.

    Reference:
        Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation, ISVC 2016. See also
        Bertels et al., arXiv 1911.01685.
    """

    def __init__(
        self,
        mode: Mode,
        smooth: float = 1.0,
        class_weights: list[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
    ) -> None:
        config = JaccardConfig(smooth=smooth, class_weights=class_weights, include_background=include_background)
        super().__init__(mode, config, 1.0, 1.0, 1.0, ignore_index)


class TverskyLoss(RegionLoss):
    """Soft Tversky loss, overlap with a price for each kind of mistake, the mean over classes of

        1 - (tp + s) / (tp + alpha fp + beta fn + s)        soft counts over all pixels of the batch that are not ignored

    Why not SMP's: see `JaccardLoss`; its TverskyLoss takes no notice of classes without a pixel either.

    Args:
        mode: `binary`, `multiclass` (probabilities from a softmax) or `multilabel` (from sigmoids, as in binary).
        alpha: what false positives cost, >= 0.
        beta: what false negatives cost, >= 0.
        smooth: s > 0, in pixels.
        class_weights, include_background, ignore_index: as for `JaccardLoss`.

    Shape:
        As for `JaccardLoss`.

    Raises:
        ValueError: as `JaccardLoss`.

    Reference:
        Salehi et al., Tversky loss function for image segmentation, arXiv 1706.05721; best there: 0.3 and 0.7.
    """

    def __init__(
        self,
        mode: Mode,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        class_weights: list[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
    ) -> None:
        config = TverskyConfig(alpha=alpha, beta=beta, smooth=smooth, class_weights=class_weights, include_background=include_background)
        super().__init__(mode, config, config.alpha, config.beta, 1.0, ignore_index)


class FocalTverskyLoss(RegionLoss):
    """Focal Tversky loss, the mean over classes of

        (1 - TI)^gamma        TI = (tp + s) / (tp + alpha fp + beta fn + s)

    The power is taken class by class; SMP's `gamma` takes it of the mean. For gamma < 1, whose slope is infinite at TI = 1, it goes on
    as a straight line where 1 - TI < 1e-6.

    Args:
        mode: `binary`, `multiclass` (probabilities from a softmax) or `multilabel` (from sigmoids, as in binary).
        alpha: what false positives cost, >= 0; the paper calls this beta.
        beta: what false negatives cost, >= 0; the paper calls this alpha.
        gamma: > 0; the paper writes 1 / gamma, and takes 4/3 of it: 0.75 here.
        smooth: s > 0, in pixels.
        class_weights, include_background, ignore_index: as for `JaccardLoss`.

    Shape:
        As for `JaccardLoss`.

    Raises:
        ValueError: as `JaccardLoss`.

    Reference:
        Abraham and Khan, A Novel Focal Tversky loss function with improved Attention U-Net for lesion segmentation, arXiv 1810.07842.
    """

    def __init__(
        self,
        mode: Mode,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        smooth: float = 1.0,
        class_weights: list[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
    ) -> None:
        config = FocalTverskyConfig(
            alpha=alpha, beta=beta, gamma=gamma, smooth=smooth, class_weights=class_weights, include_background=include_background
        )
        super().__init__(mode, config, config.alpha, config.beta, config.gamma, ignore_index)


@LOSSES.builder(JaccardConfig)
def build_jaccard(config: JaccardConfig, task: TaskConfig) -> JaccardLoss:
    """The Jaccard loss that a configuration describes."""
    return JaccardLoss(task.name, config.smooth, config.class_weights, config.include_background, task.ignore_index)


@LOSSES.builder(TverskyConfig)
def build_tversky(config: TverskyConfig, task: TaskConfig) -> TverskyLoss:
    """The Tversky loss that a configuration describes."""
    return TverskyLoss(
        task.name, config.alpha, config.beta, config.smooth, config.class_weights, config.include_background, task.ignore_index
    )


@LOSSES.builder(FocalTverskyConfig)
def build_focal_tversky(config: FocalTverskyConfig, task: TaskConfig) -> FocalTverskyLoss:
    """The focal Tversky loss that a configuration describes."""
    return FocalTverskyLoss(
        task.name,
        config.alpha,
        config.beta,
        config.gamma,
        config.smooth,
        config.class_weights,
        config.include_background,
        task.ignore_index,
    )
