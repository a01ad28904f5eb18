"""The same training on the CPU and on an NPU: losses, what the device notes in a step, and each going on from the other's checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_npu  # before any backward pass: autograd asks once which devices there are
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from segfocal import checkpoint as checkpoints
from segfocal import engine
from segfocal.config.schema import load_plugins
from segfocal.errors import UserError
from segfocal.evaluation import evaluate, judge
from segfocal.optim import start_momentum, withhold
from tests.accelerators.on_npu import answer
from tests.test_training import TINY, configured, figures

ON = {
    "cpu": ["profile=cpu", "profile.channels_last=false", "trainer.precision=32-true"],
    "npu": ["profile=ascend", "trainer.precision=32-true"],
    "fp16": ["profile=ascend"],
    "bf16": ["profile=ascend", "trainer.precision=bf16-mixed", "optimizer=sgd"],
}
SMALL = ["callbacks.overlays=0"]
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


SKIPS = ["loss=faulty", "loss.at=[3,4]", "trainer.nonfinite=skip"]  # all of the second epoch
PLAIN = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0"]  # stands still without a gradient


def skipping(name: str, device: str, *overrides: str) -> dict[str, Any]:
    """A training whose second epoch changes nothing."""
    found = train(name, device, *SKIPS, *overrides)
    best, last = (checkpoints.read(ROOT / name / "checkpoints" / f"{which}.ckpt") for which in ("best", "last"))
    found["unchanged"] = all(torch.equal(value, last["state_dict"][key]) for key, value in best["state_dict"].items())
    return {**found, "epochs": [best["epoch"], last["epoch"]], "skipped": last["callbacks"]["FiniteSteps"]["skipped"]}


def stopping(name: str, device: str, *overrides: str) -> dict[str, Any]:
    """A training that is stopped: the steps until then, and what is said."""
    watch, out = Watch(), ROOT / name
    out.mkdir()
    with watched(watch):
        try:
            engine.fit(configured(*TINY, *SMALL, *ON[device], "loss=faulty", *overrides), out)
        except UserError as error:
            return {"steps": len(watch.losses), "said": str(error)}
    return {}


def beyond_the_scale() -> dict[str, Any]:
    """Gradients that are infinite in the first two steps, while GradScaler's scale is 1, and one half."""
    usual = torch_npu.npu.amp.GradScaler
    torch_npu.npu.amp.GradScaler = partial(usual, init_scale=1.0)
    try:
        return stopping("fp16_stops", "fp16", "loss.how=gradient", "loss.at=[1,2]")
    finally:
        torch_npu.npu.amp.GradScaler = usual


def withheld() -> dict[str, bool]:
    """Whether optimisers that take their step in one kernel change nothing when that is kept from them, be it their first step."""
    kinds: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
        "adamw": lambda weights: AdamW(weights, fused=True),
        "sgd": lambda weights: SGD(weights, 0.1, momentum=0.9, fused=True),
    }
    return {f"{kind} {before}": unchanged(build, before) for kind, build in kinds.items() for before in (0, 2)}


def unchanged(build: Callable[[list[nn.Parameter]], Optimizer], before: int) -> bool:
    weights = [nn.Parameter(torch.randn(9, device="npu")) for _ in range(2)]
    optimizer = build(weights)
    start_momentum(optimizer)

    def step(bad: bool) -> list[Tensor]:
        for weight in weights:
            weight.grad = torch.full_like(weight, torch.nan) if bad else torch.randn_like(weight)
        withhold(optimizer, torch.tensor(bad, device="npu"))
        optimizer.step()
        state = [value for weight in weights for value in optimizer.state[weight].values()]
        return [value.detach().cpu().clone() for value in [*weights, *state]]

    there = [step(False) for _ in range(before)][-1] if before else [*(weight.detach().cpu().clone() for weight in weights)]
    found = step(True)
    moments = found[len(there) :]  # of a first step, zero
    return all(map(torch.equal, there, found)) and not any(value.any() for value in moments)


def evaluated(name: str, run: str, *overrides: str) -> dict[str, Any]:
    """Figures, and where the pictures of the report were predicted."""
    out, on, usual = ROOT / name, set(), judge.labels_of
    out.mkdir()
    judge.labels_of = lambda logits, decision: on.add(logits.device.type) or usual(logits, decision)
    try:
        evaluate(
            configured(f"ckpt={ROOT / run}", "overlays=0", "bootstrap=0", "profile.precision=32-true", *overrides, program="evaluate"), out
        )
    finally:
        judge.labels_of = usual
    return {**figures(out), "pictures on": sorted(on)}


def main() -> dict[str, Any]:
    load_plugins(["tests.faulty"], {})
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
    found["npu skips"] = skipping("npu_skips", "npu", *PLAIN)
    found["fp16 skips"] = skipping("fp16_skips", "fp16")
    found["npu stops"] = stopping("npu_stops", "npu", "data.train=16", "loss.at=[1]")
    found["fp16 stops"] = beyond_the_scale()
    found["withheld"] = withheld()
    found["evaluated"] = {
        f"{run} on {device}": evaluated(f"{run}_on_{device}", run, *ON[device][:-1]) for run in ("npu", "cpu") for device in ("npu", "cpu")
    }
    return found


if __name__ == "__main__":
    answer(main())
