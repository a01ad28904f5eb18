"""How fast a run goes on, and from where: by the learning rate, the weight decay and the steps of an epoch that it has now.

Other devices, batches or images make other steps of an epoch. What counts steps, in the schedule and in the epoch, is then converted.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.progress import _BatchProgress
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

log = logging.getLogger("segfocal")

Said = list[dict[str, float]]  # of each parameter group, what the configuration says


class Pace(Callback):
    """Acts when all has been loaded, before any other callback looks at the training; what nobody has changed it puts as it is."""

    before: dict[str, Any] | None = None  # what the checkpoint said of its run

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.before = checkpoint["segfocal"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.before is None:
            return
        stored, now = self.before["config"]["optimizer"], pl_module.config.optimizer
        for key in ("lr", "weight_decay"):
            if stored[key] != getattr(now, key):
                log.info("going on with optimizer.%s=%g, until here it was %g", key, getattr(now, key), stored[key])
        (optimizer,), (schedule,) = trainer.optimizers, trainer.lr_scheduler_configs
        old, new = self.before.get("epoch_has"), epoch_has(trainer)
        if old and new and old != new:
            convert(trainer, schedule, old, new)
        adopt(optimizer, schedule.scheduler, pl_module.said, now.lr / stored["lr"])


def adopt(optimizer: Optimizer, schedule: Any, said: Said, ratio: float) -> None:
    """Have an optimiser and its schedule, both loaded, go on with what is said.

    Args:
        said: `lr`, the highest, and `weight_decay` of each group.
        ratio: of that rate to the one before, for schedules whose rate is what they have come to.
    """
    for group, new in zip(optimizer.param_groups, said, strict=True):
        group.update(weight_decay=new["weight_decay"], lr=group["lr"] * ratio)
        if "initial_lr" in group:
            group["initial_lr"] = new["lr"]
    if isinstance(schedule, LambdaLR):
        schedule.base_lrs = [new["lr"] for new in said]
        for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * factor(schedule.last_epoch)


def epoch_has(trainer: Trainer) -> dict[str, int] | None:
    """Batches of a process and steps of the optimiser in an epoch; None where no loader has been asked for."""
    batches = trainer.num_training_batches
    return {"batches": int(batches), "steps": -(-int(batches) // trainer.accumulate_grad_batches)} if batches < math.inf else None


def convert(trainer: Trainer, schedule: LRSchedulerConfig, old: dict[str, int], new: dict[str, int]) -> None:
    """Have schedule and place in the epoch, counted in epochs of other steps, be where they would be by those that epochs have now."""
    progress, lines = trainer.fit_loop.epoch_loop.batch_progress, []
    if schedule.interval == "step":
        step = schedule.scheduler.last_epoch = schedule.scheduler.last_epoch * new["steps"] // old["steps"]
        lines.append(f"the schedule is at step {step} of {trainer.estimated_stepping_batches}")
    if trainer.fit_loop.restarted_mid_epoch:
        place = placed(progress.current.ready, old["batches"], new["batches"], trainer.accumulate_grad_batches)
        _put(progress, place)
        lines.append(f"{place} of {new['batches']} batches of this epoch are done")
    had = "going on with epochs of %d batches, %d steps, until here they had %d, %d"
    log.info("%s", ": ".join([had % (*new.values(), *old.values()), *filter(None, [", ".join(lines)])]))


def placed(batches: int, old: int, new: int, accumulate: int) -> int:
    """Batches that are done, so that what follows begins a step; all of them stay all."""
    return new if batches >= old else batches * new // old // accumulate * accumulate


def _put(progress: _BatchProgress, place: int) -> None:
    """As Lightning counts: in the middle of an epoch the last batch is not completed before the run goes on."""
    current = progress.current
    open_ = current.ready - current.completed
    current.ready = current.started = current.processed = place  # type: ignore[attr-defined]  # typed as a simpler one
    current.completed = place - open_
