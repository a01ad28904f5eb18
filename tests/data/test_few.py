"""`data.limit`: few samples that still say what the data is like."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.few import LOOKED_AT, Few, few
from segfocal.data.measure import SampleStats, measure
from segfocal.data.source import Array
from segfocal.errors import UserError
from tests.conftest import blobs, write_folder
from tests.data.made import opened

TASKS = {
    "binary": TaskConfig(name="binary", classes=["a"]),
    "multiclass": TaskConfig(name="multiclass", classes=["back", "a", "b"]),
    "multilabel": TaskConfig(name="multilabel", classes=["a", "b"]),
}


class Made:
    """Samples by the classes that each shows; None for one that cannot be read."""

    def __init__(self, task: str, shown: list[set[int] | None], known: bool = False) -> None:
        self.task, self.shown, self.is_known = TASKS[task], shown, known
        self.names, self.settings, self.reads = [f"{number:04d}" for number in range(len(shown))], f"made {uuid4()}", 0

    def __len__(self) -> int:
        return len(self.shown)

    def size(self, index: int) -> tuple[int, int]:
        return 2, 2 + index

    def identity(self, index: int) -> str:
        return f"identity {index} {self.settings}"

    def read(self, index: int) -> tuple[Array, Array]:
        self.reads += 1
        return np.full((2, 2, 3), index % 256, np.uint8), self._mask(index)

    def known(self, index: int) -> SampleStats | None:
        return measure(np.zeros((2, 2, 3), np.uint8), self._mask(index), self.task) if self.is_known else None

    def _mask(self, index: int) -> Array:
        shown = self.shown[index]
        if shown is None:
            raise UserError("damaged")
        mask = np.zeros((2, 2, 2) if self.task.name == "multilabel" else (2, 2), np.uint8)
        for label in shown:
            if self.task.name == "multilabel":
                mask[0, 0, label] = 1
            else:
                mask[0, label % 2] = 1 if self.task.name == "binary" else label
        return mask


def classes(found: Few) -> set[int]:
    source = found.source
    assert isinstance(source, Made)
    return set().union(*(source.shown[place] or set() for place in found.places))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("known", [False, True])
def test_a_class_that_few_samples_show_is_among_them(task: str, known: bool) -> None:
    """Though sorted by what they show, and though a damaged file lies between."""
    rare = {"binary": 0, "multiclass": 2, "multilabel": 1}[task]
    shown: list[set[int] | None] = [set() for _ in range(100)]
    shown[50], shown[60] = None, {rare}
    if task == "multiclass":
        shown[70] = {1}
    if task == "multilabel":
        shown[71] = {0}
    source = Made(task, shown, known)
    if known:
        shown[50] = set()
    found = few(source, 4, source.task)
    assert len(found) == 4 and found.places == sorted(set(found.places))
    assert classes(found) >= {label for labels in shown if labels for label in labels}
    assert source.reads == 0 or not known


def test_samples_are_spread_over_the_split_where_that_shows_every_class() -> None:
    source = Made("binary", [{0} for _ in range(100)])
    found = few(source, 4, source.task)
    assert found.names == ["0000", "0025", "0050", "0075"]
    assert source.reads == 4
    assert (len(found), found.size(1), found.settings) == (4, (2, 27), source.settings)
    assert found.identity(1) == source.identity(25)
    assert (found.read(2)[0] == 50).all()
    assert found.known(0) is None


def test_no_class_is_given_up_for_another() -> None:
    source = Made("multilabel", [{0}, set(), set(), set(), {1}, set()])
    assert classes(few(source, 2, source.task)) == {0, 1}
    one = few(Made("multilabel", [{0}, {1}]), 1, TASKS["multilabel"])
    assert classes(one) == {0}, "there is no room for both"


def test_one_alone_shows_more_than_the_background() -> None:
    source = Made("multiclass", [*([{0}] * 30), {0, 1, 2}, {0, 1}])
    assert classes(few(source, 1, source.task)) == {0, 1, 2}


def test_many_are_not_looked_at() -> None:
    source = Made("binary", [set() for _ in range(1000)])
    assert len(few(source, LOOKED_AT, source.task)) == LOOKED_AT
    assert source.reads == 0
    assert len(few(source, 3, source.task)) == 3
    assert source.reads <= LOOKED_AT + 3
    assert few(source, 5000, source.task).places == list(range(1000))


def test_debugging_starts_where_the_first_files_show_nothing(tmp_path: Path) -> None:
    samples = [(image, mask * (number >= 10)) for number, (image, mask) in enumerate(blobs(14))]
    write_folder(tmp_path, samples, split="train")
    write_folder(tmp_path, samples, split="val")
    data = opened(FolderConfig(root=str(tmp_path), limit=2, overlap="allow"))
    assert all(stats.images == 2 and stats.present.tolist() == [1] for stats in data.check().values())
