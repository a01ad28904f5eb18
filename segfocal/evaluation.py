"""`evaluate`: a checkpoint on a split; everything that is needed comes out of the checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from pydantic import ValidationError

from segfocal import checkpoint as checkpoints
from segfocal.callbacks import Overlays
from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DATA, CheckpointDataConfig, DataConfig
from segfocal.config.messages import lines_of
from segfocal.config.parse import parse
from segfocal.config.run import EvaluateConfig, ModelConfig, Split
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.splits import SPLITS
from segfocal.devices import Device, resolve
from segfocal.errors import UserError
from segfocal.models import build_model
from segfocal.module import Figures, SegmentationModule
from segfocal.quiet import quieten
from segfocal.report.table import print_table, write_json
from segfocal.rundir import shown_path

log = logging.getLogger("segfocal")


def evaluate(config: EvaluateConfig, run_dir: Path) -> float:
    """Evaluate a checkpoint on a split of its own data or of other data.

    Args:
        config: which checkpoint, which split, which data.
        run_dir: a directory of its own for metrics.json and the pictures.

    Returns:
        The mean IoU; NaN where no class is there.

    Raises:
        UserError: anything that the user can mend.
    """
    assert config.ckpt is not None  # checked with the configuration
    quieten()
    path = checkpoints.locate(config.ckpt, "best")
    content = checkpoints.read(path)
    stored = content["segfocal"]["config"]
    task, model = parse(TaskConfig, stored["task"]), parse(ModelConfig, stored["model"])
    chosen = data_of(config.data, stored["data"], task)
    device = resolve(config.profile, workers=chosen.num_workers)
    data = SegmentationData(chosen, AugmentConfig(name="none"), task, model.in_channels, device.workers, stored["seed"], device.pin_memory)
    if data.drawn and isinstance(config.data, CheckpointDataConfig):
        again = checkpoints.with_splits(chosen, content)
        elsewhere = config.data.root is not None or config.data.file is not None
        before, here = _names(content["segfocal"].get("splits") or {}), _names(data.drawn)
        if elsewhere and not (before and before <= here):
            log.info("other samples than the checkpoint was trained on, without splits of their own: all %d are evaluated", len(here))
            alone = [float(split == config.split) for split in SPLITS]
            again = dataclasses.replace(chosen, fractions=alone)  # type: ignore[call-arg]  # layouts that draw have it
        none = AugmentConfig(name="none")
        data = SegmentationData(again, none, task, model.in_channels, device.workers, stored["seed"], device.pin_memory)
    data.check(config.split)
    figures = evaluate_checkpoint(path, config.split, run_dir, device, data, config.overlays)
    return figures["iou_macro"] if figures["iou_macro"] is not None else float("nan")


def _names(splits: dict[str, list[str]]) -> set[str]:
    return {name for names in splits.values() for name in names}


def data_of(chosen: DataConfig | CheckpointDataConfig, stored: dict[str, Any], task: TaskConfig) -> DataConfig:
    """The data to evaluate on: what was trained on, with what the command names put in its place, or other data altogether."""
    if isinstance(chosen, CheckpointDataConfig):
        named = {key: value for key, value in dataclasses.asdict(chosen).items() if value is not None and key != "name"}
        unknown = sorted(set(named) - set(stored))
        if unknown:
            raise UserError(f"data.{unknown[0]}: the checkpoint was trained on data={stored['name']}, which has no such key")
        whole = {key: value for key, value in stored.items() if key not in ("limit", "overfit")}
        data: DataConfig = parse_data({**whole, **named})
    else:
        data = chosen
    if problems := data.problems(task):
        raise UserError("\n".join(problems))
    return data


def parse_data(plain: dict[str, Any]) -> DataConfig:
    """A data configuration from a checkpoint's plain dictionary."""
    try:
        data: DataConfig = DATA.validate(plain)
    except ValidationError as error:
        raise UserError("\n".join(lines_of(error, plain))) from None
    return data


def evaluate_checkpoint(path: Path, split: Split, out: Path, device: Device, data: SegmentationData, overlays: int) -> Figures:
    """Rebuild the model of a checkpoint, count over a split, print the table, write metrics.json and the pictures."""
    content = checkpoints.read(path)
    stored = content["segfocal"]
    task = parse(TaskConfig, stored["config"]["task"])
    model = build_model(parse(ModelConfig, stored["config"]["model"]), task, pretrained=False)
    checkpoints.load_weights(model, content, path)
    data.normalise(stored["mean"], stored["std"])
    module = SegmentationModule(model, task)
    callbacks: list[Callback] = [Overlays(data.dataset(split), task, overlays, out / "overlays")] if overlays else []
    trainer = Trainer(
        accelerator=device.accelerator,
        devices=1,
        precision=device.precision,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        use_distributed_sampler=False,
    )
    trainer.test(module, data.evaluation_loader(split), verbose=False)
    print_table(module.figures, task.class_names, f"{split}: {len(data.sources[split])} images")
    write_json(out / "metrics.json", {"split": split, "checkpoint": str(path), "epoch": stored["epoch"], **module.figures})
    paths = {"checkpoint": path, "figures": out / "metrics.json", "pictures": out / "overlays" / "evaluation.png" if overlays else None}
    for name, place in paths.items():
        if place is not None:
            log.info("%-10s %s", name, shown_path(place))
    return module.figures
