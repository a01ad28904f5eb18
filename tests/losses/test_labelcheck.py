"""Labels out of range: counted on an accelerator, told once the count has arrived; and the targets that hide them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from segfocal.config.task import TaskConfig
from segfocal.losses import FocalLoss, build_loss, labelcheck
from segfocal.losses.labelcheck import out_of_range
from segfocal.losses.targets import Labels, align


class Event:
    """An accelerator's event, ready when the test says so."""

    ready = False

    def __init__(self, device):
        assert device is not None

    def record(self):
        pass

    def query(self):
        return Event.ready


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(Event, "ready", False)
    monkeypatch.setattr(labelcheck, "_arriving", [])


def watch(wrong):
    labelcheck.watch(torch.tensor(wrong), "binary", 2, 255)


@pytest.mark.usefixtures("queue")
def test_a_count_is_not_waited_for_and_told_when_it_is_there():
    watch(3)
    watch(0)  # not there yet: nothing is said
    Event.ready = True
    with pytest.raises(ValueError, match=r"^some labels of an earlier batch are out of range; mode=binary takes 0 to 1 here, .*255$"):
        watch(0)
    watch(0)
    watch(0)  # told once


@pytest.mark.usefixtures("queue")
def test_right_labels_say_nothing_and_the_queue_has_an_end():
    for _ in range(200):
        watch(0)
    assert len(labelcheck._arriving) == 64
    Event.ready = True
    watch(0)
    assert len(labelcheck._arriving) == 1


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    "config",
    [
        {"name": "ce", "class_weights": [1.0, 2.0, 3.0]},
        {"name": "ce", "label_smoothing": 0.1},
        {"name": "dice"},
        {"name": "focal", "alpha": [1.0, 2.0, 3.0], "denominator": "weights"},
        {"name": "focal", "normalized": "smp"},
        {"name": "focal", "label_smoothing": 0.1},
        {"name": "lovasz"},
        {"name": "poly1_focal", "alpha": [1.0, 2.0, 3.0]},
        {"name": "unified_focal"},
        {"name": "recall_ce"},
        {"name": "logit_adjusted_ce", "prior": [0.5, 0.3, 0.2]},
        {"name": "ohem_ce", "class_weights": [1.0, 2.0, 3.0]},
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_on_an_accelerator_no_wrong_label_leaves_its_range_before_it_is_told(config, dtype, monkeypatch):
    monkeypatch.setattr(Labels, "far", True)
    loss = build_loss(config, TaskConfig(name="multiclass", classes=["a", "b", "c"]))
    logits, target = torch.randn(1, 3, 1, 5, requires_grad=True), torch.tensor([[[0, -100, 3, 10**6, 255]]]).to(dtype)
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    Event.ready = True
    with pytest.raises(ValueError, match="some labels of an earlier batch are out of range"):
        loss(logits, target)


@pytest.mark.parametrize(
    ("label", "soft", "wrong"),
    [
        (1 + 1e-7, True, False),
        (1 + 1e-5, True, True),
        (-1e-7, True, True),
        (float("nan"), True, True),
        (2.0, False, False),
        (1.5, False, True),
    ],
)
def test_what_is_counted_on_an_accelerator_is_what_is_an_error_on_the_cpu(label, soft, wrong):
    mode, target = ("binary" if soft else "multiclass"), torch.tensor([[[label]]])
    logits = torch.zeros(1, 1 if soft else 3, 1, 1)
    labels = align(mode, logits, target, 255, soft)
    assert bool(out_of_range(labels.raw_NKHW, labels.num_ids, labels.soft)) == wrong
    assert (FocalLoss(mode).decision.sums(logits, labels, torch.ones(1)).wrong.sum() > 0) == wrong
    with pytest.raises(ValueError, match="the target holds ") if wrong else nullcontext():
        labels.check()


def test_minus_one_is_not_taken_for_255_in_one_byte():
    with pytest.raises(ValueError, match="the target holds -1;"):
        FocalLoss("binary", ignore_index=255)(torch.zeros(1, 1, 1, 2), torch.tensor([[[-1, 1]]], dtype=torch.int8))


@pytest.mark.parametrize("ignore_index", [0, 1])
def test_one_hot_targets_cannot_hold_an_ignore_index_of_their_own_values(ignore_index):
    one_hot = torch.eye(2).reshape(1, 2, 1, 2)
    with pytest.raises(ValueError, match=f"ignore_index={ignore_index} is a value of one-hot targets"):
        FocalLoss("multiclass", ignore_index=ignore_index)(torch.zeros(1, 2, 1, 2), one_hot)


def test_logits_where_probabilities_were_announced():
    loss = FocalLoss("binary", from_logits=False, ignore_index=255)
    with pytest.raises(ValueError, match=r"from_logits=False takes probabilities from 0 to 1; given -3 to 4"):
        loss(torch.tensor([[[[-3.0, 4.0]]]]), torch.tensor([[[0, 1]]]))
    assert loss(torch.tensor([[[[0.5, float("nan")]]]]), torch.tensor([[[0, 255]]])).isfinite()
