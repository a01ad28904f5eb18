"""Weights as safetensors, with what a checkpoint says of them in the file's header: for strangers, who need run nothing to read it.

Tensors are named as the model of segmentation-models-pytorch names them. The header's `segfocal` is JSON, the checkpoint's `segfocal`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from segfocal.errors import UserError
from segfocal.plainfile import plain

SUFFIX = ".safetensors"
PREFIX = "model."
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64)  # int64: how many batches a BatchNorm has seen
INSTALL = "pip install 'segfocal[onnx]'"


def write(content: dict[str, Any], path: Path) -> None:
    """Write the weights of a checkpoint, and its `segfocal`.

    Raises:
        UserError: safetensors is not installed, or what it says is no plain data.
    """
    library = _library("torch")
    tensors = {name.removeprefix(PREFIX): value.contiguous() for name, value in content["state_dict"].items() if name.startswith(PREFIX)}
    try:
        told = json.dumps(content["segfocal"], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint says what JSON cannot hold: {error}") from None
    path.write_bytes(library.save(tensors, metadata={"segfocal": told}))  # one key: several have no order


def read(path: Path) -> dict[str, Any]:
    """The weights and `segfocal`, named as in a checkpoint.

    Raises:
        UserError: safetensors is not installed; the file is damaged, or says something else than `write` does.
    """
    safetensors = _library()
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            told = (file.metadata() or {}).get("segfocal")
            state = {PREFIX + name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: damaged, or something else ({str(error)[:120]})") from None
    if told is None:
        raise UserError(f"{path}: safetensors of another program: its header says nothing of segfocal")
    try:
        about = plain(json.loads(told, parse_constant=_refuse), len(told))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header cannot be read ({str(error)[:120]})") from None
    return {"state_dict": state, "segfocal": about}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _library(part: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors.{part}" if part else "safetensors")
    except ModuleNotFoundError:
        raise UserError(f"safetensors is not installed: {INSTALL}") from None
