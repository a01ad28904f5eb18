"""The plain training that the default is measured against."""

from __future__ import annotations

import pytest

from benchmarks.side_by_side import plain, table
from tests.test_training import TINY, configured


@pytest.mark.parametrize(("task", "loss"), [("binary", "dice"), ("multiclass", "ce"), ("multilabel", "focal")])
def test_the_plain_training_learns_and_is_counted_as_ours_is(task: str, loss: str) -> None:
    config = configured(f"task={task}", *TINY, "data.train=24", "data.crop=[32,32]", "trainer.max_epochs=8", "trainer.validate_every=8")
    figures, seconds = plain(config, loss, 2)
    assert set(figures) >= {*(f"iou/{name}" for name in config.task.class_names), "iou_macro", "auroc_macro", "ap_macro"}
    assert figures["auroc_macro"] > 0.6 and seconds > 0
    rows = table(config, {"plain": [(figures, 2.0)], "train.py": [({**figures, "iou_macro": 0.5}, 4.0)]}, images=100)
    assert rows[0] == "| | plain | train.py |"
    assert f"| iou_macro | {figures['iou_macro']:.3f} | 0.500 |" in rows
    assert rows[-2:] == ["| minutes of training | 0.0 | 0.1 |", "| images per second | 50.0 | 25.0 |"]
