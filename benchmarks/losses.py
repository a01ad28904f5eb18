"""Our losses against others': python -m benchmarks.losses [--runs 9] [--options] [--device cuda] [--dtype bfloat16]

Forward and backward to the gradient of the logits, medians of interleaved runs; beside them the floor, which reads the logits and
writes a new tensor of their size, and peak memory beyond what was there before the call, as a multiple of the logits. Each number is
to be read as a ratio to another of the same run. MONAI and kornia take part where they are installed.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from segfocal.losses import FocalLoss

SHAPES = {"binary": (8, 1, 512, 512), "multilabel": (4, 8, 512, 512), "multiclass": (4, 21, 512, 512)}
OPTIONS: dict[str, dict[str, Any]] = {
    "ignore_index": {"ignore_index": 255},
    "alpha": {"alpha": {"binary": 0.75, "multilabel": [0.75] * 8, "multiclass": [1.0] * 20 + [5.0]}},
    "reduced_threshold": {"reduced_threshold": 0.5},
    "normalized": {"normalized": True},
}
Loss = Callable[[Tensor, Tensor], Tensor]


def batch(mode: str, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits that ask for a gradient, and labels."""
    torch.manual_seed(0)
    shape = SHAPES[mode]
    logits = (2 * torch.randn(shape)).to(device, dtype).requires_grad_()
    if mode == "multiclass":
        return logits, torch.randint(0, shape[1], (shape[0], *shape[2:])).to(device)
    return logits, (torch.rand(shape) < 0.05).long().to(device)


def contenders(mode: str, options: bool) -> dict[str, Loss]:
    """The losses that can do the mode, by name."""
    losses: dict[str, Loss] = {"segfocal": FocalLoss(mode), "segfocal, without a compiler": FocalLoss(mode, backend="eager")}
    if mode == "multiclass":
        losses["segfocal, one against the rest"] = FocalLoss(mode, form="sigmoid")
    if options:
        for name, values in OPTIONS.items():
            chosen = {key: value[mode] if isinstance(value, dict) else value for key, value in values.items()}
            losses[f"segfocal, {name}"] = FocalLoss(mode, **chosen)
        return losses
    losses["SMP"] = smp.losses.FocalLoss(mode)
    if mode == "multiclass":
        losses["torch cross_entropy"] = F.cross_entropy
    else:
        losses["torch binary_cross_entropy"] = lambda x, y: F.binary_cross_entropy_with_logits(x, y.to(x.dtype))
        losses["torchvision"] = lambda x, y: sigmoid_focal_loss(x, y.to(x.dtype), alpha=0.25, reduction="mean")
    return losses | _monai(mode) | _kornia(mode)


def _monai(mode: str) -> dict[str, Loss]:
    try:
        from monai.losses import FocalLoss as MonaiFocalLoss
    except ImportError:
        return {}
    if mode == "multiclass":
        softmax = MonaiFocalLoss(to_onehot_y=True, use_softmax=True)
        return {"MONAI": lambda x, y: softmax(x, y.unsqueeze(1))}
    sigmoid = MonaiFocalLoss()
    return {"MONAI": lambda x, y: sigmoid(x, y.to(x.dtype))}


def _kornia(mode: str) -> dict[str, Loss]:
    try:
        from kornia.losses import binary_focal_loss_with_logits, focal_loss
    except ImportError:
        return {}
    if mode == "multiclass":
        return {"kornia": lambda x, y: focal_loss(x, y, alpha=None, gamma=2.0, reduction="mean")}
    return {"kornia": lambda x, y: binary_focal_loss_with_logits(x, y.to(x.dtype), alpha=None, gamma=2.0, reduction="mean")}


def once(loss: Loss | None, logits: Tensor, target: Tensor) -> float:
    """Seconds for the value and the gradient; without a loss, for the floor."""
    _wait(logits)
    started = time.perf_counter()
    if loss is None:
        logits.detach() * 2
    else:
        torch.autograd.grad(loss(logits, target), logits)
    _wait(logits)
    return time.perf_counter() - started


def _wait(logits: Tensor) -> None:
    if logits.is_cuda:
        torch.cuda.synchronize()


def extra_memory(loss: Loss | None, logits: Tensor, target: Tensor) -> float:
    """Peak memory beyond that before the call, as a multiple of the logits."""
    once(loss, logits, target)  # compiled, and caches filled
    gc.collect()
    size = logits.numel() * logits.element_size()
    if logits.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(loss, logits, target)
        return (torch.cuda.max_memory_allocated() - before) / size
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
    before = _status("VmRSS")
    once(loss, logits, target)
    return (_status("VmHWM") - before) / size


def memory_apart(mode: str, name: str, options: bool, dtype: str) -> str:
    """`extra_memory` on the CPU, in a process whose allocator gives everything large back at once; empty where the system does not tell."""
    command = [sys.executable, "-m", "benchmarks.losses", "--memory", mode, name, "--dtype", dtype, *(["--options"] if options else [])]
    done = subprocess.run(command, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else ""


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def table(mode: str, runs: int, options: bool, device: str, kind: str) -> list[str]:
    """A row a contender: milliseconds, as a multiple of the floor, how many times faster than SMP, memory."""
    logits, target = batch(mode, device, getattr(torch, kind))
    losses: dict[str, Loss | None] = {"floor": None, **contenders(mode, options)}
    for loss in losses.values():
        once(loss, logits, target)
    if logits.is_cuda:
        memory = {name: f"{extra_memory(loss, logits, target):.2f}" for name, loss in losses.items()}
    else:
        memory = {name: memory_apart(mode, name, options, kind) for name in losses}
    taken: dict[str, list[float]] = {name: [] for name in losses}
    order = list(losses)
    for _ in range(runs):
        random.shuffle(order)  # what one leaves behind in caches and the allocator is not always the same one's burden
        for name in order:
            taken[name].append(once(losses[name], logits, target))
    median = {name: statistics.median(values) for name, values in taken.items()}
    rows = [f"| {mode} {'x'.join(map(str, SHAPES[mode]))} | ms | floors | SMP / it | memory |", "| --- | --- | --- | --- | --- |"]
    for name, seconds in median.items():
        against = f"{median['SMP'] / seconds:.1f}" if "SMP" in median else ""
        rows.append(f"| {name} | {1000 * seconds:.1f} | {seconds / median['floor']:.1f} | {against} | {memory[name]} |")
    return rows


def main() -> None:
    """Print a table a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--options", action="store_true", help="ours with each option switched on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--memory", nargs=2, metavar=("MODE", "NAME"), help="print one contender's memory alone")
    given = parser.parse_args()
    if given.memory:
        mode, name = given.memory
        loss = {"floor": None, **contenders(mode, given.options)}[name]
        print(f"{extra_memory(loss, *batch(mode, given.device, getattr(torch, given.dtype))):.2f}")
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.device}, {given.dtype}\n")
    for mode in SHAPES:
        print("\n".join(table(mode, given.runs, given.options, given.device, given.dtype)) + "\n", flush=True)


if __name__ == "__main__":
    main()
