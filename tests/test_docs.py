"""docs/losses.md names what there is."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from segfocal.config.balance import FromData
from segfocal.config.loss import Denominator
from segfocal.config.loss_focal import FocalConfig
from segfocal.config.parse import CONF
from tests.conftest import ROOT

LOSSES_MD = (ROOT / "docs/losses.md").read_text()


@pytest.mark.parametrize(
    "name",
    [
        *sorted(path.stem for path in (CONF / "loss").glob("*.yaml")),
        *(item.name for item in fields(FocalConfig) if item.name != "name"),
        *get_args(Denominator),
        *get_args(FromData),
    ],
)
def test_every_loss_option_and_word_has_its_row(name: str) -> None:
    assert f"\n| `{name}` |" in LOSSES_MD
