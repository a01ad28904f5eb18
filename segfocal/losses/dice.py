"""The soft Dice loss: overlap instead of pixels, so that the size of a class does not matter."""

from __future__ import annotations

from segfocal.config.loss_overlap import DiceConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.losses.region import RegionLoss
from segfocal.registry import LOSSES


class DiceLoss(RegionLoss):
    """Soft Dice loss, the mean over classes of

        1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)        sums over all pixels of the batch that are not ignored

    The sums run over the batch and not over each image: in most images of a rare class it has no pixel at all.
    SMP's DiceLoss is exactly 0, with a gradient of 0, for a class without a pixel in the batch, so false positives on empty masks go
    unpunished; here the smoothing s makes them s / (sum(p) + s) below perfection. It also multiplies ignored pixels by 0, which
    leaves the NaN of a NaN; here they are replaced.

    Args:
        mode: `binary`, `multiclass` (probabilities from a softmax) or `multilabel` (from sigmoids, as in binary).
        smooth: s > 0, in pixels; SMP 0.6 adds twice what it calls `smooth`.
        class_weights, include_background, ignore_index: as for `JaccardLoss`.

    Shape:
        As for `JaccardLoss`.

    Raises:
        ValueError: as `JaccardLoss`.

    Reference:
        Milletari et al., V-Net, arXiv 1606.04797, section 3, with plain sums in the denominator.
    """

    def __init__(
        self,
        mode: Mode,
        smooth: float = 1.0,
        class_weights: list[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
    ) -> None:
        config = DiceConfig(smooth=smooth, class_weights=class_weights, include_background=include_background)
        super().__init__(mode, config, 0.5, 0.5, 1.0, ignore_index, 0.5 * smooth)


@LOSSES.builder(DiceConfig)
def build(config: DiceConfig, task: TaskConfig) -> DiceLoss:
    """The Dice loss that a configuration describes."""
    return DiceLoss(task.name, config.smooth, config.class_weights, config.include_background, task.ignore_index)
