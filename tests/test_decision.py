"""How logits become probabilities and classes, by the plain rule and by a fitted one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segfocal.config.task import TaskConfig
from segfocal.decision import Decision

MULTICLASS = TaskConfig(name="multiclass", classes=["a", "b", "c"])
MULTILABEL = TaskConfig(name="multilabel", classes=["a", "b"])


def test_the_plain_rule_is_the_sigmoid_above_a_half_and_the_first_of_the_highest() -> None:
    logits = torch.tensor([-1.0, 0.0, 1e-3, 2.0]).reshape(1, 1, 1, 4)
    assert Decision("binary").labels(logits).flatten().tolist() == [0, 0, 1, 1]
    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, 3.0]]).T.reshape(1, 3, 1, 2)
    assert Decision("multiclass").labels(scores).flatten().tolist() == [0, 1]
    assert Decision("binary").plain
    assert Decision("multilabel", thresholds=[0.5, 0.5]).plain
    assert not Decision("multilabel", thresholds=[0.5, 0.4]).plain
    assert not Decision("multiclass", offsets=[0.0, 0.1, 0.0]).plain


def test_probabilities_are_those_of_the_formula() -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(Decision("multiclass", temperature=[2.0]).probabilities(logits), (logits / 2).softmax(1))
    two = logits[:, :2]
    expected = torch.stack([(two[:, 0] / 0.5).sigmoid(), (two[:, 1] / 4).sigmoid()], 1)
    torch.testing.assert_close(Decision("multilabel", temperature=[0.5, 4.0]).probabilities(two), expected)


def test_half_precision_is_left_before_anything_is_computed() -> None:
    logits = torch.tensor([9.0, 9.04]).to(torch.bfloat16).reshape(1, 2, 1, 1)
    assert Decision("multilabel").probabilities(logits).dtype == torch.float32


@given(st.floats(0.01, 0.99), st.floats(0.2, 5))
def test_a_class_is_there_where_its_probability_is_above_its_threshold(threshold: float, temperature: float) -> None:
    decision = Decision("multilabel", [temperature, 1.0], [threshold, 0.5])
    logits = torch.linspace(-8, 8, 101).reshape(1, 1, 1, -1).expand(1, 2, 1, -1)
    expected = decision.probabilities(logits) > torch.tensor([threshold, 0.5]).reshape(1, 2, 1, 1)
    assert torch.equal(decision.labels(logits), expected.to(torch.uint8))


def test_offsets_move_the_border_and_leave_the_probabilities() -> None:
    logits = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1)
    moved = Decision("multiclass", offsets=[0.0, 0.6, 0.0])
    assert moved.labels(logits).item() == 1
    torch.testing.assert_close(moved.probabilities(logits), logits.softmax(1))


def test_what_is_stored_comes_back() -> None:
    for decision, task in (
        (Decision("multiclass", [1.5], [], [0.1, -0.2, 0.1], "iou"), MULTICLASS),
        (Decision("multilabel", [1.5, 2.0], [0.3, 0.7], [], "fbeta"), MULTILABEL),
    ):
        assert Decision.of(decision.as_dict(), task) == decision
    assert Decision.of(None, MULTICLASS) == Decision("multiclass")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "binary", "thresholds": [1.0]}, "thresholds="),
        ({"mode": "binary", "thresholds": [float("nan")]}, "thresholds="),
        ({"mode": "binary", "temperature": [0.0]}, "temperature="),
        ({"mode": "multiclass", "offsets": [float("inf"), 0.0, 0.0]}, "offsets="),
        ({"mode": "multiclass", "thresholds": [0.5]}, "takes offsets alone"),
        ({"mode": "binary", "offsets": [0.5]}, "takes thresholds alone"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Decision(**given)


@pytest.mark.parametrize(
    "stored",
    [
        {"mode": "binary", "thresholds": [0.4]},
        {"mode": "multilabel", "thresholds": [0.4]},
        {"mode": "multilabel", "temperature": [1.0]},
        {"mode": "multilabel", "temperature": [1.0, 1.0, 1.0]},
    ],
)
def test_a_decision_for_other_classes_is_refused(stored: dict) -> None:
    with pytest.raises(ValueError, match="other classes"):
        Decision.of(stored, MULTILABEL)
