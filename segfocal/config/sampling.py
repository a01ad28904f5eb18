"""Which samples a training epoch shows, and where it crops them."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Fraction, Positive
from segfocal.registry import Registry

SAMPLING = Registry("sampling", "segfocal.data")


@dataclass(config=STRICT, kw_only=True)
class SamplingConfig:
    """
    Args:
        name: the option.
    """

    name: str


@SAMPLING.config("auto")
@dataclass(config=STRICT, kw_only=True)
class AutoConfig(SamplingConfig):
    """`rare_class` where the training split has a rare class, else `uniform`."""

    name: Literal["auto"] = "auto"


@SAMPLING.config("uniform")
@dataclass(config=STRICT, kw_only=True)
class UniformConfig(SamplingConfig):
    """Every image once in an epoch, cropped anywhere."""

    name: Literal["uniform"] = "uniform"


@SAMPLING.config("foreground")
@dataclass(config=STRICT, kw_only=True)
class ForegroundConfig(SamplingConfig):
    """
    Args:
        share: of the crops, that are cut around a pixel of a class other than the background, from 0 to 1.
    """

    name: Literal["foreground"] = "foreground"
    share: Fraction = 0.5


@SAMPLING.config("rare_class")
@dataclass(config=STRICT, kw_only=True)
class RareClassConfig(SamplingConfig):
    """
    Args:
        share: of the crops, that are cut around a pixel of a class drawn by its rarity, from 0 to 1.
        temperature: T > 0 in softmax((1 - frequency) / T): the lower, the more the rarest class is preferred; a class that is T more
            frequent than another is drawn 2.7 times as seldom. What few images have is drawn ten times an epoch from each at most, on average.
    """

    name: Literal["rare_class"] = "rare_class"
    share: Fraction = 0.5
    temperature: Positive = 0.01
