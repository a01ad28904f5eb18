"""docs/metrics.md names every figure, and its example runs."""

from __future__ import annotations

import re

import pytest
import torch

from segfocal.config.task import Mode
from segfocal.metrics.scores import SCORE_BINS
from segfocal.metrics.summary import figures_of
from tests.conftest import ROOT

TEXT = (ROOT / "docs/metrics.md").read_text()
ROWS = "\n".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_every_figure_has_its_row(mode: Mode) -> None:
    shape = (2, 2) if mode == "multiclass" else (2, 2, 2)
    figures = figures_of(torch.ones(shape).long(), torch.ones(2, 2, SCORE_BINS).long(), ["<class>", "other"], mode != "multiclass")
    names = {name for name in figures if not name.endswith("/other")}
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}`" not in ROWS] == []


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert not names["decision"].plain  # type: ignore[attr-defined]  # it is a Decision
