"""What a checkpoint is evaluated on: its own data, the same layout elsewhere, or other data altogether."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segfocal import checkpoint as checkpoints
from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DATA, CheckpointDataConfig, DataConfig
from segfocal.config.messages import lines_of
from segfocal.config.parse import parse
from segfocal.config.run import EvaluateConfig, ModelConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.splits import SPLITS
from segfocal.errors import UserError
from segfocal.parallel.devices import placed

log = logging.getLogger("segfocal")


def open_data(config: EvaluateConfig, content: dict[str, Any]) -> SegmentationData:
    """The data to evaluate a checkpoint on, not looked at yet.

    Args:
        config: which split, and which data where not the checkpoint's.
        content: of the checkpoint.

    Raises:
        UserError: the checkpoint's task, model and data do not go with it.
    """
    stored = content["segfocal"]["config"]
    task, model = parse(TaskConfig, stored["task"]), parse(ModelConfig, stored["model"])
    chosen = data_of(config.data, stored["data"], task)
    device = placed(config.profile, workers=chosen.num_workers)

    def opened(data: DataConfig) -> SegmentationData:
        none = AugmentConfig(name="none")
        return SegmentationData(data, none, task, model.in_channels, device.workers, stored["seed"], device.pin_memory)

    data = opened(chosen)
    if not data.drawn or not isinstance(config.data, CheckpointDataConfig):
        return data
    again = checkpoints.with_splits(chosen, content)
    elsewhere = config.data.root is not None or config.data.file is not None
    before, here = _names(content["segfocal"].get("splits") or {}), _names(data.drawn)
    if elsewhere and not (before and before <= here):
        log.info("other samples than the checkpoint was trained on, without splits of their own: all %d are evaluated", len(here))
        alone = [float(split == config.split) for split in SPLITS]
        again = dataclasses.replace(chosen, fractions=alone)  # type: ignore[call-arg]  # layouts that draw have it
    return opened(again)


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


def check_same(first: SegmentationData, other: SegmentationData, split: str, paths: tuple[Path, Path]) -> None:
    """Raise UserError where two checkpoints would not be evaluated on the same question."""
    classes = first.task.class_names, other.task.class_names
    if first.task.name != other.task.name or classes[0] != classes[1]:
        raise UserError(
            f"{paths[1]}: {other.task.name} with {', '.join(classes[1])}; {paths[0]}: {first.task.name} with {', '.join(classes[0])}: "
            "only checkpoints of the same classes are compared"
        )
    names = [set(data.sources[split].names) if split in data.sources else set() for data in (first, other)]
    if names[0] != names[1]:
        differ = sorted(names[0] ^ names[1])
        raise UserError(
            f"{paths[1]}: its split={split} has other samples than that of {paths[0]} ({differ[0]}, {len(differ)} in all): "
            "say the same data for both, as in data=folder data.root=..."
        )
