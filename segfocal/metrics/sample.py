"""A sample of a split's pixels, the same whatever the order of the images, the batches and the ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from segfocal.config.task import TaskConfig

MOST_PIXELS = 262_144
_MOST_NUMBERS = 2**23  # of logits, where classes are many
_LAST = 2**63 - 1


class PixelSample(Metric):
    """Logits and labels of pixels drawn evenly from a whole split of a multiclass task, at most `MOST_PIXELS` of them.

    Each pixel has a number that is as good as random, a function of its image's number and its place in the image. Those with the
    smallest numbers are kept, which needs no knowledge of how many there will be. Pixels that are ignored or of no class are left out.

    Args:
        task: what the logits mean.
        most: pixels to keep; None takes 262144, or less where that would be more than 8 million logits.
        **kwargs: torchmetrics' own, such as `process_group`.
    """

    is_differentiable = False
    full_state_update = False

    logits: list[Tensor]
    labels: list[Tensor]
    ranks: list[Tensor]

    def __init__(self, task: TaskConfig, most: int | None = None, **kwargs: Any) -> None:
        super().__init__(compute_with_cache=False, **kwargs)
        self.classes, self.ignore_index = task.num_classes, task.ignore_index
        self.most = most or min(MOST_PIXELS, _MOST_NUMBERS // self.classes)
        self.bound = _LAST  # no pixel with a larger number can get in
        for state in ("logits", "labels", "ranks"):
            self.add_state(state, default=[], dist_reduce_fx="cat", persistent=False)

    def update(self, logits: Tensor, target: Tensor, numbers: Tensor) -> None:
        """Offer the pixels of a batch.

        Args:
            logits: (N, C, H, W).
            target: ids (N, H, W).
            numbers: (N,) the images' places in the split.
        """
        for logits_CHW, ids_HW, number in zip(logits, target, numbers.tolist(), strict=True):
            columns, ids, start = logits_CHW.flatten(1), ids_HW.flatten(), 0
            for logits_CP, ids_P in zip(columns.split(MOST_PIXELS, dim=1), ids.split(MOST_PIXELS), strict=True):
                self._offer(logits_CP, ids_P.long(), number, start)
                start += len(ids_P)

    def _offer(self, logits_CP: Tensor, ids_P: Tensor, number: int, start: int) -> None:
        place = torch.arange(start, start + len(ids_P), device=ids_P.device)
        rank = _mixed(place + (number + 1) * 0x1F123BB5_159A55E5)
        wanted = (rank < self.bound) & (ids_P != self.ignore_index) & (ids_P >= 0) & (ids_P < self.classes)
        self.logits.append(logits_CP[:, wanted].T.float().nan_to_num())
        self.labels.append(ids_P[wanted])
        self.ranks.append(rank[wanted])
        if sum(map(len, self.ranks)) > 2 * self.most:
            self._keep_smallest()

    def _keep_smallest(self) -> None:
        """Make one tensor of each list, in the order of the pixels' numbers, without those that are too many."""
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        no_logits = torch.empty(0, self.classes, device=self.device)
        rank, order = torch.cat([none, *_listed(self.ranks)]).sort()
        order = order[: self.most]
        self.logits = [torch.cat([no_logits, *_listed(self.logits)])[order]]
        self.labels = [torch.cat([none, *_listed(self.labels)])[order]]
        self.ranks = [rank[: self.most]]
        if len(order) == self.most:
            self.bound = int(self.ranks[0][-1])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Bring together what the ranks have."""
        self._keep_smallest()  # also, a rank without a pixel has tensors of the right shape to give
        super().sync(*args, **kwargs)

    def compute(self) -> tuple[Tensor, Tensor]:
        """The pixels of all ranks, on the CPU.

        Returns:
            Logits (pixels, C) float32 and labels (pixels,) int64, always in the same order.
        """
        self._keep_smallest()
        return self.logits[0].cpu(), self.labels[0].cpu()

    def reset(self) -> None:
        """Forget all pixels."""
        super().reset()
        self.bound = _LAST


def _listed(state: list[Tensor] | Tensor) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else state  # torchmetrics makes one tensor of what it has gathered


def _mixed(numbers: Tensor) -> Tensor:
    """Another number in [0, 2^63) for each, evenly spread whatever they are (SplitMix64's finaliser, signed)."""
    numbers = (numbers ^ (numbers >> 30)) * -0x40A7B892_E31B1A47
    numbers = (numbers ^ (numbers >> 27)) * -0x6B2FB644_ECCEEE15
    return (numbers ^ (numbers >> 31)) & _LAST
