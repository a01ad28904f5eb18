"""What is said where memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import cv2
import torch

from segfocal.errors import UserError, first_line

# Of CUDA and NPUs; of torch on a CPU; of oneDNN; of Python, for their stacks; of NumPy in a worker, whose error torch cannot make again;
# of OpenCV, by its own hand and by that of C++.
SAID = (
    "out of memory",
    "can't allocate memory",
    "could not create a primitive",
    "can't start new thread",
    "MemoryError in DataLoader worker",
    "Insufficient memory",
    "std::bad_alloc",
)
LESS = "lower data.batch_size or data.crop, take trainer.precision=bf16-mixed, or for whole images inference.tile=[512,512]"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is one for want of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | cv2.error) and any(words in str(error) for words in SAID)
    )


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """That memory ran out in the block becomes a line, with what needs less of it."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"memory ran out ({first_line(error)}): {LESS}") from None
