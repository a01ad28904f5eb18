"""Tables and pictures: what is shown is what was counted and predicted."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from rich.console import Console, RenderableType

from segfocal.callbacks import Overlays
from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision, labels_of
from segfocal.metrics.bootstrap import Difference
from segfocal.report.overlay import BACK, CELL, FALSE, FOUND, GAP, MISSED, Picture, class_colours, palette, sheet, visible
from segfocal.report.table import comparison, table, write_json
from tests.reports import evaluated

BINARY = TaskConfig(name="binary", classes=["crack"])


def printed(shown: RenderableType) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in cells}


def test_the_table_has_a_row_a_class_and_a_dash_for_what_is_not_defined() -> None:
    item = evaluated("multiclass", ["a", "[red]b"], tuned=False)
    figures = {"iou/a": 0.5, "iou/[red]b": None, "pixel_share/a": 0.0123, "iou_macro": 0.5, "absent_classes": 1}
    out = printed(table(dataclasses.replace(item, figures=figures, intervals={"iou/a": (0.4, 0.6)})))
    found = rows(out)
    assert found["a"][0] == "0.500 (0.400-0.600)"
    assert found["a"][-1] == "1.23%"
    assert found["[red]b"] == ["-"] * 7
    assert found["mean"][0] == "0.500"
    assert "Neither there nor predicted: left out of the means: [red]b" in out
    assert "In no mask" not in out
    there = {**figures, "pixel_share/a": 0.0, "pixel_share/[red]b": 0.0, "iou/[red]b": 0.0}
    said = printed(table(dataclasses.replace(item, figures=there, intervals={})))
    assert "In no mask of split=test: recall, AUROC and AP are not defined: a, [red]b" in said
    assert "Neither there" not in said
    assert "6 images" in out and "Intervals over 6 images are too narrow" in out and "narrow" not in said


def test_a_class_that_the_fitted_rule_alone_predicts_is_said_to_be_in_its_mean() -> None:
    item = evaluated("multiclass", ["a", "b"])
    item.figures |= {"iou/b": None, "tuned/iou/b": 0.0}
    said = printed(table(item))
    assert "predicted by the fitted rule alone: left out of the plain means, and 0 in the fitted: b" in said
    assert "Neither there" not in said


def test_figures_by_the_fitted_decision_stand_beside_the_plain_ones() -> None:
    item = evaluated("binary")
    (found,) = rows(printed(table(item))).values()
    assert found[0].startswith(f"{item.figures['iou/crack']:.3f}")
    assert found[1].startswith(f"{item.figures['tuned/iou/crack']:.3f}")
    assert found[2] == f"{item.decision.thresholds[0]:.3g}"


def test_a_background_that_most_pixels_are_of_does_not_cover_the_pictures() -> None:
    task = TaskConfig(name="multiclass", classes=["background", "pore"])
    mostly, half = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    mostly[:5], half[:20] = 1, 1
    for truth, covered in ((mostly, False), (half, True)):
        drawn = sheet([Picture("a", np.full((40, 60, 3), 80, np.uint8), truth, truth)], task)
        colours = {colour for _, colour in drawn.getcolors(1 << 20) or []}
        assert (80, 80, 80) in colours, "the image itself"
        back, pore = (tuple(int(0.4 * 80 + 0.6 * part) for part in colour) for colour in palette(2))
        assert pore in colours and (back in colours) is covered


def test_a_comparison_shows_what_the_second_has_more() -> None:
    first, second = evaluated("binary", tuned=False, name="old"), evaluated("binary", tuned=False, name="new")
    second.figures["iou/crack"] = 0.75
    first.figures["iou/crack"] = 0.5
    out = printed(comparison(first, second, {"iou/crack": Difference(0.25, 0.1, 0.4, 0.002)}))
    assert "new minus old" in out
    assert rows(out) == {"crack": ["0.500", "0.750", "+0.250", "+0.100 .. +0.400", "0.002"]}


def test_json_is_whole_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"iou": None, "ap": 0.25})
    assert json.loads((tmp_path / "m.json").read_text()) == {"iou": None, "ap": 0.25}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "m.json", {"iou": float("nan")})
    assert json.loads((tmp_path / "m.json").read_text()) == {"iou": None, "ap": 0.25}
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_errors_are_coloured_by_what_they_are() -> None:
    image = np.zeros((200, 330, 3), np.uint8)
    truth, prediction = np.zeros((200, 330, 1), np.uint8), np.zeros((200, 330, 1), np.uint8)
    truth[:100] = 1
    prediction[:, :160] = 1  # found above left, missed above right, made up below left
    drawn = np.asarray(sheet([Picture("x", image, truth, prediction)], BINARY)).reshape(-1, 3)
    for colour in (FOUND, MISSED, FALSE):
        blended = (0.75 * np.array(colour)).astype(np.uint8)
        share = (np.abs(drawn.astype(int) - blended) <= 1).all(axis=1).mean()
        assert share > 0.05, colour


def large(mode: Mode) -> tuple[Picture, TaskConfig]:
    """A line of one pixel, the lower half of it not found, in an image of 2000 x 3000; a crack has a rim that is ignored."""
    task = BINARY if mode == "binary" else TaskConfig(name=mode, classes=["a", "b", "line"])
    depth, label = () if mode == "multiclass" else (task.num_classes,), 2 if mode == "multiclass" else 1
    truth, prediction = np.zeros((2, 2000, 3000, *depth), np.uint8)
    truth[:, 1500:1503] = 255
    truth[:, 1501], prediction[:1000, 1501] = label, label
    return Picture("a", np.zeros((2000, 3000, 3), np.uint8), truth, prediction), task


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_what_is_a_pixel_wide_is_seen_in_the_sheet_of_a_large_image(mode: Mode) -> None:
    picture, task = large(mode)
    shown = picture.shrunk(task)
    assert shown.image.shape == (213, 320, 3)
    assert shown.truth.nbytes + shown.prediction.nbytes <= 2 * 213 * 320 * task.num_classes
    drawn = np.asarray(sheet([shown], task)).astype(int)[26 : 26 + 213, GAP:]
    assert drawn.shape[1] == 3 * (CELL + GAP)
    truth, prediction = (drawn[4:-4, column * (CELL + GAP) + 160].max(axis=-1) for column in (1, 2))
    assert truth.min() > 100, "all of the line"
    assert prediction[:100].min() > 100
    assert (prediction[110:].min() > 100) == (mode == "binary"), "what is missed has a colour of its own there"


def test_pictures_that_are_not_shown_smaller_stay_as_they_are() -> None:
    task = TaskConfig(name="multiclass", classes=["a", "b", "c"])
    random = np.random.default_rng(0)
    for width in (60, 320, 480, 640):
        picture = Picture("a", *(random.integers(0, 3, (90, width, *depth), dtype=np.uint8) for depth in ((3,), (), ())))
        assert picture.shrunk(task) is picture


def test_a_background_of_a_large_image_is_told_by_all_of_its_pixels() -> None:
    """Every other area of those shown has some of the thin class."""
    task = TaskConfig(name="multiclass", classes=["background", "pore"])
    truth = np.zeros((1280, 1280), np.uint8)
    truth[::4, ::2] = 1
    picture = Picture("a", np.full((1280, 1280, 3), 80, np.uint8), truth, truth)
    large, small = (sheet([each], task) for each in (picture, picture.shrunk(task)))
    assert large.size == small.size
    assert large.getpixel((GAP, large.height - 10)) == small.getpixel((GAP, small.height - 10)) == tuple(palette(2)[1])


def test_what_is_collected_for_a_sheet_is_small(tmp_path: Path) -> None:
    picture, task = large("binary")
    source = SimpleNamespace(names=["a"], read=lambda index: (picture.image, picture.truth[..., 0]))
    overlays = Overlays(MagicMock(source=source, __len__=lambda self: 1), task, 1, tmp_path)
    overlays._collect(torch.zeros(1, 1, 2016, 3008), SimpleNamespace(indices=torch.tensor([0])))  # type: ignore[arg-type]
    assert overlays.pictures[0].image.shape == (213, 320, 3)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("classes", [2, 11])
def test_sheets_of_every_task_can_be_drawn(mode: str, classes: int) -> None:
    task = TaskConfig(name=mode, classes=[f"class {number}" for number in range(classes)])
    shape = (40, 60) if mode == "multiclass" else (40, 60, classes)
    truth = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    truth[:5] = 255
    picture = sheet([Picture("a", np.zeros((40, 60, 3), np.uint8), truth, truth)] * 2, task)
    assert picture.width > 3 * 60
    assert picture.height > 2 * 40


@pytest.mark.parametrize("width", [16, 40, 100, 149, 600])
def test_every_class_is_in_the_legend_however_narrow_the_images(width: int) -> None:
    task = TaskConfig(name="multilabel", classes=[f"class {number}" for number in range(11)])
    nothing = np.zeros((40, width, 11), np.uint8)
    picture = sheet([Picture("a", np.zeros((40, width, 3), np.uint8), nothing, nothing)], task)
    colours = {colour for _, colour in picture.getcolors(1 << 20) or []}
    assert {colour for _, colour in class_colours(task)} <= colours
    edge = np.asarray(picture)[26:, -1]
    assert (edge == BACK).all(), "names end before the picture does"
    assert picture.width == max(3 * (min(2 * width, CELL) + GAP), 150) + GAP


def test_colours_are_all_different() -> None:
    assert len({tuple(colour) for colour in palette(40).tolist()}) == 40


def test_labels_follow_the_logits() -> None:
    logits = torch.tensor([[-1.0, 2.0], [3.0, 0.5]]).reshape(1, 2, 2, 1)
    assert labels_of(logits, Decision("multiclass"))[0, :, 0].tolist() == [1, 0]
    assert labels_of(logits, Decision("multilabel"))[0, :, 0].tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (1, np.float32), (6, np.float32)])
def test_any_image_can_be_shown(channels: int, dtype: type) -> None:
    image = (np.random.default_rng(0).random((8, 9, channels)) * 200).astype(dtype)
    shown = visible(image)
    assert shown.shape == (8, 9, 3)
    assert shown.dtype == np.uint8
    assert shown.max() > shown.min()


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e5])
def test_an_image_of_any_unit_is_seen_as_well(scale: float) -> None:
    image = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32)
    shown = visible(image * np.float32(scale))
    assert np.abs(shown.astype(int) - visible(image)).max() <= 1
    assert (shown.min(), shown.max()) == (0, 255)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-5, -3.0, 1e6, 3e38])
def test_a_constant_image_is_dark(value: float) -> None:
    image = np.full((40, 50, 1), value, np.float32)
    assert visible(image).max() == 0
    image[3, 4] = np.float32(1.0) if value == 0 else image[3, 4] * np.float32(0.5 if value < 0 else 1.1)
    assert visible(image)[3, 4].tolist() == [255] * 3, "what is rare is seen"
