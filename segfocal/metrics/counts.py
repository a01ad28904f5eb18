"""The metric that holds the counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from segfocal.config.task import Mode
from segfocal.metrics import figures
from segfocal.metrics.scores import SCORE_BINS, one_vs_rest_logits, score_bins

_LEAST_AND_MOST_CLASSES = {"binary": (1, 1), "multiclass": (2, math.inf), "multilabel": (1, math.inf)}
_TARGET_SHAPE = {"binary": "(N, H, W) or (N, 1, H, W)", "multiclass": "(N, H, W)", "multilabel": "(N, C, H, W)"}


class SegmentationMetrics(Metric):
    """IoU, Dice, precision, recall, AUROC and AP of a whole data set, from one confusion matrix and one score histogram a class.

    Memory does not grow with the data. The counts of batches and of ranks are added up, so that the figures are those of the split, never
    a mean of batch values, and depend neither on the order of the images nor on how they are batched or distributed.

    IoU, Dice, precision, recall and accuracy are exact. AUROC and AP are exact for the scores rounded to their bin (`scores.score_bins`):
    within 0.001 at 0.5 % positive pixels when the logits of a class have a standard deviation between 1 and 100. While they have hardly
    left their starting value (standard deviation 0.02), AP is right to 0.02 only.

    What is not defined is None:

    - IoU and Dice of a class absent from prediction and truth; `absent_classes` counts these;
    - precision of a class that is never predicted;
    - recall and AP of a class without a positive pixel, and AUROC of one without a positive or without a negative pixel.

    The means (`*_macro`) leave out what is None, and are None when all is. Without a valid pixel every figure is None and every class
    is counted as absent.

    Args:
        mode: `binary` one class against the rest, `multiclass` one class a pixel, `multilabel` any number of classes a pixel.
        classes: names in the order of the channels; binary the foreground class alone.
        ignore_index: the target value of pixels that count nowhere; None when every pixel counts.
        threshold: in (0, 1); binary and multilabel predict a class where sigmoid(logit) > threshold. Multiclass predicts the highest
            score, the first of equals.
        **kwargs: torchmetrics' own, such as `process_group`.

    Attributes:
        confusion: int64 counts, rows the truth, columns the prediction: (C, C) for multiclass, else (C, 2, 2).
        histogram: int64 counts (C, 2, SCORE_BINS) of the class's logit against the rest, over negative (0) and positive (1) pixels.

    Raises:
        ValueError: for class names that do not fit the mode, and a threshold out of range.

    Example:
        >>> metrics = SegmentationMetrics("binary", ["crack"])
        >>> metrics.update(torch.tensor([[[[2.0, -1.0, 3.0]]]]), torch.tensor([[[1, 1, 255]]]))
        >>> metrics.compute()["iou/crack"]
        0.5
    """

    is_differentiable = False
    full_state_update = False

    confusion: Tensor
    histogram: Tensor
    nan_scores: Tensor
    foreign_ids: Tensor

    def __init__(self, mode: Mode, classes: list[str], ignore_index: int | None = 255, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in _LEAST_AND_MOST_CLASSES:
            raise ValueError(f"mode={mode!r}: choose one of {', '.join(_LEAST_AND_MOST_CLASSES)}")
        least, most = _LEAST_AND_MOST_CLASSES[mode]
        if not least <= len(classes) <= most or len(set(classes)) != len(classes):
            raise ValueError(f"classes={classes}: {mode} takes {least}{'' if most == least else ' or more'}, all different")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold}: a probability between 0 and 1, both excluded")
        self.mode = mode
        self.classes = list(classes)
        self.ignore_index = ignore_index
        self.threshold = threshold

        count = len(classes)
        self.num_ids = count if mode == "multiclass" else 2
        self._count_up("confusion", (count, count) if mode == "multiclass" else (count, 2, 2))
        self._count_up("histogram", (count, 2, SCORE_BINS))
        self._count_up("nan_scores", ())
        self._count_up("foreign_ids", ())

    def _count_up(self, state: str, shape: tuple[int, ...]) -> None:
        self.add_state(state, default=torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum", persistent=False)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch.

        Nothing is read back from the device, so that an accelerator need not wait; NaN and ids out of range are told by `compute`.

        Args:
            logits: scores before sigmoid or softmax, of any float type; taken as float32.
            target: ids 0 .. C - 1 for multiclass, else 0 and 1; `ignore_index` where nothing counts. An integer type or bool.

        Shape:
            binary: logits (N, 1, H, W), target (N, H, W) or (N, 1, H, W).
            multiclass: logits (N, C, H, W), target (N, H, W).
            multilabel: logits and target (N, C, H, W).

        Raises:
            ValueError: for shapes that do not fit, and for a target of a float type.
        """
        target = self._with_channels(target, logits)
        # Image by image: temporaries stay small, and no score can round differently in the company of other images.
        for logits_CHW, ids_CHW in zip(logits, target, strict=True):
            self._count_image(logits_CHW.float(), ids_CHW.to(torch.int32))

    def _with_channels(self, target: Tensor, logits: Tensor) -> Tensor:
        """The target with its channel dimension, 1 or C wide, once its shape and type are found to fit the logits."""
        count, images, size = len(self.classes), logits.shape[:1], logits.shape[2:]
        fitting = {
            "binary": [(*images, *size), (*images, 1, *size)],
            "multiclass": [(*images, *size)],
            "multilabel": [(*images, count, *size)],
        }[self.mode]
        if logits.ndim != 4 or logits.shape[1] != count or tuple(target.shape) not in fitting:
            raise ValueError(
                f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: {self.mode} with {count} class(es) takes "
                f"logits (N, {count}, H, W) and target {_TARGET_SHAPE[self.mode]}"
            )
        if target.is_floating_point() or target.is_complex():
            raise ValueError(f"target is {target.dtype}: ids are of an integer type or bool")
        return target.unsqueeze(1) if target.ndim == 3 else target

    def _count_image(self, logits_CHW: Tensor, ids_CHW: Tensor) -> None:
        known_CHW = (ids_CHW >= 0) & (ids_CHW < self.num_ids)
        counted_CHW = torch.ones_like(known_CHW) if self.ignore_index is None else ids_CHW != self.ignore_index
        self.foreign_ids = self.foreign_ids + (counted_CHW & ~known_CHW).sum()
        self.nan_scores = self.nan_scores + (counted_CHW & logits_CHW.isnan()).sum()
        valid_CHW = counted_CHW & known_CHW
        logits_CHW = logits_CHW.nan_to_num()

        class_C11 = torch.arange(len(self.classes), dtype=torch.int32, device=logits_CHW.device)[:, None, None]
        if self.mode == "multiclass":
            truth_CHW = ids_CHW == class_C11
            predicted_1HW = logits_CHW.max(dim=0, keepdim=True).indices  # on CPU four times as fast as argmax
            cells = ids_CHW * len(self.classes) + predicted_1HW
            scores_CHW = one_vs_rest_logits(logits_CHW)
        else:
            truth_CHW = ids_CHW == 1
            # Not the logit against the threshold's logit: that rounds otherwise, and the torchmetrics convention is the probability.
            predicted_CHW = logits_CHW.sigmoid() > self.threshold
            cells = (2 * class_C11 + truth_CHW) * 2 + predicted_CHW
            scores_CHW = logits_CHW
        bins = (2 * class_C11 + truth_CHW) * SCORE_BINS + score_bins(scores_CHW)
        self.confusion = self.confusion + _tally(cells, valid_CHW, self.confusion.shape)
        self.histogram = self.histogram + _tally(bins, valid_CHW, self.histogram.shape)

    def compute(self) -> dict[str, float | None]:
        """Every figure of what has been counted, over all ranks.

        Returns:
            For each class `iou/<class>`, `dice/<class>`, `precision/<class>`, `recall/<class>`, `auroc/<class>`, `ap/<class>` and
            `pixel_share/<class>`, its share of the valid pixels. Then the means over classes `iou_macro`, `dice_macro`,
            `precision_macro`, `recall_macro`, `auroc_macro`, `ap_macro`; `iou_micro`, the IoU of all classes' pixels taken together,
            which frequent classes dominate; `accuracy`, the share of right decisions, one a pixel (multilabel: one a pixel and class);
            `absent_classes`, a count. All others lie in [0, 1]; None is what is not defined.

        Raises:
            ValueError: when a score that counts was NaN, or an id was neither a class nor `ignore_index`.
        """
        if nans := int(self.nan_scores):
            raise ValueError(f"{nans} scores were NaN: the model or its input holds NaN, so that no figure can be trusted")
        if foreign := int(self.foreign_ids):
            raise ValueError(f"{foreign} target ids were neither 0 .. {self.num_ids - 1} nor ignore_index={self.ignore_index}")
        confusion, histogram = self.confusion.cpu(), self.histogram.cpu()
        averaged = {
            "iou": figures.iou(confusion),
            "dice": figures.dice(confusion),
            "precision": figures.precision(confusion),
            "recall": figures.recall(confusion),
            "auroc": figures.auroc(histogram),
            "ap": figures.average_precision(histogram),
        }
        per_class = averaged | {"pixel_share": figures.pixel_share(confusion)}
        overall = {f"{name}_macro": figure.nanmean() for name, figure in averaged.items()} | {
            "iou_micro": figures.iou_micro(confusion),
            "accuracy": figures.pixel_accuracy(confusion),
        }
        values = {f"{name}/{label}": figure[i] for name, figure in per_class.items() for i, label in enumerate(self.classes)} | overall
        report = {name: _defined(value) for name, value in values.items()}
        report["absent_classes"] = int(averaged["iou"].isnan().sum())
        return report


def _tally(cells: Tensor, valid: Tensor, shape: torch.Size) -> Tensor:
    """How often each cell's number occurs among the valid ones, as int64 counts of the shape."""
    # What is not valid goes to a cell past the end. To select by a mask, or bincount, would make the host wait for the device.
    total = shape.numel()
    cells = torch.where(valid, cells, total).flatten()
    counts = torch.zeros(total + 1, dtype=torch.int64, device=cells.device)
    return counts.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int64))[:total].view(shape)


def _defined(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
