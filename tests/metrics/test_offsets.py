"""Offsets of logits make the mean figure as large as it can be, and the temperature the labels as likely."""

from __future__ import annotations

import itertools
import time
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from segfocal.metrics import best_offsets, f_beta, iou, offsets, temperature_of

SHARES = [0.9, 0.06, 0.03, 0.01]


def pixels(count: int, shares: list[float] = SHARES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that prefer frequent classes twice as much as they should, and labels."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.tensor(shares)
    labels = torch.multinomial(share, count, replacement=True, generator=generator)
    return torch.randn(count, len(shares), generator=generator) + 2 * one_hot(labels, len(shares)) + 2 * share.log(), labels


def mean_figure(logits: Tensor, labels: Tensor, offset: list[float], beta: float | None = None) -> float:
    count = logits.shape[1]
    chosen = (logits + torch.tensor(offset)).max(1).indices
    confusion = torch.bincount(labels * count + chosen, minlength=count**2).view(count, count)
    figure = iou(confusion) if beta is None else f_beta(confusion, beta)
    return float(figure[confusion.sum(1) > 0].mean())


@pytest.mark.parametrize(("choose", "beta"), [("iou", None), ("fbeta", 2.0)])
def test_rare_classes_are_helped(choose: Literal["iou", "fbeta"], beta: float | None) -> None:
    logits, labels = pixels(60_000)
    found = best_offsets(logits, labels, choose, beta or 1.0)
    before, after = mean_figure(logits, labels, [0.0] * 4, beta), mean_figure(logits, labels, found, beta)
    assert after > before + 0.1
    assert found == sorted(found) and sum(found) == pytest.approx(0, abs=1e-5)
    others = pixels(60_000, seed=1)
    assert mean_figure(*others, found, beta) > after - 0.02, "on other pixels it is about as good"


def test_recall_weighs_as_much_as_beta_says() -> None:
    logits, labels = pixels(30_000, [0.97, 0.03])
    rare = [best_offsets(logits, labels, "fbeta", beta)[1] for beta in (0.5, 1.0, 2.0)]
    assert rare == sorted(rare) and rare[2] > rare[0] + 0.3


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_of_two_classes_no_offset_is_better(seed: int, coarse: bool) -> None:
    """Only the difference counts: all of them can be tried. Coarse scores move over in large lots, or not at all."""
    logits, labels = pixels(1500, [0.8, 0.2], seed)
    logits = logits.round() if coarse else logits
    tried = [mean_figure(logits, labels, [0.0, float(offset)]) for offset in torch.linspace(-8, 8, 3001)]
    assert mean_figure(logits, labels, best_offsets(logits, labels)) >= max(tried)


def test_of_three_classes_a_grid_finds_nothing_better() -> None:
    logits, labels = pixels(3000, [0.7, 0.2, 0.1])
    grid = [step / 4 for step in range(-6, 17)]
    tried = [mean_figure(logits, labels, [0.0, *rest]) for rest in itertools.product(grid, grid)]
    assert mean_figure(logits, labels, best_offsets(logits, labels)) >= max(tried)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["iou", "fbeta"]), st.booleans())
def test_never_worse_than_none(seed: int, choose: Literal["iou", "fbeta"], coarse: bool) -> None:
    """Also where many pixels have the same scores."""
    logits, labels = pixels(700, [0.6, 0.4], seed)
    logits = logits.round() if coarse else logits
    beta = None if choose == "iou" else 1.0
    assert mean_figure(logits, labels, best_offsets(logits, labels, choose), beta) >= mean_figure(logits, labels, [0.0, 0.0], beta)


def test_what_cannot_be_better_stays() -> None:
    labels = torch.arange(300) % 3
    assert best_offsets(10.0 * one_hot(labels, 3).float(), labels) == [0.0, 0.0, 0.0]


def test_few_pixels_teach_nothing() -> None:
    """The third class would gain by an offset, but has too few pixels to say which."""
    logits, labels = pixels(20_000, [0.9, 0.096, 0.004])
    assert 0 < (labels == 2).sum() < offsets.FEWEST_PIXELS
    found = best_offsets(logits, labels)
    assert found[2] == 0 and found[1] > 0.5
    more = torch.cat([logits] * 3), torch.cat([labels] * 3)
    assert best_offsets(*more)[2] > best_offsets(*more)[1]


def test_a_class_that_is_not_there_changes_nothing() -> None:
    logits, labels = pixels(20_000, [0.9, 0.1])
    found = best_offsets(logits, labels)
    absent = best_offsets(torch.cat([logits, torch.full((20_000, 1), -50.0)], 1), labels)
    assert absent[2] == 0 and absent[1] - absent[0] == pytest.approx(found[1] - found[0], abs=1e-3)


def test_a_whole_sample_is_fitted_in_seconds() -> None:
    logits, labels = pixels(262_144, [2.0**-k for k in range(1, 12)])
    start = time.process_time()
    best_offsets(logits, labels)
    assert time.process_time() - start < 6  # about one alone on a core


@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_that_was_put_in_is_found(heat: float) -> None:
    generator = torch.Generator().manual_seed(0)
    right = 2 * torch.randn(50_000, 5, generator=generator) + 30  # a constant added to all logits changes nothing
    labels = torch.multinomial(right.softmax(1), 1, generator=generator)[:, 0]
    found = temperature_of(right * heat, labels)
    assert found == pytest.approx(heat, rel=0.03)

    def likelihood(temperature: float) -> float:
        return cross_entropy(right.double() * heat / temperature, labels).item()

    assert all(likelihood(found) < likelihood(found * factor) for factor in (0.998, 1.002))
