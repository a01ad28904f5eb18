"""How fast a run goes on: at the learning rate and weight decay that its configuration says now, whatever was loaded."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
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
