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
from segfocal.data.datamodule import BATCH, SegmentationData
from segfocal.data.source import Source
from segfocal.errors import UserError
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
    """Random crops of a split, varied as in any example."""

    def __init__(self, source: Source, size: list[int], ignored: int, mean: list[float], std: list[float]) -> None:
        self.source = source
        self.transform = A.Compose(
            [
                A.PadIfNeeded(*size, fill_mask=ignored),
                A.RandomCrop(*size),
                A.HorizontalFlip(),
                A.RandomBrightnessContrast(),
                A.Normalize(mean, std),
                A.ToTensorV2(transpose_mask=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.source.read(index)
        made = self.transform(image=np.ascontiguousarray(image), mask=mask)
        return made["image"], made["mask"]


class Loss(nn.Module):
    """One of segmentation-models-pytorch, by the task's mode."""

    def __init__(self, name: str, config: TrainConfig) -> None:
        super().__init__()
        mode, ignored = config.task.name, config.task.ignore_index
        made = {
            "bce": lambda: smp.losses.SoftBCEWithLogitsLoss(ignore_index=ignored),
            "ce": lambda: nn.CrossEntropyLoss(ignore_index=ignored),
            "focal": lambda: smp.losses.FocalLoss(mode, ignore_index=None if mode == "multilabel" else ignored),  # it fails with both
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
    data.check()
    data.normalise(*(normalization(config.model.weights, config.model.encoder) or IMAGENET))
    crops = Crops(data.sources["train"], config.data.crop or [256, 256], config.task.ignore_index, data.mean, data.std)
    loader = DataLoader(
        crops,
        config.data.batch_size or BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=device.workers,
        persistent_workers=device.workers > 0,
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
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            sys.exit(1)
        figures = json.loads(Path(folder, "run", "metrics.json").read_text(encoding="utf-8"))
        log = Path(folder, "run", "train.log").read_text(encoding="utf-8").splitlines()
    last = max(place for place, line in enumerate(log) if re.search(r": epoch \d+ of \d+ ", line))
    first = min(place for place, line in enumerate(log) if re.search(r": epoch 1 of \d+ ", line))
    fitted = {name: figures.get(f"tuned/{name}", value) for name, value in figures.items()}
    seconds = (_when(log[last]) - _when(log[first - 1])).total_seconds()
    return {"train.py": (figures, seconds), "train.py, fitted": (fitted, seconds)}


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of train.py")
    parser.add_argument("--loss", choices=["bce", "ce", "focal", "dice"], help="of the plain training; ce in multiclass, else bce")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--chart", type=Path, help="where to draw it")
    given = parser.parse_intermixed_args()
    quieten()
    try:
        ((_, config),) = parse_sweep(TrainConfig, "train", given.overrides, 1)
        data = SegmentationData(config.data, config.augment, config.task, config.model.in_channels, 0, 0)
    except UserError as error:
        parser.error(str(error))
    loss = given.loss or ("ce" if config.task.name == "multiclass" else "bce")
    if "test" not in data.sources or not config.trainer.test:
        parser.error("both trainings are measured on the test split: it needs data with one, and trainer.test=true")
    images = config.trainer.max_epochs * len(data.sources["train"])
    found: dict[str, list[Found]] = {}
    for done, seed in enumerate(given.seeds, 1):
        for train in (partial(plain, config, loss), partial(ours, given.overrides)):
            for name, (figures, seconds) in train(seed).items():
                found.setdefault(name, []).append((figures, seconds))
                print(f"{name}, seed {seed}: mean IoU {figures['iou_macro']:.3f}, {seconds / 60:.1f} minutes", file=sys.stderr)
        print(f"\nSeeds: {done} of {len(given.seeds)}\n", *table(config, found, images), sep="\n", flush=True)
        if given.chart:
            chart(config, found, given.chart)


if __name__ == "__main__":
    main()
