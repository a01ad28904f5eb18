"""Weighted sums of losses: by name and as a list, their mistakes, and that every term is logged."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from segfocal.config.loss import check_loss
from segfocal.config.loss_focal import FocalConfig
from segfocal.config.loss_overlap import DiceConfig
from segfocal.config.loss_sum import SumConfig
from segfocal.config.task import TaskConfig
from segfocal.engine import fit
from segfocal.losses import CrossEntropyLoss, DiceLoss, FocalLoss, WeightedSum, build_loss
from tests.test_training import TINY, configured

BINARY = TaskConfig(name="binary", classes=["crack"])


def sample():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 4, 5, generator=generator).requires_grad_(), torch.randint(0, 2, (2, 4, 5), generator=generator)


@pytest.mark.parametrize(
    "config",
    [
        {"terms": {"focal": {"name": "focal", "gamma": 2.0}, "dice": {"name": "dice"}}, "weights": {"dice": 0.5}},
        {"terms": [{"name": "focal", "gamma": 2.0}, {"name": "dice"}], "weights": [1.0, 0.5]},
    ],
)
def test_the_sum_is_that_of_its_terms_and_keeps_them(config):
    logits, target = sample()
    loss = build_loss({"name": "sum", **config}, BINARY)
    focal, dice = FocalLoss("binary", gamma=2.0, ignore_index=255)(logits, target), DiceLoss("binary", ignore_index=255)(logits, target)
    value = loss(logits, target)
    torch.testing.assert_close(value, focal + 0.5 * dice)
    torch.testing.assert_close(torch.autograd.grad(value, logits), torch.autograd.grad(focal + 0.5 * dice, logits), rtol=1e-6, atol=1e-9)
    assert loss.parts == {"focal": focal.detach(), "dice": dice.detach()}


@pytest.mark.parametrize("name", ["type", "items", "training"])
def test_a_term_may_have_any_word_for_a_name(name):
    loss = build_loss({"name": "sum", "terms": {"a": {"name": "dice"}, name: {"name": "ce"}}, "weights": {name: 2.0}}, BINARY)
    logits, target = sample()
    expected = CrossEntropyLoss("binary", ignore_index=255)(logits, target), DiceLoss("binary", ignore_index=255)(logits, target)
    torch.testing.assert_close(loss(logits, target), 2 * expected[0] + expected[1])
    assert loss.parts == {"a": expected[1].detach(), name: expected[0].detach()}


def test_two_of_a_kind_have_their_places_for_names():
    config = SumConfig(terms=[{"name": "focal", "gamma": 0.0}, {"name": "focal", "gamma": 2.0}])
    assert list(config.terms) == ["focal_0", "focal_1"]


def test_the_prior_is_wanted_where_a_term_wants_it():
    assert SumConfig(terms={"a": FocalConfig(), "b": DiceConfig()}).wants_prior
    assert not SumConfig(terms={"b": DiceConfig()}).wants_prior


def test_mistakes_name_the_term():
    config = SumConfig(terms={"a": FocalConfig(form="softmax"), "b": DiceConfig(include_background=False)}, weights={"c": 1.0})
    lines = check_loss(config, BINARY)
    assert [line.split(":")[0] for line in lines] == [
        "loss.weights.c=1.0",
        "loss.terms.a.form=softmax",
        "loss.terms.b.include_background=false",
    ]
    assert check_loss(SumConfig(), BINARY)[0].startswith("loss.terms is empty: ")


def test_a_weight_of_no_term_is_a_mistake_in_code_too():
    terms = {"ce": CrossEntropyLoss("binary"), "dice": DiceLoss("binary")}
    with pytest.raises(ValueError, match=r"^weights of dcie: there is no such term; terms are ce, dice$"):
        WeightedSum(terms, {"ce": 1.0, "dcie": 2.0})
    assert WeightedSum(terms, {"dice": 2.0}).weights == {"ce": 1.0, "dice": 2.0}


def test_every_term_is_logged_and_weights_from_the_data_are_kept(tmp_path: Path) -> None:
    config = configured(*TINY, "trainer.max_epochs=1", "loss=focal_dice", "loss.terms.focal.alpha=inverse", "loss.weights.dice=0.25")
    fit(config, tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for stage in ("train", "val"):
        (row,) = [row for row in rows if row[f"{stage}/loss"]]
        total, focal, dice = (float(row[f"{stage}/{name}"]) for name in ("loss", "loss_focal", "loss_dice"))
        assert total == pytest.approx(focal + 0.25 * dice, rel=1e-5)
    text = (tmp_path / "config.yaml").read_text()
    assert "alpha: 0.9" in text
    assert "alpha: inverse" not in text
