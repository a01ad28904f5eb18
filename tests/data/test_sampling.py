"""Which samples an epoch shows, and where it cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segfocal.config.augment import AugmentConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.sampling import SAMPLING, ForegroundConfig, RareClassConfig, SamplingConfig, UniformConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.measure import measure
from segfocal.data.sampling import EpochSampler, Key, class_chances
from segfocal.data.stats import SplitStats
from segfocal.data.transforms import TrainTransform
from tests.data.test_pipeline import EVERYTHING
from tests.data.test_stats import CAMVID

NONE = AugmentConfig(name="none")
TASK = TaskConfig(name="multiclass", classes=["ground", "wall", "crack"])


@pytest.fixture
def stats() -> SplitStats:
    """Ten images of ground, half of them with a wall; one with a crack of four pixels."""
    masks = np.zeros((10, 40, 50), np.uint8)
    masks[::2, 10:20] = 1
    masks[7, 30, 3:7] = 2
    return SplitStats([measure(np.zeros((40, 50, 3), np.uint8), mask, TASK) for mask in masks])


def drawn(config: SamplingConfig, stats: SplitStats, epochs: int = 20, task: TaskConfig = TASK) -> list[list[Key]]:
    sampler = SAMPLING.build(config, stats, task, 0)
    keys = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        keys.append(list(sampler))
        assert list(sampler) == keys[-1]
        assert len(sampler) == len(keys[-1])
    return keys


def label_at(stats: SplitStats, key: Key) -> int:
    (label,) = {int(label) for label, row, column in stats.points[key.sample] if (row, column) == key.point}
    return label


def test_uniform_shows_every_image_once_and_aims_at_nothing(stats: SplitStats) -> None:
    for epoch, keys in enumerate(drawn(UniformConfig(), stats)):
        assert sorted(keys) == [Key(epoch, sample) for sample in range(10)]


def test_foreground_aims_a_share_at_what_is_not_background(stats: SplitStats) -> None:
    epochs = drawn(ForegroundConfig(share=0.3), stats, epochs=400)
    assert all(
        [key.point is not None for key in keys] == [False, False, False, True, False, False, True, False, False, True] for keys in epochs
    )
    aimed = [key for keys in epochs for key in keys if key.point]
    shown = np.bincount([key.sample for key in aimed], minlength=10) / len(aimed)
    assert (shown == 0).tolist() == [number % 2 == 1 and number != 7 for number in range(10)]
    assert shown[shown > 0] == pytest.approx([1 / 6] * 6, abs=0.04)
    assert {label_at(stats, key) for key in aimed if key.sample == 7} == {2}
    assert {label_at(stats, key) for key in aimed if key.sample != 7} == {1}


def test_rare_class_draws_classes_by_softmax_and_the_images_that_have_them(stats: SplitStats) -> None:
    config = RareClassConfig(share=1.0, temperature=0.1)
    frequency = torch.tensor([1 - 5 * 500 / 20000 - 4 / 20000, 5 * 500 / 20000, 4 / 20000], dtype=torch.float64)
    chance = torch.softmax((1 - frequency) / config.temperature, 0)
    np.testing.assert_allclose(class_chances(stats, config.temperature, draws=10), chance)
    keys = [key for keys in drawn(config, stats, epochs=400) for key in keys]
    labels = [label_at(stats, key) for key in keys]
    assert np.bincount(labels, minlength=3) / len(labels) == pytest.approx(chance.numpy(), abs=0.03)
    assert {key.sample for key, label in zip(keys, labels, strict=True) if label == 2} == {7}
    walls = np.bincount([key.sample for key, label in zip(keys, labels, strict=True) if label == 1], minlength=10)
    assert walls[::2] / walls.sum() == pytest.approx([0.2] * 5, abs=0.06)
    assert len({key.point for key, label in zip(keys, labels, strict=True) if label == 2}) == 4


def test_a_class_that_does_not_occur_is_never_drawn() -> None:
    four = TaskConfig(name="multiclass", classes=["ground", "wall", "crack", "dragon"])
    masks = [np.eye(8, dtype=np.uint8)] * 3
    absent = SplitStats([measure(np.zeros((8, 8, 3), np.uint8), mask, four) for mask in masks])
    assert class_chances(absent, 1e-9, draws=3) == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_what_one_image_has_is_not_drawn_all_the_time() -> None:
    """Three stray pixels in one image of 500: without a limit, nearly half of the crops would be of that image."""
    masks = np.zeros((500, 40, 50), np.uint8)
    masks[::2, :3] = 1
    masks[7, 30, 3:6] = 2
    stats = SplitStats([measure(np.zeros((40, 50, 3), np.uint8), mask, TASK) for mask in masks])
    chances = class_chances(stats, 0.01, draws=250)
    assert chances[2] == 10 / 250 and chances.sum() == pytest.approx(1)
    free = np.exp((1 - stats.positives / stats.valid) / 0.01 - 100)
    assert chances[0] / chances[1] == pytest.approx(free[0] / free[1])
    (keys,) = drawn(RareClassConfig(), stats, epochs=1)
    assert sum(key.sample == 7 for key in keys) < 30


def test_classes_that_are_all_of_few_images_are_drawn_by_how_many_those_are() -> None:
    masks = np.zeros((1000, 8, 8), np.uint8)
    masks[:9, 0] = 1
    masks[9, 0, 0] = 2
    stats = SplitStats([measure(np.zeros((8, 8, 3), np.uint8), mask, TASK) for mask in masks])
    stats.pixels_NC[:, 0] = stats.positives[0] = stats.present[0] = 0  # all that is not one of them is ignored
    assert class_chances(stats, 0.01, draws=500) == pytest.approx([0, 0.9, 0.1])


@pytest.mark.parametrize(("length", "share"), [(1, 0.5), (3, 0.5), (5, 0.3), (7, 1.0), (4, 0.0)])
def test_the_share_that_is_aimed_holds_over_the_epochs(length: int, share: float) -> None:
    """Also where an epoch of one image has no room for half an aim."""
    sampler, aimed = EpochSampler(length, seed=0, share=share, aimed=lambda rng: (0, (1, 2))), 0
    for epoch in range(40):
        sampler.set_epoch(epoch)
        aimed += sum(key.point is not None for key in sampler)
        assert aimed == int((epoch + 1) * length * share)


def test_what_is_shown_again_is_varied_anew() -> None:
    def aimed(rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        return 0, (1, 2)

    keys = list(EpochSampler(6, seed=0, share=1.0, aimed=aimed))
    assert keys == [Key(0, 0, repeat, (1, 2)) for repeat in range(6)]


@pytest.mark.parametrize("crop", [[32, 32], [24, 41], [64, 80]])
def test_the_pixel_that_is_aimed_at_is_in_the_crop(crop: list[int]) -> None:
    """Also at the image's edges, and where the image is smaller than the crop."""
    transform = TrainTransform(NONE, crop, 255)
    rng = np.random.default_rng(0)
    for seed in range(300):
        size = rng.integers(16, 100, 2)
        point = (int(rng.integers(size[0])), int(rng.integers(size[1])))
        mask = np.zeros(size, np.uint8)
        mask[point] = 9
        image, cut = transform(mask[..., None] * 20, mask, seed, point)
        assert image.shape == (*crop, 1)
        assert (cut == 9).sum() == 1
        assert (image[..., 0] == 180).sum() == 1
        assert (cut != 255).sum() == np.minimum(size, crop).prod()  # no padding but what the crop is larger than the image


def test_no_zoom_and_no_angle_moves_it_out_of_the_crop() -> None:
    transform = TrainTransform(EVERYTHING, [48, 64], 255)
    rng = np.random.default_rng(0)
    for seed in range(300):
        point = (int(rng.integers(80, 170)), int(rng.integers(80, 170)))
        mask = np.zeros((250, 250), np.uint8)
        mask[point[0] - 1 : point[0] + 2, point[1] - 1 : point[1] + 2] = 9
        _, cut = transform(np.zeros((250, 250, 3), np.uint8), mask, seed, point)
        assert (cut == 9).any()
        assert not (cut == 255).any()  # what zoom and rotation need is cut out of the image with the crop


@pytest.mark.parametrize(("config", "crop"), [(NONE, [32, 40]), (AugmentConfig(name="x", scale=0.2, rotate=30), [33, 40])])
def test_crops_lie_everywhere(config: AugmentConfig, crop: list[int]) -> None:
    transform = TrainTransform(config, crop, 255)
    rows, columns = np.mgrid[:100, :120].astype(np.float32)
    tops, lefts = [], []
    for seed in range(400):
        image, _ = transform(np.stack([rows, columns], -1), np.zeros((100, 120), np.uint8), seed)
        tops.append(image[crop[0] // 2, crop[1] // 2, 0])
        lefts.append(image[crop[0] // 2, crop[1] // 2, 1])
    for middles, length, side in ((tops, 100, crop[0]), (lefts, 120, crop[1])):
        assert min(middles) < side / 2 + 5
        assert max(middles) > length - side / 2 - 5
        assert np.mean(middles) == pytest.approx(length / 2, abs=4)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(folder: Path, workers: int) -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        config = FolderConfig(root=str(folder), label_map={0: 0, 255: 1}, crop=[32, 32], batch_size=2)
        task = TaskConfig(name="binary", classes=["blob"])
        data = SegmentationData(config, EVERYTHING, task, 3, workers, 0, sampling=RareClassConfig())
        return [tensor for batch in data.train_dataloader() for tensor in batch]

    for one, other in zip(batches(0), batches(workers), strict=True):
        assert torch.equal(one, other)


def test_the_rarest_class_of_camvid_is_in_most_crops(shared: Path) -> None:
    """Bicyclists: in 45 % of the crops of an epoch where they are drawn uniformly."""
    task = TaskConfig(name="multiclass", classes=CAMVID, ignore_index=11)
    medium = AugmentConfig(name="medium", hflip=0.5, scale=0.25, rotate=10)
    share = {}
    for sampling in (UniformConfig(), RareClassConfig(share=0.6, temperature=0.003)):
        config = FolderConfig(root=str(shared / "camvid"), crop=[256, 256])
        data = SegmentationData(config, medium, task, 3, 0, 0, sampling=sampling)
        found = [bool((target == 10).any()) for batch in data.train_dataloader() for target in batch.target]
        share[sampling.name] = np.mean(found)
    assert share["uniform"] == pytest.approx(0.45, abs=0.05)
    assert share["rare_class"] >= 0.6
