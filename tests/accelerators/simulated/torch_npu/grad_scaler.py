"""`torch.npu.amp.GradScaler` as far as it differs from torch's: it talks, its state has a further key, and it does without fp64."""

from __future__ import annotations

from typing import Any

import torch
from torch.amp.grad_scaler import OptState


class GradScaler(torch.amp.GradScaler):
    """The differences are those of torch_npu's; what it does about the chip's overflow flag is left out."""

    def __init__(self, init_scale: float = 2.0**16, dynamic: bool = True, **kwargs: Any) -> None:
        super().__init__("npu", init_scale=init_scale, **kwargs)
        self._dynamic = dynamic
        print("GradScaler options are:")

    def scale(self, outputs: torch.Tensor) -> torch.Tensor:
        assert outputs.is_npu
        return super().scale(outputs)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self._check_scale_growth_tracker("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        assert state["stage"] is OptState.READY
        found_inf = torch.full((), 0.0, device=self._scale.device)
        state["found_inf_per_device"] = self._unscale_grads_(optimizer, self._scale.reciprocal(), found_inf, False)
        state["stage"] = OptState.UNSCALED

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "dynamic": self._dynamic}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._dynamic = state_dict["dynamic"]
