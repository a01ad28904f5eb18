"""torch.compile, for the model in the training step."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from segfocal.config.profile import Compile
from segfocal.errors import UserError

log = logging.getLogger("segfocal")


def mode_of(wanted: Compile, device: torch.device) -> str | None:
    """The mode of torch.compile, or None where nothing is compiled.

    Args:
        wanted: of the profile: null asks whether there is a compiler, and says so where there is none.
        device: that the model is on.

    Raises:
        UserError: it is wanted, and there is no compiler.
    """
    if wanted is False:
        return None
    if device.type == "npu":
        reason: str | None = "torch.compile knows no NPU"
    elif wanted == "reduce-overhead" and device.type != "cuda":
        raise UserError("profile.compile=reduce-overhead: records CUDA graphs, which a CPU has none of: true or false")
    else:
        reason = why_not(device)
    if reason is None:
        return wanted if isinstance(wanted, str) else "default"
    if wanted is None:
        log.info("profile.compile=null: the model is not compiled: %s", reason)
        return None
    raise UserError(f"profile.compile={str(wanted).lower()}: {reason}: profile.compile=false, or null, which goes on without")


def why_not(device: torch.device) -> str | None:
    """Why nothing can be compiled here; found by compiling a line, which takes a second or two where it can."""
    try:
        torch.compile(lambda numbers: (numbers + 1).sin())(torch.zeros(64, device=device))
    except Exception as error:  # of the compiler, of a missing C++ compiler or Triton, of their caches: of many classes
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return lines[0][:160]
    return None


def compile_model(model: nn.Module, mode: str | None) -> None:
    """Compile a model where it stands: its parameters keep their names, and copies of it are not compiled."""
    if mode is not None:
        model.compile(mode=mode)


def eagerly() -> Any:
    """Within it nothing is compiled anew, nor run compiled."""
    return torch.compiler.set_stance("force_eager")
