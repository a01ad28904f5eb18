"""report.html: what it says is what was counted; names from outside are text."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from segfocal.config.task import Mode
from segfocal.metrics.bootstrap import Difference
from segfocal.report.charts import chart_data, training
from segfocal.report.page import page
from segfocal.report.summary import percent, tiles
from segfocal.report.tables import compared, outcomes
from tests.reports import HOSTILE, Elements, evaluated, shown


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_the_answer_is_what_was_counted(mode: Mode) -> None:
    item = evaluated(mode)
    text = Elements(page([item], shown(item.task))).text
    good, fails, decides, sure = tiles(item)
    end = "/crack" if mode == "binary" else "_macro"
    assert good["value"] == f"{item.figures[f'iou{end}']:.3f}"
    low, high = item.intervals[f"iou{end}"]
    assert good["interval"] == f"{low:.3f}–{high:.3f}"
    if mode == "binary":
        assert fails["value"] == percent(1 - (item.figures["recall/crack"] or 0))
        assert decides["value"] == "0.312"
        assert f"{item.figures['iou/crack']:.3f} → {item.figures['tuned/iou/crack']:.3f}" in decides["note"]
    else:
        worst = min(item.task.class_names, key=lambda name: item.figures[f"iou/{name}"] or 0)
        assert fails["unit"] == f"IoU of {worst}"
        assert fails["value"] == f"{item.figures[f'iou/{worst}']:.3f}"
        assert decides["value"] == f"{item.figures['tuned/iou_macro']:.3f}"
    assert sure["value"] == percent(item.figures[f"ece{end}"])
    for tile in (good, fails, decides, sure):
        for part in ("value", "unit", "interval", "note"):
            assert tile[part] in text
    for key in ("iou", "tuned/iou", "dice", "tuned/precision", "recall", "auroc", "ap"):
        for name in item.task.class_names:
            assert f"{item.figures[f'{key}/{name}']:.3f}" in text, key


def test_of_many_classes_the_worst_that_are_there_are_shown_at_first() -> None:
    names = [f"c{number}" for number in range(20)]
    item = evaluated(classes=names)
    item.figures |= {f"iou/{name}": None if number < 6 else number / 20 for number, name in enumerate(names)}
    assert chart_data([item])["first"] == list(range(6, 18))


def test_intervals_over_few_images_are_said_to_be_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "intervals over images, too narrow for so few." in Elements(page([evaluated()], [])).text
    monkeypatch.setattr("segfocal.report.page.NARROW", 6)
    assert "intervals over images. " in Elements(page([evaluated()], [])).text


def test_epochs_are_counted_as_in_the_log() -> None:
    assert "· epoch 8 ·" in Elements(page([evaluated()], [])).text


def test_what_is_not_defined_is_a_dash_and_not_the_worst() -> None:
    item = evaluated(tuned=False)
    item.figures |= {"iou/car": None, "ece_macro": None, "tuned/iou/car": None}
    assert tiles(item)[1]["unit"] == "IoU of sign"
    assert tiles(item)[3]["value"] == "–"
    html = page([item], [])
    assert "None" not in html.split("<script")[0]
    assert re.search(r'car</th>.*?data-sort=""><b>–</b>', html, re.DOTALL)
    item.figures |= {f"iou/{name}": None for name in item.task.class_names}
    assert tiles(item)[1]["value"] == "–"
    page([item], [])


def test_the_plain_rule_is_said_where_nothing_was_fitted() -> None:
    item = evaluated("binary", tuned=False)
    assert tiles(item)[2]["value"] == "0.5"
    assert f"would reach {item.figures['best_iou/crack']:.3f}" in tiles(item)[2]["note"]
    assert "fitted threshold" not in Elements(page([item], [])).text
    assert tiles(evaluated(tuned=False))[2]["value"] == "highest score"


@pytest.mark.parametrize(("mode", "rule"), [("binary", "threshold"), ("multiclass", "offsets"), ("multilabel", "thresholds")])
def test_figures_of_images_say_that_they_are_by_the_fitted_rule(mode: Mode, rule: str) -> None:
    item, plain = evaluated(mode), evaluated(mode, tuned=False)
    text = Elements(page([item], shown(item.task))).text
    assert f"The number is the mean IoU of the image; it and the prediction are by the fitted {rule}. A click" in text
    assert f"how many images are how good, by the fitted {rule}" in text
    assert "how many images are how good, by the fitted" not in Elements(page([plain], [])).text
    text = Elements(page([plain, item], shown(item.task))).text  # the images are those of the first
    assert "The number is the mean IoU of the image. A click" in text
    assert f"how many images are how good, by the fitted {rule} where there are any" in text


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_names_are_text_wherever_they_stand(mode: Mode) -> None:
    item = evaluated(mode, HOSTILE, name="</title><script>alert(2)</script>")
    item.about["config"]["loss"]["name"] = "<script>alert(3)</script>"
    files = ["</script><script>alert(4)</script>.png", "\" onload=alert(5) x='", "{{ 7 * 7 }}<b>"]
    html = page([item, item], shown(item.task, names=files))
    found = Elements(html)
    assert html.count("<script") == html.count("</script") == 3
    assert {tag for tag, _ in found.tags}.isdisjoint({"b<", "object", "iframe", "link"})
    assert not [attributes for _, attributes in found.tags if any(key.startswith("on") for key in attributes)]
    assert all(source.startswith("data:image/jpeg;base64,") for source in found.having("img", "src"))
    for name in [*HOSTILE, *files, item.name, "<script>alert(3)</script>"]:
        assert name in found.text, name
    assert "49" not in found.having("img", "alt")[2]
    data = json.loads(found.data, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert [row["name"] for row in data["classes"]] == HOSTILE
    assert [row["name"] for row in data["shown"]] == files


def test_it_refers_to_nothing_outside() -> None:
    item = evaluated()
    found = Elements(page([item], shown(item.task)))
    assert all(link.startswith("#") for link in found.having("a", "href"))
    assert not found.having("script", "src") + found.having("link", "href")
    assert "default-src 'none'" in found.having("meta", "content")[1]
    targets = set(found.having("section", "id"))
    assert {link[1:] for link in found.having("a", "href")} <= targets
    assert all(found.having("img", "alt"))


def test_without_images_there_is_no_gallery_and_without_a_run_no_training() -> None:
    item = evaluated()
    found = Elements(page([item], []))
    assert {"answer", "classes", "curves", "confusion", "data", "configuration"} == set(found.having("section", "id"))
    assert not found.having("img", "src")
    assert json.loads(found.data)["shown"] == []


def test_checkpoints_stand_side_by_side() -> None:
    first, other = evaluated(name="first"), evaluated(name="second", tuned=False)
    other.figures["iou_macro"] = 0.987
    found = {
        "iou_macro": SimpleNamespace(value=0.123, low=0.05, high=0.2, p=0.004),
        "tuned/iou_macro": SimpleNamespace(value=-0.5, low=-0.6, high=0.1, p=0.4),
    }
    html = page([first, other], [], [found])
    text = Elements(html).text
    side_by_side = html[html.index('id="compared"') : html.index('id="classes"')]
    assert "<b>0.987</b>" in side_by_side
    assert f"<b>{first.figures['iou_macro']:.3f}</b>" not in side_by_side
    assert "<b>+0.123</b><small>+0.050 to +0.200, p = 0.004</small>" in html
    assert ">-0.500<small>-0.600 to +0.100, p = 0.400</small>" in html
    assert "1, fitted offsets" in text
    assert "2, fitted offsets" not in text
    data = json.loads(Elements(html).data)
    assert [item["name"] for item in data["checkpoints"]] == ["first", "second"]
    assert page([first, other], [])  # no bootstrap, no differences


def test_what_a_later_checkpoint_alone_has_fitted_is_compared_too() -> None:
    items = [evaluated(name="first", tuned=False), evaluated(name="second", tuned=False), evaluated(name="third")]
    plain = {key: Difference(0.1, 0.0, 0.2, 0.03) for key in ("iou_macro", "dice_macro")}
    found = compared(items, [plain, {**plain, "tuned/iou_macro": Difference(-0.25, -0.3, -0.2, 0.01)}])
    assert found["changes"] == ["mean IoU beyond 1", "mean IoU, fitted beyond 1"]
    assert [[change["text"] for change in row["changes"]] for row in found["rows"]] == [["", ""], ["+0.100", ""], ["+0.100", "-0.250"]]


def test_confusion_of_overlapping_classes_adds_up() -> None:
    item = evaluated("multilabel")
    for matrix, counts in zip(outcomes(item), item.confusion.tolist(), strict=True):
        shares = [[cell["share"] for cell in line["cells"]] for line in matrix["lines"]]
        assert [sum(line) for line in shares] == pytest.approx([1, 1])
        assert matrix["lines"][1]["cells"][1]["count"] == f"{counts[1][1]:,}"
        assert shares[1][1] == pytest.approx(item.figures[f"recall/{matrix['name']}"])


def test_curves_are_few_numbers_and_none_is_nan() -> None:
    item = evaluated("binary")
    [curve] = chart_data([item])["checkpoints"][0]["curves"]
    assert curve["chosen"] == 0.3125
    assert 50 < len(curve["threshold"]) <= 400
    near = min(range(len(curve["threshold"])), key=lambda place: abs(curve["threshold"][place] - 0.5))
    assert curve["iou"][near] == pytest.approx(item.figures["iou/crack"], abs=0.01)
    many = evaluated("multilabel", [f"class {number}" for number in range(60)])
    data = chart_data([many, many])
    assert len(json.dumps(data, allow_nan=False)) < 2_000_000
    assert len(data["first"]) == 12
    assert data["checkpoints"][0]["images"] == pytest.approx(many.images.mean_iou(tuned=True).tolist(), rel=1e-3)


def test_training_is_read_from_what_the_run_wrote(tmp_path: Path) -> None:
    assert training(tmp_path, ["a"]) is None
    assert training(None, ["a"]) is None
    lines = [
        "epoch,lr-AdamW/pg1,lr-AdamW/pg2,step,train/loss,val/iou/a,val/iou_macro,val/loss",
        ",0.1,0.9,0,,,,",
        ",0.2,0.9,1,,,,",
        "0,,,1,,0.25,0.5,0.75",
        "0,,,1,0.6,,,",
        "1,,,3,0.4,nan,,inf",
        "nan,,,4,0.3,,,",
        "x,y",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    assert training(tmp_path, ["a", "b"]) == {
        "epochs": [1, 2],  # as in the log
        "train": [0.6, 0.4],
        "val": [0.75, None],
        "mean": [0.5, None],
        "iou": [[0.25, None], [None, None]],
        "steps": [0.0, 1.0],
        "rates": [0.1, 0.2],
    }
    assert "training" in Elements(page([evaluated(run_dir=tmp_path)], [])).having("section", "id")
    (tmp_path / "metrics.csv").write_bytes(b"\xff\x00,\n")
    assert training(tmp_path, ["a"]) is None


def test_a_checkpoint_without_a_configuration_can_be_shown() -> None:
    item = dataclasses.replace(evaluated(), about={})
    assert "highest score" in page([item], [])


def test_settings_are_those_of_the_checkpoint() -> None:
    html = page([evaluated()], [])
    assert re.search(r"<span>gamma</span><code>2.5</code>", html)
    assert re.search(r"<dt>run</dt><dd><span>seed</span><code>3</code>", html)
