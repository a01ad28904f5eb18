"""`data=synthetic`: the generated data set as a source."""

from __future__ import annotations

from segfocal.config.data import DATA, SyntheticConfig
from segfocal.config.task import TaskConfig
from segfocal.data.source import Array, Sources
from segfocal.data.synthetic import make_sample
from segfocal.errors import UserError

FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # splits never share an image


class SyntheticSource:
    """Images made when first asked for, and kept: an epoch should cost no more than reading files does."""

    def __init__(self, config: SyntheticConfig, task: TaskConfig, split: str, count: int, channels: int) -> None:
        self.config, self.task, self.first, self.channels = config, task, FIRST[split], channels
        self.names = [f"{split}_{index:04d}" for index in range(count)]
        self.settings = f"synthetic {task.name} {task.ignore_index} {config.size} {config.variant} {channels}"
        self.kept: dict[int, tuple[Array, Array]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return self.config.size, self.config.size

    def identity(self, index: int) -> str:
        return str(self.first + index)

    def read(self, index: int) -> tuple[Array, Array]:
        if index not in self.kept:
            image, mask = make_sample(self.task.name, self.config.variant, self.first + index, self.config.size)
            if self.channels == 1:
                image = image.mean(axis=-1, keepdims=True).round().astype(image.dtype)
            if self.task.ignore_index != 255:
                mask[mask == 255] = self.task.ignore_index
            self.kept[index] = (image, mask)
        return self.kept[index]

    def known(self, index: int) -> None:
        return None


@DATA.builder(SyntheticConfig)
def synthetic_sources(config: SyntheticConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The three splits; the run's seed plays no part, so that runs of several seeds are compared on the same images."""
    if channels not in (1, 3):
        raise UserError(f"model.in_channels={channels}: data=synthetic has colour images: 1 or 3")
    counts = {"train": config.train, "val": config.val, "test": config.test}
    return Sources({split: SyntheticSource(config, task, split, count, channels) for split, count in counts.items()})
