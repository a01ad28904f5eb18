"""How fast training samples come: python -m benchmarks.data [overrides of train.py] [--workers 0 2] [--rounds 5]

    python -m benchmarks.data
    python -m benchmarks.data data.root=/path/to/camvid task=multiclass 'task.classes=[sky,...]' task.ignore_index=11 data.crop=[256,256]

Images per second, medians of interleaved epochs after one that is not counted: of a dataset as one writes it by hand (cv2.imread,
albumentations, a plain DataLoader), and of segfocal without a cache, with data.cache=ram and with data.cache=disk. By hand, crops are cut
first and moved then, which costs least, and leaves black corners; the masks' values are taken as they are. Without data.root=, generated
pictures of 480 x 480 are written as JPEG and PNG and read again. Then what a sample costs at each step, in milliseconds of one core.

Figures are to be compared within one run of this; on a machine that does something else, not even that.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from segfocal.config.augment import AugmentConfig
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Collate, SegmentationDataset
from segfocal.data.files import Sample
from segfocal.data.sampling import Key
from segfocal.data.shared import shared_tensor
from segfocal.data.synthetic import make_sample
from segfocal.errors import MISTAKE, UserError
from segfocal.recipe import settled

MADE = 160  # pictures
STEPS = 64  # samples that each step is measured with
Row = dict[str, list[float]]


class ByHand(Dataset[Any]):
    """What a training script has."""

    def __init__(self, samples: list[Sample], config: AugmentConfig, crop: list[int], ignore_index: int, data: SegmentationData) -> None:
        self.samples = samples
        self.vary = [
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=ignore_index),
            A.RandomCrop(*crop),
            *_steps(config, ignore_index),
        ]
        self.to_tensor = [A.Normalize(data.mean, data.std), ToTensorV2()]
        self.compose = A.Compose([*self.vary, *self.to_tensor])

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Any, Any]:
        sample = self.samples[index]
        image: Any = cv2.imread(str(sample.image))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), cv2.imread(str(sample.masks[0]), cv2.IMREAD_UNCHANGED)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, mask = self.read(index)
        varied = self.compose(image=image, mask=mask)
        return varied["image"], varied["mask"]


def _steps(config: AugmentConfig, ignore_index: int) -> list[A.BasicTransform]:
    if any(value for key, value in dataclasses.asdict(config).items() if key in ("gamma", "colour", "distort", "lowres", "copy_paste")):
        raise UserError(f"augment={config.name}: by hand there are only the steps of none, light, medium and surface")
    zoom, angle = config.scale or 0.0, config.rotate
    border = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": ignore_index, "mask_interpolation": cv2.INTER_NEAREST}
    light = {"brightness_limit": config.brightness, "contrast_limit": config.contrast}
    steps = [
        (A.Affine(scale=(1 - zoom, 1 + zoom), rotate=(-angle, angle), **border, p=1.0), zoom or angle),
        (A.HorizontalFlip(p=config.hflip), config.hflip),
        (A.VerticalFlip(p=config.vflip), config.vflip),
        (A.RandomRotate90(p=config.rotate90), config.rotate90),
        (A.RandomBrightnessContrast(**light, p=0.8), config.brightness or config.contrast),
        (A.GaussianBlur(sigma_limit=(0.3, 1.5), p=config.blur), config.blur),
        (A.GaussNoise(std_range=(0.01, 0.05), p=config.noise), config.noise),
    ]
    return [step for step, wanted in steps if wanted]


def make(root: Path) -> list[str]:
    """Write generated pictures; returns the overrides that read them."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(MADE):
        image, mask = make_sample("binary", 0, number, 480)
        Image.fromarray(image).save(root / "images" / f"{number:03d}.jpg", quality=92)
        Image.fromarray(mask).save(root / "masks" / f"{number:03d}.png")
    return [f"data.root={root}", "task.classes=[crack]", "data.crop=[256,256]", "data.fractions=[0.8,0.1,0.1]"]


def opened(config: TrainConfig, cache: Any, workers: int) -> SegmentationData:
    data = SegmentationData(dataclasses.replace(config.data, cache=cache), config.augment, config.task, 3, workers, config.seed)
    data.normalise(*data.check()["train"].mean_std)
    return data


def by_hand(config: TrainConfig, data: SegmentationData) -> ByHand:
    source: Any = data.sources["train"]
    return ByHand(source.samples, config.augment, config.data.crop or list(data.measured["train"].sizes[0]), config.task.ignore_index, data)


def loaders(config: TrainConfig, workers: int) -> dict[str, DataLoader[Any]]:
    """The contenders."""
    data = opened(config, "none", workers)
    plain = by_hand(config, data)
    many: Any = {"num_workers": workers, "persistent_workers": workers > 0}
    return {
        "by hand": DataLoader(plain, data.batch_size, shuffle=True, drop_last=True, **many),
        **{f"data.cache={cache}": opened(config, cache, workers).train_dataloader() for cache in ("none", "ram", "disk")},
    }


def throughput(config: TrainConfig, workers: int, rounds: int) -> Row:
    """Images per second of each contender in each round."""
    contenders = loaders(config, workers)
    taken: Row = {name: [] for name in contenders}
    for _, (name, loader) in itertools.product(range(rounds + 1), contenders.items()):
        started = time.perf_counter()
        images = sum(len(batch[0]) for batch in loader)
        taken[name].append(images / (time.perf_counter() - started))
    return {name: speeds[1:] for name, speeds in taken.items()}


def steps(config: TrainConfig) -> dict[str, tuple[float | None, float]]:
    """Milliseconds of one core for a sample at each step: by hand, and segfocal's."""
    data = opened(config, "ram", 0)
    ours: SegmentationDataset = data.train_dataloader().dataset.dataset  # type: ignore[attr-defined]
    plain, transform, size = by_hand(config, data), ours.transform, data.batch_size
    assert transform is not None
    count = min(STEPS, len(ours))
    read = [ours.source.read(index) for index in range(count)]
    compose, convert = A.Compose(plain.vary), A.Compose(plain.to_tensor)
    moved = [compose(image=image, mask=mask) for image, mask in read]
    samples = [ours[Key(0, index)] for index in range(size)]
    tensors = [tuple(convert(**each).values()) for each in moved[:size]]
    collate, stacked = Collate(config.task.ignore_index, ours.normalise), torch.from_numpy(np.stack([sample.image for sample in samples]))
    labels = torch.from_numpy(np.stack([sample.mask for sample in samples]))
    return {
        "decode": (_each(plain.read, count), _each(data.checked["train"].read, count)),
        "read from memory": (None, _each(ours.source.read, count)),
        "cut and augment": (
            _each(lambda index: compose(image=read[index][0], mask=read[index][1]), count),
            _each(lambda index: transform(*read[index], index), count),
        ),
        "normalise and collate": (
            _each(lambda index: convert(**moved[index]), count) + _each(lambda _: default_collate(tensors), 8) / size,
            _each(lambda _: collate(samples), 8) / size,
        ),
        "from worker to program": (_handed(default_collate(tensors)) / size, _handed((stacked, labels)) / size),
    }


class _Handing:
    """Copies a batch into shared memory, as collation does, and hands it over."""

    def __init__(self, batch: Any) -> None:
        self.batch = list(batch)

    def __call__(self, _: Any) -> list[torch.Tensor]:
        return [shared_tensor(tuple(tensor.shape), tensor.dtype).copy_(tensor) for tensor in self.batch]


def _handed(batch: Any, count: int = 60) -> float:
    """Milliseconds for a batch that is ready, from one worker, received and read."""
    loader: Any = DataLoader(range(count + 8), num_workers=1, collate_fn=_Handing(batch), batch_size=1)  # type: ignore[arg-type]
    arriving = iter(loader)
    for _ in range(8):
        next(arriving)
    started = time.perf_counter()
    for found in arriving:
        found[0].sum()
    return 1e3 * (time.perf_counter() - started) / count


def _each(function: Callable[[int], Any], count: int) -> float:
    """Milliseconds of a call, the median of 3 rounds."""
    rounds = []
    for _ in range(4):
        started = time.perf_counter()
        for index in range(count):
            function(index)
        rounds.append(1e3 * (time.perf_counter() - started) / count)
    return statistics.median(rounds[1:])


def tables(overrides: list[str], workers: list[int], rounds: int) -> None:
    """Print both.

    Raises:
        UserError: the data cannot be read, or by hand there is nothing of the kind.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        Path(folder, "made").mkdir()
        made = [] if any(each.startswith("data.root=") for each in overrides) else make(Path(folder, "made"))
        usual = ["data=folder", "augment=medium", "data.batch_size=8", "sampling=uniform", *made]
        ((_, config),) = parse_sweep(TrainConfig, "train", [*usual, *overrides], 1)
        data = opened(config, "none", 0)
        config, _ = settled(config, data.measured["train"], 1)
        by_hand(config, data)  # which refuses what it does not have
        print("| workers | " + " | ".join(("by hand", "none", "ram", "disk")) + " | images per second |\n|---|---|---|---|---|---|")
        for count in workers:
            speeds = [statistics.median(speeds) for speeds in throughput(config, count, rounds).values()]
            print(f"| {count} | " + " | ".join(f"{speed:.0f} ({speed / speeds[0]:.2f})" for speed in speeds) + " | |")
        print("\n| milliseconds a sample | by hand | segfocal |\n|---|---|---|")
        for step, (plain, ours) in steps(config).items():
            print(f"| {step} | {'' if plain is None else f'{plain:.2f}'} | {ours:.2f} |")


def main() -> None:
    """Take the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of train.py")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    try:
        tables(given.overrides, given.workers, given.rounds)
    except UserError as error:
        parser.exit(MISTAKE, f"{error}\n")


if __name__ == "__main__":
    main()
