"""What each image came to: the counts behind its IoU, for lists of the worst and the best and for intervals over images."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from segfocal.cells import harmless
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics.ranking import auroc, highest, highest_of_multiclass

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Why = Literal["worst", "best", "random"]


class _Row(NamedTuple):
    name: str
    plain: Counts
    tuned: Counts
    valid: int
    score: Floats

    def order(self) -> tuple[str, bytes, bytes, bytes]:
        """By name; where samples share one, by what does not depend on the order in which they came, the truth first."""
        return self.name, (self.plain[:, 0] + self.plain[:, 2]).tobytes(), self.plain.tobytes(), self.tuned.tobytes()


class ImageTable:
    """A row for each image: true positives, false positives and false negatives of each class, and its highest score.

    A row takes some hundred bytes, whatever the size of the image. Rows are kept in order of their names, so that nothing depends on how
    images were batched, ordered or shared out among processes.

    What is not defined is NaN: IoU and Dice of a class that is absent from prediction and truth of the image, and the mean over classes
    where all are.

    Args:
        task: what the logits mean.
        decision: by which `tuned` is counted; `plain` is counted by the plain rule, and where the decision is plain both are the same.

    Example:
        >>> table = ImageTable(TaskConfig(classes=["crack"]), Decision("binary"))
        >>> table.add(["a"], torch.tensor([[[[2.0, -1.0, 3.0]]]]), torch.tensor([[[1, 1, 255]]]))
        >>> table.plain.tolist(), table.mean_iou().tolist()
        ([[[1, 0, 1]]], [0.5])
    """

    def __init__(self, task: TaskConfig, decision: Decision) -> None:
        self.task, self.decision = task, decision
        self._plain = Decision(task.name)
        self._rows: list[_Row] = []

    def add(self, names: list[str], logits_NCHW: Tensor, target: Tensor) -> None:
        """Count a batch, a row for each image.

        Args:
            names: of the images.
            logits_NCHW: before sigmoid or softmax, of any float type; taken as float32, NaN as 0.
            target: ids 0 .. C - 1 for multiclass, else 0 and 1; any other value counts nowhere.

        Shape:
            target (N, H, W), for binary also (N, 1, H, W), for multilabel (N, C, H, W).

        Raises:
            ValueError: there are not as many names as images and targets.
        """
        # Image by image, as the metrics count them: no score can round differently in the company of other images.
        for name, logits_CHW, ids in zip(names, logits_NCHW, target, strict=True):
            self._rows.append(self._row(name, logits_CHW.float().contiguous().nan_to_num(), ids if ids.ndim == 3 else ids[None]))

    def _row(self, name: str, logits_CHW: Tensor, ids_CHW: Tensor) -> _Row:
        valid_CHW = (ids_CHW >= 0) & (ids_CHW < self.task.num_ids)
        predicted = self._plain.labels(logits_CHW[None])[0]
        plain = tuned = self._outcomes(predicted, ids_CHW, valid_CHW)
        if not self.decision.plain:
            tuned = self._outcomes(self.decision.labels(logits_CHW[None])[0], ids_CHW, valid_CHW)
        if self.task.name == "multiclass":
            score = highest_of_multiclass(logits_CHW, predicted, valid_CHW[0])
        else:
            score = highest(logits_CHW, valid_CHW)
        known = valid_CHW.flatten(1).any(1)
        scores = torch.where(known, score, torch.nan).cpu().numpy().astype(np.float64)
        return _Row(name, plain, tuned, int(valid_CHW.any(0).sum()), scores)

    def _outcomes(self, predicted: Tensor, ids_CHW: Tensor, valid_CHW: Tensor) -> Counts:
        """TP, FP and FN of each class, (C, 3)."""
        if self.task.name == "multiclass":
            count = self.task.num_classes
            cells = torch.where(valid_CHW[0], ids_CHW[0].long() * count + predicted, count * count)  # what is not valid behind all others
            confusion = torch.bincount(cells.flatten(), minlength=count * count + 1)[:-1].view(count, count)
            hit, all_predicted, all_true = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
        else:
            found, true = (predicted == 1) & valid_CHW, ids_CHW == 1
            hit, all_predicted, all_true = (each.sum((1, 2)) for each in (found & true, found, true))
        counts: Counts = torch.stack([hit, all_predicted - hit, all_true - hit], dim=1).cpu().numpy()
        return counts

    def _sorted(self) -> list[_Row]:
        self._rows.sort(key=_Row.order)
        return self._rows

    @property
    def names(self) -> list[str]:
        """Of the images, in the order of all that is asked here."""
        return [row.name for row in self._sorted()]

    @property
    def plain(self) -> Counts:
        """TP, FP and FN of each class by the plain rule, (N, C, 3)."""
        return self._counts([row.plain for row in self._sorted()])

    @property
    def tuned(self) -> Counts:
        """TP, FP and FN of each class by the decision, (N, C, 3)."""
        return self._counts([row.tuned for row in self._sorted()])

    def _counts(self, rows: list[Counts]) -> Counts:
        return np.array(rows, np.int64).reshape(len(rows), self.task.num_classes, 3)

    @property
    def valid(self) -> Counts:
        """Pixels that count, (N,); in multilabel for one class at least."""
        return np.array([row.valid for row in self._sorted()], np.int64)

    @property
    def score(self) -> Floats:
        """The highest logit of each class against the rest in the image, (N, C); NaN where no pixel counts."""
        return np.array([row.score for row in self._sorted()], np.float64).reshape(-1, self.task.num_classes)

    def iou(self, tuned: bool = False) -> Floats:
        """TP / (TP + FP + FN) of each image and class, (N, C)."""
        tp, fp, fn = np.moveaxis(self.tuned if tuned else self.plain, 2, 0)
        return _ratio(tp, tp + fp + fn)

    def dice(self, tuned: bool = False) -> Floats:
        """2 TP / (2 TP + FP + FN) of each image and class, (N, C)."""
        tp, fp, fn = np.moveaxis(self.tuned if tuned else self.plain, 2, 0)
        return _ratio(2 * tp, 2 * tp + fp + fn)

    def mean_iou(self, tuned: bool = False) -> Floats:
        """The mean IoU of each image over the classes that are there or predicted, (N,)."""
        return _mean(self.iou(tuned))

    def mean_dice(self, tuned: bool = False) -> Floats:
        """The mean Dice of each image over the classes that are there or predicted, (N,)."""
        return _mean(self.dice(tuned))

    def image_auroc(self) -> list[float | None]:
        """How likely an image that holds a class outscores one that does not, for each class; ties count half.

        Exact, by ranks. Images without a pixel that counts are left out; None where all of the others hold the class, or none does.
        """
        scores, holds = self.score, (self.plain[:, :, 0] + self.plain[:, :, 2]) > 0
        return [auroc(scores[:, c], holds[:, c]) for c in range(self.task.num_classes)]

    def choose(self, count: int, seed: int = 0) -> list[tuple[int, Why]]:
        """Images to look at: a third the worst by mean IoU, a third the best, a third drawn from the rest; none of them twice.

        Of equal images the one with more wrong pixels is the worse. Images without an IoU are drawn only.

        Args:
            count: how many; fewer where there are fewer.
            seed: of what is drawn.

        Returns:
            Rows and why each was chosen: the worst first, from the worst on, then from the best on, then those drawn by name.
        """
        mean, wrong = self.mean_iou(tuned=True), self.tuned[:, :, 1:].sum((1, 2))
        total = min(count, len(mean))
        ranked = [int(row) for row in np.lexsort((-wrong, mean)) if not np.isnan(mean[row])]
        worst = ranked[: min((total + 2) // 3, (len(ranked) + 1) // 2)]
        best = ranked[::-1][: min((total + 1) // 3, len(ranked) // 2)]
        rest = sorted(set(range(len(mean))) - {*worst, *best})
        drawn = sorted(np.random.default_rng(seed).permutation(rest)[: total - len(worst) - len(best)].tolist())
        return [*((row, "worst") for row in worst), *((row, "best") for row in best), *((int(row), "random") for row in drawn)]

    def gathered(self) -> ImageTable:
        """The rows of all processes of torch.distributed, on each of them; without it, these."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        shares: list[list[_Row]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shares, self._rows)
        whole = ImageTable(self.task, self.decision)
        whole._rows = [row for share in shares for row in share]
        return whole

    def write_csv(self, path: Path) -> None:
        """Write a line for each image: name, pixels that count, mean IoU and Dice, then TP, FP, FN and IoU of each class.

        Where the decision is not plain, the same by it follow, with `tuned/` before their names. What is not defined is empty. A name that
        a spreadsheet would take for a formula has an apostrophe before it.
        """
        header, columns = ["name", "valid"], [[harmless(name) for name in self.names], self.valid.tolist()]
        for tuned in [False] if self.decision.plain else [False, True]:
            for title, column in self._columns(tuned):
                header.append(f"tuned/{title}" if tuned else title)
                columns.append(["" if value != value else value for value in column.tolist()])
        part = path.with_name(f"{path.name}.part")
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:  # names of files need not be UTF-8
            writer = csv.writer(file)  # ends lines as RFC 4180 has it: with "\n" alone, a "\r" in a name would not be quoted
            writer.writerow(header)
            writer.writerows(zip(*columns, strict=True))
        os.replace(part, path)

    def _columns(self, tuned: bool) -> list[tuple[str, NDArray[Any]]]:
        iou, counts = self.iou(tuned), self.tuned if tuned else self.plain
        columns: list[tuple[str, NDArray[Any]]] = [("iou", self.mean_iou(tuned)), ("dice", self.mean_dice(tuned))]
        for c, label in enumerate(self.task.class_names):
            columns += [(f"{outcome}/{label}", counts[:, c, which]) for which, outcome in enumerate(("tp", "fp", "fn"))]
            columns.append((f"iou/{label}", iou[:, c]))
        return columns


def _ratio(part: Counts, whole: Counts) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean(per_class_NC: Floats) -> Floats:
    there = ~np.isnan(per_class_NC)
    total = np.where(there, per_class_NC, 0).sum(1)
    mean: Floats = np.divide(total, there.sum(1), out=np.full(len(total), np.nan), where=there.any(1))
    return mean
