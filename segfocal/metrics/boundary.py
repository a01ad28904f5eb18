"""How well contours are hit, which IoU hardly says of large objects: Boundary IoU and the boundary F-measure, from counts of a split."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from segfocal.config.task import TaskConfig

Mask = NDArray[np.uint8]

_OUTCOMES = 6
"""Region in both, in either; contour pixels of the prediction, of these matched; of the truth, of these matched."""


class BoundaryCounts:
    r"""Counts along the contours of each class, added up over images.

    .. math::
        \mathrm{IoU}_b = \frac{|(G_d \cap G) \cap (P_d \cap P)|}{|(G_d \cap G) \cup (P_d \cap P)|}, \qquad
        F = \frac{2 P R}{P + R}

    Boundary IoU is the IoU of what of the truth G and of the prediction P lies within d pixels of its own contour, diagonals counted as
    one step. As in the authors' code, the border of the image is a contour of what touches it.

    The boundary F-measure is made of the share of the predicted contour within `tolerance` of the true one (P), and of the true contour
    within it of the predicted one (R), by Euclidean distance. The contour are the pixels of a mask with one of their eight neighbours
    outside of it. As in BSDS, the border of the image is no contour: nobody has to find it.

    Both are those of the split: numbers of pixels are added up over images, large contours weigh more, and a figure depends neither on
    batches nor on the order. (Csurka et al. average over images instead.) They are None for a class without a contour in prediction and
    truth, and left out of the mean; F is 0 where only one of the two has a contour.

    Ignored pixels count nowhere, and next to them nothing is a contour: neither of truth nor prediction, for on which side of it they
    lie is not known. Rows and columns at the edges that are ignored whole, as what pads an image is, are not part of the image: they are
    cut off first, what d is a share of is the diagonal of the rest, and its edge is the border of the image.

    Args:
        task: what the labels mean.
        ratio: d as a share of the image's diagonal, rounded, at least one pixel.
        tolerance: of F, in pixels, at least 0.

    Reference:
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021.
        Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013.
        Martin et al., Learning to detect natural image boundaries using local brightness, color, and texture cues, PAMI 2004 (BSDS).

    Example:
        >>> import torch
        >>> counts = BoundaryCounts(TaskConfig(classes=["crack"]))
        >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
        >>> mask[:, :, 8:24, 8:24] = 1
        >>> counts.add(mask, mask)
        >>> counts.figures()["boundary_iou/crack"]
        1.0
    """

    def __init__(self, task: TaskConfig, ratio: float = 0.02, tolerance: float = 2.0) -> None:
        self.task, self.ratio = task, ratio
        reach = np.arange(-math.floor(tolerance), math.floor(tolerance) + 1)
        self.disk = (reach[:, None] ** 2 + reach**2 <= tolerance**2).astype(np.uint8)
        self.counts = np.zeros((task.num_classes, _OUTCOMES), np.int64)

    def add(self, labels: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            labels: as `Decision.labels` gives them: ids (N, H, W) of multiclass, else 0 and 1 (N, C, H, W).
            target: ids 0 .. C - 1 for multiclass, else 0 and 1; any other value is ignored.

        Shape:
            target (N, H, W), for binary also (N, 1, H, W), for multilabel (N, C, H, W).
        """
        for predicted, ids in zip(labels.cpu().numpy(), target.cpu().numpy(), strict=True):
            self._add(predicted if predicted.ndim == 3 else predicted[None], ids if ids.ndim == 3 else ids[None])

    def _add(self, predicted: NDArray[np.integer], ids: NDArray[np.integer]) -> None:
        valid = (ids >= 0) & (ids < self.task.num_ids)
        rows, columns = np.flatnonzero(valid.any((0, 2))), np.flatnonzero(valid.any((0, 1)))
        if not len(rows):
            return
        image = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        predicted, ids, valid = predicted[image], ids[image], valid[image]
        width = max(1, round(self.ratio * math.hypot(*ids.shape[1:])))
        for c in range(self.task.num_classes):
            plane, label = (0, c) if self.task.name == "multiclass" else (c, 1)
            counted = valid[plane]
            self.counts[c] += self._of_masks((predicted[plane] == label) & counted, (ids[plane] == label) & counted, counted, width)

    def _of_masks(
        self, predicted: NDArray[np.bool_], true: NDArray[np.bool_], counted: NDArray[np.bool_], width: int
    ) -> NDArray[np.int64] | int:
        if not predicted.any() and not true.any():
            return 0
        regions = [_rim(mask, counted, width, border=True) for mask in (predicted, true)]
        contours = [_rim(mask, counted, 1, border=False) for mask in (predicted, true)]
        near = [cv2.dilate(contour.astype(np.uint8), self.disk) > 0 for contour in contours]
        pixels = [
            regions[0] & regions[1],
            regions[0] | regions[1],
            contours[0],
            contours[0] & near[1],
            contours[1],
            contours[1] & near[0],
        ]
        return np.array([np.count_nonzero(each) for each in pixels])

    def merge(self, other: BoundaryCounts) -> None:
        """Add the counts of other images."""
        self.counts += other.counts

    def gathered(self) -> BoundaryCounts:
        """The counts of all processes of torch.distributed together, on each of them; without it, these."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        shares: list[NDArray[np.int64]] = [self.counts for _ in range(dist.get_world_size())]
        dist.all_gather_object(shares, self.counts)
        whole = BoundaryCounts(self.task, self.ratio)
        whole.disk, whole.counts = self.disk, np.sum(shares, axis=0)
        return whole

    def figures(self) -> dict[str, float | None]:
        """`boundary_iou/<class>` and `boundary_f/<class>`, and their means over classes, `boundary_iou_macro` and `boundary_f_macro`."""
        found: dict[str, float | None] = {}
        rows = self.counts.tolist()
        for name, values in {
            "boundary_iou": [_iou(*row[:2]) for row in rows],
            "boundary_f": [_f_measure(*row[2:]) for row in rows],
        }.items():
            found |= {f"{name}/{label}": value for label, value in zip(self.task.class_names, values, strict=True)}
            known = [value for value in values if value is not None]
            found[f"{name}_macro"] = sum(known) / len(known) if known else None
        return found


def _rim(mask: NDArray[np.bool_], counted: NDArray[np.bool_], width: int, border: bool) -> NDArray[np.bool_]:
    """The pixels of a mask within so many steps, also diagonal ones, of a pixel that counts and is not in it."""
    # What is ignored takes nothing away. A sum over the square takes as long for every width; eroding takes longer for wider ones.
    side = 2 * width + 1
    outside = (~mask & counted).astype(np.uint8)
    near: NDArray[np.bool_] = cv2.boxFilter(outside, cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT) > 0
    if border:  # what lies beyond the image is not in the mask
        near[:width] = near[-width:] = True
        near[:, :width] = near[:, -width:] = True
    return mask & near


def _iou(both: int, either: int) -> float | None:
    return both / either if either else None


def _f_measure(predicted: int, right: int, true: int, found: int) -> float | None:
    if not predicted and not true:
        return None
    if not right or not found:
        return 0.0
    precision, recall = right / predicted, found / true
    return 2 * precision * recall / (precision + recall)
