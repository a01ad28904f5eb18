"""The picture of what augmentation does shows training crops, their labels, and what is ignored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.sampling import RareClassConfig
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import Mode, TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.measure import measure
from segfocal.data.source import Array
from segfocal.data.stats import SplitStats
from segfocal.report.grid import CAPTION, CELL, Row, augmentation_grid, choose
from segfocal.report.overlay import FOUND, GAP, labelled, palette
from tests.config.test_yaml import composed

NONE = AugmentConfig(name="none")
CRACK = TaskConfig(name="binary", classes=["crack"])


def folder_of(root: Path, images: list[Array], masks: list[Array], task: TaskConfig, channels: int) -> SegmentationData:
    """A root whose training and validation images are the same, as TIFF."""
    for split in ("train", "val"):
        for kind, arrays in (("images", images), ("masks", masks)):
            (root / kind / split).mkdir(parents=True)
            for number, array in enumerate(arrays):
                extra = {"photometric": "minisblack"} | ({"planarconfig": "contig"} if array.ndim == 3 and array.shape[2] > 1 else {})
                tifffile.imwrite(root / kind / split / f"{split}{number}.tif", array, **extra)
    config = FolderConfig(root=str(root), crop=[40, 40], batch_size=1, overlap="allow")
    return SegmentationData(config, NONE, task, channels, 0, 0)


def cell(grid: Image.Image, row: int, left: int, width: int, height: int = CELL) -> Array:
    top = row * (CAPTION + CELL + GAP) + CAPTION
    return np.asarray(grid)[top : top + height, left : left + width].astype(int)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("crop", [[48, 64], None])
def test_every_task_can_be_drawn_with_whole_images_too(mode: Mode, crop: list[int] | None) -> None:
    task = TaskConfig(name=mode, classes=SYNTHETIC_CLASSES[mode])
    config = SyntheticConfig(size=64, train=8, val=1, test=1, crop=crop)
    augment = AugmentConfig(name="x", scale=0.3, rotate=30, dropout=0.5, copy_paste=0.5)
    data = SegmentationData(config, augment, task, 3, 0, 0, sampling=RareClassConfig())
    data.normalise([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    grid = augmentation_grid(data, samples=3, draws=2)
    widths = CELL + 2 * (CELL * 64 // 48 if crop else CELL)
    assert grid.width == max(widths + 4 * GAP, 900 + 2 * GAP)
    assert grid.height > 3 * (CELL + CAPTION)
    assert np.array_equal(np.asarray(grid), np.asarray(augmentation_grid(data, samples=3, draws=2)))


@pytest.mark.parametrize("normalisation", [([0.0] * 3, [1.0] * 3), ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])])
def test_pictures_have_the_colours_of_the_files(tmp_path: Path, normalisation: tuple[list[float], list[float]]) -> None:
    image, mask = np.full((40, 40, 3), (200, 100, 50), np.uint8), np.zeros((40, 40), np.uint8)
    mask[:20] = 1
    mask[:, 30:] = 255
    data = folder_of(tmp_path, [image], [mask], CRACK, 3)
    data.normalise(*normalisation)
    grid = augmentation_grid(data, samples=4, draws=1)
    for left in (GAP, 2 * GAP + CELL):  # the image, and a crop of all of it
        shown = cell(grid, 0, left, CELL)
        plain, crack, ignored = shown[130:230, 10:170], shown[10:110, 10:170], shown[:, 190:230]
        assert np.abs(plain - (200, 100, 50)).max() <= 1
        weight = 0.35  # half of the pixels are cracks, which is not rare
        assert np.abs(crack - (weight * np.array(FOUND) + (1 - weight) * np.array((200, 100, 50)))).max() <= 2
        assert np.ptp(ignored.mean(-1)) > 40  # stripes
        assert np.abs(ignored - ignored.mean(-1, keepdims=True)).max() < 45  # nearly grey
    assert grid.height < 2 * CELL  # there is one image


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (1, np.float32), (2, np.float32), (3, np.float32), (6, np.uint8), (6, np.float32)]
)
def test_images_of_any_kind_are_seen(tmp_path: Path, channels: int, dtype: type) -> None:
    """Dark to bright from left to right, whatever the numbers."""
    ramp = np.tile(np.linspace(0, 255, 40), (40, 1))[..., None].repeat(channels, 2)
    image = (ramp if dtype == np.uint8 else ramp * 40 + 3000).astype(dtype)
    mask = np.zeros((40, 40), np.uint8)
    mask[0, 0] = 1
    data = folder_of(tmp_path, [image.squeeze()], [mask], CRACK, channels)
    data.normalise([3.0] * channels, [2.0] * channels)
    grid = augmentation_grid(data, samples=1, draws=1)
    for left in (GAP, 2 * GAP + CELL):
        brightness = cell(grid, 0, left, CELL)[20:].mean((0, 2))
        assert brightness[:3].mean() < 10 and brightness[-3:].mean() > 245
        assert np.abs(brightness - np.linspace(0, 255, CELL)).max() < 15


def test_crops_are_those_of_training_and_aim_as_sampling_does(tmp_path: Path) -> None:
    """A crack of one pixel in a large image is in a random crop of it hardly ever, and in an aimed one always."""
    image, mask = np.zeros((400, 400, 1), np.uint8), np.zeros((400, 400), np.uint8)
    mask[200:204, 211:215] = 1
    data = folder_of(tmp_path, [image.squeeze()], [mask], CRACK, 1)

    def marked(share: float) -> list[bool]:
        data.sampling = RareClassConfig(share=share)
        grid = augmentation_grid(data, samples=1, draws=6)
        cells = [cell(grid, 0, GAP + (number + 1) * (GAP + CELL), CELL) for number in range(6)]
        return [bool((shown[..., 1] > 60).any()) for shown in cells]

    assert sum(marked(0.0)) <= 1
    assert marked(1.0) == [True] * 6
    assert marked(0.5)[1::2] == [True] * 3


def test_rows_are_samples_of_the_rarest_classes_first() -> None:
    task = TaskConfig(name="multiclass", classes=["ground", "wall", "crack", "dragon"])
    masks = np.zeros((6, 30, 30), np.uint8)
    masks[1, :20] = masks[2, :10] = masks[3, :5] = 1
    masks[4, :2] = masks[5, :1] = 2
    masks[4, 29] = masks[1, 29] = 1
    stats = SplitStats([measure(np.zeros((30, 30, 3), np.uint8), mask, task) for mask in masks])
    assert choose(stats, task, 4) == [Row(4, 2), Row(1, 1), Row(5, 2), Row(2, 1)]
    assert choose(stats, task, 1) == [Row(4, 2)]
    assert choose(stats, task, 99) == [Row(4, 2), Row(1, 1), Row(5, 2), Row(2, 1), Row(3, 1)]  # none of the ground alone
    several = dataclasses.replace(task, name="multilabel", classes=["crack"])
    planes = (masks == 2).astype(np.uint8)[..., None]
    stats = SplitStats([measure(np.zeros((30, 30, 3), np.uint8), mask, several) for mask in planes])
    assert choose(stats, several, 4) == [Row(4, 0), Row(5, 0)]


def test_what_is_small_is_on_top_and_strengths_are_each_class_s_own() -> None:
    task = TaskConfig(name="multilabel", classes=["dot", "lane"])
    image, labels = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 2), np.uint8)
    labels[..., 1] = 1
    labels[5, 5, 0] = 1
    dot, lane = palette(2).astype(float)
    assert np.abs(labelled(image, labels, task, 1.0)[5, 5] - dot).max() <= 1
    assert np.abs(labelled(image, labels, task, np.array([0.5, 0.2]))[0, 0] - 0.2 * lane).max() <= 1
    over = labelled(image, labels[..., ::-1], task, np.array([0.2, 1.0]))  # the lane's colour on the dot
    assert np.abs(over[5, 5] - lane).max() <= 1
    ids = TaskConfig(name="multiclass", classes=["dot", "lane"])
    mixed = labelled(image, labels[..., 1] * (1 - labels[..., 0]), ids, np.array([0.5, 0.2]))
    assert np.abs(mixed[5, 5] - 0.5 * dot).max() <= 1 and np.abs(mixed[0, 0] - 0.2 * lane).max() <= 1


@pytest.mark.parametrize("name", ["crackforest", "camvid", "cracks_potholes"])
def test_real_photographs_are_drawn(shared: Path, name: str) -> None:
    words = (f"experiment={name}", f"data.root={shared / name}", "data.limit=4", "sampling=rare_class")
    config = composed(*words, "augment=strong", "augment.copy_paste=0.5")
    data = SegmentationData(config.data, config.augment, config.task, 3, 0, 0, sampling=config.sampling)
    data.check("train")
    grid = np.asarray(augmentation_grid(data, samples=2, draws=3))
    assert grid.shape[0] > 2 * CELL and grid.shape[1] > 4 * CELL
    assert len(np.unique(grid.reshape(-1, 3), axis=0)) > 10_000
