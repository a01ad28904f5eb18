"""Several processes share the batches: in training as many each, in evaluation every sample once and none of them twice."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DataConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.sampling import RareClassConfig
from segfocal.config.streaming import StreamingConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.sampling import WINDOW, Key, RankBatches, SameSizeBatches
from tests.conftest import blobs, write_folder
from tests.data.test_streaming import packed


@given(images=st.integers(0, 40), size=st.integers(1, 5), world=st.integers(1, 6))
def test_every_batch_is_dealt_once(images: int, size: int, world: int) -> None:
    batches = SameSizeBatches([(32, 32)] * images, size)
    for equal in (True, False):
        dealt = [RankBatches(batches, rank, world, equal) for rank in range(world)]
        found = [list(each) for each in dealt]
        assert [len(each) for each in found] == [len(each) for each in dealt]
        seen = [key.sample for each in found for batch in each for key in batch]
        assert len(seen) == len(set(seen))
        if equal:
            assert {len(each) for each in found} == {len(batches) // world}
        else:
            assert sorted(seen) == list(range(images))


def loaded(config: DataConfig, epochs: list[int]) -> dict[str, list[list[Key]]]:
    """The keys of each batch of this process, of the last of some epochs, when their samples have come in that order."""
    task = TaskConfig(name="binary", classes=["blob"])
    data = SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, seed=0, sampling=RareClassConfig())
    data.check()
    found = {}
    for split, loader in {"train": data.train_dataloader(), "val": data.val_dataloader()}.items():
        for epoch in epochs:
            if split == "train":
                loader.batch_sampler.sampler.set_epoch(epoch)
            shown = [batch.indices.tolist() for batch in loader]
        found[split] = [list(keys) for keys in loader.batch_sampler]
        assert [[key.sample for key in keys] for keys in found[split]] == shown
    return found


def on_rank(rank: int, configs: list[DataConfig], out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'store'}", rank=rank, world_size=2)
    found = [loaded(config, [3]) for config in configs]  # as runs that go on with epoch 3
    (out / f"rank_{rank}").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eleven images to train on, five to validate."""
    names = write_folder(tmp_path / "data", blobs(16))
    (tmp_path / "data" / "train.txt").write_text("\n".join(names[:11]))
    (tmp_path / "data" / "val.txt").write_text("\n".join(names[11:]))
    return tmp_path / "data"


def test_two_processes_show_what_one_would(root: Path, tmp_path: Path) -> None:
    out = packed(root, tmp_path / "pack", "data=folder", "task.classes=[blob]", shard_bytes=1000)
    assert len(list((out / "train").glob("*.bin"))) > WINDOW  # so that samples are drawn shard by shard
    settings: dict[str, Any] = {"crop": [32, 32], "batch_size": 2}
    configs: list[DataConfig] = [FolderConfig(root=str(root), **settings), StreamingConfig(root=str(out), **settings)]
    mp.spawn(on_rank, (configs, tmp_path), nprocs=2)
    ranks = [pickle.loads((tmp_path / f"rank_{rank}").read_bytes()) for rank in range(2)]
    orders = []
    for config, first, second in zip(configs, *ranks, strict=True):
        alone = loaded(config, [0, 1, 2, 3])
        assert first["train"] == alone["train"][0:4:2]
        assert second["train"] == alone["train"][1:4:2]  # five batches: the last is nobody's
        assert len(alone["train"]) == 5
        shown = [key for batch in alone["train"] for key in batch]
        assert len(set(shown)) == len(shown)
        assert sum(key.point is not None for key in shown) == 5  # the share that is aimed
        assert sorted(key.sample for each in (first, second) for batch in each["val"] for key in batch) == list(range(5))
        orders.append(shown)
    assert orders[0] != orders[1]
