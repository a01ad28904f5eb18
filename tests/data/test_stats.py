"""What is measured of the data, and that it is measured once."""

from __future__ import annotations

import logging
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data import cache, scan
from segfocal.data.datamodule import SegmentationData
from segfocal.data.measure import POINTS, measure
from segfocal.data.stats import SplitStats
from segfocal.errors import UserError

TASK = TaskConfig(name="binary", classes=["blob"])
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def opened(root: Path, task: TaskConfig = TASK, **settings: object) -> SegmentationData:
    settings.setdefault("label_map", {0: 0, 255: 1})
    return SegmentationData(FolderConfig(root=str(root), **settings), AugmentConfig(name="none"), task, channels=3, workers=0, seed=0)


def reads(data: SegmentationData, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The samples that a check reads."""
    found = []
    for source in data.sources.values():
        real = source.read
        monkeypatch.setattr(source, "read", lambda index, real=real, names=source.names: found.append(names[index]) or real(index))
    data.check()
    return sorted(found)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_sample(task):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (30, 40, 5), dtype=np.uint8)
    classes = ["a"] if task == "binary" else ["a", "b", "c"]
    mask = rng.integers(0, 2 if task != "multiclass" else 3, (30, 40, 3) if task == "multilabel" else (30, 40)).astype(np.uint8)
    mask[:10] = 77
    mask[mask == 2] = 1 if task == "multiclass" else 2  # class 2 is absent
    found = measure(image, mask, TaskConfig(name=task, classes=classes, ignore_index=77))
    planes = {"binary": [mask == 1], "multiclass": [mask == c for c in range(3)], "multilabel": [mask[..., c % 3] == 1 for c in range(3)]}[
        task
    ]
    assert found.pixels.tolist() == [plane.sum() for plane in planes]
    assert found.valid.tolist() == [20 * 40] * len(planes)
    assert found.size == (30, 40)
    count, total, squares = found.channel_sums
    unit = image / 255
    np.testing.assert_allclose((count, total, squares), (np.full(5, 1200), unit.sum((0, 1)), (unit**2).sum((0, 1))), rtol=1e-12)
    for label, plane in enumerate(planes):
        places = found.points[found.points[:, 0] == label][:, 1:]
        assert len(np.unique(places, axis=0)) == min(POINTS, plane.sum())
        assert plane[places[:, 0], places[:, 1]].all()
    np.testing.assert_array_equal(measure(image, mask, TaskConfig(name=task, classes=classes, ignore_index=77)).points, found.points)


def test_places_lie_all_over_a_class_and_elsewhere_in_each_image():
    """Drawn by one seed, all images would give the same shares of their classes, and aimed crops would never see the rest."""
    mask, rows = np.ones((64, 64), np.uint8), []
    for number in range(40):
        image = np.full((64, 64, 3), number, np.uint8)
        rows += measure(image, mask, TASK).points[:, 1].tolist()
    assert len(set(rows)) == 64
    assert np.mean(rows) == pytest.approx(31.5, abs=3)  # 400 draws: a standard error of 0.9


def test_floats_are_measured_as_they_are():
    image = np.random.default_rng(0).normal(3.0, 2.0, (16, 16, 2)).astype(np.float32)
    found = measure(image, np.zeros((16, 16), np.uint8), TASK)
    np.testing.assert_allclose(
        found.channel_sums[1:], (image.sum((0, 1), np.float64), (image.astype(np.float64) ** 2).sum((0, 1))), rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e5])
def test_channels_are_normalised_whatever_their_unit(scale: float) -> None:
    images = (np.random.default_rng(0).normal(3.0, 2.0, (3, 16, 16, 2)) * scale).astype(np.float32)
    stats = SplitStats([measure(image, np.zeros((16, 16), np.uint8), TASK) for image in images])
    mean, std = stats.mean_std
    np.testing.assert_allclose(mean, images.mean((0, 1, 2), np.float64), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2), np.float64), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-5, 0.1, 1e6])
def test_a_constant_channel_is_not_blown_up(value: float) -> None:
    images = [np.full((size, 33, 1), value, np.float32) for size in (7, 16, 333)]
    stats = SplitStats([measure(image, np.zeros(image.shape[:2], np.uint8), TASK) for image in images])
    mean, std = stats.mean_std
    assert mean == pytest.approx([value])
    assert std == [1.0]


def test_what_has_not_changed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    first = opened(folder)
    assert len(reads(first, monkeypatch)) == 12
    with caplog.at_level(logging.INFO, "segfocal"):
        assert reads(opened(folder), monkeypatch) == []
    assert caplog.messages == [], "what this process has just read is not news"
    monkeypatch.setattr(scan, "SEEN", set())  # as in another process
    with caplog.at_level(logging.INFO, "segfocal"):
        assert reads(opened(folder), monkeypatch) == []
        assert reads(opened(folder), monkeypatch) == []
    assert caplog.messages == ["12 of 12 samples have not changed since they were last checked; data.check=full checks all"]
    assert len(reads(opened(folder, check="full"), monkeypatch)) == 12
    again = opened(folder).check()
    for split, stats in first.check().items():
        assert again[split].prior == stats.prior
        assert again[split].mean_std == stats.mean_std
        assert again[split].sizes == stats.sizes
        assert [points.tolist() for points in again[split].points] == [points.tolist() for points in stats.points]


@pytest.mark.parametrize("which", ["images", "masks"])
def test_what_has_changed_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    opened(folder).check()
    (path,) = (folder / which).glob("photo_03.*")
    array = np.asarray(Image.open(path)).copy()
    array[:4] = 255
    Image.fromarray(array).save(path)
    data = opened(folder)
    assert reads(data, monkeypatch) == ["photo_03"]
    if which == "masks":
        assert data.check()["train"].positives.tolist() == [6 * 140 + 4 * 64]


def test_the_same_length_at_another_time_is_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder).check()
    (path,) = (folder / "images").glob("photo_05.*")
    os.utime(path, ns=(1, 1))
    assert reads(opened(folder), monkeypatch) == ["photo_05"]


def test_other_settings_are_measured_on_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(folder).check()["train"].positives.tolist() == [6 * 140]
    turned = opened(folder, label_map={0: 1, 255: 0})
    assert turned.check()["train"].positives.tolist() == [6 * (4096 - 140)]
    assert reads(opened(folder, task=TaskConfig(name="binary", classes=["blob"], ignore_index=9)), monkeypatch) != []


def test_what_is_kept_of_samples_that_are_gone_does_not_grow_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfocal.data.scan.OTHERS", 12)
    for time in range(1, 5):
        for path in (folder / "images").iterdir():
            os.utime(path, ns=(time, time))  # as good as other files
        opened(folder).check()
    (path,) = cache.cache_dir().glob("*.npz")
    with np.load(path) as file:
        assert len(file["ids"]) == 12 + 12
    assert reads(opened(folder), monkeypatch) == []


def test_a_small_split_leaves_what_is_kept_of_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, lines in {"train": 10, "val": 1, "test": 1}.items():
        (folder / f"{split}.txt").write_text("")
        names = sorted(path.stem for path in (folder / "images").iterdir())
        first = {"train": 0, "val": 10, "test": 11}[split]
        (folder / f"{split}.txt").write_text("\n".join(names[first : first + lines]))
    opened(folder).check()
    (path,) = (folder / "images").glob("photo_11.*")
    os.utime(path, ns=(1, 1))
    opened(folder).check("test")
    assert reads(opened(folder), monkeypatch) == []


def test_a_sample_of_many_classes_is_measured_class_by_class() -> None:
    """Else an image of 100 megapixels would take gigabytes in each thread."""
    mask = np.repeat(np.arange(20, dtype=np.uint8), 50)[:, None].repeat(1000, 1)
    task = TaskConfig(name="multiclass", classes=[f"c{number}" for number in range(20)])
    tracemalloc.start()
    measure(np.zeros((1000, 1000, 3), np.uint8), mask, task)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * mask.nbytes, peak / mask.nbytes  # all at once take 21


def test_each_data_set_has_a_file_of_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder).check()
    shutil.copytree(folder, tmp_path / "other")
    opened(tmp_path / "other").check()
    assert len(list(cache.cache_dir().glob("*.npz"))) == 2
    assert reads(opened(folder), monkeypatch) == []


def test_faults_are_found_each_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (folder / "masks").glob("photo_01.*")
    right = path.read_bytes()
    path.write_bytes(right[:50])
    for _ in range(2):
        with pytest.raises(UserError, match=r"photo_01.png: damaged \(image file is truncated\)$"):
            opened(folder).check()
    path.write_bytes(right)
    assert reads(opened(folder), monkeypatch) == ["photo_01"]


@pytest.mark.parametrize("damage", [b"", b"not an archive", None])
def test_a_damaged_cache_is_as_good_as_none(folder: Path, damage: bytes | None, monkeypatch, caplog) -> None:
    opened(folder).check()
    (path,) = cache.cache_dir().iterdir()
    path.write_bytes(path.read_bytes()[:-400] if damage is None else damage)
    assert len(reads(opened(folder), monkeypatch)) == 12
    assert "the data is read again" in caplog.text
    assert reads(opened(folder), monkeypatch) == []


def test_a_cache_that_cannot_be_written_is_a_warning(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "train.txt"))
    assert opened(folder).check()["train"].images == 6
    assert "the next run reads the data again" in caplog.text


def test_what_is_kept_is_plain_arrays(folder: Path) -> None:
    opened(folder).check()
    (path,) = cache.cache_dir().iterdir()
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {"ids", "pixels", "valid", "size", "channel_sums", "points", "ends", "content", "look"}


def test_generated_images_are_known_by_their_number() -> None:
    small = SyntheticConfig(size=64, train=4, val=2, test=2)
    data = SegmentationData(small, AugmentConfig(name="none"), TaskConfig(name="binary", classes=["defect"]), 3, 0, seed=0)
    assert len({source.identity(index) for source in data.sources.values() for index in range(len(source))}) == 8


def test_camvid_has_the_shares_of_its_readme(shared: Path) -> None:
    """Percent of all pixels, void among them, to the printed digits."""
    printed = [15.81, 24.10, 0.99, 29.32, 6.69, 11.19, 1.08, 1.43, 4.64, 0.64, 0.54]
    task = TaskConfig(name="multiclass", classes=CAMVID, ignore_index=11)
    stats = opened(shared / "camvid", task, label_map=None).check()
    positives = sum(found.positives for found in stats.values())
    pixels = sum(height * width for found in stats.values() for height, width in found.sizes)
    assert (100 * positives / pixels).round(2).tolist() == printed
    assert 100 - 100 * positives.sum() / pixels == pytest.approx(3.59, abs=0.005)
    of_split = {
        split: dict(zip(CAMVID, 100 * found.positives / (len(found.sizes) * 480 * 360), strict=True)) for split, found in stats.items()
    }
    assert {name: round(of_split["train"][name], 2) for name in ("bicyclist", "pedestrian", "pole")} == {
        "bicyclist": 0.29,
        "pedestrian": 0.64,
        "pole": 0.98,
    }
    assert round(of_split["val"]["bicyclist"], 2) == 2.22
    assert round(of_split["test"]["bicyclist"], 2) == 0.19
