"""report.html: what it says is what was counted; names from outside are text; it is small enough to be sent."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics
from segfocal.metrics.images import ImageTable
from segfocal.report.charts import chart_data, training
from segfocal.report.evaluated import Evaluated, Shown
from segfocal.report.page import page
from segfocal.report.pictures import BUDGET, gallery
from segfocal.report.summary import percent, tiles
from segfocal.report.tables import outcomes

HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "%{x} <b>'{{ 7 * 7 }}", "&lt;plain&gt;"]
MEGABYTES = 1_000_000


def evaluated(
    mode: Mode = "multiclass", classes: list[str] | None = None, tuned: bool = True, name: str = "run", run_dir: Path | None = None
) -> Evaluated:
    """Six small images that a model gets mostly right; the last class is rare and mostly missed."""
    names = classes or (["crack"] if mode == "binary" else ["road", "car", "sign"])
    task, count = TaskConfig(name=mode, classes=names), len(names)
    stored = {"mode": mode, "temperature": [], "offsets": [], "thresholds": [], "fitted_for": "iou"}
    stored |= {} if not tuned else {"offsets": [0.0] * (count - 1) + [1.5]} if mode == "multiclass" else {"thresholds": [0.3125] * count}
    decision = Decision.of(stored, task)
    random = torch.Generator().manual_seed(len(names))
    metrics, table = SegmentationMetrics(mode, names, decision=decision), ImageTable(task, decision)
    for number in range(6):
        truth = (
            torch.randint(0, 40, (24, 24), generator=random) // (40 // count)
            if mode == "multiclass"
            else torch.rand(24, 24, generator=random) < 0.1
        )
        ids = truth.clamp(max=count - 1).long() if mode == "multiclass" else truth.long().expand(count, 24, 24).clone()
        ids[..., 0, :] = 255
        right = torch.nn.functional.one_hot(ids.clamp(max=count - 1), count).movedim(-1, 0) if mode == "multiclass" else (ids == 1)
        logits = 2 * right.float() - (0 if mode == "multiclass" else 1.2) + torch.randn(count, 24, 24, generator=random)
        logits[-1] -= 1
        metrics.update(logits[None], ids[None])
        table.add([f"image {number}"], logits[None], ids[None])
    figures = dict(metrics.compute())
    intervals = {
        key: (max(0.0, value - 0.0314), min(1.0, value + 0.0271))
        for key, value in figures.items()
        if value is not None and re.match(r"(tuned/)?(iou|dice|precision|recall)(/|_macro)", key)
    }
    about = {
        "epoch": 7,
        "versions": {"torch": "2"},
        "config": {"seed": 3, "model": {"name": "unet", "encoder": "resnet18"}, "loss": {"name": "focal", "gamma": 2.5}},
    }
    return Evaluated(
        name,
        Path("runs") / name / "checkpoints" / "best.ckpt",
        "test",
        task,
        figures,
        intervals,
        metrics.confusion,
        metrics.histogram,
        table,
        decision,
        about,
        run_dir,
    )


def shown(task: TaskConfig, count: int = 3, size: tuple[int, int] = (40, 60), names: list[str] | None = None) -> list[Shown]:
    """The left half is the last class, the upper half is predicted as it; the lowest rows are ignored."""
    result = []
    for number in range(count):
        image = np.full((*size, 3), 40 + 20 * (number % 5), np.uint8)
        half, depth = (size[0] // 2, size[1] // 2), () if task.name == "multiclass" else (task.num_classes,)
        truth, prediction = np.zeros((*size, *depth), np.uint8), np.zeros((*size, *depth), np.uint8)
        label = task.num_classes - 1 if task.name == "multiclass" else 1
        truth[:, : half[1]], prediction[: half[0]] = label, label
        truth[-4:] = 255
        why = ("worst", "best", "random")[number % 3]
        result.append(Shown(names[number] if names else f"image {number}", why, None if number == 2 else 0.25, image, truth, prediction))
    return result


class Elements(HTMLParser):
    """Tags with their attributes, and what stands between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "report-data":
            self.data += data
        elif not self.inside:
            self.text += data

    def having(self, tag: str, key: str) -> list[str]:
        return [str(attributes[key]) for name, attributes in self.tags if name == tag and key in attributes]


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


@pytest.mark.parametrize(("size", "detail", "stored"), [((360, 480), 5, (480, 360)), ((640, 1024), 10, (640, 400))])
def test_it_is_small_enough_for_forty_photographs(size: tuple[int, int], detail: int, stored: tuple[int, int]) -> None:
    """As detailed as photographs of streets, which take up to 2.3 bits a pixel."""
    names = [f"class {number}" for number in range(11)]
    item, random = evaluated("multiclass", names), np.random.default_rng(0)

    def coarse(step: int, channels: int, highest: int) -> Image.Image:
        return Image.fromarray(random.integers(0, highest, (size[0] // step, size[1] // step, channels), dtype=np.uint8).squeeze())

    def sample(number: int) -> Shown:
        layers = [np.asarray(coarse(step, 3, 255).resize(size[::-1], Image.Resampling.BICUBIC), np.float32) for step in (80, 20, detail)]
        noise = random.normal(0, 2 + detail / 3, layers[0].shape)
        photo = np.clip(0.6 * layers[0] + 0.25 * layers[1] + 0.15 * layers[2] + noise, 0, 255).astype(np.uint8)
        truth = np.asarray(coarse(40, 1, 11).resize(size[::-1], Image.Resampling.NEAREST))
        wrong = np.asarray(coarse(8, 1, 100).resize(size[::-1], Image.Resampling.NEAREST)) < 10
        return Shown(f"{number}", "random", 0.5, photo, truth, np.where(wrong, (truth + 1) % 11, truth))

    samples = [sample(number) for number in range(8)] * 5
    html = page([item, evaluated("multiclass", names, name="other")], samples)
    assert len(html.encode()) < 8 * MEGABYTES
    files = [base64.b64decode(source.split(",")[1]) for source in Elements(html).having("img", "src")]
    assert len(files) == 40
    assert {Image.open(io.BytesIO(file)).size for file in files} == {stored}
    assert 2 < np.mean([8 * len(file) for file in files]) / (stored[0] * stored[1]) < 2.6


def test_what_cannot_be_packed_gets_smaller() -> None:
    random = np.random.default_rng(0)
    noise = [
        Shown(
            "a",
            "worst",
            None,
            random.integers(0, 255, (640, 640, 3), dtype=np.uint8),
            *random.integers(0, 11, (2, 640, 640), dtype=np.uint8),
        )
        for _ in range(20)
    ]
    drawn = gallery(noise, TaskConfig(name="multiclass", classes=[str(number) for number in range(11)]))
    assert drawn[0].width < 640
    assert sum(len(item.picture) + len(item.labels) for item in drawn) <= BUDGET


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_labels_are_packed_as_they_are(mode: Mode) -> None:
    task = TaskConfig(name=mode, classes=["a"] if mode == "binary" else ["a", "b", "c"])
    item = shown(task, 1)[0]
    [drawn] = gallery([item], task)
    assert (drawn.width, drawn.height) == (60, 40)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(drawn.labels)), np.uint8).reshape(-1, 40, 60)
    if mode == "multiclass":
        assert planes.tolist() == [item.truth.tolist(), item.prediction.tolist()]
    else:
        assert len(planes) == task.num_classes
        for label, plane in enumerate(planes):
            assert (plane & 1).tolist() == (item.truth[..., label] == 1).astype(int).tolist()
            assert (plane >> 1 & 1).tolist() == item.prediction[..., label].tolist()
            assert (plane >> 2).tolist() == (item.truth[..., label] == 255).astype(int).tolist()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.picture.split(",")[1]))))
    assert abs(picture.astype(int) - item.image).max() <= 2


def test_large_labels_are_thinned_not_mixed() -> None:
    task = TaskConfig(name="multiclass", classes=["a", "b", "c"], ignore_index=7)
    labels = np.zeros((1280, 1280), np.uint8)
    labels[:, 640:] = 2
    labels[:2] = 7
    [drawn] = gallery([Shown("x", "best", 1.0, np.zeros((1280, 1280, 3), np.uint8), labels, labels)], task)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(drawn.labels)), np.uint8).reshape(2, 640, 640)
    assert (planes[0] == 255).sum() == 640  # ignored whatever the task calls it
    assert (planes[1, 1:] == 2).sum() == 639 * 320
    assert set(np.unique(planes)) == {0, 2, 255}


def test_checkpoints_stand_side_by_side() -> None:
    first, other = evaluated(name="first"), evaluated(name="second", tuned=False)
    other.figures["iou_macro"] = 0.987
    found = {
        "iou_macro": SimpleNamespace(value=0.123, low=0.05, high=0.2, p=0.004),
        "tuned/iou_macro": SimpleNamespace(value=-0.5, low=-0.6, high=0.1, p=0.4),
    }
    html = page([first, other], [], [found])
    text = Elements(html).text
    assert "<b>0.987</b>" in html
    assert "<b>+0.123</b><small>+0.050 to +0.200, p = 0.004</small>" in html
    assert ">-0.500<small>-0.600 to +0.100, p = 0.400</small>" in html
    assert "1, fitted offsets" in text
    assert "2, fitted offsets" not in text
    data = json.loads(Elements(html).data)
    assert [item["name"] for item in data["checkpoints"]] == ["first", "second"]
    assert page([first, other], [])  # no bootstrap, no differences


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
    assert len(json.dumps(data, allow_nan=False)) < 2 * MEGABYTES
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
        "x,y",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    assert training(tmp_path, ["a", "b"]) == {
        "epochs": [0, 1],
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
