"""What goes wrong while samples are loaded is a line that says what, where, and what to do."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch, EightBit, Normalise, SegmentationDataset
from segfocal.data.loader import Loader, build_loader
from segfocal.data.sampling import SameSizeBatches
from segfocal.data.synthetic_source import SyntheticSource
from segfocal.errors import UserError
from tests.data.test_stats import opened

TASK = TaskConfig(name="binary", classes=["defect"])
SMALL = SyntheticConfig(size=64, train=8, val=2, test=2)


class Troubled(SyntheticSource):
    """A source in which reading sample 5 is an accident."""

    def __init__(self, accident: Callable[[], None]) -> None:
        super().__init__(SMALL, TASK, "train", 8, channels=3)
        self.accident = accident

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == 5:
            self.accident()
        return super().read(index)


def loader(accident: Callable[[], None], workers: int, timeout: int = 60, pin_memory: bool = False) -> Loader:
    dataset = SegmentationDataset(Troubled(accident), [0.0] * 3, [1.0] * 3)
    return build_loader(dataset, SameSizeBatches([(64, 64)] * 8, 2), 255, workers, timeout, pin_memory)


def cannot() -> None:
    raise UserError("photo.png: damaged")


def mistaken() -> None:
    raise ValueError("of the program")


def die(by: int) -> Callable[[], None]:
    def accident() -> None:
        time.sleep(0.3)  # the batches before are on their way
        os.kill(os.getpid(), by)
        time.sleep(60)

    return accident


def hang() -> None:
    time.sleep(300)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_sample_that_cannot_be_read_is_one_line(workers: int) -> None:
    seen = []
    with pytest.raises(UserError) as raised:
        seen.extend(loader(cannot, workers))
    assert str(raised.value) == "photo.png: damaged"
    assert [batch.indices.tolist() for batch in seen] == [[0, 1], [2, 3]]


def test_a_loader_that_has_failed_can_be_asked_again(tmp_path: Path) -> None:
    def accident() -> None:
        if (tmp_path / "damaged").exists():
            cannot()

    (tmp_path / "damaged").touch()
    batches = loader(accident, workers=2)
    with pytest.raises(UserError):
        list(batches)
    (tmp_path / "damaged").unlink()
    assert len(list(batches)) == 4
    batches._iterator._shutdown_workers()  # collected as garbage, it would wait for them


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_of_the_program_keeps_its_traceback(workers: int) -> None:
    with pytest.raises(ValueError, match="of the program") as raised:
        list(loader(mistaken, workers))
    assert ("in mistaken" in str(raised.value)) is (workers > 0)


@pytest.mark.parametrize(
    ("by", "advice"),
    [(signal.SIGKILL, "fewer data.num_workers"), (signal.SIGBUS, "--shm-size"), (signal.SIGSEGV, "data.num_workers=0 shows where")],
)
def test_a_worker_that_dies_names_its_sample(by: signal.Signals, advice: str, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=f"^a data worker was killed by {by.name} while it read train_0005: .*{advice}") as raised:
        list(loader(die(by), workers=2))
    assert "\n" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert time.monotonic() - started < 20


def test_a_death_is_met_at_the_next_batch_and_nowhere_else() -> None:
    batches = iter(loader(die(signal.SIGKILL), workers=2))
    next(batches)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:  # the worker that dies in the meantime disturbs nothing here
        torch.ones(100).sum()
    next(batches)
    with pytest.raises(UserError, match="train_0005"):
        next(batches)


def test_a_worker_that_hangs_names_its_sample() -> None:
    started = time.monotonic()
    hanging = loader(hang, workers=2, timeout=2)
    batches = iter(hanging)
    assert [next(batches).indices.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(UserError) as raised:
        next(batches)
    assert str(raised.value) == (
        "no batch for 2 s, a data worker hangs while it read train_0005: "
        "data.num_workers=0 shows where, data.worker_timeout=20 waits longer, 0 for ever"
    )
    assert 2 < time.monotonic() - started < 6  # not the seconds that are waited for a worker to end
    assert not any(worker.is_alive() for worker in hanging._iterator._workers)


def test_the_configuration_says_how_long_is_waited() -> None:
    data = SegmentationData(SyntheticConfig(size=64, train=4, val=2, test=2, worker_timeout=7), AugmentConfig(name="none"), TASK, 3, 1, 0)
    data.check()
    assert data.train_dataloader().timeout == data.val_dataloader().timeout == 7


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_epoch_may_be_said_until_the_first_batch_is_asked_for(workers: int) -> None:
    """Where a run goes on, Lightning makes the iterator first: what workers had drawn by then was the order of epoch 0."""
    data = SegmentationData(SMALL, AugmentConfig(name="none"), TASK, 3, workers, 0)
    data.check()
    batches = data.train_dataloader()
    arriving = iter(batches)
    batches.batch_sampler.sampler.set_epoch(3)
    order = [index for batch in arriving for index in batch.indices.tolist()]
    assert order == [key.sample for keys in batches.batch_sampler for key in keys]
    batches.batch_sampler.sampler.set_epoch(0)
    assert order != [key.sample for keys in batches.batch_sampler for key in keys]


def test_workers_stay_and_compute_with_one_thread() -> None:
    threads = []

    class Counting(Troubled):
        def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            image, mask = super().read(index)
            return np.full_like(image, torch.get_num_threads()), np.full_like(mask, os.getpid() % 251)

    dataset = SegmentationDataset(Counting(lambda: None), [0.0] * 3, [1 / 255] * 3)
    batches = build_loader(dataset, SameSizeBatches([(64, 64)] * 8, 2), 255, 2, 60, False)
    marks = []
    for _ in range(2):
        found = list(batches)
        threads += [round(float(batch.image.max())) for batch in found]
        marks.append({int(batch.target.max()) for batch in found})
    assert set(threads) == {1}
    assert marks[0] == marks[1]
    assert len(marks[0]) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("change", ["replaced", "deleted", "truncated", "mask"])
def test_a_file_that_changes_after_the_check_is_one_line(folder: Path, change: str, workers: int) -> None:
    data = opened(folder, batch_size=2)
    data.workers = workers
    data.check()
    (path,) = (folder / "images").glob("photo_03.*")
    if change == "replaced":
        shutil.copy(folder / "images" / "photo_04.jpg", path)
    elif change == "deleted":
        path.unlink()
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    else:
        (path,) = (folder / "masks").glob("photo_03.*")
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    with pytest.raises(UserError, match=r"^photo_03: its files have changed since they were checked.*: start again") as raised:
        list(data.train_dataloader())
    assert "\n" not in str(raised.value)
    assert len(list(data.evaluation_loader("val"))) == 2
    if change in ("replaced", "mask"):
        data.check()
        assert len(list(data.train_dataloader())) == 3


def test_a_file_that_is_only_damaged_says_that(folder: Path) -> None:
    data = opened(folder, batch_size=2)
    (path,) = (folder / "images").glob("photo_03.*")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"photo_03\.jpg: (damaged|cannot be read)"):
        list(data.evaluation_loader("train"))


def test_what_is_pinned_is_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's thread for page-locked memory calls `pin_memory` of what a worker sends; here without a device to pin it for."""
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    sent = EightBit(
        image=torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8),
        target=torch.randint(0, 2, (2, 32, 32), dtype=torch.uint8),
        indices=torch.tensor([3, 5]),
        sizes=[(32, 32), (20, 30)],
        normalise=Normalise([0.5] * 3, [0.25] * 3),
    )
    expected = sent.batch()
    found = pin_memory(sent)
    assert isinstance(found, Batch)
    assert all(any(part is each for each in pinned) for part in found)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
