"""How much training crops are varied."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Fraction, OpenFraction


@dataclass(config=STRICT, kw_only=True)
class AugmentConfig:
    """
    Args:
        hflip, vflip, rotate90: probability of each.
        scale: zoom by a factor drawn from 1 - scale .. 1 + scale; null leaves the size.
        rotate: by an angle drawn from -rotate .. rotate degrees.
        brightness, contrast: relative change of up to so much; colour images only differ as a whole.
        blur, noise: probability of each.
    """

    name: str
    hflip: Fraction = 0.0
    vflip: Fraction = 0.0
    rotate90: Fraction = 0.0
    scale: OpenFraction | None = None
    rotate: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    blur: Fraction = 0.0
    noise: Fraction = 0.0
