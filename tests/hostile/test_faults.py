"""Faults of data, workers and memory in the commands themselves: a line, exit code 2, and nothing half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segfocal.data.scan import FEW
from tests.checkpoints import TINIEST, made
from tests.conftest import ROOT, Result, blobs, run, write_folder
from tests.prediction.made import picture
from tests.test_training import TINY

FOLDER = ["data=folder", "data.root=data", "task.classes=[blob]", "data.crop=[32,32]", "data.batch_size=2", "data.num_workers=0"]
TRAINING = [f"model.encoder={TINIEST}", "profile=cpu", "trainer.max_epochs=1", "callbacks.overlays=0", "report=false", *FOLDER]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """In the last image of each split is a value that is not a number; without a check 200 of the first are looked at, not that one."""
    names = write_folder(tmp_path / "data", blobs(FEW + 5, (40, 40)))
    for split, part in {"train": names[: FEW + 1], "val": names[FEW + 1 : FEW + 3], "test": names[FEW + 3 :]}.items():
        (tmp_path / f"data/{split}.txt").write_text("\n".join(part))
        image = tmp_path / f"data/images/{part[-1]}"
        pixels = np.asarray(Image.open(image.with_suffix(".jpg"))).astype(np.float32) / 255
        pixels[3, 4] = {"train": np.nan, "val": np.inf, "test": np.nan}[split]
        tifffile.imwrite(image.with_suffix(".tif"), pixels)
        image.with_suffix(".jpg").unlink()
    return tmp_path


def one_line(done: Result, *said: str) -> None:
    assert done.code == 2, (done.out, done.err)
    (line,) = done.err.strip().splitlines()
    assert all(part in line for part in said), line


def test_values_that_are_no_numbers_are_named(here: Path) -> None:
    """By the check; and without it, when the image is read: in training, in evaluation, in prediction."""
    checked = run(str(ROOT / "train.py"), *TRAINING, cwd=here)
    assert checked.code == 2
    assert sum("holds NaN, infinite or huge values" in line for line in checked.err.splitlines()) == 3
    for split in ("val", "test"):
        (here / f"data/{split}.txt").write_text((here / f"data/{split}.txt").read_text().splitlines()[0])
    said = "photo_200.tif: holds NaN, infinite or huge values"
    one_line(run(str(ROOT / "train.py"), *TRAINING, "data.check=off", "data.batch_size=32", cwd=here), said)
    ckpt = made(here / "a.ckpt", "data=folder", f"data.root={here / 'data'}", "task.classes=[blob]", "data.crop=[32,32]")
    words = [f"ckpt={ckpt}", "profile=cpu", "data.num_workers=0", "data.check=off", "split=train"]
    one_line(run(str(ROOT / "evaluate.py"), *words, cwd=here), said)
    done = run("-m", "segfocal.predict", f"ckpt={ckpt}", "input=data/images", "out=out", "profile=cpu", cwd=here)
    assert done.code == 1
    assert sorted(line.partition(": ")[0] for line in done.err.splitlines()) == [
        f"data/images/photo_{number}.tif" for number in (200, 202, 204)
    ]
    assert sorted(path.name for path in here.iterdir()) == ["a.ckpt", "cache", "data", "out", "runs"]
    assert len(list((here / "runs").iterdir())) == 1  # of the training that met it under way


WORKER = """
import os, runpy, signal, sys, time
import segfocal.data.files as files
read = files.FileSource.read
def troubled(self, index):
    import torch.utils.data
    if torch.utils.data.get_worker_info() and self.names[index] == "photo_03":
        {trouble}
    return read(self, index)
files.FileSource.read = troubled
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TROUBLES = {
    "os.kill(os.getpid(), signal.SIGKILL)": "a data worker was killed by SIGKILL while it read photo_03: memory ran out, most likely",
    "time.sleep(60)": "no batch for 2 s, a data worker hangs while it read photo_03: data.num_workers=0 shows where",
    "raise MemoryError('no room')": "memory ran out (",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_worker_in_trouble_ends_the_command_in_a_line(trouble: str, tmp_path: Path) -> None:
    names = write_folder(tmp_path / "data", blobs(8))
    for split, part in {"train": names[:4], "val": names[4:6], "test": names[6:]}.items():
        (tmp_path / f"data/{split}.txt").write_text("\n".join(part))
    (tmp_path / "troubled.py").write_text(WORKER.format(trouble=trouble, root=str(ROOT)))
    words = [*TRAINING, "data.num_workers=1", "data.worker_timeout=2", "sampling=uniform"]  # which reads each photograph
    one_line(run(str(tmp_path / "troubled.py"), str(ROOT / "train.py"), *words, cwd=tmp_path), TROUBLES[trouble])


LIMITED = """
import resource, runpy, sys
room, *sys.argv = sys.argv[1:]
size = int(open("/proc/self/status").read().split("VmSize:")[1].split()[0]) * 1024 + int(room) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (size, size))
if sys.argv[0] == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.path[0] = {root!r}
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
LARGE = [*TINY, "data.size=512", "data.train=16", "data.batch_size=16", "callbacks.overlays=0", "report=false"]


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_memory_that_runs_out_is_a_line_that_says_what_to_lower(command: str, tmp_path: Path) -> None:
    """In a process that may have little more than it begins with."""
    (tmp_path / "limited.py").write_text(LIMITED.format(root=str(ROOT)))
    picture(tmp_path / "photos/a.png", (1024, 1024))
    ckpt = f"ckpt={made(tmp_path / 'a.ckpt', *LARGE)}"
    words, room, said = {
        "train": ([str(ROOT / "train.py"), *LARGE], 600, ["data.batch_size", "data.crop", "trainer.precision"]),
        "evaluate": ([str(ROOT / "evaluate.py"), ckpt, "profile=cpu", "inference.tile=null"], 250, ["data.batch_size", "inference.tile"]),
        "predict": (
            ["-m", "segfocal.predict", ckpt, "input=photos", "out=out", "profile=cpu", "inference.tile=null"],
            250,
            ["photos/a.png: memory ran out", "inference.tile"],
        ),
    }[command]
    done = run(str(tmp_path / "limited.py"), str(room), *words, cwd=tmp_path)
    one_line(done, "memory ran out", *said)
