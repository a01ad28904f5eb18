"""Tiles and views against the whole image: equal where the mathematics says so."""

from __future__ import annotations

import itertools
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segfocal.config.inference import InferenceConfig
from segfocal.inference import Inference, positions, shares, views

LENGTHS = st.integers(1, 330)
TILES = st.sampled_from([64, 96, 128])
OVERLAPS = st.floats(0, 0.75)


class Pointwise(nn.Module):
    """Each pixel by itself: what tiles do cannot change it. Keeps the shapes it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return torch.stack([image[:, 0] * 2 - image[:, 1], image[:, 1] ** 2, image[:, 0] + 1], 1)


class Pyramid(nn.Module):
    """Two halvings and back, as an encoder and a decoder: sees no further than `REACH`, and shifts with the image by fours alone."""

    REACH = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.deep = nn.Conv2d(2, 4, 3, padding=1).double(), nn.Conv2d(4, 3, 3, padding=1).double()

    def forward(self, image: Tensor) -> Tensor:
        assert not any(length % 4 for length in image.shape[-2:])
        small = F.max_pool2d(F.relu(self.first(image)), 4)
        return F.interpolate(self.deep(small), scale_factor=4, mode="nearest")


def picture(height: int, width: int, count: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn((count, 2, height, width), generator=torch.Generator().manual_seed(height * 1000 + width), dtype=dtype)


def tiled(tile: int = 64, overlap: float = 0.25, **views: object) -> InferenceConfig:
    return InferenceConfig(tile=[tile, tile], overlap=overlap, **views)  # type: ignore[arg-type]


def padded(image: Tensor, stride: int = 32) -> Tensor:
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % stride, 0, -height % stride))


@given(LENGTHS, LENGTHS, TILES, OVERLAPS)
@settings(max_examples=60, deadline=None)
def test_tiles_of_a_pointwise_model_are_the_whole_image(height: int, width: int, tile: int, overlap: float) -> None:
    model, image = Pointwise(), picture(height, width, count=2)
    logits = Inference(model, tiled(tile, overlap))(image)
    assert {shape[-2:] for shape in model.seen} == {(min(tile, -(-height // 32) * 32), min(tile, -(-width // 32) * 32))}
    assert logits.shape == (2, 3, height, width)
    torch.testing.assert_close(logits, model(image), rtol=1e-6, atol=1e-6)


@given(LENGTHS, LENGTHS)
@settings(max_examples=30, deadline=None)
def test_what_fits_into_a_tile_is_taken_whole_to_the_bit(height: int, width: int) -> None:
    model, image = Pyramid(), picture(height, width, dtype=torch.float64)
    whole = model(padded(image))[..., :height, :width]
    assert torch.equal(Inference(model, InferenceConfig())(image), whole)
    assert torch.equal(Inference(model, InferenceConfig(tile=None))(image), whole)


def test_no_tile_takes_the_largest_whole() -> None:
    model = Pointwise()
    Inference(model, InferenceConfig(tile=None))(picture(100, 2000))
    assert model.seen == [(1, 2, 128, 2016)]


@given(st.integers(65, 330), st.integers(1, 330))
@settings(max_examples=40, deadline=None)
def test_tiles_are_the_whole_image_as_far_from_their_borders_as_a_model_sees(height: int, width: int) -> None:
    """Where all tiles that contribute agree with the whole image, so does their mean, whatever the weights."""
    model, image = Pyramid(), picture(height, width, dtype=torch.float64)
    whole = model(padded(image))
    lengths, clean = whole.shape[-2:], []
    for length in lengths:
        good = torch.ones(length, dtype=torch.bool)
        for start in positions(length, 64, 0.25, 32):
            end = min(start + 64, length)
            good[start : start + model.REACH * (start > 0)] = False
            good[end - model.REACH * (end < length) : end] = False
        clean.append(good)
    where = (clean[0][:, None] & clean[1])[:height, :width]
    logits = Inference(model, tiled())(image)
    assert where.any()
    torch.testing.assert_close(logits[..., where], whole[..., :height, :width][..., where], rtol=0, atol=1e-6)


@given(LENGTHS, LENGTHS)
@settings(max_examples=20, deadline=None)
def test_padding_before_changes_nothing(height: int, width: int) -> None:
    """Evaluation pads its batches; a prediction of the same image is the same."""
    model, image = Pyramid(), picture(height, width, dtype=torch.float64)
    infer = Inference(model, tiled())
    assert torch.equal(infer(image), infer(padded(image))[..., :height, :width])


@given(st.integers(1, 5000), st.integers(2, 40).map(lambda number: 32 * number), OVERLAPS)
@settings(max_examples=300, deadline=None)
def test_positions_cover_evenly_and_overlap_enough(length: int, tile: int, overlap: float) -> None:
    length = -(-length // 32) * 32
    starts = positions(length, tile, overlap, 32)
    if length <= tile:
        assert starts == [0]
        return
    assert starts[0] == 0 and starts[-1] + tile == length
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(0 < step <= tile * (1 - overlap) for step in steps)
    assert max(steps) - min(steps) <= 32
    if tile * (1 - overlap) >= 32:
        assert not any(start % 32 for start in starts)
    least = 1 + -(-(length - tile) // max(32, int(tile * (1 - overlap) // 32) * 32))
    assert len(starts) == least or tile * (1 - overlap) < 32


def test_weights_are_a_normal_distribution_and_sum_to_one() -> None:
    starts = positions(160, 64, 0.25, 32)
    assert starts == [0, 32, 64, 96]
    weights = shares(starts, 64, torch.device("cpu"))
    total = torch.zeros(160)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + 64] += weight
    torch.testing.assert_close(total, torch.ones(160))
    assert torch.equal(weights[0][:32], torch.ones(32)), "one tile alone there"
    middle, off = (torch.exp(torch.tensor(-0.5 * ((place - 31.5) / 8) ** 2)) for place in (40.0, 8.0))
    assert weights[0][40].item() == pytest.approx((middle / (middle + off)).item(), rel=1e-5)
    assert all((weight > 0).all() for weight in shares(positions(992, 512, 0.25, 32), 512, torch.device("cpu")))


def test_blending_is_by_those_weights() -> None:
    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0.0

        def forward(self, image: Tensor) -> Tensor:
            self.count += 1
            return torch.full_like(image[:, :1], self.count)

    logits = Inference(Numbered(), tiled())(picture(64, 96))[0, 0]
    first, second = shares([0, 32], 64, torch.device("cpu"))
    assert torch.equal(logits, logits[:1].expand(64, 96)), "an axis of one tile has no weights"
    assert torch.equal(logits[0, :32], torch.ones(32))
    torch.testing.assert_close(logits[0, 32:64], first[32:] + 2 * second[:32])
    assert torch.equal(logits[0, 64:], torch.full((32,), 2.0))


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 1),
        ({"flips": ["horizontal"]}, 2),
        ({"flips": ["vertical"]}, 2),
        ({"flips": ["vertical", "horizontal"]}, 4),
        ({"rotations": True}, 4),
        ({"rotations": True, "flips": ["vertical"]}, 8),
        ({"rotations": True, "flips": ["horizontal", "vertical"]}, 8),
        ({"flips": ["horizontal"], "scales": [0.75, 1.0, 1.25]}, 6),
    ],
)
def test_every_view_is_there_once(config: dict[str, object], count: int) -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def forward(self, image: Tensor) -> Tensor:
            self.seen.append(image)
            return image

    model, image = Kept(), picture(64, 64)
    Inference(model, InferenceConfig(**config))(image)  # type: ignore[arg-type]
    assert len({tensor.numpy().tobytes() for tensor in model.seen}) == len(model.seen) == count
    assert torch.equal(model.seen[0], image)
    wanted = {"horizontal": image.flip(-1), "vertical": image.flip(-2)}
    for name in config.get("flips", []):  # type: ignore[attr-defined]
        assert any(torch.equal(tensor, wanted[name]) for tensor in model.seen)
    if config.get("rotations"):
        assert all(any(torch.equal(tensor, image.rot90(turns, (2, 3))) for tensor in model.seen) for turns in range(4))


@pytest.mark.parametrize("config", [{"flips": ["horizontal", "vertical"]}, {"rotations": True}, {"rotations": True, "flips": ["vertical"]}])
@pytest.mark.parametrize("size", [(40, 70), (64, 64), (150, 201)])
def test_views_of_a_model_that_turns_with_the_image_are_turned_back(config: dict[str, object], size: tuple[int, int]) -> None:
    model, image = Pointwise(), picture(*size, dtype=torch.float64)
    torch.testing.assert_close(Inference(model, tiled(**config))(image), model(image), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (130, 201)])
def test_the_mean_over_views_is_that_of_logits(size: tuple[int, int]) -> None:
    model, image = Pyramid(), picture(*size, dtype=torch.float64)
    infer = Inference(model, InferenceConfig(flips=["horizontal"], rotations=True))
    square = padded(image)
    wanted = []
    for turns, mirrored in itertools.product(range(4), (False, True)):
        seen = square.rot90(turns, (-2, -1))
        logits = model(seen.flip(-2)).flip(-2) if mirrored else model(seen)
        wanted.append(logits.rot90(-turns, (-2, -1)))
    torch.testing.assert_close(infer(image), torch.stack(wanted).mean(0)[..., : size[0], : size[1]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 2.0])
def test_scales_keep_places(scale: float) -> None:
    """A model that copies gives a ramp back, as exactly as smoothing does: half a pixel off would be .5 or more."""
    ramp = torch.arange(96.0)[:, None] + 2 * torch.arange(128.0)
    image = torch.stack([ramp, ramp])[None]

    class Sizes(nn.Module):
        seen: tuple[int, ...] = ()

        def forward(self, image: Tensor) -> Tensor:
            self.seen = tuple(image.shape[-2:])
            return image[:, :1]

    model = Sizes()
    logits = Inference(model, InferenceConfig(scales=[scale]))(image)
    assert model.seen == tuple(-(-round(length * scale) // 32) * 32 for length in (96, 128))
    torch.testing.assert_close(logits[0, 0, 6:-6, 6:-6], ramp[6:-6, 6:-6], rtol=0, atol=0.15)


def test_shrinking_is_smoothed() -> None:
    stripes = torch.zeros(1, 2, 64, 64)
    stripes[..., ::4] = 1.0
    logits = Inference(nn.Identity(), InferenceConfig(scales=[0.25]))(stripes)
    torch.testing.assert_close(logits[..., 8:-8, 8:-8], torch.full((1, 2, 48, 48), 0.25), rtol=0, atol=0.03)


def test_scales_are_bounded_by_the_tile() -> None:
    model = Pointwise()
    Inference(model, tiled(64, scales=[0.5, 1.0, 2.0]))(picture(300, 500))
    assert {shape[-2:] for shape in model.seen} == {(32, 32), (64, 64), (128, 128)}


class Alive(TorchDispatchMode):
    """The most bytes that tensors made meanwhile have held at a time."""

    def __init__(self, besides: Tensor) -> None:
        super().__init__()
        self.besides = besides.untyped_storage().data_ptr()
        self.users: Counter[int] = Counter()
        self.size: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and (place := made.untyped_storage().data_ptr()) != self.besides:
            self.users[place] += 1
            self.size[place] = made.untyped_storage().nbytes()
            weakref.finalize(made, self._gone, place)
            self.most = max(self.most, sum(self.size.values()))
        return made

    def _gone(self, place: int) -> None:
        self.users[place] -= 1
        if not self.users[place]:
            self.size.pop(place, None)


@pytest.mark.parametrize("height", [400, 1600])
def test_memory_does_not_grow_with_the_height(height: int) -> None:
    """Logits of 12 classes of two rows of tiles, one of them the caller's, and a few tiles; at any height."""
    width, tile, classes = 640, 64, 12
    image = picture(height, width)

    class Wide(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1].repeat(1, classes, 1, 1)

    alive = Alive(besides=image)
    with alive:
        for _ in Inference(Wide(), tiled(tile)).bands((height, width), lambda top, bottom, left, right: image[..., top:bottom, left:right]):
            pass
    row, piece = (tile * length * classes * 4 for length in (width, tile))
    assert alive.most <= 2 * row + 4 * piece


def test_bands_come_in_order_and_read_no_further_than_they_need() -> None:
    height, width, tile = 1500, 200, 64
    image, done, last = picture(height, width), 0, 0

    def read(top: int, bottom: int, left: int, right: int) -> Tensor:
        nonlocal last
        assert 0 <= top < bottom <= min(height, top + tile) and 0 <= left < right <= min(width, left + tile)
        last = top
        return image[..., top:bottom, left:right]

    for top, band in Inference(Pointwise(), tiled(tile)).bands((height, width), read):
        assert top == last == done
        torch.testing.assert_close(band[:, 2], image[:, 0, top : top + band.shape[-2]] + 1)
        done += band.shape[-2]
    assert done == height


def test_sums_are_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 1, 1)
    image = picture(150, 200)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        plain = model(image)
        several = Inference(model, tiled())(image)
        seen = Inference(model, InferenceConfig(flips=["horizontal"], scales=[1.0, 0.5]))(image)
        whole = Inference(model, InferenceConfig())(image)
    assert plain.dtype == whole.dtype == torch.bfloat16 and torch.equal(plain, whole)
    assert several.dtype == seen.dtype == torch.float32
    torch.testing.assert_close(several, plain.float(), rtol=1e-6, atol=1e-6)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values to wait for."""
    image = torch.empty(2, 2, 150, 201, device="meta")
    model = nn.Conv2d(2, 5, 1, device="meta")
    logits = Inference(model, tiled(flips=["horizontal"], rotations=True, scales=[0.5, 1.0]))(image)
    assert logits.shape == (2, 5, 150, 201)


def test_memory_format_goes_through() -> None:
    class Formats(nn.Module):
        seen: list[bool]

        def forward(self, image: Tensor) -> Tensor:
            self.seen.append(image.is_contiguous(memory_format=torch.channels_last))
            return image

    model = Formats()
    model.seen = []
    image = picture(64, 64).contiguous(memory_format=torch.channels_last)
    Inference(model, InferenceConfig())(image)
    Inference(model, InferenceConfig())(picture(60, 61).contiguous(memory_format=torch.channels_last))
    assert model.seen == [True, True]


def test_a_model_may_return_what_it_was_given() -> None:
    image = picture(64, 64)
    before = image.clone()
    Inference(nn.Identity(), InferenceConfig(flips=["horizontal"]))(image)
    assert torch.equal(image, before)


def test_tiles_go_with_the_stride() -> None:
    with pytest.raises(ValueError, match="multiples of 64"):
        Inference(nn.Identity(), tiled(96), stride=64)
    assert len(views(InferenceConfig())) == 1
