"""Curves against the formulas they are known by, and the program that draws them."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import pytest

from segfocal import curves
from segfocal.curves import Curve, configurations, curve_of, label_of
from segfocal.errors import UserError
from tests.conftest import Result, run


def curves_of(*overrides: str) -> list[Curve]:
    return [curve_of(config, label_of(swept)) for swept, config in configurations(list(overrides))]


def focal(p: float, gamma: float) -> tuple[float, float]:
    """Value and gradient magnitude."""
    q, ce = 1 - p, -math.log(p)
    return q**gamma * ce, q**gamma * (q + gamma * p * ce)


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_focal_is_drawn_as_its_formula_says(task: str) -> None:
    drawn = curves_of(f"task={task}", "loss=focal", "loss.gamma=0,0.5,2,5")
    assert [curve.label for curve in drawn] == ["gamma = 0", "gamma = 0.5", "gamma = 2", "gamma = 5"]
    for curve, gamma in zip(drawn, [0, 0.5, 2, 5], strict=True):
        assert curve.p[0] == pytest.approx(0.005) and curve.p[-1] == pytest.approx(0.995)
        wanted = [focal(p, gamma) for p in curve.p]
        assert curve.loss == pytest.approx([value for value, _ in wanted], rel=1e-9)
        assert curve.gradient == pytest.approx([gradient for _, gradient in wanted], rel=1e-9)


def test_known_values() -> None:
    plain, focused = curves_of("loss=focal", "loss.gamma=0,2")
    middle = plain.p.index(0.5)
    assert plain.loss == pytest.approx([-math.log(p) for p in plain.p])
    assert plain.gradient == pytest.approx([1 - p for p in plain.p])
    assert focused.loss[middle] == pytest.approx(0.25 * math.log(2))
    assert focused.gradient[middle] == pytest.approx(0.25 * (0.5 + math.log(2)))


def test_weights_are_in_the_value_and_denominators_are_not() -> None:
    (plain,) = curves_of("loss.gamma=1")
    (weighted,) = curves_of("loss.gamma=1", "loss.alpha=0.75", "loss.denominator=weights")
    (of_class,) = curves_of("task=multiclass", "loss.gamma=1", "loss.alpha=[1,3,1,1,1]", "loss.denominator=weights")
    assert weighted.loss == pytest.approx([0.75 * value for value in plain.loss])
    assert of_class.gradient == pytest.approx([3 * value for value in plain.gradient])


def test_a_model_that_ends_in_probabilities_has_the_same_curve() -> None:
    for task in ("binary", "multiclass", "multilabel"):
        logits, probabilities = curves_of(f"task={task}", "loss.gamma=2", "loss.from_logits=true,false")
        assert probabilities.loss == pytest.approx(logits.loss)
        assert probabilities.gradient == pytest.approx(logits.gradient)


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_cross_entropy_is_focal_without_gamma(task: str) -> None:
    (first,), (second,) = curves_of(f"task={task}", "loss=ce"), curves_of(f"task={task}", "loss.gamma=0")
    assert first.loss == pytest.approx(second.loss)
    assert first.gradient == pytest.approx(second.gradient)


def test_a_sum_of_pixel_losses_has_a_curve() -> None:
    (both,) = curves_of("loss=sum", "loss.terms=[{name:focal,gamma:2,alpha:0.75,denominator:weights},{name:ce}]")
    (focused,), (plain,) = curves_of("loss.gamma=2", "loss.alpha=0.75"), curves_of("loss=ce")
    assert both.loss == pytest.approx([a + b for a, b in zip(focused.loss, plain.loss, strict=True)])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss=dice"], "what a pixel costs depends on the other pixels"),
        (["loss=dice", "task=multiclass"], "what a pixel costs depends on the other pixels"),
        (["loss=focal", "loss.normalized=true"], "what a pixel costs depends on the other pixels"),
        (["loss=focal", "loss.alpha=inverse"], "loss.alpha=inverse: curves are drawn without training data"),
        (["loss.form=sigmoid", "task=multiclass"], "draw one of them with task=binary"),
        (["loss=sum", "loss.terms=[{name:focal,form:sigmoid}]", "task=multiclass"], "draw one of them with task=binary"),
        (["loss=sum", "loss.terms=[{name:focal,from_logits:false}]"], "from_logits=false has no curve in a sum"),
        (["loss=focal_dice"], "what a pixel costs depends on the other pixels"),
        (["loss.gamma=range(0,30)"], "combine to more than 21"),
        (["loss=focl"], "did you mean focal"),
        (["loss.gamma=0,-1"], "loss.gamma"),
        (["--nonsense"], "--nonsense: no such flag"),
        (["out=a,b"], "out: the curves are one figure"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        curves.run(overrides)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_program_writes_both_files_and_says_where(tmp_path: Path) -> None:
    def call(*overrides: str) -> Result:
        return run("-m", "segfocal.curves", *overrides, cwd=tmp_path)

    done = call("loss=focal", "loss.gamma=0,2")
    assert done.code == 0, done.err
    assert done.out.split() == ["runs/curves/curves.png", "runs/curves/curves.svg"]
    assert (tmp_path / "runs/curves/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "runs/curves/curves.svg").read_text()
    wrong = call("loss=dice", "out=elsewhere")
    assert wrong.code == 2
    assert len(wrong.err.splitlines()) == 1 and "Traceback" not in wrong.err
    assert not (tmp_path / "elsewhere").exists()
    assert "loss.gamma=0,1,2,5" in call("--help").out


def test_the_same_curves_are_the_same_bytes(tmp_path: Path) -> None:
    drawn = curves_of("loss.gamma=0,1")
    first, second = (curves.draw(drawn, "focal", tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_legend_names_what_is_swept_and_the_title_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(curves, "draw", lambda *given: seen.append(given) or [])
    curves.run(["loss.gamma=0,1", "loss.alpha=0.25,0.75", "task=multilabel", f"out={tmp_path}", "seed=3"])
    drawn, title, directory = seen[0]
    assert [curve.label for curve in drawn][:2] == ["gamma = 0, alpha = 0.25", "gamma = 0, alpha = 0.75"]
    assert title == "focal, task = multilabel"
    assert directory == tmp_path


def test_many_curves_have_a_legend_beside_them(tmp_path: Path) -> None:
    one = curves_of("loss.gamma=1")[0]
    paths = curves.draw([one._replace(label=str(number)) for number in range(curves.MOST)], "", tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="not installed: pip install"):
        curves.draw([], "", tmp_path / "none")
    assert not (tmp_path / "none").exists()
