"""The splits, checked and measured, as loaders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from lightning.pytorch import LightningDataModule
from torch.utils.data import BatchSampler

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DATA, DataConfig
from segfocal.config.sampling import SAMPLING, SamplingConfig, UniformConfig
from segfocal.config.task import TaskConfig
from segfocal.data.checked import Checked
from segfocal.data.copy_paste import CopyPaste
from segfocal.data.dataset import SegmentationDataset
from segfocal.data.faults import Fault, told
from segfocal.data.few import few
from segfocal.data.loader import Loader, build_loader
from segfocal.data.sampling import BatchesOfKeys, EpochSampler, RankBatches, SameSizeBatches
from segfocal.data.scan import Scan, scan
from segfocal.data.source import Source, Sources
from segfocal.data.stats import SplitStats
from segfocal.data.store import Layout, Stored, in_memory
from segfocal.data.storefile import on_disk
from segfocal.data.transforms import TrainTransform
from segfocal.errors import UserError, escaped

EVERY_IMAGE = UniformConfig()
BATCH = 8  # where nobody says another


class SegmentationData(LightningDataModule):
    """
    Args:
        config, augment, task: of the run.
        channels: of the images that the model takes.
        workers: processes for each loader.
        seed: of the run.
        pin_memory: copy batches into page-locked memory, for a GPU.
        sampling: which samples an epoch shows.
    """

    def __init__(
        self,
        config: DataConfig,
        augment: AugmentConfig,
        task: TaskConfig,
        channels: int,
        workers: int,
        seed: int,
        pin_memory: bool = False,
        sampling: SamplingConfig = EVERY_IMAGE,
    ) -> None:
        super().__init__()
        self.config, self.augment, self.sampling, self.task, self.seed = config, augment, sampling, task, seed
        self.workers, self.pin_memory = workers, pin_memory
        opened: Sources = DATA.build(config, task, channels, seed)
        sources: dict[str, Source] = dict(opened)
        self.reading = opened.reading or {key: getattr(config, key, None) for key in ("exif", "scale")}
        """How files are read: predictions read theirs as well."""
        self.drawn = opened.names() if opened.drawn else None
        """The splits, where nothing but the seed says them: with other samples they would be others."""
        if config.overfit and "train" in sources:
            sources = {"train": sources["train"]}
        if config.limit is not None:
            sources = {split: few(source, config.limit, task) for split, source in sources.items()}
        if config.overfit and "train" in sources:
            sources = dict.fromkeys(("train", "val", "test"), sources["train"])
        self.sources = Sources(sources, opened.faults)
        self.checked: dict[str, Source] = {}
        self.stored: dict[str, Source] = {}
        self.measured: dict[str, SplitStats] = {}
        self.mean: list[float] = [0.0] * channels
        self.std: list[float] = [1.0] * channels

    def inspect(self, split: str | None = None, to_train: bool = True) -> Scan:
        """Measure a split, or all of them, of which training needs some, and find every fault."""
        names = self.sources if split is None else [split]
        faults = self.sources.faults + (self._empty() if to_train and split is None and not self.sources.faults else [])
        sources = Sources({name: Checked(self._source(name)) for name in names}, faults)
        overlap = self.config.overfit or getattr(self.config, "overlap", "allow") == "allow"
        found = scan(sources, self.task, self.where, self.config.check, overlap)
        self.checked.update(sources)
        self.measured.update(found.stats)
        self.stored = {name: stored for name, stored in self.stored.items() if name not in sources}
        return found

    def _empty(self) -> list[Fault]:
        """What training needs, and is not there."""
        empty = [split for split in ("train", "val") if split not in self.sources]
        there = f"there are {self._sizes()}"
        mend = "data.fractions and data.group say how they are drawn" if self.drawn else ""
        if not self.drawn and hasattr(self.config, "fractions"):
            mend = "name images of each, or no splits: then they are drawn"
        return [Fault(self.where, f"no images in {' and '.join(empty)}; {there}", "training needs both", mend)] if empty else []

    def _sizes(self) -> str:
        return ", ".join(f"{len(source)} in {split}" for split, source in self.sources.items()) or "none"

    def check(self, split: str | None = None, to_train: bool = True) -> dict[str, SplitStats]:
        """Measure a split, or all of them; see `inspect`.

        Raises:
            UserError: with every fault.
        """
        found = self.inspect(split, to_train)
        if found.faults:
            raise told(found.faults, self.where)
        return found.stats

    @property
    def where(self) -> str:
        """What the data is called in messages."""
        named = [key for key in ("root", "file") if getattr(self.config, key, None)]
        return escaped(f"data.{named[0]}={getattr(self.config, named[0])}" if named else f"data={self.config.name}")

    @property
    def batch_size(self) -> int:
        """Of loaders that are asked for from now on."""
        return self.config.batch_size or BATCH

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.config = dataclasses.replace(self.config, batch_size=size)

    def normalise(self, mean: list[float], std: list[float]) -> None:
        """Say what is subtracted from and divides each channel; before any loader is asked for."""
        self.mean, self.std = mean, std

    def settle(self, config: DataConfig, augment: AugmentConfig, sampling: SamplingConfig) -> None:
        """Say how training crops are varied, drawn and put together, where that was left to the training data; before any loader is asked for."""
        self.config, self.augment, self.sampling = config, augment, sampling

    def splits_as_text(self) -> str:
        """The names of the samples of each split, as JSON."""
        return json.dumps(self.sources.names(), indent=1)

    def dataset(self, split: str) -> SegmentationDataset:
        """A split as it is evaluated: whole images, not varied."""
        source = self._source(split)
        return SegmentationDataset(self.checked.get(split, source), self.mean, self.std)

    def _source(self, split: str) -> Source:
        if split not in self.sources:
            raise told([*self.sources.faults, Fault(f"split={split}", f"no images; {self.where} has {self._sizes()}")], self.where)
        return self.sources[split]

    def _cached(self, split: str) -> Source:
        """A split that is read again in each epoch, decoded once where `data.cache` says so."""
        config = self.config
        if config.cache == "none":
            return self.dataset(split).source
        if split not in self.stored:
            stats = (self.measured if split in self.checked else self.check(split))[split]
            self._needs_all(stats, f"data.cache={config.cache}")
            source = self.checked[split]
            layout = Layout(source, stats.sizes)
            taken = sum(stored.nbytes for stored in self.stored.values() if isinstance(stored, Stored))
            if config.cache == "ram":
                self.stored[split] = in_memory(source, layout, config.cache_gb, taken, split)
            else:
                place = getattr(config, "root", None) or getattr(config, "file", None) or ""
                where = f"{config.name} {Path(place).absolute()}"
                self.stored[split] = on_disk(source, layout, config.cache_gb, taken, split, where, config.check == "full")
        return self.stored[split]

    def training(self, sampling: SamplingConfig | None = None) -> tuple[SegmentationDataset, EpochSampler]:
        """What training shows: samples as they are cropped and varied, and which of them an epoch draws, by the run's sampling or another."""
        stats = (self.measured if "train" in self.measured else self.check("train"))["train"]
        sampling, chance = sampling or self.sampling, self.augment.copy_paste
        if not isinstance(sampling, UniformConfig):
            self._needs_all(stats, f"sampling={sampling.name}")
        if chance > 0:
            self._needs_all(stats, f"augment.copy_paste={chance:g}")
        source = self._cached("train")
        paste = CopyPaste(source, stats, self.task, chance) if chance > 0 else None
        transform = TrainTransform(self.augment, self.config.crop, self.task.ignore_index, paste)
        sampler: EpochSampler = SAMPLING.build(sampling, stats, self.task, self.seed)
        sampler.blocks = getattr(self.sources["train"], "blocks", None)
        return SegmentationDataset(source, self.mean, self.std, transform, self.seed), sampler

    def _needs_all(self, stats: SplitStats, who: str) -> None:
        """Raise UserError where numbers of samples are asked for that nobody has measured."""
        if not stats.whole:
            raise UserError(f"{who}: wants every sample measured, which data.check={self.config.check} does not: data.check=fast")

    def prepare_data(self) -> None:
        """Called by Lightning in one process of each machine before the others: the samples on disk are written once."""
        if self.config.cache == "disk":
            for split in ("train", "val"):
                self._cached(split)

    def train_dataloader(self) -> Loader:
        dataset, sampler = self.training()
        # A last batch of a few samples would spoil BatchNorm's statistics.
        drop_last = len(dataset) >= self.batch_size
        # BatchSampler is typed for plain indices, and takes any.
        batches = BatchSampler(cast("Any", sampler), self.batch_size, drop_last)
        return self._loader(dataset, cast("BatchesOfKeys", batches), equal=True)

    def evaluation_loader(self, split: str) -> Loader:
        """Every sample once, whole, in batches of one size."""
        return self._evaluation_loader(self.dataset(split))

    def val_dataloader(self) -> Loader:
        return self._evaluation_loader(SegmentationDataset(self._cached("val"), self.mean, self.std))

    def test_dataloader(self) -> Loader:
        return self.evaluation_loader("test")

    def _evaluation_loader(self, dataset: SegmentationDataset) -> Loader:
        stats = next((self.measured[split] for split, source in self.checked.items() if source is dataset.source), None)
        known = stats is not None and stats.whole
        sizes = stats.sizes if stats and known else [dataset.source.size(index) for index in range(len(dataset))]
        batches = SameSizeBatches(sizes, self.batch_size)
        if dist.is_available() and dist.is_initialized() and len(batches) < dist.get_world_size():
            batches = SameSizeBatches(sizes, 1)  # each process has to have one: they meet when all is counted
        return self._loader(dataset, batches, equal=False)

    def _loader(self, dataset: SegmentationDataset, batches: BatchesOfKeys, equal: bool) -> Loader:
        if dist.is_available() and dist.is_initialized():
            batches = RankBatches(batches, dist.get_rank(), dist.get_world_size(), equal)
        return build_loader(dataset, batches, self.task.ignore_index, self.workers, self.config.worker_timeout, self.pin_memory)
