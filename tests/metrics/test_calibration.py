"""Calibration read off the histogram is that of the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from segfocal.config.task import Mode
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics, brier, calibration_error, temperatures
from tests.metrics.test_metrics_parity import IGNORE, MODES, NAMES, measured, rare_pixels


def exact_errors(p: Tensor, true: Tensor) -> tuple[float, float]:
    """ECE over 15 equal bins, and Brier, of all pixels in float64."""
    bins = (p * 15).floor().clamp(max=14)
    ece = sum(abs((p[bins == b] - true[bins == b]).sum()) for b in range(15)) / len(p)
    return float(ece), float(((p - true) ** 2).mean())


def of_class(mode: Mode, c: int, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability and truth of the valid pixels, float64."""
    p = logits.double().softmax(1)[:, c] if mode == "multiclass" else logits.double()[:, c].sigmoid()
    label = target if mode == "multiclass" else target[:, c]
    true = label == (c if mode == "multiclass" else 1)
    return p[label != IGNORE], true[label != IGNORE].double()


@pytest.mark.parametrize("share", [0.005, 0.2])
@pytest.mark.parametrize("scale", [0.02, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("mode", MODES)
def test_calibration_is_that_of_the_pixels(mode: Mode, scale: float, share: float) -> None:
    logits, target = rare_pixels(mode, scale, share)
    figures = measured(mode, logits, target).compute()
    expected = [exact_errors(*of_class(mode, c, logits, target)) for c in range(len(NAMES[mode]))]
    assert [figures[f"ece/{name}"] for name in NAMES[mode]] == pytest.approx([ece for ece, _ in expected], abs=1e-3)
    assert [figures[f"brier/{name}"] for name in NAMES[mode]] == pytest.approx([value for _, value in expected], abs=1e-4)
    assert max(ece for ece, _ in expected) > 0.01, "there is something to measure"
    assert figures["ece_macro"] == pytest.approx(sum(ece for ece, _ in expected) / len(expected), abs=1e-3)


def test_a_temperature_divides_the_logits() -> None:
    logits, target = rare_pixels("multilabel", 4.0, 0.1)
    histogram = measured("multilabel", logits, target).histogram
    heat = [0.5, 2.0, 5.0]
    expected = [exact_errors(*of_class("multilabel", c, logits / heat[c], target)) for c in range(3)]
    assert calibration_error(histogram, heat).tolist() == pytest.approx([ece for ece, _ in expected], abs=1e-3)
    assert brier(histogram, heat).tolist() == pytest.approx([value for _, value in expected], abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_figures_by_a_decision_are_those_at_its_temperature(mode: Mode) -> None:
    logits, target = rare_pixels(mode, 4.0, 0.1)
    names = NAMES[mode]
    heat = [2.5] if mode == "multiclass" else [0.5, 2.0, 5.0][: len(names)]
    per_class = heat * len(names) if mode == "multiclass" else heat
    metrics = SegmentationMetrics(mode, names, IGNORE, Decision(mode, heat))
    metrics.update(logits, target)
    figures, plain = metrics.compute(), measured(mode, logits, target).compute()
    expected = [exact_errors(*of_class(mode, c, logits / value, target)) for c, value in enumerate(per_class)]
    assert [figures[f"tuned/ece/{name}"] for name in names] == pytest.approx([ece for ece, _ in expected], abs=1e-3)
    assert [figures[f"tuned/brier/{name}"] for name in names] == pytest.approx([value for _, value in expected], abs=1e-4)
    assert figures["tuned/ece_macro"] == pytest.approx(sum(ece for ece, _ in expected) / len(names), abs=1e-3)
    assert {name: value for name, value in figures.items() if not name.startswith("tuned/")} == plain  # nothing else is moved
    assert not any(name.startswith("tuned/") for name in plain)


def test_the_largest_logits_can_be_heated() -> None:
    """3e38 divided by 1/20 is infinite."""
    metrics = SegmentationMetrics("multiclass", ["a", "b"], None, Decision("multiclass", [0.05]))
    metrics.update(torch.tensor([[3e38, -3e38], [0.0, 3e38]]).view(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
    assert metrics.compute()["tuned/brier_macro"] == pytest.approx(0, abs=1e-6)


def drawn(heat: float, shift: float) -> tuple[Tensor, Tensor]:
    """Logits whose probabilities are right when divided by `heat`."""
    generator = torch.Generator().manual_seed(1)
    right = 2 * torch.randn(1, 1, 400, 500, generator=generator) + shift
    return right * heat, (torch.rand(right.shape, generator=generator) < right.sigmoid()).long()


@pytest.mark.parametrize("shift", [0.0, -3.0])
@pytest.mark.parametrize("heat", [0.3, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(heat: float, shift: float) -> None:
    logits, target = drawn(heat, shift)
    histogram = measured("binary", logits, target[:, 0]).histogram
    found = temperatures(histogram)
    assert found[0] == pytest.approx(heat, rel=0.03)
    assert calibration_error(histogram, found).item() < 0.005

    def likelihood(temperature: float) -> float:
        return binary_cross_entropy_with_logits(logits.double() / temperature, target.double()).item()

    assert all(likelihood(found[0]) < likelihood(found[0] * factor) for factor in (0.98, 1.02)), "the likeliest of the pixels, not of bins"


def test_classes_have_their_own_temperature_and_none_where_there_is_nothing_to_learn() -> None:
    (first, y1), (second, y2) = drawn(0.5, -1.0), drawn(2.0, -1.0)
    logits, target = torch.cat([first, second, second], 1), torch.cat([y1, y2, torch.zeros_like(y2)], 1)
    found = temperatures(measured("multilabel", logits, target).histogram)
    assert found[:2] == [pytest.approx(0.5, rel=0.03), pytest.approx(2.0, rel=0.03)]
    assert found[2] == 1.0


@pytest.mark.parametrize(("sign", "bound"), [(1, 1 / 20), (-1, 20.0)])
def test_a_temperature_stays_in_its_bounds(sign: int, bound: float) -> None:
    """All right: the surer the better. All wrong: the less sure the better."""
    target = torch.tensor([[[0, 0, 1, 1]]])
    logits = sign * (2.0 * target[:, None] - 1)
    assert temperatures(measured("binary", logits, target).histogram) == [pytest.approx(bound, rel=1e-5)]


def test_without_a_valid_pixel_nothing_is_said() -> None:
    metrics = SegmentationMetrics("binary", ["crack"])
    assert calibration_error(metrics.histogram).isnan().all() and brier(metrics.histogram).isnan().all()
