"""Several processes share the batches: in training as many each, in evaluation every sample once and none of them twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

from segfocal.config.augment import AugmentConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.sampling import RareClassConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.sampling import RankBatches, SameSizeBatches
from tests.conftest import blobs, write_folder


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


def loaded(root: str, epoch: int) -> dict[str, list[list[int]]]:
    """The samples of each batch of this process."""
    config = FolderConfig(root=root, crop=[32, 32], batch_size=2)
    task = TaskConfig(name="binary", classes=["blob"])
    data = SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, seed=0, sampling=RareClassConfig())
    data.check()
    train = data.train_dataloader()
    train.batch_sampler.sampler.set_epoch(epoch)
    loaders = {"train": train, "val": data.val_dataloader()}
    return {split: [batch.indices.tolist() for batch in loader] for split, loader in loaders.items()}


def on_rank(rank: int, root: str, store: str, results: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results[rank] = loaded(root, epoch=3)
    dist.destroy_process_group()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eleven images to train on, five to validate."""
    names = write_folder(tmp_path / "data", blobs(16))
    (tmp_path / "data" / "train.txt").write_text("\n".join(names[:11]))
    (tmp_path / "data" / "val.txt").write_text("\n".join(names[11:]))
    return tmp_path / "data"


def test_two_processes_show_what_one_would(root: Path, tmp_path: Path) -> None:
    alone = loaded(str(root), epoch=3)
    with mp.get_context("spawn").Manager() as manager:
        results = manager.dict()
        mp.spawn(on_rank, (str(root), str(tmp_path / "store"), results), nprocs=2)
        first, second = results[0], results[1]
    assert first["train"] == alone["train"][0:4:2]
    assert second["train"] == alone["train"][1:4:2]  # five batches: the last is nobody's
    assert len(alone["train"]) == 5
    assert sorted(index for each in (first, second) for batch in each["val"] for index in batch) == list(range(5))
