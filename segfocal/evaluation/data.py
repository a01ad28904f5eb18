"""What a checkpoint is evaluated on: its own data, the same layout elsewhere, or other data altogether."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic.dataclasses import dataclass

from segfocal import checkpoint as checkpoints
from segfocal.config.augment import AugmentConfig
from segfocal.config.base import STRICT
from segfocal.config.data import DATA, CheckpointDataConfig, DataConfig
from segfocal.config.layouts import FilesConfig
from segfocal.config.parse import parse
from segfocal.config.run import EvaluateConfig
from segfocal.config.streaming import is_url
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.faults import Fault, told
from segfocal.data.scan import no_foreground
from segfocal.data.splits import composed
from segfocal.errors import UserError
from segfocal.parallel.devices import placed

log = logging.getLogger("segfocal")


def open_data(config: EvaluateConfig, content: dict[str, Any], rebuilt: checkpoints.Rebuilt, path: Path) -> SegmentationData:
    """The data to evaluate a checkpoint on, not looked at yet.

    Args:
        config: which split, and which data where not the checkpoint's.
        content: of the checkpoint.
        rebuilt: of that content.
        path: of the checkpoint.

    Raises:
        UserError: the data does not go with the checkpoint.
    """
    stored = content["segfocal"]["config"]
    task, channels = rebuilt.task, rebuilt.architecture.in_channels
    chosen = data_of(config.data, stored["data"], task, path)
    device = placed(config.profile, workers=chosen.num_workers)
    trained = {**stored["data"], **(content["segfocal"].get("reading") or {})}.get("scale")
    if isinstance(chosen, FilesConfig) and chosen.scale != trained:
        log.warning(
            "data.scale=%s: the checkpoint was trained with data.scale=%s",
            *("null" if at is None else at for at in (chosen.scale, trained)),
        )

    def opened(data: DataConfig) -> SegmentationData:
        none = AugmentConfig(name="none")
        return SegmentationData(data, none, task, channels, device.workers, stored["seed"], device.pin_memory)

    data = opened(chosen)
    if not data.drawn or getattr(chosen, "splits", None) is not None:
        return data
    if isinstance(config.data, CheckpointDataConfig) and config.data.root is None and config.data.file is None:
        return opened(checkpoints.with_splits(chosen, content))
    splits = _left(content["segfocal"].get("splits") or {}, data, config.split)
    return opened(dataclasses.replace(chosen, splits=splits))  # type: ignore[call-arg]  # layouts that draw have it


def _left(stored: dict[str, list[str]], data: SegmentationData, split: str) -> dict[str, list[str]]:
    """The splits of the training with what of them is there; where nothing is, it is other data, and all of it is evaluated.

    Raises:
        UserError: nothing of the split is there, but of others.
    """
    here = {composed(name) for names in (data.drawn or {}).values() for name in names}
    left = {each: [name for name in names if composed(name) in here] for each, names in stored.items()}
    if not any(left.values()):
        log.info("other samples than the checkpoint was trained on, without splits of their own: all %d are evaluated", len(here))
        return {split: sorted(here)}
    wanted, found = len(stored.get(split, [])), len(left.get(split, []))
    mend = "if they are other images by the same names, say their splits, as in test.txt"
    if not found:
        raise UserError(
            f"split={split}: {data.where} has samples of the checkpoint's training, but none of the {wanted} of its {split}: bring those back; {mend}"
        )
    if gone := sum(map(len, stored.values())) - sum(map(len, left.values())):
        there = f"{data.where} has {found} of the {wanted} samples of the checkpoint's {split}, which are evaluated"
        log.warning("%s; %d of all its samples are gone: %s", there, gone, mend)
    return left


def data_of(chosen: DataConfig | CheckpointDataConfig, stored: dict[str, Any], task: TaskConfig, path: Path) -> DataConfig:
    """The data to evaluate on: what was trained on, with what the command names put in its place, or other data altogether."""
    if isinstance(chosen, CheckpointDataConfig):
        named = {key: value for key, value in dataclasses.asdict(chosen).items() if value is not None and key != "name"}
        unknown = sorted(set(named) - set(stored))
        if unknown:
            raise UserError(f"data.{unknown[0]}: the checkpoint was trained on data={stored.get('name')}, which has no such key")
        data: DataConfig = parse_data({**of_the_data(stored), **named}, path)
        if "root" not in named and is_url(str(getattr(data, "root", ""))):
            root = getattr(data, "root", "")
            raise UserError(f"{path}: its data lie at {root}, and are fetched only where the command says so: data.root={root}")
    else:
        data = chosen
        known = data.known_classes(task.name)
        if known is not None and known != task.class_names:
            raise UserError(f"data={data.name} has the classes {', '.join(known)}; {path} is for {', '.join(task.class_names)}")
    if problems := data.problems(task):
        raise UserError("\n".join(problems))
    return data


def of_the_data(stored: dict[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's `data` is about the data; how they are read is a matter of this machine and of this command.

    A checkpoint may come from anybody: it names no folder to be written into and no file that says splits, and starts no more workers
    than there are cores.
    """
    elsewhere = ("limit", "overfit", "cache", "cache_gb", "shards_dir", "shards_gb")
    kept = {key: value for key, value in stored.items() if key not in elsewhere}
    if "splits" in kept:  # the checkpoint has them, too
        kept["splits"] = None
    if isinstance(workers := kept.get("num_workers"), int):
        kept["num_workers"] = min(workers, os.cpu_count() or 1)
    return kept


@dataclass(config=STRICT, kw_only=True)
class _Stored:
    """What of a checkpoint's configuration is read here."""

    data: Annotated[DataConfig, DATA.field]


def parse_data(plain: dict[str, Any], path: Path) -> DataConfig:
    """A data configuration from a checkpoint's plain dictionary."""
    if plain.get("name") == "checkpoint":
        raise UserError(f"{path}: data.name=checkpoint: says of itself that its data are those of a checkpoint")
    try:
        return parse(_Stored, {"data": plain}).data
    except UserError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def check(data: SegmentationData, split: str) -> None:
    """Look at the split.

    Raises:
        UserError: there is none, it has faults, or there is nothing to evaluate on.
    """
    found = data.inspect(split)
    if found.faults:
        raise told([_of_the_model(fault, data.mean) for fault in found.faults], data.where)
    stats = found.stats[split]
    if not stats.valid.any():
        raise UserError(f"split={split}: all pixels of {data.where} are ignored: there is nothing to evaluate")
    for fault in no_foreground(stats, data.task, data.where, f"any mask of split={split}"):
        log.warning("%s", fault)


def _of_the_model(fault: Fault, mean: list[float]) -> Fault:
    """Training may take a model of other channels; here it is as it is."""
    return dataclasses.replace(fault, expected=f"the checkpoint takes {len(mean)}", mend="") if "model.in_channels" in fault.mend else fault


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
        mend = "say the same data for both, as in data=folder data.root=..."
        if first.drawn and other.drawn:  # each keeps its own, whatever data is said
            mend = (
                "their splits were drawn: train both with the same data.splits=<run>/splits.json, or with splits that the data says itself"
            )
        raise UserError(
            f"{paths[1]}: its split={split} has other samples than that of {paths[0]} ({differ[0]}, {len(differ)} in all): {mend}"
        )
