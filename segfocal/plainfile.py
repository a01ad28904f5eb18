"""Files of torch that may come from anybody, read as plain data: nothing in them runs, and they take memory for what they hold alone.

`weights_only=True` keeps code from running. It looks at no checksum, though, and a small file may ask it for any amount of memory: by
members that are packed, by functions that make bytes or tensors of a size, by one number that is seen as a tensor of billions, by
lists that hold each other. So the archive and the names in it are looked at before torch sees them, and what torch has made afterwards.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

FIRST, LAST = b"PK\x03\x04", b"PK\x05\x06"  # what an archive, and its last 22 bytes, begin with
NAMES = re.compile(r"torch [A-Z][A-Za-z0-9]*Storage|torch\._utils _rebuild_tensor_v2|collections OrderedDict")
MOST = 5_000_000  # operations of a pickle, and values that they come to: 100 bytes each at most, beside tensors and text
DEEPEST = 64  # of what is in one another


class NotPlainError(ValueError):
    """A file holds something else than numbers, text, lists, dictionaries and tensors."""


def read_plain(path: Path) -> Any:
    """What a file of torch holds, on the CPU; of dictionaries, lists and tuples none is of another kind.

    Raises:
        NotPlainError: it holds something else.
        Exception: it is damaged, or no such file; zipfile, pickletools and torch have each their own.
    """
    with path.open("rb") as file:  # once: what is read is what was looked at
        operations = check_names(pickle_of(file))
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a file is odd is said in one line, here
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:  # torch goes on to tell how to run it all the same
                raise NotPlainError("what torch does not take for weights") from None
    return plain(content, operations)


def pickle_of(file: BinaryIO) -> bytes:
    """The pickle in an archive that is laid out as torch does, with the right checksums.

    Raises:
        ValueError: it is not, or a checksum is wrong. There are more, of zipfile.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 22))
    end = file.read()
    file.seek(0)
    if file.read(4) != FIRST or end[:4] != LAST:  # torch takes what begins otherwise for its oldest format, whatever archive is behind it
        raise ValueError("not an archive as torch writes it")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        folder = names[0].partition("/")[0] if names else ""
        if not names or len(set(names)) < len(names) or any(not name.startswith(f"{folder}/") or ".." in name.split("/") for name in names):
            raise ValueError("the names in its archive are not those that torch gives")
        if members[0].header_offset != 0 or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its archive is packed, or begins with something else: torch writes neither")
        if sum(member.file_size for member in members) > size:
            raise ValueError("the members of its archive overlap")
        if (spoilt := archive.testzip()) is not None:  # torch would take a flipped bit for another number
            raise ValueError(f"the checksum of {spoilt} is wrong")
        return archive.read(f"{folder}/data.pkl")


def check_names(pickled: bytes) -> int:
    """Look at every operation of a pickle, without doing it; returns how many there are.

    Raises:
        NotPlainError: it names what makes anything but plain data.
        ValueError: it is damaged, or has too many operations.
    """
    number = 0
    for number, (operation, argument, _) in enumerate(pickletools.genops(pickled), start=1):
        if operation.name == "GLOBAL" and not NAMES.fullmatch(str(argument)):
            raise NotPlainError(str(argument).replace(" ", "."))
        if number > MOST:
            raise ValueError("more is in it than in any checkpoint")
    return number


def plain(content: Any, most: int) -> Any:
    """A copy in dictionaries, lists and tuples of Python's own; tensors stay where they are.

    Args:
        content: what was read.
        most: values that may be in it, as many as the file has operations, or signs; more are there where parts stand for several.

    Raises:
        NotPlainError: there is something else in it, it is too deep, or parts that are in each other make it endless.
    """
    left = most

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise NotPlainError("lists that are in each other")
        kind = type(value)
        if kind in (dict, OrderedDict):  # not value.items(): what calls itself so may come from the file
            return {_key(key): copied(item, depth + 1) for key, item in dict.items(value)}
        if kind in (list, tuple):
            return kind(copied(item, depth + 1) for item in value)
        if kind is Tensor:
            return _tensor(value)
        if value is None or kind in (str, float, bool) or (kind is int and -(2**63) <= value < 2**63):
            return value
        raise NotPlainError("a number beyond 64 bits" if kind is int else kind.__name__)

    return copied(content, 0)


def _key(key: Any) -> str | int:
    if type(key) not in (str, int):
        raise NotPlainError(f"a dictionary by {type(key).__name__}")
    return key  # type: ignore[no-any-return]  # checked in the line above


def _tensor(value: Tensor) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise NotPlainError("a tensor of another kind")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise NotPlainError(f"a tensor of {value.numel()} numbers that are not in the file")
    return value.detach()
