"""Files that have been changed at random: refused, or the same as before; never a crash, and nothing runs."""

from __future__ import annotations

import dataclasses
import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segfocal import checkpoint as checkpoints
from segfocal import shared_weights
from segfocal.errors import UserError
from tests.checkpoints import MEAN, STD, Payload, train_config
from tests.hostile.payloads import HOSTILE
from tests.hostile.test_fuzz import often


def small() -> dict[str, Any]:
    """All that a checkpoint is, but for the weights of a model."""
    config = train_config()
    about = checkpoints.about(dataclasses.asdict(config), config.task.class_names, MEAN[:3], STD[:3], {"train": ["a", "b"]})
    weights = {"model.a": torch.arange(6.0).reshape(2, 3), "model.b": torch.tensor(7)}
    return {"state_dict": weights, "optimizer_states": [], "segfocal": about | {"epoch": 1, "metrics": {"iou": 0.5}, "decision": None}}


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def shared(folder: Path) -> bytes:
    shared_weights.write(small(), folder / "shared.safetensors")
    return (folder / "shared.safetensors").read_bytes()


GOOD = saved(small())
BAD = saved({**small(), "more": Payload()})
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "drop", "repeat", "insert", "zero"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for how, where, count, more in changes:
        place = int(where * len(content))
        before, part, after = content[:place], content[place : place + count], content[place + count :]
        content = {
            "cut": before,
            "flip": before + bytes(byte ^ more[0] for byte in part[:1]) + part[1:] + after,
            "drop": before + after,
            "repeat": before + part + part + after,
            "insert": before + more + part + after,
            "zero": before + bytes(len(part)) + after,
        }[how]
    return content


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


def read(content: bytes, path: Path) -> Any:
    """What is read, or None where it is refused in a line."""
    path.write_bytes(content)
    try:
        return checkpoints.read(path)
    except UserError as error:
        said = str(error)
    assert said.startswith(f"{path}: ") and said.isprintable() and len(said) < 600
    return None


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a payload would leave its mark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("mutated"))
        yield
        assert not Path("executed").exists()


def test_what_is_changed_is_good_to_begin_with() -> None:
    assert same(read(GOOD, Path("a.ckpt")), small())
    assert read(BAD, Path("a.ckpt")) is None
    content = read(shared(Path()), Path("a.safetensors"))
    assert same(content["segfocal"], small()["segfocal"])


@often(400)
@given(CHANGES)
def test_a_changed_checkpoint_is_refused_or_the_same(changes: list[tuple[str, float, int, bytes]]) -> None:
    found = read(changed(GOOD, changes), Path("a.ckpt"))
    assert found is None or same(found, small())


@often(100)
@given(CHANGES)
def test_a_changed_payload_does_not_run(changes: list[tuple[str, float, int, bytes]]) -> None:
    assert read(changed(BAD, changes), Path("a.ckpt")) is None
    assert not Path("executed").exists()


@often(200)
@given(CHANGES)
def test_changed_safetensors_are_refused_or_plain(changes: list[tuple[str, float, int, bytes]]) -> None:
    """They have no checksum: a flipped bit of a weight is another weight, which is why the command prints one of the file."""
    read(changed(shared(Path()), changes), Path("a.safetensors"))


def with_pickle(content: bytes) -> bytes:
    """A whole archive, with right checksums, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(GOOD)) as good, zipfile.ZipFile(file, "w") as other:
        for name in good.namelist():
            other.writestr(name, content if name.endswith("data.pkl") else good.read(name))
    return file.getvalue()


with zipfile.ZipFile(io.BytesIO(GOOD)) as _archive:
    PICKLED = _archive.read("archive/data.pkl")
OPERATIONS = [operation.code.encode("latin1") for operation in pickletools.opcodes]
PIECES = st.sampled_from(
    [
        *OPERATIONS,
        *(code + argument for code in OPERATIONS for argument in (b"\0", b"\xff", b"\1\0\0\0", b"\xff\xff\xff\x7f")),
        b"cposix\nsystem\n",
        b"cbuiltins\neval\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",
        b"X\4\0\0\0path",
        pickle.dumps(Payload(), protocol=2),
    ]
)


@often(400)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), PIECES), min_size=1, max_size=6))
def test_any_pickle_is_refused_or_plain(splices: list[tuple[float, int, bytes]]) -> None:
    content = PICKLED
    for where, dropped, piece in splices:
        place = int(where * len(content))
        content = content[:place] + piece + content[place + dropped :]
    found = read(with_pickle(content), Path("a.ckpt"))
    assert found is None or isinstance(found, dict)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "kind",
    [
        "packed",
        "torch before 1.6 before a good archive",
        "good, of torch before 1.6",
        "a hundred gigabytes of one number",
        "a list in itself",
        "lists that double",
        "members above the folder",
        "a flipped bit",
    ],
)
def test_torch_alone_would_take_it(kind: str, tmp_path: Path) -> None:
    """What is refused here beyond what torch refuses; a release that refuses it too makes a check superfluous."""
    if kind == "a flipped bit":
        path = tmp_path / "bad.ckpt"
        place = GOOD.index(small()["state_dict"]["model.a"].numpy().tobytes())
        path.write_bytes(GOOD[:place] + bytes([GOOD[place] ^ 64]) + GOOD[place + 1 :])
    elif kind == "torch before 1.6 before a good archive":
        path = tmp_path / "bad.ckpt"
        old = io.BytesIO()
        torch.save({"x": 1}, old, _use_new_zipfile_serialization=False)
        path.write_bytes(old.getvalue() + GOOD)
    else:
        path = HOSTILE[kind][0](tmp_path)
    torch.load(path, map_location="cpu", weights_only=True)
    assert read(path.read_bytes(), path) is None
