"""Errors for want of memory are told from others, whichever library raises them, in whichever process."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader, Dataset

from segfocal.data.formats import read_image
from segfocal.errors import UserError
from segfocal.memory import memory_told, out_of_memory


def enlarged() -> None:
    """More than a process can address, whatever the machine promises."""
    cv2.resize(np.zeros((2, 2)), (1 << 23, 1 << 23))


class Enlarging(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        enlarged()
        return index


def test_opencv_has_no_memory() -> None:
    with pytest.raises(UserError, match=r"memory ran out \(.*Insufficient memory.*lower data.batch_size"), memory_told():
        enlarged()


def test_opencv_has_no_memory_in_a_worker() -> None:
    with pytest.raises(UserError, match="memory ran out"), memory_told():
        list(DataLoader(Enlarging(), num_workers=1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("NPU out of memory. Tried to allocate"), True),
        (cv2.error("std::bad_alloc"), True),
        (cv2.error("(-215:Assertion failed) !ssize.empty() in function 'resize'"), False),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_for_want_of_memory(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", full)
    with pytest.raises(MemoryError):
        read_image(tmp_path / name, 3)
