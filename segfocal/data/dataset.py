"""From a source to tensors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from segfocal.data.sampling import Key
from segfocal.data.shared import shared_tensor
from segfocal.data.source import Array, Point, Source
from segfocal.data.transforms import sample_seed

STRIDE = 32  # what the deepest level of most encoders divides by


class Batch(NamedTuple):
    """
    Shapes: image (N, channels, H, W) float32; target uint8 (N, H, W) or, for multilabel, (N, C, H, W); indices (N,) int64,
    the samples' places in the split.
    """

    image: Tensor
    target: Tensor
    indices: Tensor


class Transform(Protocol):
    def __call__(self, image: Array, mask: Array, seed: int, point: Point | None = None) -> tuple[Array, Array]: ...


class Sample(NamedTuple):
    """
    Args:
        image: (H, W, channels) uint8 or float32, as the source has it.
        mask: uint8 (H, W), or for multilabel (H, W, C).
        number: its place in the split.
    """

    image: Array
    mask: Array
    number: int


class Normalise:
    """(image - mean) / std in float32, of pixels in 0..1.

    Values of 8 bit are looked up: that gives the same numbers in a tenth of the time.

    Args:
        mean, std: of each channel.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.given = mean, std
        self.mean = np.asarray(mean, np.float32)
        self.scale = 1 / np.asarray(std, np.float32)
        self.table = self._of_unit(np.arange(256, dtype=np.float32)[:, None] / 255)[None]

    def __call__(self, image: Array) -> Array:
        if image.dtype != np.uint8:
            return self._of_unit(image)
        rows = image.reshape(-1, *image.shape[-2:])
        return cv2.LUT(rows, self.table).reshape(image.shape)

    def _of_unit(self, unit: Array) -> Array:
        normalised: Array = (unit - self.mean) * self.scale
        return normalised

    def __reduce__(self) -> tuple[type[Normalise], tuple[list[float], list[float]]]:
        return Normalise, self.given  # short, for it travels with each batch


class SegmentationDataset(Dataset[Sample]):
    """Samples by `Key`.

    Args:
        source: what is read.
        mean, std: of each channel, of pixels in 0..1: what batches are normalised with.
        transform: varies a sample by a seed; None leaves it.
        seed: of the run.
    """

    def __init__(self, source: Source, mean: list[float], std: list[float], transform: Transform | None = None, seed: int = 0) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self.normalise = Normalise(mean, std)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        image, mask = self.source.read(key.sample)
        if self.transform is not None:
            image, mask = self.transform(image, mask, sample_seed(self.seed, key.epoch, key.sample, key.repeat), key.point)
        return Sample(image, mask, key.sample)


class EightBit(NamedTuple):
    """A batch on its way out of a worker: a quarter of the bytes, normalised where it arrives.

    Args:
        image: (N, H, W, channels) uint8, padded with anything.
        target, indices: as in `Batch`.
        sizes: height and width of each image without what pads it.
        normalise: what is to be done.
    """

    image: Tensor
    target: Tensor
    indices: Tensor
    sizes: list[tuple[int, int]]
    normalise: Normalise

    def batch(self) -> Batch:
        image = self.normalise(self.image.numpy())
        for row, (height, width) in zip(image, self.sizes, strict=True):
            row[height:], row[:height, width:] = 0, 0
        return Batch(_channels_first(torch.from_numpy(image)), self.target, self.indices)

    def pin_memory(self) -> Batch:
        """What torch calls in the thread that copies batches into page-locked memory."""
        image, target, indices = self.batch()
        return Batch(image.pin_memory(), target.pin_memory(), indices.pin_memory())


class Collate:
    """Stack samples, padded below and to the right to the next multiple of the stride: 0 in the image, ignore_index in the mask.

    In a worker, images of 8 bit stay such, see `EightBit`.
    """

    def __init__(self, ignore_index: int, normalise: Normalise, stride: int = STRIDE) -> None:
        self.ignore_index, self.normalise, self.stride = ignore_index, normalise, stride

    def __call__(self, samples: list[Sample]) -> Batch | EightBit:
        sizes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
        height, width = (self._padded(max(lengths)) for lengths in zip(*sizes, strict=True))
        eight_bit = all(sample.image.dtype == np.uint8 for sample in samples)
        image = _empty((len(samples), height, width, samples[0].image.shape[2]), torch.uint8 if eight_bit else torch.float32)
        target = _empty((len(samples), height, width, *samples[0].mask.shape[2:]), torch.uint8)
        pixels, labels = image.numpy(), target.numpy()
        for number, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
            if (h, w) != (height, width):
                pixels[number], labels[number] = 0, self.ignore_index
            pixels[number, :h, :w] = sample.image if eight_bit else self.normalise(sample.image)
            labels[number, :h, :w] = sample.mask
        target = target if target.ndim == 3 else _channels_first(target).contiguous()
        indices = torch.tensor([sample.number for sample in samples])
        if not eight_bit:
            return Batch(_channels_first(image), target, indices)
        found = EightBit(image, target, indices, sizes, self.normalise)
        return found.batch() if get_worker_info() is None else found

    def _padded(self, length: int) -> int:
        return -(-length // self.stride) * self.stride


def _channels_first(image: Tensor) -> Tensor:
    """A view; in memory the channels stay last."""
    return image.movedim(-1, -3)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a worker it is shared from the start, or what fills it would be copied on its way out."""
    return torch.empty(shape, dtype=dtype) if get_worker_info() is None else shared_tensor(shape, dtype)
