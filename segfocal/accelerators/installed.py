"""Whether torch_npu can work here, as far as that is seen without importing it or torch: in milliseconds, before anything is read."""

from __future__ import annotations

import importlib.util
import os
import re
from importlib import metadata

from segfocal.config.profile import ProfileConfig
from segfocal.errors import UserError

SET_ENV = "/usr/local/Ascend/ascend-toolkit/set_env.sh"
CANN = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH")  # what set_env.sh of CANN's releases sets
ELSE = "or run with profile=cpu"


def require_device(profile: ProfileConfig) -> None:
    """Raise UserError where the profile's device is known not to be here before torch is imported: for Ascend."""
    if profile.accelerator == "npu":
        require_torch_npu(profile.name)


def require_torch_npu(profile: str) -> None:
    """Raise UserError where torch_npu is not installed, is of another release than torch, or is without CANN.

    Args:
        profile: what asks for it, for the message.
    """
    torch = _release("torch")
    if importlib.util.find_spec("torch_npu") is None:
        raise UserError(
            f"profile={profile}: torch_npu is not installed: install CANN and the torch_npu of torch {torch} (see docs/ascend.md), {ELSE}"
        )
    torch_npu = _release("torch_npu")
    if torch_npu and torch_npu != torch:
        raise UserError(
            f"profile={profile}: torch_npu {torch_npu} is for torch {torch_npu}, and torch {torch} is installed: "
            f"install the one of the other's release, {ELSE}"
        )
    if not any(os.environ.get(name) for name in CANN):
        raise UserError(
            f"profile={profile}: torch_npu is installed, but CANN is not set up in this shell ({CANN[0]} is not set): "
            f"install CANN where it is missing, then source {SET_ENV}, {ELSE}"
        )


def _release(package: str) -> str:
    """`2.9.0` of `2.9.0.post1+cpu`; nothing where it is not known, as for a package built in place."""
    try:
        found = re.match(r"\d+(\.\d+)*", metadata.version(package))
    except metadata.PackageNotFoundError:
        return ""
    return found.group() if found else ""
