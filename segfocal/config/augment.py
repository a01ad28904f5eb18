"""How much training crops are varied."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Chance, Fraction, OpenFraction


@dataclass(config=STRICT, kw_only=True)
class AugmentConfig:
    """
    Args:
        hflip, vflip, rotate90: probability of each. `auto` is what suits pictures with an upright direction, or without: the places of the
            classes in the training masks tell.
        scale: zoom by a factor drawn from 1 - scale .. 1 + scale; null leaves the size.
        rotate: by an angle drawn from -rotate .. rotate degrees.
        distort: probability of a smooth distortion that moves pixels by up to a twentieth of the crop's shorter side.
        brightness, contrast: relative change of up to so much; colour images only differ as a whole.
        gamma: values to the power of an exponent drawn from 1 - gamma .. 1 + gamma.
        colour: relative change of the saturation of up to so much, and of the hue of up to a quarter of it, of the whole circle. Only images
            of three channels have a colour; all others are left as they are.
        lowres: probability of a loss of resolution, by a factor drawn from 0.4 .. 0.9.
        blur, noise: probability of each.
        dropout: probability of a few black rectangles; the pixels under them are ignored, no label stays where nothing is seen.
        copy_paste: probability that something of a rare class is cut out of a training image, by its mask, and pasted into the crop.
    """

    name: str
    hflip: Fraction = 0.0
    vflip: Chance = 0.0
    rotate90: Chance = 0.0
    scale: OpenFraction | None = None
    rotate: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    distort: Fraction = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    gamma: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)] = 0.0
    colour: Fraction = 0.0
    lowres: Fraction = 0.0
    blur: Fraction = 0.0
    noise: Fraction = 0.0
    dropout: Fraction = 0.0
    copy_paste: Fraction = 0.0
