"""Says which classes a training has not begun to learn, and what to change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import compress
from typing import Any

from lightning.pytorch import Callback, Trainer

from segfocal.config.run import TrainConfig

log = logging.getLogger("segfocal")


class Unlearned(Callback):
    """A line, once, for the classes of which nothing is found after so many steps: recall is 0 where validation masks have them.

    Args:
        config: of the run.
        shown: whether the training masks have each class; what they do not have is said before a training.
    """

    def __init__(self, config: TrainConfig, shown: Sequence[bool]) -> None:
        self.config, self.told = config, False
        self.names = list(compress(config.task.class_names, shown))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        after = self.config.callbacks.unlearned_after
        if self.told or after is None or trainer.global_step < after:
            return
        names = [name for name in self.names if pl_module.figures.get(f"recall/{name}") == 0]
        if names:
            self.told = True
            log.warning(
                "after %d steps nothing of %s is found (recall 0 in validation): %s", trainer.global_step, ", ".join(names), self._advice()
            )

    def _advice(self) -> str:
        config = self.config
        advice = [] if config.sampling.name != "uniform" else ["sampling=rare_class cuts crops around them"]
        if "dice" not in getattr(config.loss, "terms", {}):
            advice.append("loss=ce_dice weights them, and counts their overlap")
        return "; ".join([*advice, "a larger optimizer.lr or trainer.max_epochs brings it further"])
