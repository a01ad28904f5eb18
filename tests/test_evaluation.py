"""Evaluation as a whole: what it writes, what it compares, what it refuses."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segfocal import checkpoint as checkpoints
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.evaluation.answer import differences_of
from segfocal.evaluation.data import check_same, open_data
from tests import reports
from tests.checkpoints import BAD, made, nan_weight, overflowing, put
from tests.conftest import Result, blobs, run, started, write_folder
from tests.test_training import TINY, configured, trained

pytestmark = pytest.mark.xdist_group("evaluation")

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
    decision = checkpoints.read(runs["one"] / "checkpoints" / "best.ckpt")["segfocal"]["decision"]
    assert decision["thresholds"] != [0.5]
    half = tmp_path / "half.ckpt"
    shutil.copy(runs["one"] / "checkpoints" / "best.ckpt", half)
    content = torch.load(half, weights_only=True)
    content["segfocal"]["decision"] = None
    torch.save(content, half)
    plain = evaluated(tmp_path / "plain", f"ckpt={half}", "boundary=true")
    assert not any(name.startswith("tuned/boundary") for name in plain)
    assert plain["boundary_f/crack"] == found["boundary_f/crack"]
    assert found["tuned/boundary_f/crack"] != found["boundary_f/crack"]
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
    with pytest.raises(UserError, match=r"other samples than .*1 in all\): say the same data for both"):
        evaluated(tmp_path / "out", f"ckpt=[{runs['one']},{fewer}]")


def test_of_checkpoints_with_other_draws_the_mend_is_to_train_with_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", blobs(6))
    paths = drawn(tmp_path), drawn(tmp_path, "other", SPLITS | {"val": ["photo_04"], "test": ["photo_03", "photo_05"]})
    first, other = (opened(path, "data=folder", f"data.root={tmp_path / 'data'}") for path in paths)
    check_same(first, first, "test", paths)
    with pytest.raises(UserError, match=r"\(photo_03, 2 in all\): their splits were drawn: train both with the same data.splits="):
        check_same(first, other, "test", paths)


def test_checkpoints_on_other_masks_are_not_compared_without_draws_either(tmp_path: Path) -> None:
    first, second = (reports.evaluated(name=name) for name in ("first", "second"))
    assert differences_of(first, second, draws=0) == {}
    table, counts = second.images, second.images.plain.copy()
    counts[0, 0, 2] += 1
    second.images = SimpleNamespace(task=table.task, names=table.names, plain=counts)  # type: ignore[assignment]  # what is asked of it
    with pytest.raises(UserError, match="second and first cannot be compared: image 0: another mask"):
        differences_of(first, second, draws=0)


def test_the_same_checkpoint_twice_is_a_mistake(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the same checkpoint twice"):
        configured("ckpt=[a,a]", program="evaluate")
    (tmp_path / "link").symlink_to(runs["one"])
    for number, other in enumerate((runs["one"] / "checkpoints/best.ckpt", f"{runs['one']}/../one", tmp_path / "link")):
        with pytest.raises(UserError, match="the same checkpoint twice"):
            evaluated(tmp_path / str(number), f"ckpt=[{runs['one']},{other}]")


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


def test_a_checkpoint_that_cannot_be_judged_is_one_line(tmp_path: Path) -> None:
    made(tmp_path / "bad.ckpt", spoil=nan_weight)
    done = command(tmp_path, "ckpt=bad.ckpt")
    assert done.code == 2
    assert "NaN" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("kind", BAD)
def test_checkpoints_that_cannot_be_used(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, said = BAD[kind]
    ckpt = make(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=f"{ckpt}: .*{said}") as caught:
        evaluate(configured(f"ckpt={ckpt}", "profile=cpu", "data.limit=1", program="evaluate"), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert not Path("executed").exists()


def test_checkpoints_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not from the network"):
        evaluate(configured("ckpt=https://example.org/best.ckpt", program="evaluate"), tmp_path)


def test_scores_that_are_nan_are_one_line_and_leave_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    """Of the second checkpoint, when the first has been judged and drawn."""
    bad = made(tmp_path / "bad.ckpt", *TINY, spoil=overflowing)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=rf"^{bad}: \d+ scores were NaN") as caught:
        evaluate(configured(f"ckpt=[{runs['one']},{bad}]", "profile=cpu", program="evaluate"), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("room", range(1, 6))
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(
    runs: dict[str, Path], tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the files in turn: metrics.json, the two tables, the report; more would fit in."""
    replace, renamed, out = os.replace, [], tmp_path / "out"

    def full(source: Any, target: Any) -> None:
        if Path(target).parent == out:  # there is a cache, too
            if len(renamed) == room - 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            renamed.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    if room == 5:
        assert len(evaluated(out, f"ckpt=[{runs['one']},{runs['two']}]")["checkpoints"]) == 2
        assert renamed == ["metrics.json", "images_0.csv", "images_1.csv", "report.html"]
    else:
        with pytest.raises(UserError, match=r"^out=.*: cannot be written: No space left on device$"):
            evaluated(out, f"ckpt=[{runs['one']},{runs['two']}]")
        assert list(out.iterdir()) == []


def test_interrupting_leaves_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    with started(str(ROOT / "evaluate.py"), f"ckpt={runs['one']}", "profile=cpu", "bootstrap=10000000", cwd=tmp_path) as process:
        while process.runs and not list(tmp_path.glob("runs/*/overlays/evaluation.png")):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        done = process.result()
    assert (done.code, done.err) == (130, "")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_split_without_images_is_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    names = write_folder(tmp_path / "data", blobs(3))
    (tmp_path / "data" / "train.txt").write_text("\n".join(names))
    given = [f"ckpt={runs['one']}", "data=folder", f"data.root={tmp_path / 'data'}"]
    for split in ("test", "val"):
        with pytest.raises(UserError, match=rf"^split={split}: no images; data.root=\S+ has 3 in train$"):
            evaluated(tmp_path / split, *given, f"split={split}")
        assert list((tmp_path / split).iterdir()) == []


SPLITS = {"train": ["photo_00", "photo_01", "photo_02"], "val": ["photo_03"], "test": ["photo_04", "photo_05"]}


def opened(ckpt: Path, *overrides: str) -> SegmentationData:
    """The data that a checkpoint would be evaluated on."""
    content = checkpoints.read(ckpt)
    config = configured("profile=cpu", f"ckpt={ckpt}", *overrides, program="evaluate")
    return open_data(config, content, checkpoints.rebuild(content, ckpt), ckpt)


def drawn(tmp_path: Path, name: str = "drawn", splits: dict[str, list[str]] = SPLITS) -> Path:
    """A checkpoint whose splits were drawn."""
    root = f"data.root={tmp_path / 'data'}"
    return made(tmp_path / f"{name}.ckpt", "data=folder", root, "task.classes=[blob]", spoil=put("splits", splits))


@pytest.mark.parametrize("layout", [[], ["data=folder"]])
def test_what_was_trained_on_is_not_evaluated_wherever_it_lies(tmp_path: Path, layout: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Other images have come, one has gone from the training, then one and two from the test split."""

    def remove(name: str) -> None:
        for path in (tmp_path / "data").glob(f"*/{name}.*"):
            path.unlink()

    write_folder(tmp_path / "data", blobs(8))
    ckpt, *given = drawn(tmp_path), *layout, f"data.root={tmp_path / 'data'}"
    assert opened(ckpt, *given).sources.names() == SPLITS
    assert "gone" not in caplog.text
    remove("photo_00")
    assert opened(ckpt, *given).sources.names() == SPLITS | {"train": ["photo_01", "photo_02"]}
    assert "has 2 of the 2 samples of the checkpoint's test, which are evaluated; 1 of all its samples are gone" in caplog.text
    remove("photo_04")
    assert opened(ckpt, *given).sources.names()["test"] == ["photo_05"]
    remove("photo_05")
    with pytest.raises(
        UserError, match=r"^split=test: data.root=\S+ has samples of the checkpoint's training, but none of the 2 of its test: "
    ):
        opened(ckpt, *given)


@pytest.mark.parametrize("layout", [[], ["data=folder"]])
def test_of_other_data_all_is_evaluated_but_where_it_says_splits(
    tmp_path: Path, layout: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = write_folder(tmp_path / "other", blobs(3))
    ckpt, *given = drawn(tmp_path, splits={"train": ["a"], "val": ["b"], "test": ["c"]}), *layout, f"data.root={tmp_path / 'other'}"
    assert opened(ckpt, *given).sources.names() == {"test": names}
    assert "all 3 are evaluated" in caplog.text
    (tmp_path / "other" / "test.txt").write_text(names[1])
    assert opened(ckpt, *given).sources.names() == {"test": names[1:2]}
    (tmp_path / "other" / "test.txt").unlink()
    if layout:
        (tmp_path / "splits.json").write_text(json.dumps({"test": names[:1]}))
        assert opened(ckpt, *given, f"data.splits={tmp_path / 'splits.json'}").sources.names() == {"test": names[:1]}


def test_a_class_that_is_not_in_the_split_is_said_and_is_null(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The masks are of two of the five classes; of the others there is nothing to know, unless they are predicted."""
    write_folder(tmp_path / "data", blobs(3))
    given = ["data=folder", f"data.root={tmp_path / 'data'}", "data.fractions=[0,0,1]"]
    found = evaluated(tmp_path / "classes", f"ckpt={runs['classes']}", *given)
    names = ["background", "panel", "weld", "rust", "pore"]
    absent = [name for name in names if found[f"iou/{name}"] is None]
    assert found["absent_classes"] == len(absent) > 0
    assert found["iou_macro"] == pytest.approx(np.mean([found[f"iou/{name}"] for name in names if name not in absent]))
    assert [found[f"{figure}/{name}"] for figure in ("recall", "auroc", "ap") for name in names[2:]] == [None] * 9
    said = " ".join(capsys.readouterr().out.split())
    assert "In no mask of split=test: recall, AUROC and AP are not defined: weld, rust, pore" in said
    fitted = [name for name in absent if found[f"tuned/iou/{name}"] is not None]
    for text, those in {
        "Neither there nor predicted: left out of the means": [name for name in absent if name not in fitted],
        "predicted by the fitted rule alone: left out of the plain means, and 0 in the fitted": fitted,
    }.items():
        assert (f"{text}: {', '.join(those)}" in said) if those else (text not in said)
    evaluated(tmp_path / "one", f"ckpt={runs['one']}", *given)
    assert "no pixel" not in caplog.text
    for path in (tmp_path / "data" / "masks").iterdir():
        Image.fromarray(np.array(Image.open(path)) * np.uint8(255)).save(path)
    found = evaluated(tmp_path / "ignored", f"ckpt={runs['one']}", *given)
    assert found["recall/crack"] is None
    assert "no pixel of crack in any mask of split=test; 3.4% of the pixels are 255=task.ignore_index; if that is the" in caplog.text
    found = evaluated(tmp_path / "mapped", f"ckpt={runs['one']}", *given, "data.label_map={0:0,255:1}")
    assert found["pixel_share/crack"] == pytest.approx(140 / 4096)


def test_another_scale_than_in_training_is_said(runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "data", blobs(3))
    given = [f"data.root={tmp_path / 'data'}", "data=folder", "data.fractions=[0,0,1]"]
    for scale, said in (("null", False), ("0.5", True)):
        caplog.clear()
        evaluated(tmp_path / f"scale {scale}", f"ckpt={runs['one']}", *given, f"data.scale={scale}")
        assert ("data.scale=0.5: the checkpoint was trained with data.scale=null" in caplog.text) is said


def test_data_of_other_classes_or_channels_is_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    renamed = made(tmp_path / "renamed.ckpt", "data=folder", "data.root=x", "task.classes=[blob]")
    with pytest.raises(UserError, match=rf"^data=synthetic has the classes crack; {renamed} is for blob$"):
        evaluated(tmp_path / "a", f"ckpt={renamed}", "data=synthetic")
    write_folder(tmp_path / "data", blobs(3))
    given = [f"data.root={tmp_path / 'data'}", "data=folder", "data.fractions=[0,0,1]"]
    tifffile.imwrite(
        tmp_path / "data/images/photo_00.tif", np.zeros((64, 64, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    (tmp_path / "data/images/photo_00.jpg").unlink()
    with pytest.raises(UserError, match=r"^\S+/photo_00.tif: 5 channels; the checkpoint takes 3$"):
        evaluated(tmp_path / "b", f"ckpt={runs['one']}", *given)


def test_too_few_draws_have_no_interval() -> None:
    assert configured("ckpt=a", "bootstrap=40", program="evaluate").bootstrap == 40
    assert configured("ckpt=a", "bootstrap=0", program="evaluate").bootstrap == 0
    with pytest.raises(UserError, match="bootstrap=39: so few draws have no 95 % interval: 40 or more, or 0 for none"):
        configured("ckpt=a", "bootstrap=39", program="evaluate")


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
