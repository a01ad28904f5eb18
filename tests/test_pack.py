"""`python -m segfocal.pack`: what it writes, that it writes all or nothing, and that training goes on from there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import pytest

from segfocal import checkpoint as checkpoints
from segfocal import pack as program
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.data.packed import Description
from segfocal.errors import UserError
from segfocal.pack import pack
from tests.conftest import Result, run

BLOB = ["data=folder", "task.classes=[blob]", "data.label_map={0:0,255:1}"]


def packed(root: Path, out: Path, *overrides: str, shard_bytes: int = 64_000_000) -> Description:
    ((_, config),) = parse_sweep(TrainConfig, "train", [*BLOB, f"data.root={root}", *overrides], 1)
    return pack(config, out, shard_bytes)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pack_then_train_then_evaluate(cli: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
    written = run("-m", "segfocal.pack", *BLOB, f"data.root={folder}", "data.exif=apply", "out=made/pack", cwd=tmp_path)
    assert written.code == 0, written.err
    assert written.out.splitlines()[0].startswith("train: 6 samples, ")
    assert written.out.splitlines()[-1] == "data=streaming data.root=made/pack"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["pack"]
    short = ["trainer.max_epochs=1", "profile=cpu", "data.num_workers=1", "data.crop=[32,32]", "data.batch_size=2"]
    trained = cli("train", "data=streaming", "data.root=made/pack", "task.classes=[blob]", *short)
    assert trained.code == 0, trained.err
    assert "12 of 12 samples have not changed" in trained.out
    assert "train: 6 images; of the pixels blob 3.42%" in trained.out
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert checkpoints.read(run_dir / "checkpoints" / "best.ckpt")["segfocal"]["reading"] == {"exif": "apply", "scale": None}
    folder.rename(tmp_path / "gone")
    evaluated = cli("evaluate", f"ckpt={run_dir}", "profile=cpu")
    assert evaluated.code == 0, evaluated.err
    (again,) = (tmp_path / "runs").glob("*-evaluate")
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (run_dir, again))
    assert first["auroc/blob"] == second["auroc/blob"] is not None


def test_the_same_data_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "a", shard_bytes=5000)
    folder = folder.rename(tmp_path / "elsewhere")
    packed(folder, tmp_path / "b", shard_bytes=5000)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(list((tmp_path / "a" / "train").glob("*.bin"))) > 2


def test_another_mask_is_another_pack(folder: Path, tmp_path: Path) -> None:
    first = packed(folder, tmp_path / "a").digest
    assert packed(folder, tmp_path / "b", "data.label_map={0:1,255:0}").digest != first


def test_photographs_are_stored_as_they_were_saved(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "pack")
    shards = b"".join(content for name, content in files(tmp_path / "pack").items() if name.endswith(".bin"))
    assert all(path.read_bytes() in shards for path in (folder / "images").iterdir())
    packed(folder, tmp_path / "grey", "model.in_channels=1")
    shards = b"".join(content for name, content in files(tmp_path / "grey").items() if name.endswith(".bin"))
    assert not any(path.read_bytes() in shards for path in (folder / "images").iterdir())


def test_litdata_reads_the_shards(folder: Path, tmp_path: Path) -> None:
    """The format is litdata's own, not one that only we know."""
    packed(folder, tmp_path / "pack", shard_bytes=5000)
    samples = litdata.StreamingDataset(str(tmp_path / "pack" / "train"))
    assert len(samples) == 6
    for sample, name in zip(samples, (folder / "train.txt").read_text().split(), strict=True):
        assert bytes(sample[0]) == (folder / "images" / f"{name}.jpg").read_bytes()


def test_a_sample_larger_than_a_shard_has_one_of_its_own(folder: Path, tmp_path: Path) -> None:
    found = packed(folder, tmp_path / "pack", shard_bytes=100)
    assert [shard.samples for shard in found.splits["train"]] == [1] * 6


def test_what_is_known_is_plain_data(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "pack")
    described = json.loads((tmp_path / "pack" / "pack.json").read_text())
    assert {key: described[key] for key in ("format", "task", "classes", "ignore_index", "channels")} == {
        "format": 1,
        "task": "binary",
        "classes": ["blob"],
        "ignore_index": 255,
        "channels": 3,
    }
    with np.load(tmp_path / "pack" / "val" / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == (folder / "val.txt").read_text().split()
        assert arrays["pixels"].tolist() == [[140]] * 3
        assert arrays["size"].tolist() == [[64, 64]] * 3


def test_writing_that_fails_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match=r"^out=.*pack: cannot be written: No space left on device$"):
        packed(folder, tmp_path / "made" / "pack")
    assert list((tmp_path / "made").iterdir()) == []


def test_faults_in_the_data_are_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / "masks" / "photo_07.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="photo_07.png"):
        packed(folder, tmp_path / "made" / "pack")
    assert not (tmp_path / "made").exists()


def test_a_mount_point_is_refused_before_the_work(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "pack"
    out.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: path == out)
    with pytest.raises(UserError, match=r"is a mount point: name a folder in it, as in out=.*/data$"):
        packed(folder, out)


def test_an_empty_folder_is_taken_and_one_that_holds_something_is_not(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    out.mkdir()
    packed(folder, out)
    before = files(out)
    with pytest.raises(UserError, match="not an empty folder") as error:
        packed(folder, out)
    assert "\n" not in str(error.value)
    assert files(out) == before
    with pytest.raises(UserError, match="not an empty folder"):
        packed(folder, out / "pack.json")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=synthetic"], "out is not said"),
        (["data=synthetic", "out=s3://bucket/pack"], "by the store's own tool"),
        (["data=synthetic", "out=pack", "--quick"], "--quick: no such flag"),
        (["data=synthetic", "out=pack", "loss=focl"], "did you mean focal"),
        (["data=synthetic", "out=pack", "seed=0,1"], "more than 1"),
        (["data=folder", "data.root=/nowhere", "task.classes=[a]", "out=pack"], "data.root=/nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        program.main(overrides)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not (tmp_path / "pack").exists()


def test_without_litdata_it_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litdata.streaming.writer", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[streaming\]'"):
        packed(folder, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_help_and_mistakes_answer_without_torch() -> None:
    code = "import sys; from segfocal.pack import main; main(['--help']); assert not {'torch', 'litdata', 'lightning'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m segfocal.pack data=folder" in done.stdout
