"""`torch.npu`: devices, streams, events and random numbers of the simulation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from torch_npu.grad_scaler import GradScaler

amp = SimpleNamespace(GradScaler=GradScaler, autocast=lambda **kwargs: torch.autocast("npu", **kwargs))
_calls = torch.ops.simulated_npu
_generator = torch.Generator()
_calls.set_generator(_generator)


def take_notes() -> dict[str, int]:
    """What the device has noted since the last time: `kind operator` -> how often; see npu.cpp. No other torch_npu has it."""
    return dict(_calls.take_notes())


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def device_count() -> int:
    return int(os.environ.get("SIMULATED_NPUS", "1"))


def current_device() -> int:
    return int(_calls.get_device())


def set_device(device: torch.device | str | int) -> None:
    index = device if isinstance(device, int) else torch.device(device).index or 0
    if not 0 <= index < device_count():
        raise RuntimeError(f"invalid device ordinal {index}")
    _calls.set_device(index)


@contextmanager
def device(device: torch.device | str | int) -> Iterator[None]:
    before = current_device()
    set_device(device)
    yield
    set_device(before)


def synchronize(device: object = None) -> None:
    """Everything is done already."""


def empty_cache() -> None:
    """There is no cache."""


def memory_stats(device: object = None) -> dict[str, int]:
    return {"allocated_bytes.all.current": 0}


def get_device_name(device: object = None) -> str:
    return os.environ.get("SIMULATED_NPU_NAME", "Ascend910B")


def is_bf16_supported() -> bool:
    return get_device_name() != "Ascend910A"


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16] if is_bf16_supported() else [torch.float16]


def manual_seed(seed: int) -> None:
    _generator.manual_seed(seed)


manual_seed_all = manual_seed


def _is_in_bad_fork() -> bool:
    return False


def get_rng_state(device: object = "npu") -> torch.Tensor:
    return _generator.get_state()


def set_rng_state(state: torch.Tensor, device: object = "npu") -> None:
    _generator.set_state(state)


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state()]


def set_rng_state_all(states: list[torch.Tensor]) -> None:
    set_rng_state(states[0])


class Stream(torch.Stream):
    """A stream of the device."""

    def __new__(cls, device: object = None) -> Stream:
        return super().__new__(cls, device=torch.device("npu", current_device()))


class Event(torch.Event):
    """An event of the device."""

    def __new__(cls, enable_timing: bool = False) -> Event:
        return super().__new__(cls, device="npu", enable_timing=enable_timing)


def current_stream(device: object = None) -> Stream:
    return Stream()


@contextmanager
def stream(stream: Stream) -> Iterator[None]:
    yield
