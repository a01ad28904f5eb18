"""What torch is told for the whole of a process: threads, TF32, determinism."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from segfocal.config.profile import ProfileConfig
from segfocal.errors import UserError

NO_KERNEL = "does not have a deterministic implementation"  # torch's words


def switch(profile: ProfileConfig, accelerator: str) -> dict[str, Any]:
    """Set torch's switches, each to one value or the other whatever was set before.

    Args:
        profile: of the configuration.
        accelerator: what it came to.

    Returns:
        What Lightning's Trainer is told besides, for it sets two of them again.
    """
    if profile.threads is not None:
        torch.set_num_threads(profile.threads)
    torch.use_deterministic_algorithms(bool(profile.deterministic), warn_only=profile.deterministic == "warn")
    if accelerator != "gpu":
        return {"deterministic": profile.deterministic}
    if profile.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    # torch's older switches: Lightning and Inductor read them, and torch raises there once `fp32_precision` has been set.
    tf32 = profile.tf32 is not False
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    benchmark = profile.cudnn_benchmark if profile.cudnn_benchmark is not None else not profile.deterministic
    return {"deterministic": profile.deterministic, "benchmark": benchmark}


@contextlib.contextmanager
def kernels_told() -> Iterator[None]:
    """What torch raises under `profile.deterministic=true` for an operator that has no deterministic kernel becomes a line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if NO_KERNEL not in text:
            raise
        operator = text.split(NO_KERNEL)[0].strip().splitlines()[-1]
        raise UserError(
            f"profile.deterministic=true: {operator} has no deterministic kernel on this device: another model or loss, "
            "profile.deterministic=warn to go on all the same, or profile=cpu"
        ) from None
