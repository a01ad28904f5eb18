"""How a model is applied to images: whole or in tiles, once or in several views, in memory that does not grow with the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segfocal.config.inference import InferenceConfig
from segfocal.data.dataset import STRIDE

Read = Callable[[int, int, int, int], Tensor]
"""From top, bottom, left and right within the image to its pixels there, normalised, (N, channels, bottom - top, right - left)."""


class View(NamedTuple):
    """How an image is looked at: resized, then turned, then mirrored.

    Args:
        scale: of height and width.
        turns: quarter turns.
        mirrored: along the width, after the turns.
    """

    scale: float
    turns: int
    mirrored: bool


class Inference:
    """Logits of images of any size.

    Images no larger than the tile are taken whole, padded below and to the right with 0 to a multiple of the stride. Larger ones
    are cut into tiles, the first and the last of which end where the padded image does. Their logits are blended by weights that
    fall from the middle of a tile to its border as a normal distribution does whose standard deviation is an eighth of the tile.
    Tiles lie at multiples of the stride: so far from its border as a model sees, a tile has the logits of the whole image.

    With several views the logits of each are turned back and averaged, which is the geometric mean of their probabilities. Flips
    alone give two or four views, rotations alone four, both the eight of a square; each of them at each scale. A tile is viewed
    as a whole image is, so that what is in memory at a time grows with the largest scale, but not with the image.

    Sums are held in fp32 whatever the model computes in. Nothing waits for the device.

    Args:
        model: image (N, channels, H, W) -> logits (N, C, H, W), for H and W that the stride divides; in the mode that it is in.
        config: tiles and views.
        stride: what the model wants lengths to be multiples of.

    Raises:
        ValueError: tiles are no multiples of the stride.

    Reference:
        nnU-Net, arXiv 1904.08128, for the weights.
    """

    def __init__(self, model: nn.Module, config: InferenceConfig, stride: int = STRIDE) -> None:
        if config.tile and any(length % stride for length in config.tile):
            raise ValueError(f"inference.tile={config.tile}: multiples of {stride} are expected")
        self.model, self.config, self.stride = model, config, stride
        self.views = views(config)

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        """Logits (N, C, H, W)."""
        height, width = image_NCHW.shape[-2:]
        parts = self.bands((height, width), lambda top, bottom, left, right: image_NCHW[..., top:bottom, left:right])
        _, rows = next(parts)
        if rows.shape[-2] == height:
            return rows
        logits = rows.new_empty((*rows.shape[:2], height, width))
        logits[..., : rows.shape[-2], :] = rows
        for top, rows in parts:
            logits[..., top : top + rows.shape[-2], :] = rows
        return logits

    def bands(self, size: tuple[int, int], read: Read) -> Iterator[tuple[int, Tensor]]:
        """The logits from above to below: where a band begins, and the band (N, C, rows, W).

        No more than a row of tiles is held, and what the caller keeps.

        Args:
            size: height and width of the image.
            read: gives a part of it.
        """
        padded = [-(-length // self.stride) * self.stride for length in size]
        tile = [min(length, whole) for length, whole in zip(self.config.tile or padded, padded, strict=True)]
        tops, lefts = (positions(*lengths, self.config.overlap, self.stride) for lengths in zip(padded, tile, strict=True))

        def logits_at(top: int, left: int) -> Tensor:
            part = read(top, min(top + tile[0], size[0]), left, min(left + tile[1], size[1]))
            return self._seen(_padded(part, tile[0], tile[1]))[..., : part.shape[-2], : part.shape[-1]]

        if len(tops) == len(lefts) == 1:
            yield 0, logits_at(0, 0)
            return
        heights = [min(tile[0], size[0] - top) for top in tops]
        band: Tensor | None = None
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                logits = _single(logits_at(top, left))
                if band is None:
                    across, down = shares(lefts, tile[1], logits.device), shares(tops, tile[0], logits.device)
                    band = logits.new_zeros((*logits.shape[:2], heights[0], size[1]))
                width = logits.shape[-1]
                share = down[row][: heights[row], None] * across[column][:width]
                band[..., left : left + width].addcmul_(logits, share.to(band.dtype))
                del logits  # or the next forward pass would find it in memory
            assert band is not None
            if top == tops[-1]:
                yield top, band
                return
            done = tops[row + 1] - top
            yield top, band[..., :done, :]
            left_over = band[..., done:, :]
            band = band.new_zeros((*band.shape[:2], heights[row + 1], size[1]))
            band[..., : left_over.shape[-2], :] = left_over
            del left_over

    def _seen(self, image: Tensor) -> Tensor:
        """Logits of a padded image: the mean over the views; as the model gives them where there is one."""
        if len(self.views) == 1:
            return self._at(image, self.views[0])
        total: Tensor | None = None
        for view in self.views:
            logits = _single(self._at(image, view))
            total = logits if total is None else total + logits  # not in place: it may be what the model keeps
        assert total is not None
        return total / len(self.views)

    def _at(self, image: Tensor, view: View) -> Tensor:
        size = image.shape[-2:]
        scaled = [max(1, round(length * view.scale)) for length in size]
        if scaled != list(size):
            image = _padded(_resized(image, scaled), *(-(-length // self.stride) * self.stride for length in scaled))
        if view.turns:
            image = image.rot90(view.turns, (-2, -1))
        logits: Tensor = self.model(image.flip(-1) if view.mirrored else image)
        if view.mirrored:
            logits = logits.flip(-1)
        if view.turns:
            logits = logits.rot90(-view.turns, (-2, -1))
        return logits if scaled == list(size) else _resized(_single(logits)[..., : scaled[0], : scaled[1]], list(size))


def views(config: InferenceConfig) -> list[View]:
    """Every view once; the plain one first, where it is among them."""
    plain, across, upside_down, half_turn = (0, False), (0, True), (2, True), (2, False)  # mirrored and turned by 180 is upside down
    seen = [plain]
    if config.rotations:
        seen = [(turns, mirrored) for mirrored in ([False, True] if config.flips else [False]) for turns in range(4)]
    elif len(config.flips) == 2:
        seen += [across, upside_down, half_turn]
    elif config.flips:
        seen += [across if config.flips == ["horizontal"] else upside_down]
    return [View(scale, turns, mirrored) for scale in sorted(config.scales, key=lambda scale: scale != 1) for turns, mirrored in seen]


def positions(length: int, tile: int, overlap: float, stride: int) -> list[int]:
    """Where tiles begin along an axis: evenly, the first at 0, the last so that it ends at `length`.

    At multiples of the stride, unless tiles are so small that only finer steps overlap enough.
    """
    if length <= tile:
        return [0]
    unit = stride if tile * (1 - overlap) >= stride else 1
    gaps = -(-(length - tile) // (int(tile * (1 - overlap)) // unit * unit))
    return [number * ((length - tile) // unit) // gaps * unit for number in range(gaps + 1)]


def shares(starts: list[int], tile: int, device: torch.device) -> list[Tensor]:
    """What each tile contributes along an axis; where it is alone exactly 1.

    Weights of a plane are products of two of these, and so are their sums: none is ever held for a whole image.
    """
    weight = torch.exp(-0.5 * ((torch.arange(tile, device=device) - (tile - 1) / 2) / (tile / 8)) ** 2)  # at the border still exp(-8)
    total = torch.zeros(starts[-1] + tile, device=device)
    for start in starts:
        total[start : start + tile] += weight
    return [weight / total[start : start + tile] for start in starts]


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    missing = height - image.shape[-2], width - image.shape[-1]
    return F.pad(image, (0, missing[1], 0, missing[0])) if any(missing) else image


def _resized(image: Tensor, size: list[int]) -> Tensor:
    """Bilinear; smoothed before where it shrinks."""
    shrinks = any(new < old for new, old in zip(size, image.shape[-2:], strict=True))
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=shrinks)


def _single(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
