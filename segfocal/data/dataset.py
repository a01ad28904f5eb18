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


class SegmentationDataset(Dataset[Batch]):
    """Samples by `Key`.

    Args:
        source: what is read.
        mean, std: of each channel, of pixels in 0..1.
        transform: varies a sample by a seed; None leaves it.
        seed: of the run.
    """

    def __init__(self, source: Source, mean: list[float], std: list[float], transform: Transform | None = None, seed: int = 0) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self.mean = np.asarray(mean, np.float32)
        self.scale = 1 / np.asarray(std, np.float32)
        self.table = self._normalised(np.arange(256, dtype=np.float32)[:, None] / 255)[None]
        """What each value of 8 bit becomes in each channel."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Batch:
        image, mask = self.source.read(key.sample)
        if self.transform is not None:
            image, mask = self.transform(image, mask, sample_seed(self.seed, key.epoch, key.sample, key.repeat), key.point)
        return Batch(self._image(image), _mask(mask), torch.tensor(key.sample))

    def _image(self, image: Array) -> Tensor:
        """Normalised; looked up where there are only 256 values, which gives the same numbers in a tenth of the time."""
        unit = cv2.LUT(image, self.table).reshape(image.shape) if image.dtype == np.uint8 else self._normalised(image)
        return torch.from_numpy(unit).permute(2, 0, 1)

    def _normalised(self, unit: Array) -> Array:
        normalised: Array = (unit - self.mean) * self.scale
        return normalised


def _mask(mask: Array) -> Tensor:
    tensor = torch.from_numpy(np.require(mask, requirements=["C", "W"]))  # what is cached cannot be written to, which torch warns of
    return tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor


class Collate:
    """Stack samples, padded below and to the right to the next multiple of the stride: 0 in the image, ignore_index in the mask."""

    def __init__(self, ignore_index: int, stride: int = STRIDE) -> None:
        self.ignore_index, self.stride = ignore_index, stride

    def __call__(self, samples: list[Batch]) -> Batch:
        height, width = (self._padded(max(sample.image.shape[axis] for sample in samples)) for axis in (1, 2))
        image = _empty((len(samples), height, width, samples[0].image.shape[0]), torch.float32).permute(0, 3, 1, 2)
        target = _empty((len(samples), *samples[0].target.shape[:-2], height, width), torch.uint8)
        for number, sample in enumerate(samples):
            h, w = sample.image.shape[1:]
            if (h, w) != (height, width):
                image[number], target[number] = 0, self.ignore_index
            image[number, :, :h, :w] = sample.image
            target[number, ..., :h, :w] = sample.target
        return Batch(image, target, torch.stack([sample.indices for sample in samples]))

    def _padded(self, length: int) -> int:
        return -(-length // self.stride) * self.stride


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a worker it is shared from the start, or what fills it would be copied on its way out."""
    return torch.empty(shape, dtype=dtype) if get_worker_info() is None else shared_tensor(shape, dtype)
