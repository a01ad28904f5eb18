"""Order, crops and batches are functions of seed, epoch and index."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import Mode, TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch, Collate, EightBit, Normalise, Sample
from segfocal.data.sampling import EpochSampler, SameSizeBatches
from segfocal.data.transforms import TrainTransform, sample_seed
from tests.conftest import blobs

EVERYTHING = AugmentConfig(
    name="all", hflip=0.5, vflip=0.5, rotate90=0.5, scale=0.3, rotate=20, brightness=0.3, contrast=0.3, blur=0.5, noise=0.5
)
NORMALISE = Normalise([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])


def loaded(workers: int, epoch: int, seed: int = 0, mode: Mode = "binary") -> list[Batch]:
    task = TaskConfig(name=mode, classes=SYNTHETIC_CLASSES[mode])
    config = SyntheticConfig(size=64, train=10, val=2, test=2, batch_size=4, crop=[48, 48])
    data = SegmentationData(config, EVERYTHING, task, channels=3, workers=workers, seed=seed)
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    torch.manual_seed(1)
    alone = loaded(0, epoch=3)
    torch.manual_seed(2)
    assert same(alone, loaded(workers, epoch=3))


def test_epochs_and_seeds_differ() -> None:
    assert not same(loaded(0, epoch=0), loaded(0, epoch=1))
    assert not same(loaded(0, epoch=0), loaded(0, epoch=0, seed=1))


def test_an_epoch_shows_every_sample_once() -> None:
    sampler = EpochSampler(7, seed=0)
    sampler.set_epoch(4)
    keys = list(sampler)
    assert sorted(key.sample for key in keys) == list(range(7))
    assert {key.epoch for key in keys} == {4}


def test_whole_images_are_batched_by_size_each_once() -> None:
    sizes = [(32, 32), (64, 32), (32, 32), (32, 32), (64, 32)]
    batches = list(SameSizeBatches(sizes, batch_size=2))
    assert sorted(key.sample for batch in batches for key in batch) == [0, 1, 2, 3, 4]
    assert all(len({sizes[key.sample] for key in batch}) == 1 and len(batch) <= 2 for batch in batches)
    shown = [[key.sample for key in batch] for batch in batches]
    assert shown == [[1, 4], [0, 2], [3]]  # the one of most pixels first


def test_a_batch_of_most_pixels_need_not_be_of_the_largest_image() -> None:
    batches = SameSizeBatches([(32, 32), (40, 32), (32, 32)], batch_size=2)
    assert [[key.sample for key in batch] for batch in batches] == [[0, 2], [1]]


def test_padding_is_ignored_in_masks() -> None:
    image, mask = blobs(1, size=(30, 40))[0]
    padded, labels = TrainTransform(AugmentConfig(name="none"), [48, 48], ignore_index=77)(image, mask, seed=0)
    assert padded.shape == (48, 48, 3)
    assert (labels == 77).sum() == 48 * 48 - 30 * 40
    assert set(np.unique(labels)) == {0, 1, 77}


def test_masks_move_with_the_image_and_hold_no_new_values() -> None:
    for seed, (image, mask) in itertools.product(range(10), blobs(3)):
        bright = np.repeat((mask * 255)[..., None], 3, axis=2)
        moved, labels = TrainTransform(AugmentConfig(name="x", hflip=0.5, rotate90=0.5, scale=0.3, rotate=30), None, 255)(
            bright, mask, seed
        )
        assert set(np.unique(labels)) <= {0, 1, 255}
        inside = labels != 255
        agree = ((moved[..., 0] > 127) == (labels == 1))[inside].mean()
        assert agree > 0.98
        assert image.shape == moved.shape


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("classes", [1, 3, 6])
def test_any_number_of_channels_and_classes_can_be_varied(channels: int, classes: int) -> None:
    image = np.random.default_rng(0).random((40, 50, channels)).astype(np.float32)
    mask = np.zeros((40, 50, classes), np.uint8)
    varied, labels = TrainTransform(EVERYTHING, [32, 32], 255)(image, mask, seed=3)
    assert varied.shape == (32, 32, channels)
    assert labels.shape == (32, 32, classes)
    assert np.isfinite(varied).all()


def test_the_same_seed_draws_the_same_crop() -> None:
    image, mask = blobs(1)[0]
    transform = TrainTransform(EVERYTHING, [32, 32], 255)
    first = transform(image, mask, 5)[0].copy()
    transform(image, mask, 6)
    assert np.array_equal(first, transform(image, mask, 5)[0])
    assert not np.array_equal(first, transform(image, mask, 6)[0])
    assert len({sample_seed(a, b, c) for a, b, c in itertools.product(range(5), repeat=3)}) == 125


def samples(dtype: type = np.uint8) -> list[Sample]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3)) if dtype is np.uint8 else rng.normal(size=(h, w, 3)) for h, w in ((30, 40), (33, 20))]
    return [Sample(image.astype(dtype), np.ones(image.shape[:2], np.uint8), number) for number, image in enumerate(images)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_collate_pads_to_the_stride_below_and_to_the_right(dtype: type) -> None:
    batch = Collate(9, NORMALISE)(samples(dtype))
    assert batch.image.shape == (2, 3, 64, 64)
    assert batch.image.dtype == torch.float32
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert (batch.target[0] == 1).sum() == 30 * 40
    assert (batch.target[1, 33:] == 9).all()
    assert (batch.target[1, :, 20:] == 9).all()
    assert (batch.image[0, :, 30:] == 0).all()
    assert (batch.image[0, :, :, 40:] == 0).all()
    assert (batch.image[1, :, 33:] == 0).all()
    assert (batch.image[1, :, :, 20:] == 0).all()
    assert batch.indices.tolist() == [0, 1]


def test_batches_are_normalised_to_the_last_bit() -> None:
    """Also where a batch holds images of 8 bit beside such of float."""
    eight, floats = samples(np.uint8), samples(np.float32)
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.25, 0.3], np.float32)
    for chosen in (eight, floats, [eight[0], floats[1]]):
        batch = Collate(255, NORMALISE)(chosen)
        for found, sample in zip(batch.image, chosen, strict=True):
            unit = sample.image.astype(np.float32) / 255 if sample.image.dtype == np.uint8 else sample.image
            expected = (unit - mean) * (1 / std)
            h, w = expected.shape[:2]
            assert np.array_equal(found[:, :h, :w].permute(1, 2, 0).numpy(), expected)


def test_one_channel_and_planes_of_classes() -> None:
    image, mask = np.full((32, 32, 1), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)
    mask[:, :, 2] = 1
    batch = Collate(255, Normalise([0.5], [0.5]))([Sample(image, mask, 4)])
    assert batch.image.shape == (1, 1, 32, 32)
    assert (batch.image == 1).all()
    assert batch.target.shape == (1, 3, 32, 32)
    assert batch.target.is_contiguous()
    assert batch.target.sum((0, 2, 3)).tolist() == [0, 0, 1024]


def test_what_leaves_a_worker_is_short_and_becomes_the_same_batch() -> None:
    image = np.zeros((32, 32, 12), np.uint8)
    many = Normalise([0.1] * 12, [0.2] * 12)
    found = EightBit(torch.from_numpy(image[None]), torch.zeros(1, 32, 32), torch.zeros(1), [(32, 32)], many)
    assert len(pickle.dumps(found.normalise)) < 400
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.batch().image, found.batch().image)
