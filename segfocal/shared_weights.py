"""Weights as safetensors, with what a checkpoint says of them in the file's header: for strangers, who need run nothing to read it.

Tensors are named as the model of segmentation-models-pytorch names them. The header's `segfocal` is JSON, the checkpoint's `segfocal`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from segfocal.config.base import Index, Number, Positive
from segfocal.errors import UserError

SUFFIX = ".safetensors"
PREFIX = "model."
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64)  # int64: how many batches a BatchNorm has seen
INSTALL = "pip install 'segfocal[onnx]'"


@dataclass(config=ConfigDict(extra="allow"), kw_only=True)
class About:
    """What anything but a training needs of a checkpoint's `segfocal`; the rest of it is told, not used."""

    format: Index
    config: dict[str, Any]
    classes: list[str]
    mean: Annotated[list[Number], Field(min_length=1)]
    std: Annotated[list[Positive], Field(min_length=1)]
    epoch: Index
    metrics: dict[str, float | None]
    decision: dict[str, Any] | None = None
    splits: dict[str, list[str]] | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in ("task", "model", "data"):
            if not isinstance(self.config.get(group), dict):
                raise ValueError(f"its configuration has no {group}")
        if len(self.mean) != len(self.std) or len(self.mean) != self.config["model"].get("in_channels"):
            raise ValueError("mean and std are not of as many channels as its model takes")


def check(about: Any, path: Path) -> None:
    """Raise UserError where what a checkpoint says of itself is not of the form that it should be."""
    try:
        TypeAdapter(About).validate_python(about)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise UserError(f"{path}: not a checkpoint of this program ({where + ': ' if where else ''}{first['msg']})") from None


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
        about = json.loads(told, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header cannot be read ({str(error)[:120]})") from None
    check(about, path)
    for name, value in state.items():
        if value.dtype not in DTYPES:
            raise UserError(f"{path}: {name.removeprefix(PREFIX)} is of {value.dtype}, which no weights of this program are")
    return {"state_dict": state, "segfocal": about}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _library(part: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors.{part}" if part else "safetensors")
    except ModuleNotFoundError:
        raise UserError(f"safetensors is not installed: {INSTALL}") from None
