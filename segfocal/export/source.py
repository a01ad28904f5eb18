"""From a checkpoint to what is exported: a model in evaluation mode, and everything that one has to know to use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import segfocal
from segfocal import checkpoint as checkpoints
from segfocal.config.export import STRIDE, ExportConfig
from segfocal.config.run import ModelConfig
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision


@dataclass(frozen=True)
class Source:
    """
    Args:
        path: of the checkpoint.
        content: of that file.
        sha256: of that file.
        task, architecture, decision: what it says.
        model: with its weights, in evaluation mode, on the CPU.
    """

    path: Path
    content: dict[str, Any]
    sha256: str
    task: TaskConfig
    architecture: ModelConfig
    decision: Decision
    model: nn.Module

    @property
    def mean(self) -> list[float]:
        return list(self.content["segfocal"]["mean"])

    @property
    def std(self) -> list[float]:
        return list(self.content["segfocal"]["std"])

    @property
    def name(self) -> str:
        return f"model={self.architecture.name} model.encoder={self.architecture.encoder}"


def open_source(ckpt: str) -> Source:
    """Read a checkpoint and rebuild its model.

    Raises:
        UserError: it cannot be read, does not fit together, or has weights that are no numbers.
    """
    path = checkpoints.locate(ckpt, "best")
    content = checkpoints.read(path)
    rebuilt = checkpoints.rebuild(content, path)
    return Source(path, content, checkpoints.checksum(path), rebuilt.task, rebuilt.architecture, rebuilt.decision, rebuilt.model.eval())


def description(source: Source, config: ExportConfig) -> dict[str, Any]:
    """What a graph holds of its use; documented in docs/export.md."""
    task, decision, told = source.task, source.decision, source.content["segfocal"]
    reading = {**told["config"]["data"], **(told.get("reading") or {})}
    count = task.num_classes
    rule: dict[str, Any] = (
        {"offsets": decision.offsets or [0.0] * count, "temperature": decision.temperature or [1.0]}
        if task.name == "multiclass"
        else {"thresholds": decision.thresholds or [0.5] * count, "temperature": decision.temperature or [1.0] * count}
    )
    return {
        "task": task.name,
        "classes": task.class_names,
        **rule,
        "ignore_index": task.ignore_index,
        "label_map": told["config"]["data"].get("label_map"),
        "channels": source.architecture.in_channels,
        "input": "pixels" if config.normalise else "normalised",
        "scale": 255,
        "mean": source.mean,
        "std": source.std,
        "image_scale": reading.get("scale") or 1,
        "exif": reading.get("exif") or "apply",  # as predictions do where training refused such photographs
        "multiple": STRIDE,
        "size": config.size,
        "architecture": source.architecture.name,
        "encoder": source.architecture.encoder,
        "epoch": told["epoch"],
        "segfocal": segfocal.__version__,
        "checkpoint_sha256": source.sha256,
    }
