"""The whole training step: python -m benchmarks.step [--device cuda] [--rounds 7] [--compile] [--encoder resnet18] [--batch 8] [--size 128]

Images per second of forward, loss, backward and optimiser, for batches that lie in the program's memory: medians of rounds in which the
rows take turns in random order. The first row is a training loop as one writes it: fp32, default layout, FocalLoss of
segmentation-models-pytorch, AdamW. Each row adds to the row above or changes what it says; the last is what `train.py` does by its profile,
with Lightning, an average of the weights, clipped gradients, metrics.csv, and the same with `profile.deterministic`. "Not the model" is the share of a step that is not forward and
backward of the model at the row's settings: loss, optimiser, copying, and what the row adds.

On CUDA each batch is copied from page-locked memory, and rows are fp32, TF32, bf16, channels_last, fused, compiled, and with CUDA graphs.
Figures are to be compared within one run, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segfocal.callbacks import Averaging
from segfocal.compiling import compile_model
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch
from segfocal.engine import build_module, build_trainer
from segfocal.finite import FiniteSteps
from segfocal.history import Means
from segfocal.losses import FocalLoss
from segfocal.parallel.devices import placed
from segfocal.parallel.place import Place
from segfocal.parallel.team import Team
from segfocal.quiet import quieten
from segfocal.recipe import settled
from segfocal.step_ends import StepEnds

BATCHES = 4  # that rows go round
FUSED = "fused AdamW"  # and cuDNN's benchmark: the bare loop at the profile's settings


@dataclass(frozen=True)
class Row:
    """What a bare loop does."""

    name: str
    ours: bool = False
    channels_last: bool = False
    bf16: bool = False
    fused: bool | None = None
    tf32: bool = False
    compile: str | None = None
    benchmark: bool = False


def rows(cuda: bool, compiled: bool) -> list[Row]:
    found = [Row("as one writes it"), Row("our loss", ours=True)]
    if cuda:
        found.append(replace(found[-1], name="TF32", tf32=True))
    found.append(replace(found[-1], name="bf16", bf16=True))
    found.append(replace(found[-1], name="channels_last", channels_last=True))
    found.append(replace(found[-1], name=FUSED, fused=True, benchmark=cuda))
    if cuda or compiled:
        found.append(replace(found[-1], name="compiled", compile="default"))
    if cuda:
        found.append(replace(found[-1], name="CUDA graphs", compile="reduce-overhead"))
    return found


class Bare:
    """A loop over batches in memory."""

    def __init__(self, row: Row, given: argparse.Namespace, batches: list[Batch]) -> None:
        torch.manual_seed(0)
        self.row, self.device = row, torch.device(given.device)
        model: nn.Module = smp.Unet(given.encoder, encoder_weights=None, classes=1).train().to(self.device)
        if row.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.model, self.loss = model, FocalLoss("binary") if row.ours else smp.losses.FocalLoss("binary")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2, fused=row.fused)
        compile_model(model, row.compile)
        layout = torch.channels_last if row.channels_last else torch.contiguous_format
        self.batches = [_pinned(batch.image.contiguous(memory_format=layout), batch.target, self.device) for batch in batches]
        self.gradients: Tensor | None = None

    def steps(self, count: int) -> float:
        """Seconds of a step."""
        _switch(self.row, self.device)
        started = _now(self.device)
        for image, target in itertools.islice(itertools.cycle(self.batches), count):
            self._step(image.to(self.device, non_blocking=True), target.to(self.device, non_blocking=True))
        return (_now(self.device) - started) / count

    def _step(self, image: Tensor, target: Tensor) -> None:
        with self._autocast():
            logits = self.model(image)
            loss = self.loss(logits, target if self.row.ours else target[:, None].float())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def model_alone(self, count: int) -> float:
        """Seconds of forward and backward with images that are there already and gradients of the logits that are given."""
        _switch(self.row, self.device)
        image = self.batches[0][0].to(self.device)
        started = _now(self.device)
        for _ in range(count):
            with self._autocast():
                logits = self.model(image)
            self.gradients = torch.ones_like(logits) if self.gradients is None else self.gradients
            logits.backward(self.gradients)
            self.optimizer.zero_grad()
        return (_now(self.device) - started) / count

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.row.bf16)


class Clock(Callback):
    """When each step of Lightning's began."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.starts.append(_now(self.device))


class Whole:
    """What train.py does: its module, its Trainer, and the callbacks that act at each step."""

    def __init__(self, config: TrainConfig, data: SegmentationData, out: Path) -> None:
        self.config, self.data, self.out = config, data, out
        self.module = build_module(config, data, data.measured["train"])

    def steps(self, loader: Any, count: int) -> float:
        """Seconds of a step, after the first."""
        device = placed(self.config.profile, self.config.trainer.precision, 0)
        clock = Clock(device.torch_device)
        trainer = build_trainer(self.config, self.out, device, Team(Place()), self.data, None)
        each_step = Averaging | FiniteSteps | LearningRateMonitor | Means | StepEnds
        kept: list[Any] = [each for each in trainer.callbacks if isinstance(each, each_step)]  # type: ignore[attr-defined]
        trainer.callbacks = [*kept, clock]  # type: ignore[attr-defined]  # Trainer has it, and does not declare it
        trainer.limit_train_batches = count + 2
        trainer.fit(self.module, loader)
        torch.use_deterministic_algorithms(False)
        return (clock.starts[-1] - clock.starts[1]) / (len(clock.starts) - 2)


def measured(given: argparse.Namespace, out: Path) -> None:
    """Print the table of the step."""
    config, data = opened(given)
    batches = list(itertools.islice(itertools.cycle(data.train_dataloader()), BATCHES))
    cuda = given.device == "cuda"
    bare = {row.name: Bare(row, given, batches) for row in rows(cuda, given.compile)}
    last = f"profile={config.profile.name}"
    same_bits = replace(config, profile=replace(config.profile, deterministic="warn"))  # `true` ends where a GPU has no kernel for it
    wholes = {last: Whole(config, data, out), "the same, deterministic": Whole(same_bits, data, out)}
    turning = [batches[number % BATCHES] for number in range(given.steps + 2)]
    loader: Any = DataLoader(turning, batch_size=None, pin_memory=cuda)  # type: ignore[arg-type]  # a list does for a dataset
    tasks: dict[tuple[str, bool], Callable[[], float]] = {
        (name, False): functools.partial(each.steps, loader, given.steps) for name, each in wholes.items()
    }
    for name, each in bare.items():
        tasks[name, False] = functools.partial(each.steps, given.steps)
        tasks[name, True] = functools.partial(each.model_alone, given.steps)
    taken: dict[tuple[str, bool], list[float]] = {key: [] for key in tasks}
    for turn in range(given.rounds + 1):
        for key, task in random.sample(list(tasks.items()), len(tasks)):
            seconds = task()
            if turn:  # the first warms up, and compiles
                taken[key].append(seconds)
    median = {key: statistics.median(seconds) for key, seconds in taken.items()}
    print(f"torch {torch.__version__}, {_device(given.device)}, {given.encoder} Unet, {given.batch} x 3 x {given.size} x {given.size}\n")
    print("| step | images/s | times the first | not the model |\n| --- | --- | --- | --- |")
    first = median[next(iter(bare)), False]
    for name in [*bare, *wholes]:
        step, model = median[name, False], median[name if name in bare else FUSED, True]
        print(f"| {name} | {given.batch / step:.1f} | {first / step:.2f} | {1 - model / step:.0%} |")


def loading(given: argparse.Namespace, out: Path) -> None:
    """Print what threads of torch and data workers come to: steps of the profile with batches that are made meanwhile."""
    config, data = opened(given)
    whole = Whole(config, data, out)
    cores = os.cpu_count() or 1
    loaders: dict[tuple[int, int], Any] = {}
    for threads, workers in itertools.product(sorted({1, max(1, cores - 1), cores}), (0, 1, 2)):
        data.workers = workers
        loaders[threads, workers] = data.train_dataloader()
    taken: dict[tuple[int, int], list[float]] = {key: [] for key in loaders}
    for turn in range(given.rounds + 1):
        for (threads, workers), loader in random.sample(list(loaders.items()), len(loaders)):
            torch.set_num_threads(threads)
            seconds = whole.steps(loader, given.steps)
            if turn:
                taken[threads, workers].append(seconds)
    print("| threads | workers | images/s |\n| --- | --- | --- |")
    for (threads, workers), times in taken.items():
        print(f"| {threads} | {workers} | {given.batch / statistics.median(times):.1f} |")


def opened(given: argparse.Namespace) -> tuple[TrainConfig, SegmentationData]:
    """The run of train.py that is measured, on generated images."""
    profile = ["profile=gpu", "profile.compile=true"] if given.device == "cuda" and given.compile else ["profile=auto"]
    if given.device == "cpu":
        profile = ["profile=cpu"]
    sizes = [f"data.size={given.size}", f"data.train={given.batch * (given.steps + 2)}", "data.val=2", f"data.batch_size={given.batch}"]
    run = [f"model.encoder={given.encoder}", "callbacks.overlays=0", "trainer.max_epochs=1", "logger=csv", "data.cache=ram"]
    ((_, config),) = parse_sweep(TrainConfig, "train", [*profile, *sizes, *run], 1)
    data = SegmentationData(config.data, config.augment, config.task, 3, 0, config.seed)
    train = data.check()["train"]
    config, _ = settled(config, train, 1)
    data.settle(config.data, config.augment, config.sampling)
    data.normalise(*train.mean_std)
    return config, data


def _pinned(image: Tensor, target: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    return (image.pin_memory(), target.pin_memory()) if device.type == "cuda" else (image, target)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _switch(row: Row, device: torch.device) -> None:
    """CUDA's switches for a row; the profile sets its own."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if row.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = row.tf32
        torch.backends.cudnn.benchmark = row.benchmark


def _device(name: str) -> str:
    return torch.cuda.get_device_name() if name == "cuda" else f"{torch.get_num_threads()} threads"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="on the CPU too; takes a minute")
    parser.add_argument("--loading", action="store_true", help="threads and workers instead, with data that is loaded")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda: no CUDA GPU is seen by torch {torch.__version__}")
    quieten()
    warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
    warnings.filterwarnings("ignore", ".*does not have a deterministic.*")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        (loading if given.loading else measured)(given, Path(folder))


if __name__ == "__main__":
    main()
