"""torch_npu, imported when a profile asks for it, and what its devices can do."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from typing import Any

import torch

from segfocal.accelerators.installed import ELSE, SET_ENV, require_torch_npu
from segfocal.config.profile import Precision
from segfocal.errors import UserError


def load(profile: str) -> str:
    """Import torch_npu.

    Args:
        profile: what asks for it, for messages.

    Returns:
        The name of the chip.

    Raises:
        UserError: it cannot be imported, or sees no device.
    """
    require_torch_npu(profile)
    said = io.StringIO()
    try:
        # Without CANN it prints a traceback and leaves by sys.exit().
        with contextlib.redirect_stderr(said):
            importlib.import_module("torch_npu")
    except (ImportError, OSError, RuntimeError, AttributeError, SystemExit) as error:
        lines = f"{said.getvalue()}\n{error}".strip().splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if "Error" in line or ".so" in line), lines[-1]).strip()
        raise UserError(
            f"profile={profile}: torch_npu cannot be imported ({reason[:200]}): install CANN and the driver, then source {SET_ENV}, {ELSE}"
        ) from None
    count = device_count()
    if count == 0:
        visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
        hidden = f"ASCEND_RT_VISIBLE_DEVICES={visible} hides others" if visible is not None else "a container needs --device /dev/davinci0"
        raise UserError(f"profile={profile}: torch_npu sees no NPU: npu-smi info lists those that are there, {hidden}; {ELSE}")
    return str(torch_npu().get_device_name(0))


def torch_npu() -> Any:
    """`torch.npu`, which is there once torch_npu has been imported, and which type checkers do not know."""
    return torch.get_device_module("npu")


def device_count() -> int:
    """How many NPUs there are; 0 where torch_npu has not been imported, or its driver does not answer."""
    try:
        return int(torch_npu().device_count()) if hasattr(torch, "npu") else 0
    except RuntimeError:
        return 0


def precision_of(wanted: Precision | None, profile: str, asked: str = "trainer.precision=bf16-mixed") -> Precision:
    """The precision to train in: what is asked for, else 16-mixed, which all chips have.

    Args:
        wanted: what is asked for.
        profile, asked: what asks for it, for the message.

    Raises:
        UserError: bf16 on a chip that has none.
    """
    if wanted == "bf16-mixed" and not torch_npu().is_bf16_supported():
        raise UserError(f"{asked}: {torch_npu().get_device_name(0)} (profile={profile}) does not compute in bf16: 16-mixed or 32-true")
    return wanted or "16-mixed"
