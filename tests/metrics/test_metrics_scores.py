"""Scores and their bins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segfocal.metrics import SCORE_BINS, score_edges
from segfocal.metrics.scores import one_vs_rest_logits, score_bins

finite = st.floats(-(2.0**126), 2.0**126, width=32)


@given(st.lists(finite, min_size=2, max_size=50))
def test_bins_never_decrease_with_the_score(scores: list[float]) -> None:
    bins = score_bins(torch.tensor(sorted(scores)))
    assert (bins.diff() >= 0).all()
    assert bins.min() >= 0 and bins.max() < SCORE_BINS


def test_every_float_has_a_bin() -> None:
    extremes = torch.tensor([-torch.inf, -3e38, 0.0, 3e38, torch.inf])
    assert score_bins(extremes).tolist() == [0, 0, SCORE_BINS // 2, SCORE_BINS - 1, SCORE_BINS - 1]


def test_a_bin_holds_the_scores_between_its_edges() -> None:
    edges = score_edges()
    assert edges.shape == (SCORE_BINS + 1,) and edges[0] == -torch.inf and edges[-1] == torch.inf and (edges.diff() > 0).all()
    centres = (edges[1:-2] + edges[2:-1]) / 2
    assert torch.equal(score_bins(centres.float()), torch.arange(1, SCORE_BINS - 1, dtype=torch.int32))


@pytest.mark.parametrize(("logit", "width"), [(0.0, 0.001), (8.0, 0.004), (32.0, 0.025), (100.0, 0.2)])
def test_bins_are_as_narrow_as_promised(logit: float, width: float) -> None:
    bin_of = int(score_bins(torch.tensor(logit)))
    assert (score_edges()[bin_of + 1] - score_edges()[bin_of]).item() <= width


@given(st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=6))
def test_one_vs_rest_logits_are_log_odds(pixel: list[float]) -> None:
    logits = torch.tensor(pixel)[:, None, None]
    rest = [torch.tensor(pixel[:c] + pixel[c + 1 :]).double().logsumexp(dim=0).item() for c in range(len(pixel))]
    expected = torch.tensor([own - others for own, others in zip(pixel, rest, strict=True)])
    torch.testing.assert_close(one_vs_rest_logits(logits).flatten(), expected, rtol=1e-6, atol=5e-5)


def test_one_vs_rest_logits_of_sure_pixels_keep_their_order() -> None:
    """A softmax is 1.0 from a margin of 17 on, and 0.0 below -104."""
    logits = torch.tensor([[-500.0, -150.0, 17.0, 25.0, 90.0, 400.0], [0.0] * 6, [0.0] * 6])[:, None]
    assert (one_vs_rest_logits(logits)[0, 0].diff() > 1).all()
