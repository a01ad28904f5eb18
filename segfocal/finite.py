"""A step of the optimiser whose loss or gradient is not finite is not taken, and its samples are named.

The norm of the gradient decides, which clipping wants anyway and which is the same in all processes. What else is wrong is made to show in
it: a loss that is not finite, or that has left BatchNorm's statistics not finite, is multiplied by NaN. All of that happens on the device,
statistics included, which are put back. What was wrong is read by the host: on a CPU before the optimiser's turn; on an accelerator `LAG`
steps later, from a copy that has arrived by then, so that nothing waits.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from segfocal.config.run import TrainConfig
from segfocal.culprits import Culprit, Seen, Step, described, far, mend
from segfocal.data.dataset import Batch
from segfocal.data.faults import Fault
from segfocal.errors import UserError
from segfocal.optim import gradients, start_momentum, withhold
from segfocal.parallel.callbacks import of_all_processes
from segfocal.rundir import shown_path

LAG = 2  # steps
LINES = 5  # so many steps that are left out have a line each; the others are counted

log = logging.getLogger("segfocal")


class FiniteSteps(Callback):
    """Watches over a training; its module hands it each loss, and leaves clipping to it.

    Under 16-mixed a gradient that is not finite is how GradScaler finds its scale. There it counts where the loss is not finite either, and
    where the scale is below 1 already.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.skips = config, config.trainer.nonfinite == "skip"
        self.skipped = self.in_a_row = 0
        self.window: list[Seen] = []  # the batches of the step to come
        self.sent: deque[Step] = deque()
        self.validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        self._read_all()  # before anything is saved
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.trainer, self.statistics = trainer, Statistics(pl_module.model)
        self.scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        self.scale: Tensor | None = None  # of the step, where there is a scaler
        self.there = checkpoints_of(trainer)
        for optimizer in trainer.optimizers:
            start_momentum(optimizer)
        pl_module.finite = self

    def on_train_batch_start(self, *_: Any) -> None:
        if not self.window:
            self.before = self.statistics.now()

    def watched(self, batch: Batch, loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """The loss, times NaN where it or BatchNorm's statistics are not finite.

        Args:
            batch: that it is of.
            loss: with its graph.
            terms: that it is made of, by name.
        """
        with torch.no_grad():
            self.after = self.statistics.now()
            losses = torch.stack([term.float().reshape(()) for term in (loss, *terms.values())])
            fine = torch.stack([losses[0].isfinite(), *(flat.isfinite().all() for flat in self.after)]).all()
            reach = torch.linalg.vector_norm(batch.image, math.inf, dim=(1, 2, 3))
            self.window.append(Seen(batch.indices, ["loss", *terms], fine, losses, reach))
            factor = torch.ones_like(loss).masked_fill(~fine, math.nan)
        return loss * factor

    def decide(self, optimizer: Optimizer, clip: float) -> None:
        """Clip the gradient, or keep it from being used.

        Args:
            optimizer: whose turn it is.
            clip: largest norm; 0 does not clip.

        Raises:
            UserError: it is not finite, and no step is to be left out.
        """
        norm = get_total_norm(gradients(optimizer))
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.bad = ~norm.isfinite()
        if self.scaler is not None:
            self.bad &= self._beyond_the_scale(norm)
        self.statistics.put([torch.where(self.bad, old, new) for old, new in zip(self.before, self.after, strict=True)])
        self.sent.append(Step.sent(self.trainer.current_epoch + 1, self.trainer.global_step + 1, self.window, self.bad, norm))
        self.window = []
        while len(self.sent) > (0 if norm.device.type == "cpu" else LAG):
            self._read()
        if clip and (norm.device.type != "cpu" or norm + 1e-6 > clip):  # a CPU knows where all would be multiplied by 1
            clip_grads_with_norm_([parameter for group in optimizer.param_groups for parameter in group["params"]], clip, norm)
        if self.scaler is None:  # it leaves the optimiser out by itself
            withhold(optimizer, self.bad)

    def _beyond_the_scale(self, norm: Tensor) -> Tensor:
        """Whether a gradient that is not finite is more than GradScaler's own affair."""
        spoilt = (~torch.stack([seen.fine for seen in self.window]).all()).float()
        if dist.is_initialized():
            dist.all_reduce(spoilt, dist.ReduceOp.MAX)
        self.scale = scale = cast(Tensor, self.scaler.scale(torch.ones_like(norm)))
        return (spoilt > 0) | (scale < 1)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.scale is not None and self.skips:  # halved for each loss that is not finite, the scale would come to nothing
            now = self.scaler.scale(torch.ones_like(self.scale))
            self.scaler.update(torch.where(self.bad, self.scale, now))
        self.scale = None

    def on_train_end(self, *_: Any) -> None:
        self._read_all()
        if self.skipped:
            steps = "1 step was" if self.skipped == 1 else f"{self.skipped} steps were"
            log.warning("%s left out, since loss or gradient were not finite (trainer.nonfinite=skip)", steps)

    def _read_all(self) -> None:
        while self.sent:
            self._read()

    def _read(self) -> None:
        """What has come of a step; in all processes at the same one.

        Raises:
            UserError: it is one too many.
        """
        step = self.sent.popleft()
        if not step.wait():
            self.in_a_row = 0
            return
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        culprits = [batch for share in of_all_processes(step.culprits(self._names("train"))) for batch in share]
        where, what = f"epoch {step.epoch}, step {step.number}", described(culprits, step.norm)
        if self.skips and self.in_a_row < self.config.trainer.nonfinite_limit:
            if self.skipped <= LINES:
                further = ", and further ones are only counted" if self.skipped == LINES else ""
                log.warning("%s", Fault(where, what, f"the step is left out{further}"))
            return
        limit = self.config.trainer.nonfinite_limit
        row = f"that are {limit} steps in a row, trainer.nonfinite_limit={limit}"
        skip = "" if self.skips else "; trainer.nonfinite=skip leaves such steps out"
        raise self._error(where, what, row if self.skips else "the step was not taken", culprits, skip)

    def _error(self, where: str, what: str, then: str, culprits: list[Culprit], more: str = "") -> UserError:
        advice = mend(culprits, self.config, str(self.trainer.precision))
        return UserError(str(Fault(where, what, then, f"{advice}{more}; {self._newest()}")))

    def _newest(self) -> str:
        """The newest checkpoint: of this run, or else the one that it has gone on from."""
        own = {path: time for path, time in checkpoints_of(self.trainer).items() if self.there.get(path) != time}
        found = max(own, key=lambda path: own[path], default=self.trainer.ckpt_path)
        return f"the newest checkpoint is {shown_path(Path(found))}" if found else "there is no checkpoint yet"

    def _names(self, split: str) -> Sequence[str]:
        names: Sequence[str] = self.trainer.datamodule.sources[split].names  # type: ignore[attr-defined]  # Lightning's Trainer has it
        return names

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any, **__: Any) -> None:
        reach, scores = (torch.linalg.vector_norm(each.float(), math.inf, dim=(1, 2, 3)) for each in (batch.image, outputs))
        self.validated.append((batch.indices.clone(), reach, scores))  # a worker's memory is a file that stays open while it is held

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Name the images whose scores are NaN; the figures of the module would only count them.

        Raises:
            UserError: there are some.
        """
        seen, self.validated = self.validated, []
        if not max(of_all_processes(int(pl_module.metrics.nan_scores))):
            return
        indices, reach, scores = (torch.cat(part).tolist() for part in zip(*seen, strict=True))
        names = self._names("val")
        mine = [(names[index], value) for index, value, score in zip(indices, reach, scores, strict=True) if math.isnan(score)]
        found = [sample for share in of_all_processes(mine) for sample in share]
        samples, distances = [name for name, _ in found], [value for _, value in found]
        culprits = [Culprit(samples, "scores are nan", far(samples, distances))]
        raise self._error(f"validation of epoch {trainer.current_epoch + 1}", described(culprits), "", culprits)


class Statistics:
    """BatchNorm's running statistics, copied and put back as one tensor of each type: they are many and small.

    Args:
        model: whose they are.
    """

    def __init__(self, model: nn.Module) -> None:
        buffers = [buffer for part in model.modules() if isinstance(part, _NormBase) for buffer in part.buffers(recurse=False)]
        self.groups = [[each for each in buffers if each.dtype == dtype] for dtype in dict.fromkeys(each.dtype for each in buffers)]

    def now(self) -> list[Tensor]:
        """A copy."""
        return [torch.cat([buffer.flatten() for buffer in group]) for group in self.groups]

    def put(self, values: list[Tensor]) -> None:
        """Take over a copy."""
        for group, flat in zip(self.groups, values, strict=True):
            parts = torch.split(flat, [buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view_as(buffer) for part, buffer in zip(parts, group, strict=True)])


def checkpoints_of(trainer: Trainer) -> dict[Path, int]:
    """Those in the run's directory, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in Path(trainer.default_root_dir, "checkpoints").glob("*.ckpt")}
