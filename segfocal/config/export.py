"""What `python -m segfocal.export` is configured by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
STRIDE = 32  # of images, as in training


@dataclass(config=STRICT, kw_only=True)
class ExportConfig:
    """
    Args:
        ckpt: a checkpoint file or a run directory (its best).
        format: `onnx` for ONNX Runtime and its like; `torch_export` for PyTorch without this program; `safetensors` the weights and what is
            needed to use them, which evaluate.py and predict take as `ckpt=`.
        out: the file; null writes beside the checkpoint.
        normalise: take pixels of 0..255 and normalise them in the graph; false takes normalised images.
        size: height and width of all images, where the model takes one size alone; null takes any multiples of 32.
        overwrite: replace a file that is there.
    """

    ckpt: str | None = None
    format: Literal["onnx", "torch_export", "safetensors"] = "onnx"
    out: str | None = None
    normalise: Flag = False
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    overwrite: Flag = False

    def __post_init__(self) -> None:
        problems = []
        if not self.ckpt:
            problems.append("ckpt is not said: which checkpoint to export, as in ckpt=runs/<run> or ckpt=best.ckpt")
        if self.out is not None and Path(self.out).suffix != SUFFIXES[self.format]:
            problems.append(f"out={self.out}: format={self.format} is written to a file whose name ends in {SUFFIXES[self.format]}")
        if self.size and (odd := [length for length in self.size if length % STRIDE]):
            problems.append(f"size: {odd[0]} is not a multiple of {STRIDE}, which images are padded to: {-(-odd[0] // STRIDE) * STRIDE}")
        if self.format == "safetensors":
            problems += [f"{key}: format=safetensors has no graph: leave it out" for key in ("normalise", "size") if getattr(self, key)]
        if problems:
            raise ValueError("\n".join(problems))
