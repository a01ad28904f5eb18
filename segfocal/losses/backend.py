"""How a kernel is run: compiled on the whole, or as it is, chunk by chunk, each small enough for the cache.

Either way what lies in memory beside input and output is small: chunks bound the intermediate results, compiled code has none.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor

from segfocal.config.loss import Backend
from segfocal.losses.kernels import Focus, Stage

Kernel = Callable[..., tuple[Tensor, ...]]

COMPILE_FROM = 2**18  # logits; below, a call takes a millisecond anyway and compiling several seconds

OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "realize_opcount_threshold": 10_000,  # Inductor would write what takes more than 30 operations to memory before it is summed
    "cpp.enable_floating_point_contract_flag": "fast",  # a x + b with one rounding: a fifth faster in binary, and no less exact
}

log = logging.getLogger(__name__)
_broken: set[str] = set()


def run(kernel: Kernel, focus: Focus, backend: Backend, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Run a kernel.

    Args:
        kernel: see `segfocal.losses.kernels`.
        focus: its constants.
        backend: `auto` compiles for CPU and CUDA what is large enough for it to pay, `compiled` everything, `eager` nothing. Where
            nothing can be compiled, a line is logged once, and chunks are used from then on.
        tensors: logits first; the others agree with them along each axis or have 1 there.
    """
    logits = tensors[0]
    assert logits is not None
    if torch.compiler.is_compiling():  # in somebody's compiled step: theirs to fuse
        return kernel(_direct, focus, *tensors)
    device = logits.device.type
    wanted = backend == "compiled" or (backend == "auto" and device in ("cpu", "cuda") and logits.numel() >= COMPILE_FROM)
    # fp64 is for checks; Inductor's vectors of it crashed on transposed inputs.
    if wanted and device not in _broken and logits.numel() and logits.dtype != torch.float64:
        try:
            return kernel(_compiled_stage, focus, *tensors)
        except (MemoryError, torch.OutOfMemoryError):  # says nothing of the compiler
            raise
        except Exception as error:  # of the compiler, of a missing C++ compiler or Triton, of their caches: of many classes
            _broken.add(device)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            log.warning("losses are not compiled on %s, and run in chunks instead: %s", device, reason)
    return _in_chunks(kernel, focus, chunk_size(logits), *tensors)


def chunk_size(logits: Tensor) -> int:
    """How many logits make a chunk.

    Elsewhere than on the CPU few launches count: there every intermediate result has 64 MiB. On the CPU they stay in the cache, with work
    for two cores in every operation; and as there are ten of them, they are small beside the logits.
    """
    return min(2**18, max(3 * 2**14, logits.numel() // 40)) if logits.device.type == "cpu" else 2**24


def _direct(stage: Stage, focus: Focus, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    return stage(focus, *tensors)


def _compiled_stage(stage: Stage, focus: Focus, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    kinds = [None if tensor is None else (tensor.dtype, *(size == 1 for size in tensor.shape)) for tensor in tensors]
    return _compiled(stage, focus, (torch.is_inference_mode_enabled(), *kinds))(*tensors)


@functools.lru_cache(maxsize=256)
def _compiled(stage: Stage, focus: Focus, kind: tuple[object, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """A compiled stage for these constants, kept for the next call; torch keeps the machine code on disk for the next process.

    Args:
        stage: what is compiled.
        focus: its constants.
        kind: what torch compiles anew for in any case.
    """

    def bound(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        return stage(focus, *tensors)

    # torch counts recompilations by code object and gives up after eight: every setting and kind has its own.
    code: CodeType = bound.__code__.replace(co_name=f"{stage.__name__}_{len(_names)}")
    _names.append(code.co_name)
    own = FunctionType(code, bound.__globals__, code.co_name, bound.__defaults__, bound.__closure__)
    return torch.compile(own, fullgraph=True, options=OPTIONS)


_names: list[str] = []


def _in_chunks(kernel: Kernel, focus: Focus, size: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Chunks of images, or where one image is too large, of its rows."""
    logits = tensors[0]
    assert logits is not None
    rows = 2 if focus.axis == 1 else 1
    images, height = logits.shape[0], logits.shape[rows]
    a_row = max(1, logits.numel() // max(1, images * height))
    at_once = max(1, size // (a_row * max(1, height)))
    many_rows = height if at_once > 1 else max(1, min(height, size // a_row))
    if at_once >= images and many_rows >= height:
        return kernel(_direct, focus, *tensors)

    outputs: list[Tensor] = []
    for first in range(0, images, at_once):
        for row in range(0, height, many_rows):
            cut = functools.partial(_cut, axis=rows, images=(first, first + at_once), rows=(row, row + many_rows))
            results = kernel(_direct, focus, *[None if tensor is None else cut(tensor) for tensor in tensors])
            if not outputs:
                outputs = [_whole(result, images, rows, height) for result in results]
            for output, result in zip(outputs, results, strict=True):
                cut(output).copy_(result)
    return tuple(outputs)


def _whole(chunk: Tensor, images: int, axis: int, height: int) -> Tensor:
    shape = list(chunk.shape)
    shape[0], shape[axis] = images, height
    return chunk.new_empty(shape)


def _cut(tensor: Tensor, axis: int, images: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    if tensor.shape[0] > 1:
        tensor = tensor[images[0] : images[1]]
    if tensor.shape[axis] > 1:
        tensor = tensor.narrow(axis, rows[0], min(rows[1], tensor.shape[axis]) - rows[0])
    return tensor
