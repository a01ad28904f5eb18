"""Evaluation as a whole: what it writes, what it compares, what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segfocal import checkpoint as checkpoints
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from tests.conftest import Result, blobs, run, write_folder
from tests.test_training import configured, trained

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short trainings: binary twice, and multiclass."""
    root = tmp_path_factory.mktemp("evaluated")
    for name, settings in {"one": ["seed=1"], "two": ["seed=2"], "classes": ["task=multiclass"]}.items():
        trained(root / name, "callbacks.overlays=0", *settings)
    return {path.name: path for path in root.iterdir()}


def evaluated(out: Path, *overrides: str) -> dict[str, Any]:
    out.mkdir()
    evaluate(configured("profile=cpu", "bootstrap=50", "overlays=0", *overrides, program="evaluate"), out)
    return dict(json.loads((out / "metrics.json").read_text()))


def test_a_training_leaves_a_report_and_a_table_of_its_images(runs: dict[str, Path]) -> None:
    assert "<html" in (runs["one"] / "report.html").read_text()
    with (runs["one"] / "images.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_checkpoint_holds_what_validation_chose(runs: dict[str, Path]) -> None:
    binary = checkpoints.read(runs["one"] / "checkpoints" / "last.ckpt")["segfocal"]["decision"]
    assert len(binary["thresholds"]) == 1
    assert binary["fitted_for"] == "iou"
    several = checkpoints.read(runs["classes"] / "checkpoints" / "last.ckpt")["segfocal"]["decision"]
    assert len(several["offsets"]) in (0, 5)


def test_on_validation_the_fitted_threshold_is_no_worse_than_a_half(runs: dict[str, Path], tmp_path: Path) -> None:
    found = evaluated(tmp_path / "out", f"ckpt={runs['one']}", "split=val")
    assert found["tuned/iou/crack"] >= found["iou/crack"]
    assert found["tuned/iou/crack"] == pytest.approx(found["best_iou/crack"], abs=1e-3)
    low, high = found["intervals"]["iou/crack"]
    assert low <= found["iou/crack"] <= high


def test_boundaries_are_measured_where_asked_for(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "boundary_iou/crack" not in evaluated(tmp_path / "without", f"ckpt={runs['one']}")
    assert "boundary" not in capsys.readouterr().out
    found = evaluated(tmp_path / "with", f"ckpt={runs['one']}", "boundary=true")
    assert 0 <= found["boundary_iou/crack"] <= 1
    assert 0 <= found["boundary_f/crack"] <= 1
    assert f"{found['boundary_iou/crack']:.3f}" in capsys.readouterr().out.split("boundary F")[1]


def test_checkpoints_are_compared_over_the_same_images(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(tmp_path / "out", f"ckpt=[{runs['one']},{runs['two']}]")
    one, two = found["checkpoints"]
    (differences,) = found["differences"]
    assert differences["iou/crack"]["value"] == pytest.approx(two["iou/crack"] - one["iou/crack"])
    assert 0 < differences["iou/crack"]["p"] <= 1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"metrics.json", "report.html", "images_0.csv", "images_1.csv"}
    assert "two minus one, test: 4 images" in capsys.readouterr().out  # runs are called by their directories


def test_checkpoints_of_other_classes_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only checkpoints of the same classes are compared"):
        evaluated(tmp_path / "out", f"ckpt=[{runs['one']},{runs['classes']}]")


def test_checkpoints_of_other_samples_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.ckpt"
    content = checkpoints.read(runs["two"] / "checkpoints" / "best.ckpt")
    content["segfocal"]["config"]["data"]["test"] = 3
    torch.save(content, fewer)
    with pytest.raises(UserError, match=r"other samples than .*1 in all"):
        evaluated(tmp_path / "out", f"ckpt=[{runs['one']},{fewer}]")


def test_the_same_checkpoint_twice_is_a_mistake() -> None:
    with pytest.raises(UserError, match="the same checkpoint twice"):
        configured("ckpt=[a,a]", program="evaluate")


def command(tmp_path: Path, *arguments: str) -> Result:
    return run(str(ROOT / "evaluate.py"), "profile=cpu", "bootstrap=50", *arguments, cwd=tmp_path)


def test_json_is_all_that_is_printed(runs: dict[str, Path], tmp_path: Path) -> None:
    done = command(tmp_path, f"ckpt={runs['one']}", "--json", "report=false")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["split"] == "test"
    (directory,) = (tmp_path / "runs").iterdir()
    assert json.loads((directory / "metrics.json").read_text()) == found
    assert not (directory / "report.html").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("nan", "NaN"),
        ("decision", "its thresholds cannot be used"),
    ],
)
def test_a_checkpoint_that_cannot_be_judged_is_one_line(runs: dict[str, Path], tmp_path: Path, damage: str, said: str) -> None:
    content = checkpoints.read(runs["one"] / "checkpoints" / "best.ckpt")
    if damage == "nan":
        next(value for name, value in content["state_dict"].items() if name.endswith("segmentation_head.0.weight")).fill_(torch.nan)
    else:
        content["segfocal"]["decision"]["thresholds"] = [2.0]
    torch.save(content, tmp_path / "bad.ckpt")
    done = command(tmp_path, "ckpt=bad.ckpt")
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").is_dir() or not any((tmp_path / "runs").iterdir())


def test_an_objective_may_be_the_figure_of_a_class() -> None:
    assert configured("objective=val/best_iou/crack").objective == "val/best_iou/crack"
    with pytest.raises(UserError, match=r"objective=val/iou/crak: no such figure; did you mean val/iou/crack"):
        configured("objective=val/iou/crak")
    with pytest.raises(UserError, match="objective=val/best_iou_macro: no such figure"):
        configured("task=multiclass", "objective=val/best_iou_macro")


def test_masks_that_are_ignored_whole_and_a_place_that_takes_no_files_are_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    images = [(image, np.full_like(mask, 255)) for image, mask in blobs(3)]
    write_folder(tmp_path / "ignored", images)
    words = [f"ckpt={runs['one']}", "data=folder", f"data.root={tmp_path / 'ignored'}", "data.fractions=[0,0,1]"]
    done = command(tmp_path, *words)
    assert done.code == 2
    assert done.err.strip() == f"split=test: all pixels of data.root={tmp_path / 'ignored'} are ignored: there is nothing to evaluate"
    (tmp_path / "file").touch()
    for out in ("file/runs", "/proc/runs"):  # what root may do says nothing about either
        done = command(tmp_path, f"ckpt={runs['one']}", f"out={out}")
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 1
        assert f"out={out}: " in done.err
