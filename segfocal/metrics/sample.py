"""A sample of a split's pixels, the same whatever the order of the images, the batches and the ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from segfocal.config.task import TaskConfig

MOST_PIXELS = 262_144
_MOST_NUMBERS = 2**23  # of logits, where classes are many
_MOST_LOTS = 1000  # until they are put together: each is a few small tensors
_LAST = 2**63 - 1


class PixelSample(nn.Module):
    """Logits and labels of pixels drawn evenly from a whole split of a multiclass task, at most `MOST_PIXELS` of them.

    Each pixel has a key that is as good as random, a function of its image's number and its place in the image. Those with the smallest
    keys are kept, which needs no knowledge of how many there will be. Pixels that are ignored or of no class are left out.

    Args:
        task: what the logits mean.
        most: pixels to keep; None takes 262144, or less where that would be more than 8 million logits.
    """

    nothing: Tensor

    def __init__(self, task: TaskConfig, most: int | None = None) -> None:
        super().__init__()
        self.classes, self.ignore_index = task.num_classes, task.ignore_index
        self.most = most or min(MOST_PIXELS, _MOST_NUMBERS // self.classes)
        # What a rank without pixels has to give to the others, on its device.
        self.register_buffer("nothing", torch.empty(0, self.classes), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Forget all pixels."""
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # logits, labels, keys
        self.count = 0  # of pixels in them
        self.bound = _LAST  # no pixel with a larger key can get in

    def update(self, logits: Tensor, target: Tensor, numbers: Tensor) -> None:
        """Offer the pixels of a batch.

        Args:
            logits: (N, C, H, W).
            target: ids (N, H, W).
            numbers: (N,) the images' places in the split.
        """
        for logits_CHW, ids_HW, number in zip(logits.detach(), target, numbers.tolist(), strict=True):
            columns, ids, start = logits_CHW.flatten(1), ids_HW.flatten(), number << 32
            for logits_CP, ids_P in zip(torch.split(columns, MOST_PIXELS, dim=1), torch.split(ids, MOST_PIXELS), strict=True):
                self._offer(logits_CP, ids_P.long(), start)
                start += len(ids_P)

    def _offer(self, logits_CP: Tensor, ids_P: Tensor, start: int) -> None:
        key = _mixed(torch.arange(start, start + len(ids_P), device=ids_P.device))
        wanted = (key < self.bound) & (ids_P != self.ignore_index) & (ids_P >= 0) & (ids_P < self.classes)
        self.kept.append((logits_CP[:, wanted].T.float().nan_to_num(), ids_P[wanted], key[wanted]))
        self.count += len(self.kept[-1][2])
        if self.count > 2 * self.most or len(self.kept) > _MOST_LOTS:
            self.kept = [self._smallest(self.kept)]
            self.count = len(self.kept[0][2])
            self.bound = int(self.kept[0][2][-1]) if self.count == self.most else _LAST

    def _smallest(self, kept: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels to keep of several lots, in the order of their keys."""
        none = self.nothing.new_empty(0, dtype=torch.int64)
        logits, labels, keys = (torch.cat(part) for part in zip((self.nothing, none, none), *kept, strict=True))
        keys, order = keys.sort()
        order = order[: self.most]
        return logits[order], labels[order], keys[: self.most]

    def pixels(self) -> tuple[Tensor, Tensor]:
        """The pixels of all ranks, on the CPU; every rank has to call.

        Returns:
            Logits (pixels, C) float32 and labels (pixels,) int64, always in the same order.
        """
        kept = self._smallest(self.kept)
        if dist.is_available() and dist.is_initialized():
            lots = zip(*(gather_all_tensors(part) for part in kept), strict=True)
            kept = self._smallest([(logits, labels, keys) for logits, labels, keys in lots])
        return kept[0].cpu(), kept[1].cpu()


def _mixed(numbers: Tensor) -> Tensor:
    """Another number in [0, 2^63) for each, evenly spread whatever they are (SplitMix64's finaliser, signed)."""
    numbers = (numbers ^ (numbers >> 30)) * -0x40A7B892_E31B1A47
    numbers = (numbers ^ (numbers >> 27)) * -0x6B2FB644_ECCEEE15
    return (numbers ^ (numbers >> 31)) & _LAST
