"""Samples that are decoded once: the same as those that are decoded each time, within the room that they are given."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import TaskConfig
from segfocal.data import storefile
from segfocal.data.cache import cache_dir
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch
from segfocal.data.store import Layout, Stored, in_memory
from segfocal.data.storefile import on_disk
from segfocal.errors import UserError
from tests.conftest import blobs, write_folder

TASK = TaskConfig(name="binary", classes=["blob"])
EVERYTHING = AugmentConfig(
    name="all", hflip=0.5, vflip=0.5, rotate90=0.5, scale=0.3, rotate=20, brightness=0.3, contrast=0.3, gamma=0.2, colour=0.2,
    blur=0.5, noise=0.5, lowres=0.3, distort=0.5, dropout=0.5, copy_paste=0.5,
)  # fmt: skip
SIZES = [(64, 64), (64, 64), (40, 72), (64, 64), (64, 64), (96, 80), (64, 64)]
BYTES = sum(-(-height * width * 4 // 64) * 64 for height, width in SIZES)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Seven images of three sizes to train on, five to validate on."""
    root = tmp_path / "mixed"
    samples = [blobs(1, size=size, seed=number)[0] for number, size in enumerate([*SIZES, *[(64, 64)] * 5])]
    names = write_folder(root, samples)
    for split, part in {"train": names[:7], "val": names[7:10], "test": names[10:]}.items():
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


def opened(root: Path, augment: AugmentConfig = EVERYTHING, workers: int = 0, channels: int = 3, **settings: Any) -> SegmentationData:
    config = FolderConfig(**{"root": str(root), "batch_size": 2, "crop": [48, 48], **settings})
    data = SegmentationData(config, augment, TASK, channels, workers, seed=0)
    data.check()
    data.normalise([0.3] * channels, [0.2] * channels)
    return data


def batches(data: SegmentationData) -> list[Batch]:
    """Two epochs of training, and a validation."""
    train = data.train_dataloader()
    found = []
    for epoch in range(2):
        train.batch_sampler.sampler.set_epoch(epoch)
        found += list(train)
    return found + list(data.val_dataloader())


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def files() -> list[Path]:
    return sorted((cache_dir() / "samples").glob("*"))


def reads(data: SegmentationData, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes which samples are decoded from now on."""
    found: list[str] = []
    for source in data.sources.values():
        real = source.read
        monkeypatch.setattr(source, "read", lambda index, real=real, names=source.names: found.append(names[index]) or real(index))
    return found


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_batches_are_the_same(mixed: Path, cache: str, workers: int) -> None:
    plain = batches(opened(mixed))
    assert len(plain) == 2 * 3 + 2
    assert same(batches(opened(mixed, cache=cache, workers=workers)), plain)
    if cache == "disk":  # and of the next run, from what this one has written
        assert same(batches(opened(mixed, cache=cache, workers=workers)), plain)


@pytest.mark.parametrize("crop", [[48, 48], None])
@pytest.mark.parametrize("augment", [EVERYTHING, AugmentConfig(name="none"), AugmentConfig(name="flip", hflip=0.5)])
def test_nothing_is_written_into_what_is_kept(tmp_path: Path, crop: list[int] | None, augment: AugmentConfig) -> None:
    root = tmp_path / "even"
    write_folder(root, blobs(10))
    plain, kept = opened(root, augment, crop=crop), opened(root, augment, crop=crop, cache="ram")
    assert same(batches(plain), batches(kept))
    source = kept.train_dataloader().dataset.dataset.source
    assert isinstance(source, Stored)
    before = source.buffer.clone()
    for epoch in range(3, 9):
        loader = kept.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(epoch)
        list(loader)
    assert torch.equal(source.buffer, before)
    for array in source.read(0):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_each_sample_is_decoded_once(mixed: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(mixed, AugmentConfig(name="none"), cache=cache)
    found = reads(data, monkeypatch)
    batches(data)
    names = data.sources["train"].names + data.sources["val"].names
    assert sorted(found) == sorted([*names, names[0], names[7]])  # the first of a split says what to expect
    batches(data)
    assert len(found) == len(names) + 2
    list(data.evaluation_loader("val"))  # read once only: not worth keeping
    assert len(found) == len(names) + 5


def test_workers_read_the_same_memory(mixed: Path) -> None:
    data = opened(mixed, cache="ram", workers=1)
    loader = data.train_dataloader()
    source = loader.dataset.dataset.source
    first = next(iter(loader))
    assert first.image.std() > 0
    source.buffer.zero_()  # a copy in the worker would not notice
    again = [batch for _ in range(2) for batch in loader][-1]
    assert again.target[again.target != 255].max() == 0


def test_spawned_workers_read_it_too(mixed: Path) -> None:
    data = opened(mixed, AugmentConfig(name="none"), cache="ram")
    plain = list(data.val_dataloader())
    data.workers = 1
    loader = data.val_dataloader()
    loader.multiprocessing_context = multiprocessing.get_context("spawn")
    assert same(list(loader), plain)
    loader._iterator._shutdown_workers()


def test_a_file_is_handed_on_by_its_name(mixed: Path) -> None:
    data = opened(mixed, AugmentConfig(name="none"), cache="disk")
    data.train_dataloader()
    stored = data.stored["train"]
    expected = [stored.read(index) for index in range(7)]
    handed = pickle.dumps(stored)
    assert len(handed) < len(pickle.dumps(stored.source)) + 5000
    for found, wanted in zip(map(pickle.loads(handed).read, range(7)), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    stored.buffer.unlink()
    with pytest.raises(UserError, match=r"another run on the same data has replaced it: .*data\.cache=ram"):
        pickle.loads(handed).read(0)


def test_a_file_that_another_run_replaces_stays_as_it_was_for_who_has_taken_it_up(mixed: Path) -> None:
    data = opened(mixed, AugmentConfig(name="none"), cache="disk")
    data.prepare_data()
    expected = [data.sources["val"].read(index) for index in range(3)]
    opened(mixed, AugmentConfig(name="none"), cache="disk", cache_gb=64 * 64 * 4 * 2 / 1e9).prepare_data()  # a shorter one in its place
    data.stored["val"].buffer.unlink()
    for found, wanted in zip(map(data.stored["val"].read, range(3)), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_full_check_decodes_again(tmp_path: Path) -> None:
    """A file in another's place, of its length and time, is what it is for."""
    names = write_folder(tmp_path, blobs(6))
    for name in names:
        Image.open(tmp_path / f"masks/{name}.png").save(tmp_path / f"masks/{name}.bmp")
        (tmp_path / f"masks/{name}.png").unlink()
    for split, part in {"train": names[:4], "val": names[4:]}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(part) + "\n")
    opened(tmp_path, AugmentConfig(name="none"), cache="disk").prepare_data()
    path = tmp_path / f"masks/{names[4]}.bmp"
    before = path.stat()
    turned = np.asarray(Image.open(path))[::-1].copy()
    Image.fromarray(turned).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    data = opened(tmp_path, AugmentConfig(name="none"), cache="disk", check="full")
    data.prepare_data()
    assert np.array_equal(data.stored["val"].read(0)[1], turned)


def test_what_does_not_fit_is_read_each_time(mixed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    data = opened(mixed, cache="ram", cache_gb=(64 * 64 * 4 * 2 + 100) / 1e9)
    found = reads(data, monkeypatch)
    with caplog.at_level(logging.INFO, "segfocal"):
        train = data.train_dataloader()
        first = list(train)
    source = train.dataset.dataset.source
    assert source.nbytes == source.buffer.nbytes == 64 * 64 * 4 * 2
    assert len(found) == 1 + 2 + 5 + sum(name in data.sources["train"].names[2:] for name in found[8:])
    (line,) = [message for message in caplog.messages if "data.cache" in message]
    assert "2 of 7 train samples in 3.28e-05 GB" in line
    assert f"all need {BYTES / 1e9:.3g} GB: data.cache_gb={1.01 * BYTES / 1e9:.3g}" in line
    assert same(first, list(opened(mixed).train_dataloader()))
    assert same(list(data.val_dataloader()), list(opened(mixed).val_dataloader()))  # nothing is left for it


def test_no_room_at_all_is_no_cache(mixed: Path) -> None:
    assert same(batches(opened(mixed, cache="ram", cache_gb=1e-9)), batches(opened(mixed)))
    assert same(batches(opened(mixed, cache="disk", cache_gb=1e-9)), batches(opened(mixed)))
    assert files() == []


def test_both_splits_share_the_room(mixed: Path) -> None:
    data = opened(mixed, AugmentConfig(name="none"), cache="ram", cache_gb=(BYTES + 64 * 64 * 4) / 1e9)
    batches(data)
    assert [(len(source.kinds), source.nbytes) for source in data.stored.values()] == [(7, BYTES), (1, 64 * 64 * 4)]


def test_a_sample_of_another_type_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "deep"
    write_folder(root, blobs(10))
    for number in (2, 3):
        (root / "images" / f"photo_{number:02d}.jpg").unlink()
        deep = np.random.default_rng(number).integers(0, 65536, (64, 64), dtype=np.uint16)
        Image.fromarray(deep).save(root / "images" / f"photo_{number:02d}.png")
    plain = batches(opened(root, AugmentConfig(name="none"), channels=1, split="fractions", fractions=[0.9, 0.1, 0.0], overfit=True))
    with caplog.at_level(logging.INFO, "segfocal"):
        data = opened(root, AugmentConfig(name="none"), channels=1, split="fractions", fractions=[0.9, 0.1, 0.0], overfit=True, cache="ram")
        assert same(batches(data), plain)
    kept = [int(name not in ("photo_02", "photo_03")) for name in data.sources["train"].names]
    assert data.stored["train"].kinds.tolist() == kept
    assert f"{sum(kept)} of 9 train samples" in caplog.text


class Arrays:
    """Samples in memory."""

    settings = "arrays"

    def __init__(self, samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.samples, self.names = samples, [f"sample {number}" for number in range(len(samples))]

    def __len__(self) -> int:
        return len(self.samples)

    def size(self, index: int) -> tuple[int, int]:
        return self.samples[index][0].shape[:2]

    def identity(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.samples[index]

    def known(self, index: int) -> None:
        return None


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_float_images_any_channels_and_planes_of_classes(where: str) -> None:
    rng = np.random.default_rng(0)
    samples = [
        (rng.random((h, w, 5)).astype(np.float32), rng.integers(0, 2, (h, w, 3), dtype=np.uint8)) for h, w in ((33, 7), (5, 9), (33, 7))
    ]
    samples.append((rng.integers(0, 256, (11, 13, 5), dtype=np.uint8), rng.integers(0, 2, (11, 13, 3), dtype=np.uint8)))
    samples.append((rng.random((8, 8, 5)), rng.integers(0, 2, (8, 8, 3), dtype=np.uint8)))  # of 64 bit
    samples.append((rng.random((8, 8, 5)).astype(np.float32), rng.integers(0, 2, (8, 8), dtype=np.uint8)))
    source = Arrays(samples)
    layout = Layout(source, [source.size(index) for index in range(len(source))])
    stored = in_memory(source, layout, None, 0, "test") if where == "ram" else on_disk(source, layout, None, 0, "test", "here")
    assert isinstance(stored, Stored)
    assert stored.kinds.tolist() == [2, 2, 2, 1, 0, 0]
    for index, sample in enumerate(samples):
        for found, expected in zip(stored.read(index), sample, strict=True):
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)


def test_the_next_run_takes_up_the_file(mixed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    batches(opened(mixed, cache="disk"))
    before = {path: path.stat() for path in files()}
    assert len(before) == 2
    data = opened(mixed, AugmentConfig(name="none"), cache="disk")
    found = reads(data, monkeypatch)
    with caplog.at_level(logging.INFO, "segfocal"):
        batches(data)
    assert len(found) == 2
    assert caplog.text.count("taken up from") == 2
    assert {path: path.stat().st_mtime_ns for path in files()} == {path: about.st_mtime_ns for path, about in before.items()}


@pytest.mark.parametrize("damage", ["short", "empty", "flipped", "kind", "count"])
def test_a_damaged_file_is_written_again(mixed: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = batches(opened(mixed, cache="disk"))
    for path in files():
        right = path.read_bytes()
        content = bytearray(right)
        place = {"short": -1, "empty": 0, "flipped": 1000, "kind": len(content) - 8 - 5 * (7 if len(content) > 70_000 else 3), "count": -8}
        if damage in ("short", "empty"):
            del content[place[damage] :]
        else:
            content[place[damage]] ^= 1
        path.write_bytes(bytes(content))
    assert same(batches(opened(mixed, cache="disk")), plain)
    assert caplog.text.count("is damaged: the samples are decoded again") == 2
    assert files()[0].stat().st_size > 60_000 or files()[1].stat().st_size > 60_000
    caplog.clear()
    assert same(batches(opened(mixed, cache="disk")), plain)
    assert "damaged" not in caplog.text


def test_what_has_changed_is_decoded_again_and_the_old_file_goes(mixed: Path) -> None:
    batches(opened(mixed, cache="disk"))
    before = files()
    shutil.copy(mixed / "images" / "photo_04.jpg", mixed / "images" / "photo_01.jpg")
    assert same(batches(opened(mixed, cache="disk")), batches(opened(mixed)))
    assert len(files()) == 2
    assert len(set(files()) & set(before)) == 1  # of validation, which is as it was
    batches(opened(mixed, cache="disk", label_map={0: 0, 1: 1}))
    assert len(files()) == 4  # other settings are another file
    assert not list((cache_dir() / "samples").glob("*.tmp"))


def test_a_new_file_takes_the_place_of_the_old_one_where_there_is_no_room_for_both(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batches(opened(mixed, cache="disk"))
    before = files()
    room = 1.5 * sum(path.stat().st_size for path in before)

    def free(folder: Path) -> int:
        return int(room - sum(path.stat().st_size for path in files()))

    def reserve(file: int, length: int) -> None:
        if length > free(mixed):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(file, length)

    plain = storefile.reserve
    monkeypatch.setattr(storefile, "free_disk", free)
    monkeypatch.setattr(storefile, "reserve", reserve)
    shutil.copy(mixed / "images" / "photo_04.jpg", mixed / "images" / "photo_01.jpg")
    data = opened(mixed, cache="disk", cache_gb=1.0)
    data.prepare_data()
    assert "cannot be written" not in caplog.text
    assert len(files()) == 2
    assert len(set(files()) & set(before)) == 1


def test_another_room_is_another_file_only_where_one_is_said(mixed: Path) -> None:
    batches(opened(mixed, cache="disk", cache_gb=40_000 / 1e9))
    small = [path.stat().st_size for path in files()]
    assert len(small) == 1
    batches(opened(mixed, cache="disk"))
    assert [path.stat().st_size for path in files() if path.stat().st_size < 40_000] == small
    batches(opened(mixed, cache="disk", cache_gb=1.0))
    assert max(path.stat().st_size for path in files()) > BYTES


def test_what_killed_runs_left_is_removed(mixed: Path) -> None:
    folder = cache_dir() / "samples"
    folder.mkdir(parents=True)
    old, new = folder / "x.tmp", folder / "y.tmp"
    for path, age in ((old, 2 * 24 * 3600), (new, 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    batches(opened(mixed, cache="disk"))
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written_to_is_a_warning(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(mixed / "train.txt"))
    assert same(batches(opened(mixed, cache="disk")), batches(opened(mixed)))
    assert "samples are decoded each time" in caplog.text


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_sample_that_changes_before_it_is_kept_is_one_line(mixed: Path, cache: str) -> None:
    data = opened(mixed, cache=cache)
    (mixed / "images" / "photo_03.jpg").unlink()
    with pytest.raises(UserError, match="^photo_03: its files have changed since they were checked"):
        data.train_dataloader()
    assert files() == []


def test_generated_images_can_be_kept() -> None:
    def loaded(cache: str) -> list[Batch]:
        config = SyntheticConfig(size=64, train=6, val=2, test=2, batch_size=2, crop=[48, 48], cache=cache)
        return batches(SegmentationData(config, EVERYTHING, TaskConfig(name="binary", classes=["defect"]), 3, 0, seed=0))

    assert same(loaded("none"), loaded("ram"))
    assert same(loaded("none"), loaded("disk"))


def test_generated_images_of_another_task_are_another_file() -> None:
    """The same folder, the same settings but for the task: masks of the one are not those of the other."""
    for mode, values in (("binary", {0, 1}), ("multiclass", {0, 1, 2, 3, 4, 255})):
        config = SyntheticConfig(size=64, train=6, val=2, test=2, batch_size=6, cache="disk")
        task = TaskConfig(name=mode, classes=SYNTHETIC_CLASSES[mode])
        (batch,) = SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, seed=0).train_dataloader()
        assert set(batch.target.unique().tolist()) == values


def test_without_a_check_there_is_no_cache(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfocal.data.scan.FEW", 2)
    data = opened(mixed, AugmentConfig(name="none"), check="off", cache="ram")
    for loader in (data.train_dataloader, data.val_dataloader):
        with pytest.raises(
            UserError, match=r"^data.cache=ram: wants every sample measured, which data.check=off does not: data.check=fast$"
        ):
            loader()


def test_runs_of_other_samples_keep_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds draw other splits of the same images: turn about, each decoded them again."""
    root = tmp_path / "even"
    write_folder(root, blobs(20))

    def decoded(seed: int, limit: int | None = None) -> int:
        data = SegmentationData(FolderConfig(root=str(root), limit=limit, cache="disk"), AugmentConfig(name="none"), TASK, 3, 0, seed)
        data.check()
        found = reads(data, monkeypatch)
        data.train_dataloader()
        return len(found)

    runs: list[tuple[int, int | None]] = [(0, None), (1, None), (0, 5)]
    assert [decoded(*each) for each in runs] == [15, 15, 6]  # each and, to see what to expect, the first
    assert [decoded(*each) for each in runs] == [1, 1, 1]
    for seed in range(2, 7):
        decoded(seed)
    assert len(files()) == 4  # the latest
