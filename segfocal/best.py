"""Which checkpoint is the best: one whose objective is a number."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from segfocal.checkpoint import locate

log = logging.getLogger("segfocal")


class NumbersAreBest(ModelCheckpoint):
    """Lightning would take a first objective that is NaN for the best."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)


def best_of(run_dir: Path, objective: str) -> Path:
    """The best checkpoint of a training that has ended; the last, and a word, where the objective was never a number."""
    best = run_dir / "checkpoints" / "best.ckpt"
    if best.is_file():
        return best
    log.warning("%s was no number in any validation: there is no best checkpoint, and the last one is evaluated", objective)
    return locate(str(run_dir), "last")
