"""The same training on the CPU and on an NPU: losses, what the device notes in a step, and each going on from the other's checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch_npu  # before any backward pass: autograd asks once which devices there are
from lightning.pytorch import Callback

from segfocal import checkpoint as checkpoints
from segfocal import engine
from segfocal.evaluation import evaluate
from tests.accelerators.on_npu import answer
from tests.test_training import TINY, configured, figures

ON = {
    "cpu": ["profile=cpu", "profile.channels_last=false", "trainer.precision=32-true"],
    "npu": ["profile=ascend", "trainer.precision=32-true"],
    "fp16": ["profile=ascend"],
    "bf16": ["profile=ascend", "trainer.precision=bf16-mixed", "optimizer=sgd"],
}
SMALL = ["model.encoder=tu-resnet10t", "callbacks.overlays=0"]
ROOT = Path(sys.argv[1])


class Watch(Callback):
    """The loss of each step, what the device noted between its begin and its end, and where and in what the model computed."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.notes: list[dict[str, int]] = []
        self.kinds: set[str] = set()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        head = pl_module.model.segmentation_head
        head.register_forward_hook(lambda module, inputs, output: self.kinds.add(f"{output.device.type} {output.dtype}"))
        self.kinds |= {f"weights {weight.device.type} {weight.dtype}" for weight in pl_module.parameters()}

    def on_train_batch_start(self, *_: Any) -> None:
        minded()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.notes.append(minded())
        self.losses.append(float(outputs["loss"]))


def minded() -> dict[str, int]:
    return {name: count for name, count in torch_npu.npu.take_notes().items() if not name.startswith("fallback ")}


@contextmanager
def watched(watch: Watch) -> Any:
    """Training with one callback more than it has."""
    build: Callable[..., list[Callback]] = engine.build_callbacks
    engine.build_callbacks = lambda *args: [*build(*args), watch]
    try:
        yield
    finally:
        engine.build_callbacks = build


def train(name: str, device: str, *overrides: str) -> dict[str, Any]:
    out, watch = ROOT / name, Watch()
    out.mkdir()
    with watched(watch):
        engine.fit(configured(*TINY, "report=false", "scheduler=constant", "callbacks.ema=null", *SMALL, *ON[device], *overrides), out)
    content = checkpoints.read(out / "checkpoints" / "last.ckpt")
    statistics = [value for key, value in content["state_dict"].items() if key.endswith("running_var")]
    return {
        "losses": watch.losses,
        "notes": watch.notes,
        "kinds": sorted(watch.kinds),
        "figures": figures(out),
        "scaler": content.get("NPUMixedPrecision"),
        "statistics moved": bool(statistics) and all(bool((value != 1).any()) for value in statistics),
        "devices": sorted({value.device.type for value in content["state_dict"].values()}),
    }


def evaluated(name: str, run: str, *overrides: str) -> dict[str, Any]:
    out = ROOT / name
    out.mkdir()
    evaluate(
        configured(
            f"ckpt={ROOT / run}", "report=false", "overlays=0", "bootstrap=0", "profile.precision=32-true", *overrides, program="evaluate"
        ),
        out,
    )
    return figures(out)


def main() -> dict[str, Any]:
    one, two = "trainer.max_epochs=1", "trainer.max_epochs=2"
    found = {"cpu": train("cpu", "cpu"), "npu": train("npu", "npu")}
    train("npu_half", "npu", one)
    train("cpu_half", "cpu", one)
    found["npu from npu"] = train("npu_npu", "npu", two, f"ckpt={ROOT / 'npu_half'}")
    found["npu from cpu"] = train("cpu_npu", "npu", two, f"ckpt={ROOT / 'cpu_half'}")
    found["cpu from npu"] = train("npu_cpu", "cpu", two, f"ckpt={ROOT / 'npu_half'}")
    found["fp16"] = train("fp16", "fp16")
    found["fp16 from fp16"] = train("fp16_more", "fp16", "trainer.max_epochs=3", f"ckpt={ROOT / 'fp16'}")
    found["bf16"] = train("bf16", "bf16", one, "callbacks.ema=0.9")
    found["evaluated"] = {
        f"{run} on {device}": evaluated(f"{run}_on_{device}", run, *ON[device][:-1]) for run in ("npu", "cpu") for device in ("npu", "cpu")
    }
    return found


if __name__ == "__main__":
    answer(main())
