"""Benchmarks take the mistakes of a command line as the program does: a line, and exit code 2."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import blobs, write_folder


@pytest.mark.parametrize(
    ("module", "overrides", "said"),
    [
        ("streaming", ["data=folder", "data.root=/nowhere", "task.classes=[a]"], "data.root=/nowhere: no such folder"),
        ("streaming", ["--rounds", "3"], "--rounds: no such flag; see python -m benchmarks.streaming --help"),
        ("data", ["data.root=/nowhere", "task.classes=[a]"], "data.root=/nowhere: no such folder"),
        ("data", ["augment=strong"], "augment=strong: by hand there are only the steps of none, light, medium and surface"),
    ],
)
def test_a_mistake_is_a_line(
    module: str, overrides: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # which the benchmark sets
    if "augment=strong" in overrides:
        write_folder(tmp_path, blobs(10))
        overrides = [*overrides, f"data.root={tmp_path}", "task.classes=[blob]", "data.crop=[32,32]"]
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # it would be so for the tests that follow
    monkeypatch.setattr(sys, "argv", [module, *overrides])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{module}", run_name="__main__")
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert told.err.startswith(said)
    assert told.err.count("\n") == 1
