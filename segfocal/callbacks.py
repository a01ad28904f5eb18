"""What happens beside training: checkpoints, pictures, a line for each validation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, dtype, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segfocal.best import NumbersAreBest
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch, SegmentationDataset
from segfocal.data.stats import SplitStats
from segfocal.decision import Decision, labels_of
from segfocal.finite import FiniteSteps
from segfocal.history import History, Means
from segfocal.module import RAREST
from segfocal.pace import Pace
from segfocal.parallel.callbacks import Together, of_all_processes
from segfocal.parallel.team import Team
from segfocal.report.overlay import Picture, sheet, visible
from segfocal.rundir import BEST, CHECKPOINTS, LAST
from segfocal.step_ends import StepEnds
from segfocal.sweeps.trial import Reporter, TrialOfJob
from segfocal.unlearned import Unlearned

log = logging.getLogger("segfocal")


def build_callbacks(config: TrainConfig, run_dir: Path, data: SegmentationData, history: History | None, team: Team) -> list[Callback]:
    """The callbacks of a training, in the order in which they act."""
    mode = "min" if config.minimise else "max"
    callbacks: list[Callback] = [Pace(), LastEpoch(), Means(history)]
    callbacks += averaging(config)
    callbacks += [FiniteSteps(config), Together(), StepEnds(run_dir / CHECKPOINTS / LAST, team, config.callbacks.save_every)]
    # Both are saved when the epoch is over, validation included: going on from either starts with the next epoch.
    keep = partial(KeptCheckpoint, run_dir / CHECKPOINTS, save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks.append(keep(filename=Path(BEST).stem, monitor=config.objective, mode=mode))
    if config.callbacks.keep_best > 1:
        few = partial(
            BestFew, run_dir / CHECKPOINTS, save_on_train_epoch_end=True, enable_version_counter=False, auto_insert_metric_name=False
        )
        callbacks.append(few(filename="best-{step:06d}", monitor=config.objective, mode=mode, save_top_k=config.callbacks.keep_best))
    callbacks.append(keep(filename=Path(LAST).stem))
    if (patience := config.callbacks.early_stopping) is not None:
        stopping = EarlyStopping(config.objective, mode=mode, patience=patience, check_finite=False)
        callbacks += [stopping, StaysStopped(stopping, patience)]
    if config.callbacks.overlays > 0:
        callbacks.append(Overlays(data.dataset("val"), config.task, config.callbacks.overlays, run_dir / "overlays"))
    if config.logger.csv or config.logger.tensorboard:
        callbacks.append(LearningRateMonitor("step"))
    callbacks += [EpochLine(config.objective), Unlearned(config, _shown(data.measured["train"]))]
    if trial := TrialOfJob.of_this_process():
        callbacks.append(Reports(trial))
    if sys.stdout.isatty():
        callbacks.append(ProgressBar(leave=False))
    return callbacks


def _shown(train: SplitStats) -> list[bool]:
    """Whether the training masks have each class; of those that nobody has looked at, all may."""
    return [not train.whole or bool(pixels) for pixels in train.positives]


class LastEpoch(Callback):
    """The last epoch is validated, too, where `trainer.validate_every` would leave it out: it is where a schedule ends."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run that goes on in the middle of an epoch begins none

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class StaysStopped(Callback):
    """A training that was stopped early stays so where it goes on, as after a kill in its evaluation; Lightning would train another epoch.

    Args:
        stopping: what has stopped it.
        patience: that it is told now; Lightning would take the checkpoint's.
    """

    def __init__(self, stopping: EarlyStopping, patience: int) -> None:
        self.stopping, self.patience = stopping, patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopping.patience = self.patience
        if self.stopping.wait_count >= self.patience:
            trainer.should_stop = True
            log.info(
                "callbacks.early_stopping=%d: the last %d validations were no better, no epoch follows",
                self.patience,
                self.stopping.wait_count,
            )


class Average(AveragedModel):
    """The average of a model's weights and statistics; torch's, but what it does in a step never waits for the device.

    torch would copy the number of steps there, for each type of number, and each such copy waits for all that is queued.
    """

    def update_parameters(self, model: nn.Module) -> None:
        groups: dict[dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for mine, its in zip(_tensors(self.module), _tensors(model), strict=True):
            if self.n_averaged == 0:  # it stays on the CPU
                mine.copy_(its)
            for group, tensor in zip(groups.setdefault(mine.dtype, ([], [])), (mine, its), strict=True):
                group.append(tensor)
        if self.n_averaged > 0 and self.multi_avg_fn is not None:
            for averages, current in groups.values():
                self.multi_avg_fn(averages, current, self.n_averaged)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


class Averaging(WeightAveraging):
    """The exponential moving average of weights and statistics; Lightning's, in one kernel.

    Args:
        decay: share of the average that stays at each step.
    """

    def __init__(self, decay: float) -> None:
        self.function = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=True, multi_avg_fn=self.function)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = Average(pl_module, pl_module.device, multi_avg_fn=self.function, use_buffers=True)
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()


def averaging(config: TrainConfig) -> list[Callback]:
    """The average of the weights, where there is to be one."""
    decay = config.callbacks.ema
    assert decay != "auto", "the number of steps has not been asked for"
    return [] if decay is None else [Averaging(decay)]


class ProgressBar(RichProgressBar):
    """Lightning's, without the version of a logger."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class KeptCheckpoint(NumbersAreBest):
    """Remembers what was best also when a run goes on in another directory, where Lightning would forget it.

    The file itself is brought there by `going_on`; where it could not be, the best is looked for anew. What monitors a figure of validation
    is saved in epochs with a validation alone.
    """

    validated = False
    superfluous: Sequence[str] = ()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:  # by now all processes have seen what there was
            for path in self.superfluous:
                Path(path).unlink(missing_ok=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.validated or self.monitor is None:
            super().on_train_epoch_end(trainer, pl_module)
        self.validated = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {**state_dict, "dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[key] = here(moved[key])
        moved["best_k_models"] = {here(path): score for path, score in moved["best_k_models"].items()}
        if all(Path(path).is_file() for path in moved["best_k_models"]):
            super().load_state_dict(moved)
            self._keep_fewer()

    def _keep_fewer(self) -> None:
        """Where fewer are to be kept than before: Lightning takes one away only while there are just as many as are to be kept."""
        scores = self.best_k_models
        order = sorted(scores, key=lambda path: float(scores[path]), reverse=self.mode == "max")
        self.superfluous = order[self.save_top_k :]
        for path in self.superfluous:
            del scores[path]
            self.kth_best_model_path = order[self.save_top_k - 1]
            self.kth_value = scores[self.kth_best_model_path]


class BestFew(KeptCheckpoint):
    """The best few beside `best.ckpt`; Lightning tells callbacks of one kind apart by what they monitor alone."""


class EpochLine(Callback):
    """A line in the log for each epoch: the figures that tell whether it learns, those of validation where there was one."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = trainer.callback_metrics  # Lightning leaves those of the last validation there
        rarest = [name for name in figures if name.startswith(RAREST)]
        names = dict.fromkeys(["train/loss", *(["val/loss", self.objective, *rarest] if self.validated else [])])
        self.validated = False
        shown = "  ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)
        log.info("epoch %d of %s  %s", trainer.current_epoch + 1, trainer.max_epochs, shown)


class Reports(Callback):
    """A job of a search tells its study of each validation, and stops where that says so.

    Args:
        trial: of this process.
    """

    def __init__(self, trial: TrialOfJob) -> None:
        self.reporter = Reporter(trial)
        self.pruned: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        stop = trainer.is_global_zero and self.reporter.report(epoch, trainer.callback_metrics) and epoch != trainer.max_epochs
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            self.pruned, trainer.should_stop = epoch, True


class Overlays(Callback):
    """Draw the same few images whenever they are evaluated, into a directory and into TensorBoard.

    Args:
        dataset: the split that is evaluated.
        task: what the masks mean.
        count: how many images, spread evenly over the split.
        directory: where the pictures are written.
        decision: by which logits become labels; None: the plain one.
    """

    def __init__(
        self, dataset: SegmentationDataset, task: TaskConfig, count: int, directory: Path, decision: Decision | None = None
    ) -> None:
        self.dataset, self.task, self.directory = dataset, task, directory
        self.decision = decision or Decision(task.name)
        self.chosen = set(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist())
        self.pictures: dict[int, Picture] = {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._collect(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw(f"epoch_{trainer.current_epoch + 1:03d}.png", trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw("evaluation.png", trainer)

    def _collect(self, logits: Tensor, batch: Batch) -> None:
        for row, index in enumerate(batch.indices.tolist()):
            if index in self.chosen:
                image, truth = self.dataset.source.read(index)
                height, width = image.shape[:2]
                predicted = labels_of(logits[row : row + 1], self.decision)[0, :height, :width]
                flat = truth if truth.ndim == 3 or self.task.name == "multiclass" else truth[..., None]
                picture = Picture(self.dataset.source.names[index], visible(image), flat, predicted)
                self.pictures[index] = picture.shrunk(self.task)

    def _draw(self, name: str, trainer: Trainer) -> None:
        drawn = {index: picture for share in of_all_processes(self.pictures) for index, picture in share.items()}
        self.pictures = {}
        if not trainer.is_global_zero:
            return
        picture = sheet([drawn[index] for index in sorted(drawn)], self.task)
        self.directory.mkdir(parents=True, exist_ok=True)
        picture.save(self.directory / name)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("overlays", np.asarray(picture), trainer.global_step, dataformats="HWC")
