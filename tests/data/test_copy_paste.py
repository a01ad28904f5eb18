"""Rare things pasted into other crops: pixels and labels together, from training images only, as the seed has it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import Mode, TaskConfig
from segfocal.data.copy_paste import CopyPaste
from segfocal.data.datamodule import SegmentationData
from segfocal.data.measure import measure
from segfocal.data.source import Array
from segfocal.data.stats import SplitStats
from segfocal.data.transforms import TrainTransform
from tests.conftest import blobs, write_folder

NONE = AugmentConfig(name="none")
MULTICLASS = TaskConfig(name="multiclass", classes=["ground", "wall", "crack"], ignore_index=9)
MULTILABEL = TaskConfig(name="multilabel", classes=["wall", "crack"], ignore_index=9)
BINARY = TaskConfig(name="binary", classes=["crack"], ignore_index=9)


class Kept:
    """A split in memory that notes what is read of it."""

    def __init__(self, samples: list[tuple[Array, Array]]) -> None:
        self.samples, self.asked = samples, list[int]()

    def read(self, index: int) -> tuple[Array, Array]:
        self.asked.append(index)
        return self.samples[index]


def painted(mask: Array) -> Array:
    """An image whose colours say the label, or the labels."""
    if mask.ndim == 3:
        return np.concatenate([mask * 100, mask[..., :1] * 7], axis=2)
    return np.stack([mask * 100, mask * 50, 255 - mask * 20], axis=2).astype(np.uint8)


def ground(task: TaskConfig, size: tuple[int, int] = (40, 50)) -> Array:
    return np.zeros((*size, 2) if task.name == "multilabel" else size, np.uint8)


def paste_of(masks: list[Array], task: TaskConfig, probability: float = 1.0) -> tuple[CopyPaste, Kept]:
    samples = [(painted(mask), mask) for mask in masks]
    source = Kept(samples)
    return CopyPaste(source, SplitStats([measure(*sample, task) for sample in samples]), task, probability), source


def cracked(task: TaskConfig) -> Array:
    """A wall, and two cracks of which one has a part that touches by a corner."""
    mask = ground(task)
    crack = ground(BINARY)
    crack[20, 10:16] = crack[21, 16:19] = crack[35, 30:33] = 1
    if task.name == "multilabel":
        mask[18:23, :30, 0] = 1
        mask[..., 1] = crack
    else:
        mask[5:9] = 1 if task.name == "multiclass" else 0
        mask[crack == 1] = task.num_ids - 1
    return mask


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, BINARY], ids=lambda task: task.name)
def test_labels_and_pixels_are_pasted_together(task: TaskConfig) -> None:
    paste, _ = paste_of([cracked(task)], task)
    empty = ground(task, (60, 70))
    sizes = set()
    for seed in range(60):
        image, mask = paste(painted(empty), empty, seed, [60, 70])
        where = (mask != empty).any(-1) if mask.ndim == 3 else mask != empty
        assert np.array_equal(image[where], painted(mask)[where])
        sizes.add(int(where.sum()))
        around = np.zeros_like(where)
        for row, column in np.argwhere(where):
            around[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert np.array_equal(image[~around], painted(empty)[~around])
    assert {3, 9} <= sizes  # a whole crack, corners included, and never both of them
    assert max(sizes) == 9
    assert not empty.any()


def test_only_what_hangs_together_is_pasted_and_other_classes_come_with_it() -> None:
    """In multilabel a pasted pixel has all labels that it had."""
    mask = cracked(MULTILABEL)
    paste, _ = paste_of([mask], MULTILABEL)
    paste.chances = np.array([0.0, 1.0])
    target = ground(MULTILABEL, (60, 70))
    target[..., 0] = 1
    both = []
    for seed in range(40):
        _, pasted = paste(painted(target), target, seed, [60, 70])
        crack = pasted[..., 1] == 1
        assert crack.any()
        assert np.array_equal(pasted[~crack], target[~crack])
        both.append(set(pasted[crack][:, 0].tolist()))
    assert all(values in ({1}, {0}) for values in both)
    assert {1} in both and {0} in both  # the crack within the wall, and the one beside it


def test_the_background_is_pasted_only_where_there_is_nothing_else() -> None:
    masks = [cracked(MULTICLASS), np.full((40, 50), 1, np.uint8)]
    masks[1][:2] = 0  # the background is the rarest class here
    paste, source = paste_of([masks[1]], MULTICLASS)
    assert paste.chances.tolist() == [0.0, 1.0, 0.0]
    paste, source = paste_of(masks, MULTICLASS)
    assert paste.chances[0] == 0.0
    assert paste.chances[2] > 0.99
    for seed in range(20):
        paste(painted(masks[1]), masks[1], seed, [40, 50])
    assert set(source.asked) == {0}  # the only one with a crack
    assert paste_of([ground(MULTICLASS)], MULTICLASS)[0].chances.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, BINARY], ids=lambda task: task.name)
def test_ignored_pixels_stay_as_they_are(task: TaskConfig) -> None:
    paste, _ = paste_of([cracked(task)], task)
    target = ground(task)
    target[::2, :, ...] = task.ignore_index
    if task.name == "multilabel":
        target[::2, :, 0] = 1  # known of one class, ignored of the other
    pasted_any = False
    for seed in range(40):
        image, mask = paste(painted(target), target, seed, [40, 50])
        assert np.array_equal(mask[::2], target[::2])
        assert np.array_equal(image[::2], painted(target)[::2])
        pasted_any |= not np.array_equal(mask, target)
    assert pasted_any
    nothing = np.full_like(target, task.ignore_index)
    assert np.array_equal(paste(painted(nothing), nothing, 1, [40, 50])[1], nothing)


def test_it_lands_where_the_crop_shows_it() -> None:
    paste, _ = paste_of([cracked(BINARY)], BINARY)
    target = ground(BINARY, (90, 90))
    seen = np.zeros((90, 90), int)
    for seed in range(300):
        _, mask = paste(painted(target), target, seed, [30, 40])
        assert mask[30:60, 25:65].any()
        seen += mask
    assert min(seen[30:60].sum(1)) > 0 and min(seen[:, 25:65].sum(0)) > 0


def test_the_seam_is_softened_with_what_surrounds_it_there() -> None:
    paste, _ = paste_of([cracked(BINARY)], BINARY)
    black = np.zeros((60, 70, 3), np.uint8)
    for seed in range(10):
        image, mask = paste(black, ground(BINARY, (60, 70)), seed, [40, 50])
        beside = image[..., 2][mask == 0]  # the donor's ground is 255 there
        assert 0 < np.count_nonzero(beside) < 50
        assert beside.max() < 255


def test_whether_something_is_pasted_has_nothing_to_do_with_where_the_crop_lies() -> None:
    paste, _ = paste_of([cracked(BINARY)], BINARY, 0.5)
    transform = TrainTransform(NONE, [20, 20], 9, paste)
    rows = np.tile(np.arange(120, dtype=np.float32)[:, None, None], (1, 120, 3))
    tops, pasted = [], []
    for seed in range(300):
        image, mask = transform(rows, ground(BINARY, (120, 120)), seed)
        tops.append(np.median(image[..., 0]))
        pasted.append(mask.any())
    assert abs(np.corrcoef(tops, pasted)[0, 1]) < 0.2


def test_what_the_donor_does_not_show_is_not_pasted() -> None:
    """A crack at the edge of its image has no surroundings there: nothing black is blended in."""
    mask = ground(BINARY)
    mask[0, 10:20] = 1
    paste, _ = paste_of([mask], BINARY)
    white = np.full((40, 50, 3), 255, np.uint8)
    for seed in range(20):
        image, pasted = paste(white, ground(BINARY), seed, [40, 50])
        assert image[..., 2][pasted == 0].min() == 255


@pytest.mark.parametrize("crop", [[32, 40], None])
def test_a_probability_of_none_changes_no_bit_and_others_are_kept_to(crop: list[int] | None) -> None:
    config = AugmentConfig(name="x", scale=0.2, rotate=20, hflip=0.5, brightness=0.3, noise=0.5)
    never, source = paste_of([cracked(BINARY)], BINARY, 0.0)
    some, _ = paste_of([cracked(BINARY)], BINARY, 0.3)
    plain = TrainTransform(config, crop, 9)
    empty = ground(BINARY, (60, 70))
    changed = []
    for seed in range(200):
        expected = plain(painted(empty), empty, seed)
        for one, other in zip(TrainTransform(config, crop, 9, never)(painted(empty), empty, seed), expected, strict=True):
            assert np.array_equal(one, other)
        again = [TrainTransform(config, crop, 9, some)(painted(empty), empty, seed) for _ in range(2)]
        assert all(np.array_equal(one, other) for one, other in zip(*again, strict=True))
        changed.append(not np.array_equal(again[0][0], expected[0]))
    assert source.asked == []
    assert np.mean(changed) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(("donor", "target"), [(np.uint8, np.float32), (np.float32, np.uint8)])
def test_files_of_different_depths_go_into_one_another(donor: type, target: type) -> None:
    mask = cracked(BINARY)
    full = {np.uint8: 255, np.float32: 1.0}
    image = np.where(mask[..., None] == 1, full[donor], 0).astype(donor)
    source = Kept([(image, mask)])
    paste = CopyPaste(source, SplitStats([measure(image, mask, BINARY)]), BINARY, 1.0)
    for seed in range(10):
        pasted, labels = paste(np.zeros((40, 50, 1), target), ground(BINARY), seed, [40, 50])
        assert pasted.dtype == target
        assert (pasted[labels == 1] == full[target]).all()


def test_what_is_brighter_than_the_image_it_is_pasted_into_stays_so() -> None:
    """Images of other than 8 bit are brought to 0..1 by their own range, for albumentations."""
    rng = np.random.default_rng(0)
    masks = [np.zeros((40, 50), np.uint8), np.pad(np.ones((8, 9), np.uint8), ((16, 16), (20, 21)))]
    images = [rng.uniform(0.10, 0.12, (40, 50, 1)).astype(np.float32) + np.float32(0.8) * mask[..., None] for mask in masks]
    samples = list(zip(images, masks, strict=True))
    paste = CopyPaste(Kept(samples), SplitStats([measure(*sample, BINARY) for sample in samples]), BINARY, 1.0)
    transform = TrainTransform(AugmentConfig(name="x", hflip=0.5, copy_paste=1.0), [40, 50], 9, paste)
    image, mask = transform(*samples[0], seed=1)
    assert (mask == 1).sum() > 20
    assert np.median(image[mask == 1]) > 0.85


def loaded(mode: Mode, probability: float, workers: int = 0, crop: list[int] | None = None, seed: int = 0) -> list[torch.Tensor]:
    task = TaskConfig(name=mode, classes=SYNTHETIC_CLASSES[mode])
    config = SyntheticConfig(size=96, train=24, val=2, test=2, batch_size=4, crop=crop)
    augment = dataclasses.replace(NONE, hflip=0.5, scale=0.2, copy_paste=probability)
    data = SegmentationData(config, augment, task, channels=3, workers=workers, seed=seed)
    return [tensor for batch in data.train_dataloader() for tensor in batch]


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("crop", [[48, 48], None])
def test_the_rarest_class_is_in_more_crops(mode: Mode, crop: list[int] | None) -> None:
    def shares(probability: float) -> np.ndarray:
        targets = torch.cat([each for seed in range(3) for each in loaded(mode, probability, crop=crop, seed=seed)[1::3]])
        if mode == "multiclass":
            return np.array([float((targets == label).float().mean()) for label in range(5)])
        planes = targets.reshape(len(targets), -1, *targets.shape[-2:])
        return (planes == 1).float().mean((0, 2, 3)).numpy()

    before, after = shares(0.0), shares(1.0)
    rare = int(np.argmin(np.where(before > 0, before, 1)))
    assert after[rare] > 1.3 * before[rare]


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_batches_do_not_depend_on_the_number_of_workers(mode: Mode) -> None:
    for one, other in zip(loaded(mode, 0.5, crop=[48, 48]), loaded(mode, 0.5, workers=2, crop=[48, 48]), strict=True):
        assert torch.equal(one, other)
    first, other_seed = loaded(mode, 0.5, crop=[48, 48]), loaded(mode, 0.5, crop=[48, 48], seed=1)
    assert not all(torch.equal(one, other) for one, other in zip(first, other_seed, strict=True))


def test_things_come_from_training_images_alone(tmp_path: Path) -> None:
    """Blobs of validation and test are marked by a colour that no training batch has."""
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        samples = blobs(6, seed=seed)
        for image, mask in samples:
            image[mask == 1] = [250, 20, 20] if split == "train" else [20, 20, 250]
        write_folder(tmp_path / "data", samples, split=split)
    config = FolderConfig(root=str(tmp_path / "data"), crop=[48, 48], batch_size=2)
    augment = dataclasses.replace(NONE, copy_paste=1.0)
    data = SegmentationData(config, augment, TaskConfig(name="binary", classes=["blob"]), 3, 0, 0)
    loader = data.train_dataloader()
    pasted = 0
    for epoch in range(5):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for batch in loader:
            blob = (batch.target == 1)[:, None].expand_as(batch.image)
            colours = batch.image[blob].reshape(3, -1) if len(batch.image) == 1 else batch.image.permute(1, 0, 2, 3)[:, batch.target == 1]
            assert (colours[0] > colours[2]).float().mean() > 0.97
            pasted += int(((batch.target == 1).flatten(1).sum(1) > 141).sum())
    assert pasted > 5  # more than one blob of 140 pixels in a crop
    validated = torch.cat([batch.image for batch in data.val_dataloader()])
    assert (validated[:, 2] > 0.6).any()
