"""What happens when a step of the optimiser is done: a checkpoint where one is due, and the end where a signal asks for it.

Between two steps all that a training is lies open: weights, moments, schedule, averages, place in the epoch. Where the epoch's last step
is done, the place is said to be in its validation, which a run that goes on begins anew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from segfocal.data.loader import Loader
from segfocal.errors import Interrupted
from segfocal.parallel.callbacks import of_all_processes
from segfocal.parallel.team import Team
from segfocal.rundir import shown_path
from segfocal.stopping import asked

log = logging.getLogger("segfocal")


class StepEnds(Callback):
    """Stands behind whatever changes at the end of a step.

    Args:
        path: of the checkpoint.
        team: the processes of the run, which end at the same step.
        every: so many steps to a checkpoint; None: those of epochs are enough.
    """

    def __init__(self, path: Path, team: Team, every: int | None) -> None:
        self.path, self.team, self.every = path, team, every
        self.steps = 0
        self.code: int | None = None  # with which to end, once that is agreed on
        self.before_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = trainer.global_step
        loader = trainer.train_dataloader
        if trainer.fit_loop.restarted_mid_epoch and isinstance(loader, Loader):
            loader.begin_at(trainer.fit_loop.epoch_loop.batch_idx + 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.code is not None:  # the checkpoint of the epoch before has just been written
            self._end(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.steps:  # gradients are being accumulated
            return
        self.steps = trainer.global_step
        self.code = self.team.agreed(asked(), self.steps)
        if trainer.is_last_batch:
            return
        if self.code is not None:
            self._save(trainer)
            self._end(trainer)
        elif self.every and self.steps % self.every == 0:
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.total.reset()  # a validation that is begun anew counts from 0
        self._look(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if not dist.is_initialized():  # several have as many batches each as there are, and wait for each other at the end
            self.code = asked()
            if self.code is not None:
                for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's Trainer has them
                    if isinstance(callback, WeightAveraging):
                        callback.on_validation_epoch_end(trainer, pl_module)  # which puts the weights back that are trained
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        codes = [code for code in of_all_processes(self.code or asked()) if code is not None]
        if codes:
            self.code = codes[0]
            self._end(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self.code is not None:
            self.before_validation = True
            self._save(trainer)
            self._end(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)

    def _end(self, trainer: Trainer) -> None:
        assert self.code is not None
        if trainer.is_global_zero:
            log.info("interrupted after step %d: %s", trainer.global_step, shown_path(self.path))
        raise Interrupted(self.code)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.before_validation:  # as Lightning takes it for a validation that was interrupted in its first batch
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for part in ("total", "current"):
                progress[part] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
