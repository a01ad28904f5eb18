"""The sample of pixels is the same however the images come, even over the split, and bounded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segfocal.config.task import TaskConfig
from segfocal.metrics import PixelSample
from segfocal.metrics.sample import _mixed

TASK = TaskConfig(name="multiclass", classes=["road", "crack", "patch"])


def image(number: int, height: int = 12, width: int = 14) -> tuple[Tensor, Tensor]:
    """Logits whose first channel is the place of the pixel in the split, and labels, a fifth ignored."""
    generator = torch.Generator().manual_seed(number)
    logits = torch.randn(3, height, width, generator=generator)
    logits[0] = 100_000 * number + torch.arange(height * width).view(height, width)
    target = torch.randint(0, 3, (height, width), generator=generator)
    return logits, target.masked_fill(torch.rand(height, width, generator=generator) < 0.2, 255)


def sampled(batches: list[list[int]], most: int | None, height: int = 12) -> PixelSample:
    sample = PixelSample(TASK, most)
    for numbers in batches:
        logits, target = zip(*(image(number, height) for number in numbers), strict=True)
        sample.update(torch.stack(logits), torch.stack(target).to(torch.uint8), torch.tensor(numbers))
    return sample


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.sets(st.integers(1, 5)), st.sampled_from([1, 50, 200, 10_000]))
def test_neither_batches_nor_order_matter(order: list[int], cuts: set[int], most: int) -> None:
    batches = [order[start:end] for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 6], strict=True)]
    found, expected = sampled(batches, most).pixels(), sampled([list(range(6))], most).pixels()
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert len(found[1]) <= most


def test_where_there_is_room_every_pixel_that_counts_is_there_once() -> None:
    logits, labels = sampled([[3, 0], [2]], None).pixels()
    expected = []
    for x, y in map(image, (0, 2, 3)):
        expected += [(int(value), int(label)) for value, label in zip(x[0][y != 255], y[y != 255], strict=True)]
    assert sorted(zip(logits[:, 0].int().tolist(), labels.tolist(), strict=True)) == expected
    assert (logits.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_pixels_are_drawn_evenly() -> None:
    logits, labels = sampled([[0], [1], [2], [3]], most=4000, height=1000).pixels()
    assert len(labels) == 4000
    place = logits[:, 0].long()
    of_image = torch.bincount(place // 100_000, minlength=4)
    rows = torch.bincount(place % 100_000 // 14 // 100, minlength=10)
    columns = torch.bincount(place % 100_000 % 14, minlength=14)
    for counts in (of_image, rows, columns):  # four standard deviations
        even = 4000 / len(counts)
        assert (counts - even).abs().max() < 4 * even**0.5
    assert len(set(place.tolist())) == 4000


def test_memory_does_not_grow() -> None:
    def held(sample: PixelSample) -> int:
        return sum(tensor.numel() * tensor.element_size() for lot in sample.kept for tensor in lot)

    sample = sampled([[number] for number in range(40)], most=100)
    assert held(sample) <= 2 * 100 * (3 * 4 + 8 + 8) + held(sampled([[0]], most=10_000))
    assert sample.state_dict() == {}


@pytest.mark.parametrize("most", [100, 5000])
def test_many_images_are_a_few_lots_of_the_same_pixels(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of all of them was added up for each image."""
    numbers = [[number] for number in range(40)]
    whole = sampled(numbers, most)
    monkeypatch.setattr("segfocal.metrics.sample._MOST_LOTS", 3)
    few = sampled(numbers, most)
    assert len(few.kept) <= 3
    assert few.count == sum(len(keys) for _, _, keys in few.kept)
    assert all(map(torch.equal, whole.pixels(), few.pixels()))
    every = [image(number) for number in range(40)]  # drawn at once
    logits, labels, keys = [], [], []
    for number, (x, y) in enumerate(every):
        logits.append(x.flatten(1).T[y.flatten() != 255])
        labels.append(y[y != 255])
        keys.append(_mixed((number << 32) + torch.arange(y.numel()))[y.flatten() != 255])
    order = torch.cat(keys).argsort()[:most]
    assert torch.equal(few.pixels()[0], torch.cat(logits)[order]) and torch.equal(few.pixels()[1], torch.cat(labels)[order])


def test_many_classes_have_fewer_pixels() -> None:
    many = TaskConfig(name="multiclass", classes=[str(number) for number in range(200)])
    assert PixelSample(TASK).most == 262_144
    assert PixelSample(many).most * 200 <= 2**23


def test_after_a_reset_it_begins_anew() -> None:
    sample = sampled([[0], [1], [2]], most=50)
    sample.reset()
    logits, target = image(4)
    sample.update(logits[None], target[None], torch.tensor([4]))
    assert torch.equal(sample.pixels()[0], sampled([[4]], 50).pixels()[0])


def test_a_large_image_is_taken_in_parts_and_half_precision_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled([[0, 1]], most=100).pixels()
    monkeypatch.setattr("segfocal.metrics.sample.MOST_PIXELS", 25)
    parts = sampled([[0, 1]], most=100).pixels()
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])
    sample = PixelSample(TASK)
    sample.update(torch.full((1, 3, 1, 2), 0.1).bfloat16(), torch.tensor([[[0, 7]]]), torch.tensor([0]))
    assert sample.pixels()[0].tolist() == torch.full((1, 3), 0.1).bfloat16().float().tolist()
