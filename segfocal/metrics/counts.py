"""The metric that holds the counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from segfocal.config.task import Mode
from segfocal.decision import Decision
from segfocal.metrics.scores import SCORE_BINS, highest, one_vs_rest_logits, score_bins
from segfocal.metrics.summary import Figures, calibration_of, figures_of, figures_of_confusion

_LEAST_AND_MOST_CLASSES = {"binary": (1, 1), "multiclass": (2, math.inf), "multilabel": (1, math.inf)}
_BAND = {"cpu": 2**19, "accelerator": 2**25}  # logits at a time: near what a cache holds, yet worth the threads; what keeps many cores busy
_TARGET_SHAPE = {"binary": "(N, H, W) or (N, 1, H, W)", "multiclass": "(N, H, W)", "multilabel": "(N, C, H, W)"}


class SegmentationMetrics(Metric):
    """IoU, Dice, AUROC, AP, calibration and more of a whole data set, from one confusion matrix and one score histogram a class.

    Memory does not grow with the data. The counts of batches and of ranks are added up, so that the figures are those of the split, never
    a mean of batch values, and depend neither on the order of the images nor on how they are batched or distributed.

    IoU, Dice, precision, recall and accuracy are exact. AUROC and AP are exact for the scores rounded to their bin (`scores.score_bins`):
    within 0.001 at 0.5 % positive pixels when the logits of a class have a standard deviation between 1 and 100. While they have hardly
    left their starting value (standard deviation 0.02), AP is right to 0.02 only.

    What is not defined is None:

    - IoU and Dice of a class absent from prediction and truth; `absent_classes` counts these;
    - precision of a class that is never predicted;
    - recall, AP and best IoU of a class without a positive pixel, and AUROC of one without a positive or without a negative pixel.

    The means (`*_macro`) leave out what is None, and are None when all is. Without a valid pixel every figure is None and every class
    is counted as absent.

    Args:
        mode: `binary` one class against the rest, `multiclass` one class a pixel, `multilabel` any number of classes a pixel.
        classes: names in the order of the channels; binary the foreground class alone.
        ignore_index: the target value of pixels that count nowhere; None when every pixel counts.
        decision: by which is counted a second time, where it is not the plain one. The plain one, for binary and multilabel, is
            sigmoid(logit) > 0.5, for multiclass the highest score, the first of equals.
        **kwargs: torchmetrics' own, such as `process_group`.

    Attributes:
        confusion: int64 counts by the plain decision, rows the truth, columns the prediction: (C, C) for multiclass, else (C, 2, 2).
        histogram: int64 counts (C, 2, SCORE_BINS) of the class's logit against the rest, over negative (0) and positive (1) pixels.
        tuned_confusion: as `confusion`, by `decision`; only where that is not plain.
        cooled_histogram: as `histogram`, of logits divided by the temperature of `decision`; only for multiclass, for elsewhere it is read
            off the histogram.

    Raises:
        ValueError: for class names that do not fit the mode, and a decision of another mode or of other classes.

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
    tuned_confusion: Tensor
    cooled_histogram: Tensor
    nan_scores: Tensor
    foreign_ids: Tensor

    def __init__(
        self, mode: Mode, classes: list[str], ignore_index: int | None = 255, decision: Decision | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mode not in _LEAST_AND_MOST_CLASSES:
            raise ValueError(f"mode={mode!r}: choose one of {', '.join(_LEAST_AND_MOST_CLASSES)}")
        least, most = _LEAST_AND_MOST_CLASSES[mode]
        if not least <= len(classes) <= most or len(set(classes)) != len(classes):
            raise ValueError(f"classes={classes}: {mode} takes {least}{'' if most == least else ' or more'}, all different")
        if decision and (decision.mode != mode or {len(decision.thresholds), len(decision.offsets)} - {0, len(classes)}):
            raise ValueError(f"decision is for {decision.mode}, or other classes than the {len(classes)} of this {mode}: {decision}")
        self.mode = mode
        self.classes = list(classes)
        self.ignore_index = ignore_index
        self.decision = decision or Decision(mode)
        self.tuned = not self.decision.plain
        self.cooled = mode == "multiclass" and bool(self.decision.temperature)

        count = len(classes)
        self.num_ids = count if mode == "multiclass" else 2
        decided, scored = (count, count) if mode == "multiclass" else (count, 2, 2), (count, 2, SCORE_BINS)
        self.shapes: dict[str, tuple[int, ...]] = {"confusion": decided, "histogram": scored}
        self.shapes |= {"tuned_confusion": decided} if self.tuned else {}
        self.shapes |= {"cooled_histogram": scored} if self.cooled else {}
        for state, shape in self.shapes.items():
            self._count_up(state, shape)
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
        # Image by image: no score can round differently in the company of other images.
        for logits_CHW, ids_CHW in zip(logits, target, strict=True):
            self._count_image(logits_CHW, ids_CHW)

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
        """Band by band: what is computed on the way stays in the processor's cache, and small for the largest image."""
        count, _, width = logits_CHW.shape
        rows = max(1, _BAND["cpu" if logits_CHW.device.type == "cpu" else "accelerator"] // (count * width))
        # A cell past the end of each takes what is not valid: to select by a mask would make the host wait for the device.
        new = {state: torch.zeros(getattr(self, state).numel() + 1, dtype=torch.int32, device=logits_CHW.device) for state in self.shapes}
        for logits, ids in zip(torch.split(logits_CHW, rows, dim=1), torch.split(ids_CHW, rows, dim=1), strict=True):
            self._count_band(logits.flatten(1).float(), ids.flatten(1).long(), new)
        for state, counts in new.items():
            setattr(self, state, getattr(self, state) + counts[:-1].view(getattr(self, state).shape))

    def _count_band(self, logits_CP: Tensor, ids_CP: Tensor, new: dict[str, Tensor]) -> None:
        known_CP = (ids_CP >= 0) & (ids_CP < self.num_ids)
        counted_CP = torch.ones_like(known_CP) if self.ignore_index is None else ids_CP != self.ignore_index
        self.foreign_ids = self.foreign_ids + (counted_CP & ~known_CP).sum()
        # The highest score of a pixel is NaN where one of them is.
        scored_CP = logits_CP.amax(dim=0, keepdim=True) if self.mode == "multiclass" else logits_CP
        self.nan_scores = self.nan_scores + (counted_CP & scored_CP.isnan()).sum()
        valid_CP = counted_CP & known_CP
        ids_CP, logits_CP = torch.where(valid_CP, ids_CP, 0), logits_CP.nan_to_num()

        count = len(self.classes)
        row_C1 = torch.arange(count, dtype=torch.int32, device=logits_CP.device)[:, None] * 2
        if self.mode == "multiclass":
            winner_1P = highest(logits_CP)
            _tally(new["confusion"], ids_CP * count + winner_1P, valid_CP)
            scores = {"histogram": logits_CP}
            if self.cooled:
                scores["cooled_histogram"] = (logits_CP / self.decision.temperature[0]).nan_to_num()  # the largest have become infinite
            for state, scores_CP in scores.items():
                bins_CP = score_bins(one_vs_rest_logits(scores_CP, winner_1P)).add_(row_C1 * SCORE_BINS)
                bins_CP.scatter_(0, ids_CP, bins_CP.gather(0, ids_CP) + SCORE_BINS)
                _tally(new[state], bins_CP, valid_CP)
        else:
            ids_CP = ids_CP.int()
            # Not the logit against the threshold's logit: that rounds otherwise, and the torchmetrics convention is the probability.
            _tally(new["confusion"], (row_C1 + ids_CP) * 2 + (logits_CP.sigmoid() > 0.5), valid_CP)
            _tally(new["histogram"], score_bins(logits_CP).add_((row_C1 + ids_CP) * SCORE_BINS), valid_CP)
        if self.tuned:
            chosen_CP = self.decision.labels(logits_CP[None, :, None])[0].view(-1, logits_CP.shape[1]).int()
            cells_CP = ids_CP * count + chosen_CP if self.mode == "multiclass" else (row_C1 + ids_CP) * 2 + chosen_CP
            _tally(new["tuned_confusion"], cells_CP, valid_CP)

    def compute(self) -> Figures:
        """Every figure of what has been counted, over all ranks.

        Returns:
            For each class `iou/<class>`, `dice/<class>`, `precision/<class>`, `recall/<class>`, `accuracy/<class>`, `auroc/<class>`,
            `ap/<class>`, `ece/<class>`, `brier/<class>` and `pixel_share/<class>`, its share of the valid pixels; for binary and multilabel
            also `best_iou/<class>` and `best_threshold/<class>`, the largest IoU that any threshold gives on these very pixels, and that
            threshold. Then the means over classes `iou_macro` and so on, of all but accuracy, share and threshold; `iou_micro` and
            `dice_micro`, of all classes' pixels taken together, which frequent classes dominate; `iou_weighted`, the mean weighted by
            the pixels of the classes; `accuracy`, the share of right decisions, one a pixel (multilabel: one a pixel and class);
            `absent_classes`, how many have no IoU. Where `decision` is not plain, `tuned/iou/<class>` and so on are IoU, Dice,
            precision, recall and accuracy by it; where it has a temperature, `tuned/ece/<class>` and `tuned/brier/<class>` are those of the
            logits divided by it.

        Raises:
            ValueError: when a score that counts was NaN, or an id was neither a class nor `ignore_index`.
        """
        if nans := int(self.nan_scores):
            raise ValueError(f"{nans} scores were NaN: the model or its input holds NaN, so that no figure can be trusted")
        if foreign := int(self.foreign_ids):
            raise ValueError(f"{foreign} target ids were neither 0 .. {self.num_ids - 1} nor ignore_index={self.ignore_index}")
        found = figures_of(self.confusion.cpu(), self.histogram.cpu(), self.classes, overlapping=self.mode != "multiclass")
        if self.tuned:
            found |= {f"tuned/{name}": value for name, value in figures_of_confusion(self.tuned_confusion.cpu(), self.classes).items()}
        if self.decision.temperature:
            cooled = (self.cooled_histogram.cpu(), []) if self.cooled else (self.histogram.cpu(), self.decision.temperature)
            found |= {f"tuned/{name}": value for name, value in calibration_of(*cooled, self.classes).items()}
        return found


def _tally(counts: Tensor, cells: Tensor, valid: Tensor) -> None:
    """Add up how often each cell's number occurs among the valid ones; the others go to the last cell."""
    cells = cells.int().masked_fill_(~valid, len(counts) - 1).flatten()
    counts.index_add_(0, cells, torch.ones_like(cells))
