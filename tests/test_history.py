"""What metrics.csv has of the steps of an epoch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from segfocal.going_on import Before
from segfocal.history import FILE, Means


def test_sums_of_a_run_that_goes_on_are_taken_to_the_device_of_its_losses() -> None:
    """A checkpoint has them on no device; on `meta` whatever mixes devices raises."""
    means = Means(None)
    means.load_state_dict({"sums": {"loss": [3.0, 2.0]}})
    module, batch = SimpleNamespace(losses={"loss": torch.ones((), device="meta")}), SimpleNamespace(image=range(2))
    means.on_train_batch_end(cast("Any", None), cast("Any", module), None, cast("Any", batch), 0)
    assert means.sums["loss"].device.type == "meta"
    on_cpu = SimpleNamespace(losses={"loss": torch.tensor(0.5)})
    means.load_state_dict({"sums": {"loss": [3.0, 2.0]}})
    means.on_train_batch_end(cast("Any", None), cast("Any", on_cpu), None, cast("Any", batch), 0)
    assert means.sums["loss"].tolist() == [4.0, 4.0]


def test_a_checkpoint_that_is_named_without_its_folder_has_the_history_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text("train/loss\n0.5\n0.4\n")
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path / "checkpoints")
    content = {"callbacks": {"Means": {"rows": 1}}}
    assert Before(Path("last.ckpt"), content).history == [{"train/loss": "0.5"}]
    assert Before(Path("/last.ckpt"), content).history == []
