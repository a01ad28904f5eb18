"""The answer of a sweep: figures against independent computations, the page in a browser."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import random
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console
from scipy.stats import ttest_1samp

from segfocal.sweeps import compare
from segfocal.sweeps.answer import answer_of, as_csv, commands, least_p, shortest, table, write_answer
from segfocal.sweeps.compare import Difference, difference_of, groups_of, sign_flip_p, t_margin
from segfocal.sweeps.page import classes, link, page_of, parameter
from segfocal.sweeps.record import Job, Record, command_of, read
from tests.conftest import spawn
from tests.reports import HOSTILE, Elements
from tests.test_report_browser import Open, browser, opened  # noqa: F401  # fixtures

SCORES = {"0": [0.50, 0.54, 0.61], "1": [0.60, 0.66, 0.62], "2": [0.59, 0.67, 0.58]}


def job(number: int, value: float | None, *overrides: str, failure: str | None = None) -> Job:
    state = "failed" if failure else "finished"
    return Job(number, str(number), ["profile=cpu", *overrides], state, str(number), 1, value, failure, 60.0)


def sweep(directory: Path, objective: str = "val/iou_macro", scores: dict[str, list[float]] | None = None) -> Record:
    """Three gammas with three seeds each."""
    jobs = [
        job(3 * place + seed, value, f"loss.gamma={gamma}", f"seed={seed}")
        for place, (gamma, values) in enumerate((scores or SCORES).items())
        for seed, value in enumerate(values)
    ]
    return Record(directory, "train", ["loss.gamma=0,1,2", "seed=0,1,2"], objective, jobs)


def by_enumeration(differences: list[float]) -> float:
    """As the definition says it, in whole numbers: no sum is equal but for rounding."""
    whole = [round(value * 1000) for value in differences]
    sums = [sum(sign * value for sign, value in zip(signs, whole, strict=True)) for signs in itertools.product((1, -1), repeat=len(whole))]
    return sum(abs(total) >= abs(sum(whole)) for total in sums) / len(sums)


@pytest.mark.parametrize(
    "differences",
    [
        [-0.1, -0.12, -0.01],
        [0.1, -0.1],
        [0.3, 0.1, -0.2, 0.4, 0.1],
        [0.0, 0.0],
        [0.05] * 10,
        [0.1, 0.7, 0.2, -0.3, 0.3],
        [0.01, -0.02, 0.03, 0.004, 0.05, 0.1, -0.06],
    ],
)
def test_p_is_the_share_of_signs_that_come_as_far(differences: list[float]) -> None:
    assert sign_flip_p(differences) == by_enumeration(differences)
    assert sign_flip_p(differences) >= 2 ** (1 - len(differences))


def test_p_of_many_seeds_goes_on_where_the_exact_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [0.03 * math.sin(7.3 * number) + 0.006 for number in range(30)]
    exact = sign_flip_p(differences)
    monkeypatch.setattr(compare, "MOST_EXACT", 29)
    assert 0.05 < exact == pytest.approx(sign_flip_p(differences), rel=0.02)  # what the normal distribution is off there
    assert sign_flip_p([0.0] * 40) == 1
    assert sign_flip_p([0.1] * 40) == pytest.approx(2.54e-10, rel=0.01)  # of a normal distribution beyond the root of 40


def test_groups_have_mean_deviation_and_paired_difference(tmp_path: Path) -> None:
    groups = groups_of(sweep(tmp_path), ["loss.gamma"])
    assert [group.values for group in groups] == [["1"], ["2"], ["0"]]
    for group in groups:
        values = SCORES[group.values[0]]
        assert group.mean == pytest.approx(statistics.mean(values))
        assert group.deviation == pytest.approx(statistics.stdev(values))
    assert groups[0].difference is None
    for group in groups[1:]:
        pairs = [other - best for other, best in zip(SCORES[group.values[0]], SCORES["1"], strict=True)]
        low, high = ttest_1samp(pairs, 0).confidence_interval(0.95)
        assert group.difference == Difference(
            pytest.approx(sum(pairs) / 3), 3, by_enumeration(pairs), pytest.approx((high - low) / 2, rel=1e-12)
        )
    assert groups[2].difference is not None and groups[2].difference.p == 0.25  # all three lower: 2 / 2^3
    assert [group.values for group in groups_of(sweep(tmp_path, "val/loss"), ["loss.gamma"])] == [["0"], ["2"], ["1"]]


def test_pairs_are_those_of_the_same_seed() -> None:
    assert difference_of({"0": 1.0, "7": 2.0}, {"7": 1.5, "3": 9.0}) == Difference(-0.5, 1, None, None)
    assert difference_of({"0": 1.0}, {"1": 1.0}) is None


def test_a_failure_does_not_make_a_mean_better(tmp_path: Path) -> None:
    record = sweep(tmp_path, scores={"0": [0.5, 0.5], "1": [0.1, 0.9]})
    record.jobs[2].objective = None  # the worse seed of gamma=1
    groups = groups_of(record, ["loss.gamma"])
    assert [(group.values, len(group.by_seed), group.complete) for group in groups] == [(["0"], 2, True), (["1"], 1, False)]
    assert groups[1].difference == Difference(pytest.approx(0.4), 1, None, None)


def test_the_table_and_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = sweep(tmp_path / "my sweep")
    record.directory.mkdir()
    record.jobs.append(job(9, None, "loss.gamma=5", "seed=0", failure="FloatingPointError: [/red] not a number"))
    write_answer(record, page=False)
    out = capsys.readouterr().out
    assert "│ 1 │ 1     │    0.6267 │ 0.0306 │      3 │                 │      │" in out
    assert "│ 3 │ 0     │    0.5500 │ 0.0557 │      3 │ -0.0767 ±0.1456 │ 0.25 │" in out
    assert "with 3 seeds none below 0.25 is possible" in out
    assert "job 9 failed: FloatingPointError: [/red] not a number" in out
    assert "reproduce the best: python train.py profile=cpu loss.gamma=1 seed=1\n" in out
    words = shlex.split(out.split("evaluate it: ")[1].splitlines()[0])
    assert words[:2] == ["python", "evaluate.py"]
    assert OverridesParser.create().parse_override(words[2]).value() == "my sweep/4"
    assert not (record.directory / "sweep.html").exists()
    with (record.directory / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == [*"345678012", "9"]
    assert (rows[8]["seed"], float(rows[8]["mean"]), rows[8]["p"], rows[9]["mean"]) == ("2", pytest.approx(0.55), "0.25", "")
    assert (float(rows[8]["margin"]), rows[9]["margin"]) == (
        pytest.approx(t_margin([a - b for a, b in zip(SCORES["0"], SCORES["1"], strict=True)])),
        "",
    )


def test_where_one_value_is_changed_at_a_time_all_are_compared_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [("0", "a"), ("1", "a"), ("2", "a"), ("0", "b")]
    figures = [[0.5, 0.6], [0.6, 0.8], [0.3, 0.2], [0.5, 0.7]]
    jobs = [
        job(2 * place + seed, value, f"loss.gamma={gamma}", f"optimizer={name}", f"seed={seed}")
        for place, ((gamma, name), values) in enumerate(zip(said, figures, strict=True))
        for seed, value in enumerate(values)
    ]
    record = Record(tmp_path, "train", [], "val/iou_macro", jobs, against="first")
    write_answer(record, page=False)
    record.save()
    assert read(tmp_path) == record
    out = capsys.readouterr().out
    assert "to the" in out and "first" in out
    rows = [[cell.strip() for cell in line.split("│")[2:-1]] for line in out.splitlines() if line.startswith("│")]
    assert rows == [
        ["loss.gamma=1", "0.7000", "0.1414", "2", "+0.1500 ±0.6353", "0.5"],
        ["optimizer=b", "0.6000", "0.1414", "2", "+0.0500 ±0.6353", "1"],
        ["nothing", "0.5500", "0.0707", "2", "", ""],
        ["loss.gamma=2", "0.2500", "0.0707", "2", "-0.3000 ±1.2706", "0.5"],
    ]
    assert "to_first" in (tmp_path / "sweep.csv").read_text().splitlines()[0]
    page = page_of(answer_of(record))
    assert "against the first, +0.1500 ±0.6353" in page and "to the first" in page


def test_names_are_as_short_as_they_can_be_told_apart(tmp_path: Path) -> None:
    keys = ["loss", "loss.form", "loss.gamma", "loss.terms.focal.gamma", "data.loss"]
    names = ["loss", "form", "loss.gamma", "focal.gamma", "data.loss"]
    assert shortest(keys) == dict(zip(keys, names, strict=True))
    record = sweep(tmp_path, scores={"0.123456789": [0.5, 0.25], "1": [0.125, 0.75]})
    narrow = io.StringIO()
    Console(file=narrow, width=60).print(table(answer_of(record)))
    assert {"0.3750", "0.4375", "0.4419", "0.1768", "-0.0625"} <= set(re.findall(r"[+-]?0\.\d{4}", narrow.getvalue()))


def test_what_a_shell_or_rich_would_read_otherwise_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        job(0, 0.5, "task.classes=[crack,'a b']", "sweep.jobs=2", "+sweep.space={seed: '0,1'}", "~logger", "loss.gamma=0"),
        job(1, 0.4, "task.classes=[/b]", "~logger", "loss.gamma=1"),
    ]
    record = Record(tmp_path, "train", [], "val/iou_macro", jobs)
    reproduce = commands(answer_of(record))["reproduce the best"]
    assert shlex.split(reproduce) == ["python", "train.py", "profile=cpu", "task.classes=[crack,'a b']", "~logger", "loss.gamma=0"]
    assert command_of(jobs[0].overrides) == sorted(line for line in ["profile=cpu", *jobs[0].overrides[1:]] if line != "sweep.jobs=2")
    write_answer(record, page=False)
    assert "[/b]" in capsys.readouterr().out
    record.program = "evaluate"
    assert list(commands(answer_of(record))) == ["reproduce the best"]


def test_without_seeds_it_is_a_row_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(
        tmp_path, "train", [], "val/loss", [job(0, 0.5, "loss.gamma=0"), job(1, 0.4, "loss.gamma=1"), job(2, None, "loss.gamma=2")]
    )
    write_answer(record, page=False)
    out = capsys.readouterr().out
    assert "none below" not in out and " sd " not in out and "undefined" in out
    rows = list(csv.reader(io.StringIO(as_csv(answer_of(record)))))
    assert rows[0] == ["job", "loss.gamma", "val/loss", "directory", "state", "failure", "seconds"]
    assert [row[:3] for row in rows[1:]] == [["1", "1", "0.4"], ["0", "0", "0.5"], ["2", "2", ""]]
    one = Record(
        tmp_path, "train", [], "val/loss", [job(0, 0.5, "a=1", "seed=0"), job(1, 0.4, "a=2", "seed=0"), job(2, 0.4, "a=2", "seed=1")]
    )
    assert least_p(answer_of(one)) == "p: a single seed in common with the best cannot tell whether a difference is chance"


def test_parameters_are_numbers_where_all_are() -> None:
    assert parameter("lr", ["1e-4", "0.01"]) | {"texts": 0} == {
        "name": "lr",
        "texts": 0,
        "kinds": None,
        "places": [1e-4, 0.01],
        "log": True,
    }
    assert parameter("gamma", ["0", "100"])["log"] is False
    assert parameter("mixed", ["1", "null", "1"])["places"] == [0, 1, 0]
    assert parameter("odd", ["nan", "inf"])["kinds"] == ["nan", "inf"]


def figured(directory: Path) -> Record:
    """A sweep whose runs have left figures, and all but one a report; names and values are hostile."""
    record = sweep(directory)
    for each in record.jobs:
        each.overrides += [f"model={HOSTILE[each.number % 4]}", f"optimizer.lr={10.0 ** -(each.number % 3)}"]
        (directory / each.directory).mkdir()
        values = {"iou/crack": each.objective, f"iou/{HOSTILE[0]}": 1, "iou/absent": None, "iou_macro": 0.3, "split": "test"}
        (directory / each.directory / "metrics.json").write_text(json.dumps(values))
        if each.number:
            (directory / each.directory / "report.html").write_text("<title>run</title>")
    record.jobs.append(job(9, None, "loss.gamma=5", "seed=0", failure=HOSTILE[0]))
    record.jobs.append(job(10, float("inf"), "loss.gamma=5", "seed=1"))
    record.objective = "val/iou/" + HOSTILE[1]
    return record


def test_classes_of_the_best_stand_beside_those_of_the_first(tmp_path: Path) -> None:
    record = sweep(tmp_path)
    assert classes(answer_of(record)) is None
    for each in record.jobs:
        (tmp_path / each.directory).mkdir()
        (tmp_path / each.directory / "metrics.json").write_text(json.dumps({"iou/a": each.objective, "iou/b": None}))
    found = classes(answer_of(record))
    assert found is not None and found["names"] == ["loss.gamma=1", "loss.gamma=0"]
    ((name, bars),) = [(group["name"], group["bars"]) for group in found["groups"]]
    assert (name, [bar["cell"]["value"] for bar in bars]) == ("a", [pytest.approx(0.6267, abs=1e-4), pytest.approx(0.55)])
    best_is_first = classes(answer_of(sweep(tmp_path, "val/loss")))
    assert best_is_first is not None and best_is_first["labels"] == ["the best", "the second"]
    assert best_is_first["names"] == ["loss.gamma=0", "loss.gamma=2"]
    for each in record.jobs:
        (tmp_path / each.directory / "metrics.json").write_text("[]" if each.number % 2 else "{")
    assert classes(answer_of(record)) is None


def varied(directory: Path, value: Callable[[dict[str, str]], float], spaces: Sequence[dict[str, str]]) -> Record:
    """A sweep with seeds, whose jobs come to a function of their parameters."""
    said = [{**space, "seed": str(seed)} for space in spaces for seed in range(3)]
    jobs = [job(number, value(each), *(f"{key}={text}" for key, text in each.items())) for number, each in enumerate(said)]
    return Record(directory, "train", [], "val/loss", jobs)


GRID = [{"loss.gamma": gamma, "optimizer.lr": lr} for gamma in ("0", "0.5", "1", "5") for lr in ("1e-4", "1e-2")]


def test_importance_tells_what_matters_from_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    record = varied(tmp_path, lambda said: abs(float(said["loss.gamma"]) - 0.5) + 0.01 * draw.random(), GRID)
    found = answer_of(record).importance
    assert (next(iter(found.shares)), found.chance, found.jobs) == ("loss.gamma", {"optimizer.lr", "seed"}, 24)
    assert sum(found.shares.values()) == pytest.approx(1) and found.shares["loss.gamma"] > 0.8
    write_answer(record)
    assert "importance of parameters, from 24 jobs: loss.gamma " in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "importance.csv").open()))
    assert (rows[0]["parameter"], rows[0]["chance"]) == ("loss.gamma", "False")
    assert {"loss.gamma", "optimizer.lr", "seed"} <= set(Elements((tmp_path / "sweep.html").read_text()).text.split())

    noise = [answer_of(varied(tmp_path, lambda said: draw.random(), GRID)).importance for _ in range(5)]
    assert sum(len(each.chance) for each in noise) >= 12  # of 15; one in twenty is taken for more

    sampled = [{"loss.gamma": repr(draw.uniform(0, 5)), "optimizer.lr": repr(10 ** draw.uniform(-4, -2))} for _ in range(48)]
    found = answer_of(varied(tmp_path, lambda said: abs(float(said["loss.gamma"]) - 2), sampled)).importance
    assert "loss.gamma" not in found.chance and found.shares["loss.gamma"] > 0.8


def test_importance_of_what_some_jobs_have(tmp_path: Path) -> None:
    spaces = [{"loss": "ce"}, *({"loss": "focal", "loss.gamma": gamma} for gamma in ("0", "1", "2", "5", "7", "9"))]
    found = answer_of(varied(tmp_path, lambda said: 9.0 if said["loss"] == "ce" else float(said["loss.gamma"]), spaces)).importance
    assert next(iter(found.shares)) == "loss.gamma" and "loss.gamma" not in found.chance


def test_importance_that_cannot_be_told_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer_of(sweep(tmp_path)).importance.reason == "9 jobs with a value are too few, it takes 20"
    assert "9 jobs with a value are too few" in Elements(page_of(answer_of(sweep(tmp_path)))).text
    assert answer_of(varied(tmp_path, lambda said: 0.5, GRID)).importance.reason == "too many jobs have come to the same"
    assert str(answer_of(varied(tmp_path, lambda said: 0.5, GRID[:1])).importance) == ""  # of one parameter, the seed
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert answer_of(varied(tmp_path, lambda said: 0.5, GRID)).importance.reason == "needs Optuna: pip install 'segfocal[optuna]'"


def test_links_stay_in_the_directory(tmp_path: Path) -> None:
    answer = answer_of(figured(tmp_path))
    assert [link(answer, each) for each in answer.record.jobs[:2]] == ["", "./1/report.html"]
    (tmp_path / "javascript:alert(1)#?").mkdir()
    (tmp_path / "javascript:alert(1)#?" / "report.html").touch()
    assert link(answer, Job(0, "", [], directory="javascript:alert(1)#?")) == "./javascript%3Aalert%281%29%23%3F/report.html"


def test_a_page_without_any_value_has_the_failures(tmp_path: Path) -> None:
    record = Record(tmp_path, "train", [], "val/loss", [job(0, None, "a=1", failure="RuntimeError: no"), job(1, None, "a=2")])
    page = Elements(page_of(answer_of(record)))
    assert "RuntimeError: no" in page.text and "undefined" in page.text
    assert set(page.having("section", "id")) == {"answer", "failures", "runs"}


def test_the_page_in_a_browser(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    html = page_of(answer_of(figured(tmp_path)))
    assert HOSTILE[0] not in html
    tab = opened(html, scheme="dark")
    plots = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => [plot.id, plot.querySelectorAll('.scatterlayer .trace').length]))"
    )
    assert plots == {"chart-parallel": 9, "chart-trials": 2, "chart-slice-0": 2, "chart-slice-1": 2, "chart-slice-2": 2}
    drawn = tab.locator("#chart-parallel").inner_text()
    for text in ("loss.gamma", "model", "optimizer.lr", HOSTILE[2][:17]):
        assert text in drawn
    assert HOSTILE[0] in tab.locator("#failures").inner_text()
    assert [int(text) for text in tab.locator("#runs tbody td:first-child").all_inner_texts()][-2:] == [9, 10]
    tab.locator("#theme").click()
    tab.locator("#runs th button", has_text="job").click()
    assert tab.locator("#runs tbody td:first-child").first.inner_text() == "10"
    tab.locator("#chart-trials").scroll_into_view_if_needed()
    tab.locator("#chart-trials .point").first.hover(force=True)
    tab.wait_for_selector("#chart-trials .hovertext", state="attached")
    assert "job 0: 0.5000" in tab.locator("#chart-trials .hovertext").first.text_content()
    (tmp_path / "sweep.html").write_text(html, encoding="utf-8")
    tab.goto((tmp_path / "sweep.html").as_uri())
    tab.locator("#runs a").first.click()
    assert tab.title() == "run"


def test_a_line_goes_through_means_where_values_repeat_and_not_from_dot_to_dot(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    kinds = ["focal", "ce", "dice"]
    jobs = [
        job(place, 0.5 + 0.01 * (7 * place % 5), f"optimizer.lr={0.001 + 0.0001 * min(place, 8)}", f"loss={kinds[place % 3]}")
        for place in range(10)  # two learning rates are the same
    ]
    tab = opened(page_of(answer_of(Record(tmp_path, "train", [], "val/iou_macro", jobs))))
    of = "(id) => [...document.querySelectorAll(`#${id} .scatterlayer .trace`)].map((trace) => trace.querySelectorAll('.point').length)"
    said = [tab.locator(f".chart:has(#chart-slice-{place}) span").inner_text() for place in (0, 1)]
    assert [tab.evaluate(of, f"chart-slice-{place}") for place in (0, 1)] == [[10], [0, 10]]
    assert said == ["a dot for each job", "the line goes through the means"]


def test_the_page_shows_what_each_change_comes_to(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    record = sweep(tmp_path)
    record.against = "first"
    tab = opened(page_of(answer_of(record)))
    plots = tab.evaluate(
        "[...document.querySelectorAll('.plot')].map((plot) => [plot.id, plot.querySelectorAll('.scatterlayer .point').length])"
    )
    assert plots == [["chart-changes", 9 + 3], ["chart-trials", 9]]
    assert tab.locator("#chart-changes .ytick text").all_text_contents() == ["nothing", "loss.gamma=2", "loss.gamma=1"]
    assert tab.locator("#chart-changes .shapelayer path").count() == 1
    assert tab.locator("#groups td:nth-child(2)").all_inner_texts() == ["loss.gamma=1", "loss.gamma=2", "nothing"]


def test_the_command(tmp_path: Path) -> None:
    """In a process of its own: it does not wait for what trains to be imported."""
    (tmp_path / "mine").mkdir()
    sweep(tmp_path / "mine").save()
    program = (
        "import sys; from segfocal.sweep import main; main(['mine']); print(sorted({'torch', 'lightning', 'hydra'} & set(sys.modules)))"
    )
    done = spawn("-c", program, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "evaluate it: python evaluate.py ckpt=mine/4\n" in done.out
    assert done.out.endswith("page: mine/sweep.html\n[]\n")
    assert "Compared" in (tmp_path / "mine" / "sweep.html").read_text()


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from segfocal.sweep import main

    monkeypatch.chdir(tmp_path)
    for name in ("plain", "failed", "broken"):
        (tmp_path / name).mkdir()
    Record(tmp_path / "failed", "train", [], "val/loss", [job(0, None, "a=1", failure="RuntimeError: no")]).save()
    (tmp_path / "broken" / "sweep.json").write_text("{")
    for arguments, said in {
        ("none",): "none: no such directory",
        ("plain",): "plain: not the directory of a sweep, sweep.json is not in it",
        ("failed",): "failed: none of its 1 jobs has finished; job 0 failed: RuntimeError: no",
        ("broken",): "broken/sweep.json: not the record of a sweep (",
        (): "python -m segfocal.sweep <directory>: one directory of a sweep; see --help",
        ("--json",): "python -m segfocal.sweep <directory>: one directory of a sweep; see --help",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        err = capsys.readouterr().err
        assert ended.value.code == 2
        assert err.startswith(said) and err.count("\n") == 1, err
    main(["--help"])
    assert "python -m segfocal.sweep runs/<sweep>" in capsys.readouterr().out
