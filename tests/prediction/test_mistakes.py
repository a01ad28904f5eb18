"""Mistakes are a line each, and nothing is written; what is shown of the command is right."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from segfocal import predict
from segfocal.config.parse import mistakes
from segfocal.config.predict import PredictConfig, ReadingConfig
from tests.checkpoints import BAD
from tests.conftest import ROOT
from tests.prediction.made import files, picture


@pytest.mark.parametrize("kind", BAD)
def test_checkpoints_that_cannot_be_used(here: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, said = BAD[kind]
    ckpt = make(here)
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpt}", "input=photos", "out=out", "profile=cpu"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"{ckpt}: .*{said}", line), line
    assert not (here / "out").exists()
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input=nowhere"], "input=nowhere: no such file or folder"),
        (["input='~nobody_is_called_so/a.png'"], "input=~nobody_is_called_so/a.png: no such file or folder"),
        ([f"input='{'photo.png ' * 40}'"], "...: no file has so long a name; several are said as a list"),
        ([f"ckpt={'x' * 300}"], "...: no file has so long a name"),
        (["input=empty"], "input=empty: no images"),
        (["input=photos/*.bmp"], "input=photos/*.bmp: matches no image"),
        (["input=photos/*/../a.png"], "input=photos/*/../a.png: .. stands behind a sign that matches"),
        (["input=photos,empty"], "input=photos,empty: several are a list"),
        (["input=[]"], "input is not said"),
        (["out=photos/a.png"], "out=photos/a.png: "),
        (["out=photos/a.png/below"], "out=photos/a.png/below: "),
        (["write=[]"], "write=[]: one or more of ids"),
        (["write=[masks]"], "write"),
        (["format=npz"], "format=npz: is about probabilities"),
        (["inference.tile=[100,100]"], "not a multiple of 32"),
        (["--force"], "--force: no such flag"),
        (["wirte=[ids]"], "wirte"),
        (["input=twins"], "twins/a.jpg and twins/a.png: would both be written to new/ids/a.png"),
        (["input=lines"], "lines/a\\nb.jpg and lines/a\\nb.png: would both be written to new/ids/a\\nb.png"),
        (["input=out/ids", "out=out"], "is an image to be read, and would be overwritten"),
        (["input=photos", "out=taken"], "taken/ids/a.png: is there, and was not made by this command"),
        (["input=photos", "out=blocked"], "blocked/ids/a.png: is a folder, and in the way"),
        (["input=photos", "out=strange"], "out=strange: its prediction.json cannot be read"),
    ],
)
def test_mistakes_are_a_line(
    here: Path, ckpts: dict[str, Path], overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("twins/a.jpg", "twins/a.png", "lines/a\nb.jpg", "lines/a\nb.png", "out/ids/a.png", "taken/ids/a.png"):
        picture(here / name)
    (here / "empty").mkdir()
    (here / "blocked/ids/a.png").mkdir(parents=True)
    (here / "strange").mkdir()
    (here / "strange/prediction.json").write_text("[]")
    before = files(here)
    given = {"ckpt": f"ckpt={ckpts['binary']}", "input": "input=photos", "out": "out=new", "profile": "profile=cpu"}
    with pytest.raises(SystemExit) as caught:
        predict.main(list({**given, **{item.partition("=")[0]: item for item in overrides}}.values()))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert files(here) == before


def test_all_that_is_missing_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict.main([])
    assert [line.split(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["ckpt", "input", "out"]


def test_help_names_what_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    predict.main(["--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("ids", "colours", "probabilities", "overlays", "shares.csv", "ckpt=", "input=", "out="))


def commands() -> list[str]:
    shown = (ROOT / "docs/predict.md").read_text() + str(predict.__doc__)
    return [line.strip() for line in shown.splitlines() if line.strip().startswith("python -m segfocal.predict")]


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_is_right(command: str) -> None:
    words = shlex.split(command.replace("<run>", "a_run"))
    assert [line for line in mistakes(PredictConfig, "predict", words[3:]) if "no CUDA" not in line] == []


def test_the_document_names_every_key() -> None:
    shown = (ROOT / "docs/predict.md").read_text()
    keys = {item.name for item in dataclasses.fields(PredictConfig)} - {"data"} | {
        f"data.{item.name}" for item in dataclasses.fields(ReadingConfig)
    }
    assert len(commands()) == 7
    assert [key for key in keys if f"`{key}`" not in shown] == []
