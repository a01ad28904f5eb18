"""What Ascend wants of losses, metrics and inference: fp32, no fp64, no shape that depends on values, no waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KINDS = {"boolean indexing": "dynamic", "item": "sync", "if": "sync", "copy to the CPU": "sync", "equal": "sync", "float64": "float64"}
KINDS["upload"] = "upload"


@pytest.mark.timeout(250)
def test_the_contract(on_npu: Callable[..., Any]) -> None:
    found = on_npu("contract")
    # The simulation: right, in place, and not blind.
    assert all(found["device"].values()), found["device"]
    assert found["spoilt"].keys() == KINDS.keys()
    for how, notes in found["spoilt"].items():
        assert any(name.startswith(KINDS[how] + " ") for name in notes), (how, notes)
    # All of conf/loss, for every task that it is for; in fp32 and fp16.
    rows = found["losses"]
    assert len(rows) > 75
    assert {row["loss"]: row["notes"] for row in rows if row["notes"]} == {}
    assert [row["loss"] for row in rows if not row["fp32"]] == []
    assert [row["loss"] for row in rows if not (row["off"] < 1e-6 and row["gradient_off"] < 1e-5)] == []
    assert [(row["metrics"], row["notes"], row["same"]) for row in found["metrics"]] == [
        (task, {}, True) for task in ("binary", "multiclass", "multilabel")
    ]
    assert found["inference"]["notes"] == {}
    assert found["inference"]["off"] < 1e-5
