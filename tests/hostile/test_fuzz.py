"""Any text is a configuration or a message: overrides, tables, label maps. SEGFOCAL_FUZZ=100 looks a hundred times as long."""

from __future__ import annotations

import copy
import dataclasses
import os
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from segfocal.config import labels, parse
from segfocal.config.commandline import parted, unknown
from segfocal.config.layouts import ManifestConfig
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.data.manifest import manifest_sources
from segfocal.errors import UserError
from tests.checkpoints import train_config
from tests.conftest import blobs, write_folder

TIMES = int(os.environ.get("SEGFOCAL_FUZZ", "1"))
LINE = st.text(st.characters(exclude_characters="\0"), max_size=80)  # what a shell can hand over
KEYS = [
    "loss",
    "loss.gamma",
    "data.label_map",
    "task.classes",
    "data.crop",
    "seed",
    "plugins",
    "experiment",
    "hydra.run.dir",
    "optimizer.lr",
]
SIGNS = st.text(st.sampled_from(string.printable + "[]{}(),:=$'\"\\+~@/.é"), max_size=40)
OVERRIDES = st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), SIGNS)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINE, inner, max_size=3),
    max_leaves=6,
)


def often(count: int) -> Any:
    return settings(max_examples=count * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


def lines_of(error: UserError) -> list[str]:
    lines = str(error).splitlines()
    assert lines and all(line.strip() for line in lines)
    return lines


@often(300)
@given(st.lists(LINE | OVERRIDES, max_size=4))
def test_any_words_are_flags_overrides_or_messages(words: list[str]) -> None:
    flags, overrides = parted(words)
    assert len(flags) + len(overrides) == len(words)
    assert all(isinstance(line, str) for line in [*unknown(flags), *parse.sweeps(overrides)])


@often(12)
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
def test_any_overrides_are_a_configuration_or_messages(overrides: list[str]) -> None:
    assume(not any("new_dir" in word or word.startswith("plugins") for word in overrides))
    lines = parse.mistakes(TrainConfig, "train", ["loss=focal", *overrides])  # which has a gamma
    assert all(line and "Traceback" not in line for line in lines)


@often(200)
@given(st.data())
def test_any_value_anywhere_is_a_configuration_or_messages(data: st.DataObject) -> None:
    plain = copy.deepcopy(dataclasses.asdict(train_config()))
    group = data.draw(st.sampled_from(sorted(plain)))
    if isinstance(plain[group], dict) and data.draw(st.booleans()):
        plain[group][data.draw(st.sampled_from(sorted(plain[group])) | LINE)] = data.draw(PLAIN)
    else:
        plain[group] = data.draw(PLAIN)
    try:
        parse.parse(TrainConfig, plain)
    except UserError as error:
        lines_of(error)


@often(200)
@given(
    LINE
    | st.from_regex(r"([0-9a-z-]{1,9}:[0-9a-z]{1,6},?){1,4}", fullmatch=True)
    | st.dictionaries(st.integers() | LINE, st.integers() | LINE)
)
@example("255:\u00b2")  # a superscript two is a digit, and no number
def test_any_label_map_is_one_or_a_message(value: Any) -> None:
    try:
        found = labels.from_text(value)
    except ValueError as error:
        if not str(error).endswith(" is said twice"):
            raise AssertionError(f"a text is no map yet: {error}") from None
        return
    with suppress(ValueError):
        labels.rules(found)


NAMES = st.sampled_from(
    ["images/photo_00.jpg", "masks/photo_00.png", "images/none.jpg", "../x", "/etc/passwd", "", "train", "val", "a b", '"']
)
TABLES = st.binary(max_size=200) | st.lists(st.lists(NAMES, max_size=4).map(",".join), max_size=5).map(
    lambda rows: "\n".join(["image,mask,split", *rows]).encode()
)


@often(150)
@given(content=TABLES, ending=st.sampled_from([".csv", ".jsonl"]))
def test_any_table_is_samples_or_messages(content: bytes, ending: str, tmp_path_factory: Any) -> None:
    root = _folder(tmp_path_factory)
    (root / f"data{ending}").write_bytes(content)
    try:
        manifest_sources(ManifestConfig(file=str(root / f"data{ending}")), TaskConfig(classes=["a"]), 3, 0)
    except UserError as error:
        lines_of(error)


def _folder(tmp_path_factory: Any) -> Path:
    root = Path(tmp_path_factory.getbasetemp()) / "fuzzed"
    if not root.exists():
        write_folder(root, blobs(1))
    return root
