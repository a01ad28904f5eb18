"""Where a checkpoint says that its data lie: nothing is fetched, written or started because of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from segfocal import checkpoint as checkpoints
from segfocal.config.streaming import StreamingConfig
from segfocal.config.task import TaskConfig
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.evaluation.data import data_of
from tests.checkpoints import made
from tests.conftest import ROOT, run
from tests.hostile.payloads import configured as config_with
from tests.prediction.made import picture
from tests.test_training import configured

TASK = TaskConfig(classes=["a"])
STREAMED = ["data=streaming", "data.root=/pack", "task.classes=[a]"]


def chosen(path: Path, *overrides: str) -> Any:
    """The data that an evaluation would open."""
    content = checkpoints.read(path)
    return data_of(configured(f"ckpt={path}", *overrides, program="evaluate").data, content["segfocal"]["config"]["data"], TASK, path)


@pytest.mark.parametrize("url", ["https://example.org/best.ckpt", "s3://bucket/best.ckpt", "file:///tmp/best.ckpt", "gs://bucket/run"])
def test_checkpoints_are_read_from_files(tmp_path: Path, url: str) -> None:
    picture(tmp_path / "photo.png")
    for program, words in (
        (str(ROOT / "evaluate.py"), []),
        ("-m segfocal.predict", ["input=photo.png", "out=x"]),
    ):
        done = run(*program.split(), f"ckpt={url}", *words, cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert done.err == f"ckpt={url}: checkpoints are read from files, not from the network\n"


@pytest.mark.parametrize("root", ["s3://evil/pack", "gs://evil/pack", "local:/evil"])
def test_data_behind_an_address_are_fetched_where_the_command_says_so(tmp_path: Path, root: str) -> None:
    path = made(tmp_path / "a.ckpt", *STREAMED, spoil=lambda content: content["segfocal"]["config"]["data"].update(root=root))
    (tmp_path / "out").mkdir()
    with pytest.raises(
        UserError, match=f"^{path}: its data lie at {root}, and are fetched only where the command says so: data.root={root}$"
    ):
        evaluate(configured(f"ckpt={path}", program="evaluate"), tmp_path / "out")
    assert chosen(path, f"data.root={root}").root == root


def test_a_checkpoint_names_no_folder_to_write_into_and_no_more_workers_than_cores(tmp_path: Path) -> None:
    theirs = {"shards_dir": "/home/somebody", "shards_gb": 0.001, "cache": "disk", "cache_gb": 1000.0, "num_workers": 100_000}
    path = made(tmp_path / "a.ckpt", *STREAMED, spoil=lambda content: content["segfocal"]["config"]["data"].update(theirs))
    found = chosen(path)
    assert isinstance(found, StreamingConfig)
    assert (found.shards_dir, found.shards_gb, found.cache, found.cache_gb) == (None, None, "none", None)
    assert found.num_workers == os.cpu_count()
    assert chosen(path, "data.shards_dir=/mine").shards_dir == "/mine"


def test_a_checkpoint_names_no_file_of_splits(tmp_path: Path) -> None:
    path = made(tmp_path / "a.ckpt", "data=folder", "data.root=x", "task.classes=[a]", "data.splits=/dev/zero")
    assert chosen(path).splits is None


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"test": 10**9}, "data.test=1000000000: must be at most 1000000"),
        ({"name": "checkpoint"}, "data.name=checkpoint"),
        ({"name": "os"}, "data=os: no data is named 'os'"),
        ({"_target_": "os.system"}, "data._target_=os.system: nothing is built by the path of its code, but by a name"),
        ({"size": "${oc.env:HOME}"}, "data.size=${oc.env:HOME}: must be a whole number"),
    ],
)
def test_data_that_cannot_be_opened_are_a_line(tmp_path: Path, theirs: dict[str, Any], said: str) -> None:
    path = config_with("data", **theirs)(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError) as caught:
        evaluate(configured(f"ckpt={path}", program="evaluate"), tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: {said}") and "\n" not in str(caught.value), caught.value
