"""The LightningModule: one step for training, validation and test."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segfocal.compiling import eagerly
from segfocal.config.inference import InferenceConfig
from segfocal.config.optim import SCHEDULERS
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.data.dataset import Batch
from segfocal.decision import Decision
from segfocal.finite import FiniteSteps
from segfocal.inference import Inference
from segfocal.metrics import SegmentationMetrics
from segfocal.metrics.fitting import fit
from segfocal.metrics.offsets import PixelSample
from segfocal.optim import build_optimizer, fuse
from segfocal.pace import Said, epoch_has

RAREST = "IoU of the rarest class"  # begins the name, in the log of a training, of a figure that metrics.csv has under the class's own

log = logging.getLogger("segfocal")

Figures = dict[str, float | None]


class SegmentationModule(LightningModule):
    """
    Args:
        model: image (N, channels, H, W) -> logits (N, C, H, W).
        task: what the logits mean.
        loss: logits and target -> a number; None where nothing is trained.
        config: of the run; None where nothing is trained.
        about: what a checkpoint holds besides the weights, plain data.
        channels_last: memory format of the convolutions.
        inference: how whole images are predicted outside of training; None: in one piece.
        decision: by which test figures are counted, too; None: the plain one.
    """

    def __init__(
        self,
        model: nn.Module,
        task: TaskConfig,
        loss: nn.Module | None = None,
        config: TrainConfig | None = None,
        about: dict[str, Any] | None = None,
        channels_last: bool = True,
        inference: InferenceConfig | None = None,
        decision: Decision | None = None,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.loss, self.config, self.about = loss, config, about
        self.task, self.decision = task, decision or Decision(task.name)
        self.infer = Inference(self.model, inference or InferenceConfig(tile=None))
        self.metrics = SegmentationMetrics(task.name, task.class_names, task.ignore_index, decision=self.decision)
        self.sample = PixelSample(task) if config and config.metrics.wants_sample(task.name) else None
        self.fitted = Decision(task.name)  # at the last validation
        self.figures: Figures = {}
        self.confusion, self.histogram = torch.empty(0), torch.empty(0)  # the counts of a test, when it has ended
        self.losses: dict[str, Tensor] = {}
        """What the last step has lost, in all and by each term of a sum."""
        self.finite: FiniteSteps | None = None  # of a training that is watched over
        self.said: Said = []

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout and the like are functions of the step, so that a resumed run draws what the uninterrupted one would have drawn.
        assert self.config is not None
        torch.manual_seed((self.config.seed * 1_000_003 + self.global_step + self.global_rank * 1_000_000_007) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        return loss if self.finite is None else self.finite.watched(batch, loss, self._terms)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def _step(self, batch: Batch, stage: str) -> Tensor:
        """The loss in training; elsewhere the logits, counted by the metrics."""
        if stage == "train":
            logits = self(batch.image)
        else:
            with eagerly():
                logits = self.infer(batch.image)
        if self.loss is not None:
            loss = self.loss(logits, batch.target)
            losses = {"loss": loss, **self._terms}
            if stage == "train":
                self.losses = {name: value.detach() for name, value in losses.items()}
                return cast(Tensor, loss)
            for name, value in losses.items():
                self.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.image))
        self.metrics.update(logits, batch.target)
        if self.sample is not None:
            self.sample.update(logits, batch.target, batch.indices)
        return cast(Tensor, logits)

    @property
    def _terms(self) -> dict[str, Tensor]:
        """The losses that the last one was made of."""
        return {f"loss_{term}": part for term, part in getattr(self.loss, "parts", {}).items()}

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()
        if self.sample is not None:
            self.sample.reset()

    def on_test_epoch_start(self) -> None:
        self.metrics.reset()

    def on_validation_epoch_end(self) -> None:
        self.figures = self.metrics.compute()
        assert self.config is not None
        with self.metrics.sync_context():
            self.fitted = fit(self.task, self.config.metrics, self.metrics.histogram, self.sample)
        for name, value in self.figures.items():
            self.log(f"val/{name}", math.nan if value is None else value)
        if (rarest := self._rarest()) is not None:
            iou = self.figures[f"iou/{rarest}"]
            self.log(f"{RAREST} ({rarest})", math.nan if iou is None else iou, prog_bar=True, logger=False)

    def on_train_epoch_end(self) -> None:
        """Look at the objective where the schedule does: Lightning would after the checkpoint is written, and a run that goes on never."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau) and self.config and (self.current_epoch + 1) % self.config.trainer.validate_every == 0:
            schedule.step(self.trainer.callback_metrics[self.config.objective])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_test_epoch_end(self) -> None:
        self.figures = self.metrics.compute()
        with self.metrics.sync_context():  # of all processes, as the figures are
            self.confusion, self.histogram = (counts.cpu().clone() for counts in (self.metrics.confusion, self.metrics.histogram))

    def _rarest(self) -> str | None:
        """Of several classes, the one that fewest of the pixels are of."""
        shares = {name.split("/", 1)[1]: value for name, value in self.figures.items() if name.startswith("pixel_share/") and value}
        return min(shares, key=lambda name: shares[name]) if shares and self.task.num_classes > 1 else None

    def configure_optimizers(self) -> Any:
        assert self.config is not None
        optimizer = build_optimizer(self.config.optimizer, self.model)
        fuse(optimizer.param_groups, self._fused)
        self.said = [{key: group[key] for key in ("lr", "weight_decay")} for group in optimizer.param_groups]
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = SCHEDULERS.build(self.config.scheduler, optimizer, steps, self.config.minimise)
        if schedule["interval"] == "epoch":
            schedule |= {"monitor": self.config.objective, "frequency": self.config.trainer.validate_every}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def _fused(self) -> bool:
        """Whether the optimiser may step in one kernel: with a GradScaler it could not clip gradients, and torch_npu has none."""
        return self.trainer.strategy.root_device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if self.finite is None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.finite.decide(optimizer, gradient_clip_val or 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segfocal"] = {
            **(self.about or {}),
            "epoch": self.current_epoch,
            "epoch_has": epoch_has(self.trainer),
            "metrics": self.figures,
            "decision": self.fitted.as_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for state in checkpoint.get("optimizer_states", []):  # of another device, perhaps
            fuse(state["param_groups"], self._fused)
        if "current_model_state" in checkpoint and not self._averaged:
            self._take_trained(checkpoint)
        ours = checkpoint["segfocal"]
        self.fitted, self.figures = Decision.of(ours.get("decision"), self.task), ours["metrics"]

    @property
    def _averaged(self) -> bool:
        return any(isinstance(each, WeightAveraging) for each in self.trainer.callbacks)  # type: ignore[attr-defined]  # Lightning's Trainer has them

    def _take_trained(self, checkpoint: dict[str, Any]) -> None:
        """Where no average is taken any more, the weights that its moments are of, and not their average."""
        checkpoint["state_dict"] = checkpoint["current_model_state"]
        log.info("callbacks.ema=null: going on from the weights that were trained, not from their average")
