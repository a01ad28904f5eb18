"""The same budget, side by side: python -m benchmarks.side_by_side experiment=camvid data.root=/path/to/camvid [--loss ce] [--seeds 0 1 2] [--chart ious.png]

Two trainings on the same splits, for as many epochs, with crops of the same size, the same network, weights, threads and workers:

- as the examples of segmentation-models-pytorch teach it: AdamW at 5e-4, one-cycle, batches of 8, random crops, flips, brightness and contrast,
  bf16 where the profile has it, a validation as often as the other's; the last weights, at 0.5 or by the highest score;
- `train.py`, with what the command says and nothing else: its best checkpoint, likewise, and by the rule that is stored in it.

All are counted on whole test images by the same code. Prints, after each seed, IoU of each class, mean IoU, AUROC and AP, means over the seeds (± their standard
deviation), and for the time of training minutes and images per second. The chart (matplotlib) has the IoU of each class.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.config.task import Mode
from segfocal.data.datamodule import SegmentationData
from segfocal.data.source import Array, Source
from segfocal.data.stats import SplitStats
from segfocal.errors import MISTAKE, UserError
from segfocal.inference import Inference
from segfocal.metrics import SegmentationMetrics
from segfocal.models import build_model
from segfocal.parallel.devices import placed
from segfocal.quiet import quieten
from segfocal.weights import normalization

ROOT = Path(__file__).parents[1]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RATE = 5e-4
FIGURES = ("iou_macro", "auroc_macro", "ap_macro")
COLOURS = ("#999999", "#56B4E9", "#0072B2")  # plain, ours, ours as fitted

Found = tuple[dict[str, Any], float]
"""Figures on the test split, and the seconds of training."""


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of a split, or without a size whole images, varied as in any example."""

    def __init__(self, source: Source, size: list[int] | None, ignored: int, mean: list[float], std: list[float], seed: int = 0) -> None:
        self.source = source
        cut = [A.PadIfNeeded(*size, fill_mask=ignored), A.RandomCrop(*size)] if size else []
        self.varied = A.Compose([*cut, A.HorizontalFlip(), A.RandomBrightnessContrast()], seed=seed)
        self.finished = A.Compose([A.Normalize(mean, std), A.ToTensorV2(transpose_mask=True)])

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.source.read(index)
        made = self.varied(image=np.ascontiguousarray(image), mask=mask) if image.dtype == np.uint8 else self._floats(image, mask)
        made = self.finished(**made)
        return made["image"], made["mask"]

    def _floats(self, image: Array, mask: Array) -> dict[str, Array]:
        """Of any range: albumentations cuts off what is not within 0..1, and its Normalize divides by the 255 of 8 bit."""
        low = float(image.min())
        span = float(image.max()) - low or 1.0
        made: dict[str, Array] = self.varied(image=np.clip((image - low) / span, 0, 1), mask=mask)
        return {**made, "image": (made["image"] * span + low) * 255}


def losses_of(mode: Mode) -> list[str]:
    """Those of the plain training that go with a task; the first where none is named."""
    return ["ce" if mode == "multiclass" else "bce", "focal", "dice"]


class Loss(nn.Module):
    """One of segmentation-models-pytorch, by the task's mode."""

    def __init__(self, name: str, config: TrainConfig) -> None:
        super().__init__()
        mode, ignored = config.task.name, config.task.ignore_index
        made = {
            "bce": lambda: smp.losses.SoftBCEWithLogitsLoss(ignore_index=ignored),
            "ce": lambda: nn.CrossEntropyLoss(ignore_index=ignored),
            # In multilabel it fails with pixels to leave out; as binary it takes all classes together, which is the same mean.
            "focal": lambda: smp.losses.FocalLoss("binary" if mode == "multilabel" else mode, ignore_index=ignored),
            "dice": lambda: smp.losses.DiceLoss(mode, ignore_index=ignored),
        }
        self.of, self.mode = made[name](), mode

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target[:, None].float() if self.mode == "binary" else target.long() if self.mode == "multiclass" else target.float()
        loss: Tensor = self.of(logits, target)
        return loss


def plain(config: TrainConfig, loss_name: str, seed: int) -> dict[str, Found]:
    """Train as one writes it."""
    device = placed(config.profile, config.trainer.precision, config.data.num_workers)
    seed_everything(seed, verbose=False)
    data = SegmentationData(config.data, config.augment, config.task, config.model.in_channels, device.workers, seed)
    data.normalise(*mean_std(config, data.check()["train"]))
    crops = Crops(data.sources["train"], config.data.crop, config.task.ignore_index, data.mean, data.std, seed)
    loader = DataLoader(
        crops, data.batch_size, shuffle=True, drop_last=True, num_workers=device.workers, persistent_workers=device.workers > 0
    )
    model, loss = build_model(config.model, config.task).to(device.torch_device), Loss(loss_name, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    epochs = config.trainer.max_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * len(loader))
    started = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        for image, target in loader:
            with torch.autocast(device.torch_device.type, torch.bfloat16, enabled=device.precision == "bf16-mixed"):
                logits = model(image.to(device.torch_device))
            value = loss(logits.float(), target.to(device.torch_device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % config.trainer.validate_every == 0 or epoch + 1 == epochs:
            counted(model, data, "val", config, device.torch_device)
    seconds = time.perf_counter() - started
    return {f"plain, {loss_name}": (counted(model, data, "test", config, device.torch_device), seconds)}


def mean_std(config: TrainConfig, train: SplitStats) -> tuple[list[float], list[float]]:
    """What the weights were trained with; else ImageNet's, or of other than colour images their own."""
    known = normalization(config.model.weights, config.model.encoder, config.model.in_channels)
    return known or (IMAGENET if config.model.in_channels == 3 else train.mean_std)


@torch.inference_mode()
def counted(model: nn.Module, data: SegmentationData, split: str, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Figures on whole images."""
    metrics = SegmentationMetrics(config.task.name, config.task.class_names, config.task.ignore_index)
    infer = Inference(model.eval(), dataclasses.replace(config.inference, tile=None))
    for batch in data.evaluation_loader(split):
        metrics.update(infer(batch.image.to(device)).cpu(), batch.target)
    return dict(metrics.compute())


def ours(overrides: list[str], seed: int) -> dict[str, Found]:
    """Train by train.py; as the plain training decides, and by the rule in the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"seed={seed}", "report=false", f"hydra.run.dir={folder}/run"]
        if code := subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            sys.exit(code)  # it has said why
        figures = json.loads(Path(folder, "run", "metrics.json").read_text(encoding="utf-8"))
        log = Path(folder, "run", "train.log").read_text(encoding="utf-8").splitlines()
    fitted = {name: figures.get(f"tuned/{name}", value) for name, value in figures.items()}
    seconds = seconds_of(log)
    return {"train.py": (figures, seconds), "train.py, fitted": (fitted, seconds)}


def seconds_of(log: list[str]) -> float:
    """How long train.py has trained by the lines of its log: from the last one before its first epoch, but warnings come during that."""
    epochs = [place for place, line in enumerate(log) if re.search(r" INFO \S+: epoch \d+ of \d+ ", line)]
    before = next(line for line in reversed(log[: epochs[0]]) if re.match(r"\S+ \S+ INFO ", line))
    return (_when(log[epochs[-1]]) - _when(before)).total_seconds()


def _when(line: str) -> datetime:
    return datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")


def _known(runs: list[Found], key: str) -> list[float]:
    """A figure of each run; a class that the split does not show has none."""
    return [figures[key] for figures, _ in runs if figures[key] is not None]


def table(config: TrainConfig, found: dict[str, list[Found]], images: int) -> list[str]:
    """Rows of Markdown: means over the seeds, and their standard deviation where there are several."""

    def cell(name: str, key: str) -> str:
        values = _known(found[name], key)
        spread = f" ±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.3f}{spread}" if values else "-"

    rows = [f"| | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    keys = [*(f"iou/{label}" for label in config.task.class_names), *FIGURES]
    rows += [f"| {key.removeprefix('iou/')} | {' | '.join(cell(name, key) for name in found)} |" for key in keys]
    times = {name: statistics.fmean(seconds for _, seconds in runs) for name, runs in found.items()}
    rows.append(f"| minutes of training | {' | '.join(f'{seconds / 60:.1f}' for seconds in times.values())} |")
    rows.append(f"| images per second | {' | '.join(f'{images / seconds:.1f}' for seconds in times.values())} |")
    return rows


def chart(config: TrainConfig, found: dict[str, list[Found]], path: Path) -> None:
    """Bars of the classes' IoU and of their mean, means over the seeds."""
    from matplotlib.figure import Figure  # of the extra `curves`

    names = [*config.task.class_names, "mean"]
    keys = [*(f"iou/{name}" for name in config.task.class_names), "iou_macro"]
    figure = Figure(figsize=(max(5.0, 0.9 * len(names)), 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(found)
    for place, ((label, runs), colour) in enumerate(zip(found.items(), COLOURS, strict=True)):
        heights = [statistics.fmean(_known(runs, key) or [0.0]) for key in keys]
        lefts = [number + (place - (len(found) - 1) / 2) * width for number in range(len(names))]
        bars = axes.bar(lefts, heights, width, label=label, color=colour)
        axes.bar_label(bars, [f"{height:.2f}".removeprefix("0") for height in heights], fontsize=6, padding=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1)
    axes.set_ylabel("IoU, test split")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(found), frameon=False)
    figure.savefig(path, dpi=160)


def checked(config: TrainConfig, loss: str, seed: int) -> int:
    """How many images an epoch of the training has.

    Raises:
        UserError: something cannot be trained or compared.
    """
    allowed = losses_of(config.task.name)
    if loss not in allowed:
        raise UserError(f"--loss {loss}: not for task={config.task.name}, which takes {', '.join(allowed)}")
    data = SegmentationData(config.data, config.augment, config.task, config.model.in_channels, 0, seed)
    if not config.trainer.test or ("test" not in data.sources and not data.sources.faults):
        raise UserError("both trainings are measured on the test split: it needs data with one, and trainer.test=true")
    sizes = data.check()["train"].sizes
    if config.data.crop is None and len(set(sizes)) > 1:
        raise UserError(
            "data.crop=null: images of several sizes make no batch in the plain training: say a crop, as in 'data.crop=[256,256]'"
        )
    images, size = len(data.sources["train"]), data.batch_size
    if images < size:
        raise UserError(f"{data.where}: {images} training images are no batch of {size}: data.batch_size={images} at most")
    return images


def compare(overrides: list[str], loss: str | None, seeds: list[int], drawing: Path | None) -> None:
    """Train with each seed, and print a table after each."""
    ((_, config),) = parse_sweep(TrainConfig, "train", overrides, 1)
    loss = loss or losses_of(config.task.name)[0]
    images = config.trainer.max_epochs * round(statistics.fmean([checked(config, loss, seed) for seed in seeds]))
    found: dict[str, list[Found]] = {}
    for done, seed in enumerate(seeds, 1):
        for train in (partial(plain, config, loss), partial(ours, overrides)):
            for name, (figures, seconds) in train(seed).items():
                found.setdefault(name, []).append((figures, seconds))
                print(f"{name}, seed {seed}: mean IoU {figures['iou_macro']:.3f}, {seconds / 60:.1f} minutes", file=sys.stderr)
        print(f"\nSeeds: {done} of {len(seeds)}\n", *table(config, found, images), sep="\n", flush=True)
        if drawing:
            chart(config, found, drawing)


def main() -> None:
    """Take the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of train.py")
    parser.add_argument("--loss", choices=["bce", "ce", "focal", "dice"], help="of the plain training; ce in multiclass, else bce")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--chart", type=Path, help="where to draw it")
    given = parser.parse_intermixed_args()
    quieten()
    try:
        compare(given.overrides, given.loss, given.seeds, given.chart)
    except UserError as error:
        parser.exit(MISTAKE, f"{error}\n")


if __name__ == "__main__":
    main()
