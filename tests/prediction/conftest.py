"""Checkpoints of each task, and a directory with photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import made
from tests.prediction.made import picture


@pytest.fixture(scope="session")
def ckpts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task."""
    folder = tmp_path_factory.mktemp("ckpts")
    return {mode: made(folder / f"{mode}.ckpt", f"task={mode}") for mode in ("binary", "multiclass", "multilabel")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with photos/a.png and photos/more/b.jpg."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photos/a.png", (60, 90))
    picture(tmp_path / "photos/more/b.jpg", (70, 50))
    return tmp_path
