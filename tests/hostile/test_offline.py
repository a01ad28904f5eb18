"""No command asks anything of a network, unless weights are asked for; in processes that could reach none, and write down each try."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result
from tests.prediction.made import picture
from tests.test_training import TINY

WATCH = """
import os, sys
OUT = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request", "http.client.connect")
def watch(event, arguments):
    if event in OUT and not (event == "socket.connect" and isinstance(arguments[1], (str, bytes))):  # a socket of this machine
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
        raise PermissionError(f"no network: {event}")
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that begin by watching themselves, and those that they start."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(WATCH)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "WATCHED": str(folder / "tries"), "OMP_NUM_THREADS": "1"}


def command(*words: str, cwd: Path, env: dict[str, str]) -> Result:
    """A new Python; where there may be one, in a network of its own that has nothing in it."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    done = subprocess.run(
        [*apart, sys.executable, *words], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=280, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_nothing_is_asked_of_a_network(watched: dict[str, str], tmp_path: Path) -> None:
    """One after the other, each with what the one before has left; in one process, for to begin takes each as long as all that it does."""
    picture(tmp_path / "photos/a.png")
    commands: list[tuple[str, dict[str, str], list[str]]] = [
        ("train", {}, [*TINY, "trainer.max_epochs=1", "data.num_workers=1", "hydra.run.dir=run"]),
        ("evaluate", {}, ["ckpt=run", "profile=cpu", "bootstrap=0", "data.num_workers=0"]),
        ("segfocal.predict", {}, ["ckpt=run", "input=photos", "out=predicted", "profile=cpu"]),
        ("segfocal.export", {}, ["ckpt=run", "format=safetensors"]),
        ("segfocal.analyze", {}, TINY),
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    done = command("-m", "tests.commands", "commands.json", cwd=tmp_path, env=watched)
    assert done.code == 0, done.err
    answers = json.loads((tmp_path / "commands.out").read_text())
    assert [code or 0 for code, _, _ in answers] == [0] * len(commands), answers
    assert "report" in answers[0][1] and list((tmp_path / "predicted").iterdir()), "they have done what they do"
    assert not Path(watched["WATCHED"]).exists(), Path(watched["WATCHED"]).read_text()


def test_weights_that_are_asked_for_and_cannot_be_fetched_are_a_line(watched: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH + "import time\ntime.sleep = lambda seconds: None\n")  # between the hub's tries
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    env = {**watched, "PYTHONPATH": path, "HF_HOME": str(tmp_path / "hub"), "WATCHED": str(tmp_path / "tries")}
    done = command(str(ROOT / "train.py"), *TINY, "model.encoder=resnet18", "model.weights=imagenet", cwd=tmp_path, env=env)
    assert done.code == 2, done.err
    assert done.err.startswith("model.weights=imagenet: the weights of resnet18 could not be downloaded (") and done.err.count("\n") == 1, (
        done.err
    )
    assert "getaddrinfo" in (tmp_path / "tries").read_text(), "it has tried, and this test would see it"
    assert list((tmp_path / "runs").iterdir()) == []
