"""Mixed precision on NPUs. Lightning would build it for `cuda`, where autocast does nothing to an NPU's operators: fp32, in silence."""

from __future__ import annotations

import contextlib
import io
from typing import Literal

from lightning.pytorch.plugins.precision import MixedPrecision

from segfocal.accelerators.load import torch_npu


class NPUMixedPrecision(MixedPrecision):
    """`torch.autocast("npu")`, and for fp16 the GradScaler of torch_npu.

    torch's own GradScaler takes a reciprocal in fp64 on the device, which NPUs lack. In a checkpoint its state stands under this class's
    name, as torch_npu's has a key more than torch's; going on with another profile starts from the first scale.

    Args:
        precision: as Lightning names it.
    """

    def __init__(self, precision: Literal["16-mixed", "bf16-mixed"]) -> None:
        scaler = None
        if precision == "16-mixed":
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its options, and evaluate.py --json prints nothing but JSON
                scaler = torch_npu().amp.GradScaler()
        super().__init__(precision, "npu", scaler)
