"""What all configuration classes share: unknown keys are mistakes, numbers are finite and in range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid")

# `strict`: text is no number and true is not 1. An int where a float is wanted is fine.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Fraction = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
OpenFraction = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, lt=1)]
Scale = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=4)]  # of a height and width: 16 times the pixels
Count = Annotated[int, Field(strict=True, ge=1)]
Index = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]


def allowed(words: str) -> WrapValidator:
    """Say in one line what a field takes, where pydantic would list every branch of a union."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError(
                "not_allowed", "allowed is {allowed}; given {given}", {"allowed": words, "given": shown(value)}
            ) from None

    return WrapValidator(validate)


def shown(value: object) -> str:
    """A value as the command line takes it: lists without spaces."""
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


FROM_STATISTICS = "auto (from the training data)"
Chance = Annotated[Fraction | Literal["auto"], allowed(f"a number from 0 to 1, or {FROM_STATISTICS}")]
