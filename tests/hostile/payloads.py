"""Checkpoints that somebody has prepared: each would run, fetch, fill memory or leave its folder, if it were trusted."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from tests.checkpoints import MEAN, NO_CHECKPOINT, STD, Payload, made, put

Make = Callable[[Path], Path]

DAMAGED = "cannot be read as a checkpoint: damaged, or something else"
MORE = r"cannot be read as a checkpoint: it holds more than plain data \("
UNUSABLE = "its configuration cannot be used: "


class Calling:
    """Pickled, it is a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def spoilt(spoil: Callable[[dict[str, Any]], None], *overrides: str) -> Make:
    return lambda folder: made(folder / "bad.ckpt", *overrides, spoil=spoil)


def adding(value: Any) -> Make:
    """As torch writes it: our own writer looks into what it is given."""

    def write(folder: Path) -> Path:
        path = made(folder / "bad.ckpt")
        torch.save(torch.load(path, weights_only=True) | {"more": value}, path)
        return path

    return write


def told(**values: Any) -> Make:
    """Says something else of itself."""
    return spoilt(lambda content: content["segfocal"].update(values))


def configured(group: str, **values: Any) -> Make:
    return spoilt(lambda content: content["segfocal"]["config"][group].update(values))


def written(content: Callable[[], bytes] | bytes, name: str = "bad.ckpt") -> Make:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return write


def rezipped(
    change: Callable[[str, bytes], bytes] = lambda name, content: content,
    rename: Callable[[str], str] = lambda name: name,
    packing: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
    spoil: Callable[[dict[str, Any]], None] = lambda content: None,
) -> Make:
    """The archive of a good checkpoint, written anew with right checksums."""

    def write(folder: Path) -> Path:
        path = made(folder / "bad.ckpt", spoil=spoil)
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as good, zipfile.ZipFile(path, "w", packing) as bad:
            members = {rename(name): change(name, good.read(name)) for name in good.namelist()}
            for name, content in [*members.items(), *(more or {}).items()]:
                bad.writestr(name, content)
        return path

    return write


def member(ending: str, content: bytes) -> Make:
    return rezipped(lambda name, before: content if name.endswith(ending) else before)


def pickled(change: Callable[[bytes], bytes], *, spoil: Callable[[dict[str, Any]], None] = lambda content: None) -> Make:
    """Another pickle in an archive that is right."""
    return rezipped(lambda name, content: change(content) if name.endswith("data.pkl") else content, spoil=spoil)


def claiming(folder: Path) -> Path:
    """The first tensor says that it has a hundred gigabytes."""
    return pickled(_claim)(folder)


def _claim(content: bytes) -> bytes:
    operations = list(pickletools.genops(content))
    loaded = next(place for place, (operation, _, _) in enumerate(operations) if operation.name == "BINPERSID")
    size = max(place for place in range(loaded) if operations[place][0].name.startswith("BININT"))
    start, end = operations[size][2], operations[size + 1][2]
    assert start is not None and end is not None
    return content[:start] + b"\x8a\x05" + (25 * 2**30).to_bytes(5, "little") + content[end:]


def _legacy(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _zipped(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _oldest() -> bytes:
    """As torch 0.1 wrote it: a tar of pickles."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(Payload(), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _torchscript(folder: Path) -> Path:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(folder / "bad.ckpt"))  # type: ignore[no-untyped-call]
    return folder / "bad.ckpt"


def _array_of_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)
    return file.getvalue()


def _renamed_safetensors(folder: Path) -> Path:
    save_file({"weight": torch.ones(2)}, folder / "bad.ckpt")
    return folder / "bad.ckpt"


def _in_itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def _doubled(times: int) -> list[Any]:
    """A list of few entries that stands for 2^times."""
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


def _nested(times: int) -> Make:
    """Lists in lists, deeper than Python's own pickle writes them."""
    return pickled(lambda content: content[:-2] + b"X\x01\x00\x00\x00z" + b"]" * times + b"a" * (times - 1) + b"s.")


def _inflated(folder: Path) -> Path:
    """A gigabyte of zeros in a megabyte."""
    path = rezipped(packing=zipfile.ZIP_DEFLATED)(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data/99999", "w", force_zip64=True) as entry:
        for _ in range(64):
            entry.write(bytes(2**24))
    return path


def _claimed_members(folder: Path) -> Path:
    """The directory of the archive says that the first storage has a hundred gigabytes."""
    path = made(folder / "bad.ckpt")
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    struct.pack_into("<II", content, place + 20, 2**32 - 2, 2**32 - 2)
    path.write_bytes(content)
    return path


def _twice(folder: Path) -> Path:
    path = made(folder / "bad.ckpt")
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the name is there
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(), protocol=2))
    return path


def _after(more: bytes) -> Make:
    def write(folder: Path) -> Path:
        path = made(folder / "bad.ckpt")
        path.write_bytes(path.read_bytes() + more)
        return path

    return write


def _before(more: Callable[[], bytes]) -> Make:
    def write(folder: Path) -> Path:
        path = made(folder / "bad.ckpt")
        path.write_bytes(more() + path.read_bytes())
        return path

    return write


def _many_classes(content: dict[str, Any]) -> None:
    content["segfocal"]["config"]["task"]["classes"] = content["segfocal"]["classes"] = [f"c{number}" for number in range(100_000)]


def _class_called(name: str) -> Make:
    def spoil(content: dict[str, Any]) -> None:
        content["segfocal"]["config"]["task"]["classes"] = content["segfocal"]["classes"] = [name]

    return spoilt(spoil)


def _large_model(content: dict[str, Any]) -> None:
    """Twelve kilobytes for each channel, which takes a number in the file."""
    count = 200_000
    content["segfocal"] |= {"mean": [0.5] * count, "std": [0.5] * count}
    content["segfocal"]["config"]["model"]["in_channels"] = count


def _expanded(content: dict[str, Any]) -> None:
    """One number that is seen as ten billion."""
    content["state_dict"]["model.segmentation_head.0.bias"] = torch.zeros(1).expand(10**10)


def _by_numbers(content: dict[str, Any]) -> None:
    content["state_dict"] = dict(enumerate(content["state_dict"].values()))


def _header(text: str) -> Make:
    """Safetensors that say so of themselves."""

    def write(folder: Path) -> Path:
        save_file({"segmentation_head.0.bias": torch.ones(1)}, folder / "bad.safetensors", metadata={"segfocal": text})
        return folder / "bad.safetensors"

    return write


PICKLE = pickle.dumps(Payload(), protocol=2)
HOSTILE: dict[str, tuple[Make, str]] = {
    # what would run
    "a pickle of protocol 4": (pickled(lambda content: pickle.dumps(Payload(), protocol=4)), MORE),
    "a pickle of protocol 0": (pickled(lambda content: pickle.dumps(Payload(), protocol=0)), MORE),
    "a bare pickle": (written(PICKLE), DAMAGED),
    "of torch's oldest format": (written(_oldest), DAMAGED),
    "of torch before 1.6": (written(lambda: _legacy({"state_dict": {"x": Payload()}})), DAMAGED),
    "good, of torch before 1.6": (written(lambda: _legacy({"state_dict": {}})), DAMAGED),
    "a pickle before a good archive": (_before(lambda: PICKLE), DAMAGED),
    "torch before 1.6 before a good archive": (_before(lambda: _legacy({"x": Payload()})), DAMAGED),
    "an archive before a good archive": (_before(lambda: _zipped({"x": Payload()})), DAMAGED),
    "a pickle behind the end": (_after(PICKLE), DAMAGED),
    "an archive behind the end": (_after(_zipped({"x": Payload()})), DAMAGED),
    "data.pkl twice": (_twice, DAMAGED),
    "a pickle for byteorder": (member("byteorder", PICKLE), DAMAGED),
    "TorchScript": (_torchscript, DAMAGED),
    "a system call": (adding(Calling(os.system, "touch executed")), MORE + r"(posix|nt)\.system\)$"),
    "a call of eval": (adding(Calling(eval, "open('executed', 'w')")), MORE + r"(__builtin__|builtins)\.eval\)$"),
    "a partial": (adding(partial(Path.touch, Path("executed"))), MORE + r"functools\.partial\)$"),
    "a configuration of OmegaConf": (adding(OmegaConf.create({"a": 1})), MORE + r"omegaconf\.dictconfig\.DictConfig\)$"),
    "a path": (adding(Path("x")), MORE + r"pathlib\.\w+\)$"),
    "a number of NumPy": (adding(np.float64(1)), MORE + r"numpy\.\S+\)$"),
    "an object array of NumPy": (written(_array_of_objects), DAMAGED),
    "safetensors": (_renamed_safetensors, DAMAGED),
    "a text in gzip": (written(lambda: gzip.compress(b"nothing")), DAMAGED),
    # names that lead elsewhere
    "members above the folder": (rezipped(more={"archive/../../evil": b"x"}), DAMAGED),
    "members at the root": (rezipped(more={"/etc/evil": b"x"}), DAMAGED),
    "members of two folders": (rezipped(more={"other/data.pkl": PICKLE}), DAMAGED),
    # memory
    "packed": (rezipped(packing=zipfile.ZIP_DEFLATED), DAMAGED + ".*packed"),
    "a gigabyte in a megabyte": (_inflated, DAMAGED),
    "a storage that says a hundred gigabytes": (claiming, DAMAGED),
    "members that say four gigabytes": (_claimed_members, DAMAGED),
    "a hundred gigabytes of bytes": (adding(Calling(bytearray, 10**11)), MORE),
    "a hundred gigabytes of a tensor": (adding(Calling(torch.FloatTensor, 10**10)), MORE),
    "a hundred gigabytes of one number": (spoilt(_expanded), MORE + "a tensor of 10000000000 numbers that are not in the file"),
    "a list in itself": (adding(_in_itself()), MORE + "lists that are in each other"),
    "lists that double": (adding(_doubled(60)), MORE + "lists that are in each other"),
    "lists in lists": (_nested(100_000), MORE + "lists that are in each other"),
    "a number of a thousand digits": (adding(10**1000), "cannot be read as a checkpoint: "),
    "a number beyond 64 bits": (adding(10**30), MORE + "a number beyond 64 bits"),
    "a model of more gigabytes than its weights": (
        spoilt(_large_model, "model.encoder=resnet34"),
        UNUSABLE + "its model would have more than 1.3 GB of weights",
    ),
    "a hundred thousand classes": (spoilt(_many_classes, "task=multilabel"), UNUSABLE + "task.classes: at most 1000 names"),
    "safetensors with lists in lists": (_header("[" * 100_000 + "]" * 100_000), r"its header cannot be read \("),
    "safetensors with a number of ten thousand digits": (_header('{"epoch": ' + "9" * 10_000 + "}"), r"its header cannot be read \("),
    # wrong types
    "safetensors with a NaN": (_header('{"mean": [NaN]}'), r"its header cannot be read \(NaN is no JSON\)"),
    "safetensors with lists in a few lists": (_header("[" * 100 + "]" * 100), r"its header cannot be read \(lists that are in each other"),
    "a set": (adding({1, 2}), MORE + r"(__builtin__|builtins)\.set\)$"),
    "a dictionary by tuples": (adding({(1, 2): 3}), MORE + "a dictionary by tuple"),
    "sparse tensors": (adding(torch.eye(3).to_sparse()), MORE),
    "weights by numbers": (spoilt(_by_numbers), NO_CHECKPOINT),
    "weights in a list": (spoilt(lambda content: content.update(state_dict=[])), NO_CHECKPOINT),
    "complex weights": (
        spoilt(lambda content: content["state_dict"].update({"model.x": torch.ones(1, dtype=torch.complex64)})),
        "x is of torch.complex64, which no weights of this program are",
    ),
    "a format that is a tensor": (spoilt(put("format", torch.ones(2))), NO_CHECKPOINT),
    "a format that is true": (spoilt(put("format", True)), NO_CHECKPOINT),
    "a configuration that is a text": (told(config="x"), NO_CHECKPOINT + r" \(config: "),
    "a tensor in the configuration": (configured("model", name=torch.ones(2)), NO_CHECKPOINT),
    "a task that is a list": (spoilt(lambda content: content["segfocal"]["config"].update(task=[])), NO_CHECKPOINT),
    "a seed below zero": (spoilt(lambda content: content["segfocal"]["config"].update(seed=-1)), NO_CHECKPOINT),
    "a beta that is a text": (configured("metrics", beta="x"), NO_CHECKPOINT),
    "classes that are numbers": (told(classes=[1]), NO_CHECKPOINT + r" \(classes.0: "),
    "an epoch that is a text": (told(epoch="3"), NO_CHECKPOINT + r" \(epoch: "),
    "a mean that is a text": (told(mean="abc"), NO_CHECKPOINT + r" \(mean: "),
    "a mean of NaN": (told(mean=[float("nan")] * 3), NO_CHECKPOINT + r" \(mean.0: "),
    "shares of other classes": (told(shares=[0.5, 0.5]), NO_CHECKPOINT + ".*shares are not of as many classes"),
    "a share above 1": (told(shares=[1.5]), NO_CHECKPOINT + r" \(shares.0: "),
    "metrics that are a list": (told(metrics=[1.0]), NO_CHECKPOINT + r" \(metrics: "),
    "splits that are a path": (told(splits="/etc/passwd"), NO_CHECKPOINT + r" \(splits: "),
    "versions that are numbers": (told(versions={"torch": 2}), NO_CHECKPOINT + r" \(versions.torch: "),
    "thresholds that are a dictionary": (told(decision={"mode": "binary", "thresholds": {"a": 1}}), "its thresholds cannot be used"),
    "thresholds that are a text": (told(decision={"mode": "binary", "thresholds": "5"}), "its thresholds cannot be used"),
    "thresholds by another name": (told(decision={"mode": "binary", "_target_": "os.system"}), "its thresholds cannot be used"),
    # a configuration that would build or fetch
    "a _target_ for the model": (configured("model", _target_="os.system"), UNUSABLE + "_target_=os.system: nothing is built by the path"),
    "an interpolation for the encoder": (configured("model", encoder="${oc.env:HOME}"), UNUSABLE + r".*'\$\{oc.env:HOME\}'"),
    "an encoder of a hub": (configured("model", encoder="tu-hf_hub:evil/model"), UNUSABLE + "model.encoder=tu-hf_hub:evil/model"),
    "an encoder of another hub": (configured("model", encoder="hf-hub:evil/model"), UNUSABLE),
    "an architecture by its path": (configured("model", name="os.system"), UNUSABLE + "name=os.system: must be one of"),
    # names
    "a class with a colour of the terminal": (_class_called("\x1b[31mred"), UNUSABLE + "task.classes: "),
    "a class of two lines": (_class_called("a\nb"), UNUSABLE + "task.classes: "),
    "a class of ten megabytes": (_class_called("x" * 10_000_000), UNUSABLE + "task.classes: "),
    "an encoder of ten megabytes": (configured("model", encoder="x" * 10_000_000), UNUSABLE),
    "an encoder with a colour of the terminal": (configured("model", encoder="\x1b[31mx"), UNUSABLE + r".*\\x1b\[31mx"),
    "a version of ten megabytes": (told(format=9, versions={"torch": "x" * 10_000_000}), "written in format 9"),
}
"""How each is made, and what is said of it by every command that does not train."""

__all__ = ["DAMAGED", "HOSTILE", "MEAN", "MORE", "NO_CHECKPOINT", "STD", "UNUSABLE", "Calling", "configured", "spoilt", "told"]
