"""Which images are meant, what they are called, and which are left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segfocal import predict
from tests.prediction.made import called, files, picture, seen, table


def test_inputs_are_files_folders_and_patterns(here: Path, ckpts: dict[str, Path]) -> None:
    picture(here / "elsewhere/c d ü.png")
    picture(here / "odd/new\nline.png")
    picture(here / "odd/[1].png")
    picture(here / "photos/.hidden.png")
    (here / "photos/notes.txt").write_text("no image")
    shutil.copytree(here / "photos", here / "deep/er/photos")
    cases = {
        "photos": {"a", "more/b"},
        "photos/a.png": {"a"},
        f"{here}/photos/*.png": {"a"},
        "photos/**/*.*": {"a", "more/b"},
        "photos/*": {"a", "more/b"},
        "deep/*/photos": {"er/photos/a", "er/photos/more/b"},
        "'odd/[1].png'": {"[1]"},
        "odd": {"[1]", "new\nline"},
        "[photos,photos/a.png,'elsewhere/c d ü.png']": {"a", "more/b", "c d ü"},
        "./photos/../photos": {"a", "more/b"},
    }
    for number, (given, wanted) in enumerate(cases.items()):
        assert called(ckpts["binary"], f"out=out{number}", given=given) == 0, given
        names = files(here / f"out{number}" / "ids")
        assert names == {f"{name}.png" for name in wanted}, given
    rows = {row["image"] for row in table(here / "out7")}
    assert rows == {"[1].png", "new\nline.png"}


def test_predictions_are_not_read_back(here: Path, ckpts: dict[str, Path]) -> None:
    for out in ("photos", "photos/first", "photos/second"):
        for _ in range(2):
            assert called(ckpts["binary"], f"out={out}", "write=[ids,overlays]") == 0
            assert files(here / out / "ids") == {"a.png", "more/b.png"}
    picture(here / "photos/ids/c.png")
    assert len(table(here / "photos")) == 2


def test_masks_beside_their_images_are_not_predicted_unless_they_are_asked_for(here: Path, ckpts: dict[str, Path]) -> None:
    for name in ("images/train/a", "masks/train/a", "masks/crack/b"):
        picture(here / f"root/{name}.png")
    assert called(ckpts["binary"], "out=first", given="root") == 0
    assert files(here / "first" / "ids") == {"images/train/a.png"}
    assert called(ckpts["binary"], "out=second", given="root/masks") == 0
    assert files(here / "second" / "ids") == {"train/a.png", "crack/b.png"}
    shutil.rmtree(here / "root/images")
    assert called(ckpts["binary"], "out=third", given="root") == 0
    assert files(here / "third" / "ids") == {"masks/train/a.png", "masks/crack/b.png"}


def test_unreadable_images_are_named_and_left_out(here: Path, ckpts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos/text.png").write_text("no image")
    (here / "photos/empty.jpg").touch()
    whole = (here / "photos/more/b.jpg").read_bytes()
    (here / "photos/cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(here / "photos/pipe.png")
    (here / "photos/gone.png").symlink_to(here / "nowhere")
    (here / "photos/folder.png").mkdir()
    tifffile.imwrite(here / "photos/five.tif", np.zeros((64, 64, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu"])
    assert caught.value.code == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.split(":")[0].rpartition("/")[2] for line in lines] == [
        "cut.jpg",
        "empty.jpg",
        "five.tif",
        "gone.png",
        "pipe.png",
        "text.png",
    ]
    assert lines[2] == "photos/five.tif: 5 channels; the checkpoint takes 3"
    assert "2 predicted, 6 skipped" in said.out
    assert files(here / "out") == {"ids/a.png", "ids/more/b.png", "prediction.json", "shares.csv"}
    assert [row["image"] for row in table(here / "out")] == ["a.png", "more/b.jpg"]


def test_names_that_are_no_text(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos/a.png").rename(here / "photos" / os.fsdecode(b"\xe9.png"))
    names = seen(monkeypatch)
    assert called(ckpts["binary"]) == 0
    assert called(ckpts["binary"]) == 0
    assert len(names) == 2
    assert (here / "out/ids" / os.fsdecode(b"\xe9.png")).is_file()


def test_the_longest_names_are_taken(here: Path, ckpts: dict[str, Path]) -> None:
    picture(here / "photos" / f"{'x' * 251}.png")
    assert called(ckpts["binary"]) == 0
    assert (here / "out/ids" / f"{'x' * 251}.png").is_file()
