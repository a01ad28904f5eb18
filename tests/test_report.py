"""Tables and pictures: what is shown is what was counted and predicted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segfocal.callbacks import labels_of, visible
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.report.overlay import FALSE, FOUND, MISSED, Picture, palette, sheet
from segfocal.report.table import print_table, write_json

BINARY = TaskConfig(name="binary", classes=["crack"])


def test_the_table_has_a_row_a_class_and_a_dash_for_what_is_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"iou/a": 0.5, "iou/b": None, "pixel_share/a": 0.0123, "iou_macro": 0.5, "absent_classes": 1}
    print_table(figures, ["a", "b"], "test: 3 images")
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert "0.500" in rows["a"]
    assert "1.23%" in rows["a"]
    assert "-" in rows["b"]
    assert "0.500" in rows["mean"]
    assert "1 of the classes are neither there nor predicted" in out


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
