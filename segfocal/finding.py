"""Batch size and learning rate, found by trying; on a model that is thrown away, so that the run is the one that is told them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from segfocal.callbacks import averaging
from segfocal.config.run import TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.room import free_memory
from segfocal.durable import DurableCheckpointIO
from segfocal.errors import UserError
from segfocal.memory import out_of_memory
from segfocal.module import SegmentationModule
from segfocal.parallel.devices import PlacedDevice

STEPS = 3  # that each batch size is tried with; the second has the optimiser's state besides
RATES = 100  # learning rates that are tried
LOWEST, HIGHEST = 1e-6, 1.0
WINDOW = 10  # rates, over which the loss is averaged; so many at the beginning are not looked at
SHARE = 0.8  # of the memory that is free, for the rest of the program grows too
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of the process; a 5 in the second begins the peak anew

log = logging.getLogger("segfocal")


def find(
    config: TrainConfig, data: SegmentationData, device: PlacedDevice, run_dir: Path, build: Callable[[TrainConfig], SegmentationModule]
) -> TrainConfig:
    """The configuration with what `trainer.find_batch_size` and `trainer.find_lr` look for in the place of these; `data` is told, too.

    Args:
        config: of the run.
        data: checked.
        device: of the run.
        run_dir: for a file that lies there meanwhile.
        build: makes the module of a configuration.

    Raises:
        UserError: nothing fits, or no rate lowers the loss.
    """
    if config.trainer.find_batch_size is not None:
        size = batch_size(config, data, device, run_dir, build)
        data.batch_size = size
        trainer = dataclasses.replace(config.trainer, find_batch_size=None)
        config = dataclasses.replace(config, trainer=trainer, data=dataclasses.replace(config.data, batch_size=size))
    if config.trainer.find_lr:
        optimizer = dataclasses.replace(config.optimizer, lr=learning_rate(config, data, device, run_dir, build))
        config = dataclasses.replace(config, optimizer=optimizer, trainer=dataclasses.replace(config.trainer, find_lr=False))
    return config


def batch_size(
    config: TrainConfig, data: SegmentationData, device: PlacedDevice, run_dir: Path, build: Callable[[TrainConfig], SegmentationModule]
) -> int:
    """The largest of 2, 4, 8 ... up to `trainer.find_batch_size`, and to the samples that there are, whose steps and validation fit.

    Lightning's finder leaves out the callbacks, does not know oneDNN's want of memory, and ends at its limit with a size that it has not tried.
    """
    most = config.trainer.find_batch_size or 2
    found, size, reason = 0, 2, "was tried"
    memory = Memory(device)
    while size <= max(2, min(most, data.measured["train"].total)):
        data.batch_size, module = size, build(config)
        try:
            _trainer(config, device, run_dir, epochs=STEPS).fit(module, datamodule=data)
        except (RuntimeError, MemoryError) as error:
            if not (out_of_memory(error) or is_oom_error(error)):
                raise
            reason = "fits"
            break
        finally:
            del module
            garbage_collection_cuda()
        taken = memory.taken()
        found = size if taken <= memory.room else found
        if 2 * taken > memory.room:
            reason = "fits"
            break
        size *= 2
    if not found:
        raise UserError(f"trainer.find_batch_size={most}: not even 2 crops fit into memory: a smaller data.crop, model or model.encoder")
    log.info("trainer.find_batch_size=%d: data.batch_size=%d is the largest that %s", most, found, reason)
    return found


def learning_rate(
    config: TrainConfig, data: SegmentationData, device: PlacedDevice, run_dir: Path, build: Callable[[TrainConfig], SegmentationModule]
) -> float:
    """The rate at which the loss falls fastest, while the rate grows from step to step (arXiv 1506.01186, section 3.3)."""
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
        found = Tuner(_trainer(config, device, run_dir)).lr_find(
            build(config), datamodule=data, min_lr=LOWEST, max_lr=HIGHEST, num_training=RATES, update_attr=False
        )
    rate = steepest(found.results["lr"], found.results["loss"]) if found else None
    if rate is None:
        raise UserError(f"trainer.find_lr=true: the loss of {config.loss.name} falls at no rate that was tried: say optimizer.lr")
    rounded = float(f"{rate:.2g}")
    log.info("trainer.find_lr=true: optimizer.lr=%g, where the loss falls fastest", rounded)
    return rounded


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """Where the loss falls fastest over the logarithm of the rate, before it is lowest; None where it does not fall.

    Lightning's own suggestion takes the slope over the rate itself, which is steepest where rates are smallest: there it finds noise.
    """
    count = next((number for number, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    smooth = np.convolve(losses[:count], np.full(WINDOW, 1 / WINDOW), "valid") if count > 2 * WINDOW else np.empty(0)
    lowest = int(smooth.argmin()) if len(smooth) else 0
    if lowest <= WINDOW:
        return None
    slopes = np.gradient(smooth, np.log(rates[WINDOW // 2 :][: len(smooth)]))[WINDOW : lowest + 1]
    return rates[WINDOW // 2 + WINDOW + int(slopes.argmin())] if slopes.min() < 0 else None


def _trainer(config: TrainConfig, device: PlacedDevice, run_dir: Path, epochs: int | None = None) -> Trainer:
    """As the run's, in what takes memory and makes steps.

    Args:
        epochs: of one step, and a validation of the batch of most pixels, which is the first; None: whole epochs, as many as are asked for.
    """
    seed_everything(config.seed, verbose=False)
    options = device.trainer_options()
    if epochs:
        options |= {"limit_train_batches": config.trainer.accumulate, "limit_val_batches": 1, "check_val_every_n_epoch": epochs}
    return Trainer(
        default_root_dir=run_dir,
        plugins=[*options.pop("plugins"), DurableCheckpointIO()],
        **options,
        max_epochs=epochs or 1000,  # more than is ever tried; schedules want a number
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.trainer.gradient_clip or None,
        callbacks=averaging(config),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


class Memory:
    """What trials on a CPU take at their peak, and what there is: Linux hands out more than that, and kills the program when it is used.

    What twice as large a batch will take is said by the one before, at most twice as much. A limit of the process would not do: where it is met, oneDNN
    keeps what it could not make, and other libraries end the program. Other devices refuse by themselves, and systems without /proc say nothing.

    Args:
        device: of the run.
    """

    def __init__(self, device: PlacedDevice) -> None:
        self.before = 0
        self.known = device.accelerator == "cpu" and STATUS.is_file()
        self.room = SHARE * free_memory() if self.known else math.inf
        self.taken()
        self.before = self._said("VmRSS")

    def taken(self) -> int:
        """Bytes at the peak since this was asked last, beyond what there was at first."""
        peak = self._said("VmHWM") - self.before
        with contextlib.suppress(OSError):  # where it is not allowed, the peak is that of all trials
            RESET.write_text("5")
        return peak

    def _said(self, key: str) -> int:
        found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text()) if self.known else None
        return 1024 * int(found[1]) if found else 0
