"""train.py and evaluate.py as a user runs them: real processes in an empty directory."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segfocal import cli as commands
from segfocal.config.commandline import parted
from segfocal.config.run import TrainConfig
from segfocal.rundir import new_dir
from segfocal.sweeps.compare import best_first
from segfocal.sweeps.record import Job, Record
from tests.conftest import ROOT, Result, blobs, spawn, started, write_folder
from tests.test_training import TINY

Cli = Callable[..., Result]


def only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def test_train_then_evaluate_then_go_on(cli: Cli, tmp_path: Path) -> None:
    """From the first import on, as in a shell."""
    done = spawn(str(ROOT / "train.py"), *TINY, cwd=tmp_path)
    assert done.code == 0, done.err
    run_dir = only(tmp_path, "runs/*")
    for said in ("crack", "IoU", "AUROC", "AP", "checkpoints/best.ckpt", "metrics.json", "overlays/evaluation.png", "epoch 2 of 2"):
        assert said in done.out
    assert "Traceback" not in done.err + done.out
    assert "epoch 2 of 2" in (run_dir / "train.log").read_text()
    assert spawn(str(ROOT / "evaluate.py"), f"ckpt={run_dir}", cwd=tmp_path).code == 0
    evaluated = only(tmp_path, "runs/*-evaluate")
    first, again = (json.loads((path / "metrics.json").read_text()) for path in (run_dir, evaluated))
    assert first["iou/crack"] == again["iou/crack"]
    assert first["auroc/crack"] == again["auroc/crack"]
    resumed = cli("train", *TINY, f"ckpt={run_dir}", "trainer.max_epochs=3", "scheduler=onecycle")
    assert resumed.code == 0, resumed.err
    assert "epoch 3 of 3" in resumed.out
    assert "epoch 2 of 3" not in resumed.out


def test_a_folder_of_ones_own(cli: Cli, folder: Path) -> None:
    overrides = [f"data.root={folder}", "task.classes=[blob]", "data.crop=[32,32]", "trainer.max_epochs=2", "data.num_workers=0"]
    wrong = cli("train", "data=folder", *overrides)
    assert wrong.code == 2
    assert "data.label_map={0:0,255:1}" in wrong.err
    assert "Traceback" not in wrong.err
    assert not list((folder.parent / "runs").iterdir()), "a run that did not start leaves nothing"
    right = cli("train", "data=folder", *overrides, "data.label_map={0:0,255:1}", "sampling=foreground")
    assert right.code == 0, right.err
    assert "train: 6 images; of the pixels blob 3.42%" in right.out
    again = cli("train", "data=folder", *overrides, "data.label_map={0:0,255:1}", "sampling=rare_class", "debug=fast")
    assert again.code == 0, again.err
    assert "have not changed since they were last checked; data.check=full checks all" in again.out


def test_drawn_splits_stay_when_images_come(cli: Cli, tmp_path: Path) -> None:
    """Drawn anew, the test split would hold images that were trained on."""
    root = tmp_path / "dataset"
    write_folder(root, blobs(12))
    quick = ["data.crop=[32,32]", "data.num_workers=0", "data.batch_size=4", "model.encoder=tu-test_resnet"]
    overrides = ["data=folder", f"data.root={root}", "task.classes=[blob]", *quick]
    assert cli("train", *overrides, "trainer.max_epochs=1").code == 0
    first = only(tmp_path, "runs/*")
    write_folder(root, blobs(30))
    on = cli("train", *overrides, "trainer.max_epochs=2", f"ckpt={first}", "out=on")
    assert on.code == 0, on.err
    assert "18 samples are in no split, for they have come since" in on.out
    assert (only(tmp_path, "on/*") / "splits.json").read_text() == (first / "splits.json").read_text()
    evaluated = cli("evaluate", f"ckpt={first}", "out=again")
    assert evaluated.code == 0, evaluated.err
    root.rename(tmp_path / "elsewhere")
    moved = cli("evaluate", f"ckpt={first}", "out=moved", f"data.root={tmp_path / 'elsewhere'}")
    assert moved.code == 0, moved.err
    write_folder(tmp_path / "other", blobs(5, seed=1))
    for path in (tmp_path / "other").glob("*/*"):
        path.rename(path.with_stem(f"other_{path.stem}"))
    other = cli("evaluate", f"ckpt={first}", "out=other_out", f"data.root={tmp_path / 'other'}")
    assert other.code == 0, other.err
    assert "all 5 are evaluated" in other.out
    assert "test: 5 images" in other.out
    assert "litlogger" not in other.out + other.err
    places = ("runs/*", "again/*", "moved/*")
    assert len({json.loads((only(tmp_path, place) / "metrics.json").read_text())["iou/blob"] for place in places}) == 1


@pytest.mark.parametrize("experiment", ["crackforest", "camvid", "cracks", "cracks_potholes"])
def test_real_photographs_from_end_to_end(cli: Cli, shared: Path, tmp_path: Path, experiment: str) -> None:
    root = shared / {"cracks": "cracks_potholes"}.get(experiment, experiment)
    done = cli(
        "train", f"experiment={experiment}", f"data.root={root}", "debug=fast", "data.num_workers=0", "data.limit=2", "data.batch_size=2"
    )
    assert done.code == 0, done.err
    metrics = json.loads((only(tmp_path, "runs/*") / "metrics.json").read_text())
    classes = [key for key in metrics if key.startswith("iou/")]
    assert len(classes) == {"camvid": 11, "cracks_potholes": 3}.get(experiment, 1)
    if experiment == "cracks":
        return  # the same folder as cracks_potholes
    again = cli("evaluate", f"ckpt={only(tmp_path, 'runs/*')}", "data.limit=2", "data.num_workers=0", "out=again")
    assert again.code == 0, again.err
    figures = json.loads((only(tmp_path, "again/*") / "metrics.json").read_text())
    assert {key: figures[key] for key in classes} == {key: metrics[key] for key in classes}


def test_a_sweep_ends_in_a_table_best_first_with_the_job_that_failed(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "-m", *TINY, "trainer.max_epochs=1", "model=pan,unet", "model.encoder=resnet18")
    assert done.code == 1
    sweep = only(tmp_path, "runs/*-sweep")
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["state"], bool(row["failure"])) for row in rows] == [("unet", "finished", False), ("pan", "failed", True)]
    assert float(rows[0]["val/iou_macro"]) == json.loads((sweep / rows[0]["job"] / "result.json").read_text())["value"]
    assert (sweep / rows[0]["job"] / "checkpoints" / "best.ckpt").is_file()
    assert "best first" in done.out
    assert "job 0 failed: model=pan" in done.out


def test_mistakes_end_with_2_and_leave_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "loss=focl", "optimizer.lr=nan")
    assert done.code == 2
    assert done.err.splitlines() == [
        "loss=focl: no such option; did you mean focal or smp_focal?",
        "optimizer.lr=nan: must be a finite number",
    ]
    assert list(tmp_path.iterdir()) == []


def test_ascend_says_what_to_install(cli: Cli) -> None:
    done = cli("train", "profile=ascend")
    assert done.code == 2
    assert done.err.strip().startswith("profile=ascend: torch_npu is not installed")
    assert len(done.err.strip().splitlines()) == 1


def test_evaluate_says_what_is_wrong_with_a_checkpoint(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    done = cli("evaluate", "ckpt=x.ckpt")
    assert done.code == 2
    assert "x.ckpt: cannot be read as a checkpoint" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_run_directories_made_in_the_same_second_differ(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: new_dir(str(tmp_path), suffix=f"-{'x' * 0}" + "\u200b" * number), range(8)))
    assert len(set(made)) == 8
    again = [new_dir(str(tmp_path / "one")), new_dir(str(tmp_path / "one"))]
    assert again[0] == again[1], "the same question has the same answer"


def test_processes_do_not_share_a_run_directory(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from segfocal.rundir import new_dir; print(new_dir('runs'))"
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({process.communicate()[0] for process in started}) == 6


def test_flags_of_hydra_are_no_overrides() -> None:
    words = ["a=1", "-m", "--cfg", "job", "-cn", "train", "b=2", "--help"]
    assert parted(words) == (["-m", "--cfg", "job", "-cn", "train", "--help"], ["a=1", "b=2"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ckpt=a,b"], "ckpt=a,b: several values are tried one after another by -m; a list stands in brackets, 'ckpt=[a,b]'"),
        (["ckpt=a", "--jsn"], "--jsn: no such flag; did you mean --json or --run?; see --help"),
    ],
)
def test_what_hydra_would_say_in_many_lines_is_one(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    done = cli("evaluate", *words)
    assert (done.code, done.out, done.err) == (2, "", f"{said}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_flag_may_stand_behind_overrides(cli: Cli) -> None:
    done = cli("evaluate", "ckpt=a", "--cfg", "job", "split=val")
    assert (done.code, done.err) == (0, "")
    assert "split: val\n" in done.out


def test_the_best_job_of_a_loss_is_the_smallest(tmp_path: Path) -> None:
    jobs = [Job(number, str(number), [], objective=value) for number, value in enumerate([0.3, None, 0.1])]
    assert [job.number for job in best_first(Record(tmp_path, "train", [], "val/loss", jobs))] == [2, 0, 1]
    assert [job.number for job in best_first(Record(tmp_path, "train", [], "val/iou_macro", jobs))] == [0, 2, 1]


def test_interrupting_before_there_is_a_job_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "mistakes", interrupted)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as caught:
        commands.start(lambda: None, TrainConfig, "train")
    assert caught.value.code == 130


def test_interrupting_ends_the_process(tmp_path: Path) -> None:
    with started(str(ROOT / "train.py"), *TINY, "trainer.max_epochs=500", cwd=tmp_path) as process:
        while process.runs and "\nepoch 2 " not in process.out.read_text():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        assert process.result().code == 130
    assert only(tmp_path, "runs/*/checkpoints/last.ckpt").is_file()
