"""How a trained model is applied to an image: whole or in tiles, once or seen in several ways."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Flag, Positive

Tile = Annotated[int, Field(strict=True, ge=64)]


@dataclass(config=STRICT, kw_only=True)
class InferenceConfig:
    """
    Args:
        name: the option.
        tile: height and width in pixels, multiples of 32; larger images are cut into tiles of that size, smaller ones are taken whole.
            null takes every image whole, whatever memory that needs.
        overlap: the share of a tile that it has in common with the next one, at least.
        flips: the image is also seen mirrored along each of these, and along both where there are two.
        rotations: also turned by 90, 180 and 270 degrees.
        scales: also resized by each of these factors.
    """

    name: str = "default"
    tile: Annotated[list[Tile], Field(min_length=2, max_length=2)] | None = Field(default_factory=lambda: [1024, 1024])
    overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.25
    flips: list[Literal["horizontal", "vertical"]] = Field(default_factory=list)
    rotations: Flag = False
    scales: list[Positive] = Field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        if self.tile and (odd := [length for length in self.tile if length % 32]):
            raise ValueError(
                f"inference.tile: {odd[0]} is not a multiple of 32, which the halvings of an encoder want: {-(-odd[0] // 32) * 32}"
            )
        if not self.scales or len(set(self.scales)) != len(self.scales) or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise ValueError(f"inference.scales={self.scales}: one or more different factors from 0.25 to 4")
        if len(set(self.flips)) != len(self.flips):
            raise ValueError(f"inference.flips={self.flips}: each once")
