"""`fit`: from a configuration to a trained, evaluated checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import OmegaConf

from segfocal import checkpoint as checkpoints
from segfocal.best import best_of
from segfocal.callbacks import Reports, build_callbacks
from segfocal.compiling import compile_model, mode_of
from segfocal.config.run import AUTO, Split, TrainConfig
from segfocal.config.strategy import SharedConfig
from segfocal.data.analysis import look, notes
from segfocal.data.datamodule import SegmentationData
from segfocal.data.faults import told
from segfocal.data.stats import SplitStats
from segfocal.durable import DurableCheckpointIO
from segfocal.errors import INTERRUPTED, Interrupted, UserError
from segfocal.evaluation import evaluate_trained
from segfocal.finding import find
from segfocal.going_on import Before, before
from segfocal.history import FILE, History
from segfocal.losses import build_loss
from segfocal.memory import memory_told
from segfocal.models import build_model, check_size, set_bias_prior
from segfocal.module import SegmentationModule
from segfocal.parallel.devices import PlacedDevice, placed
from segfocal.parallel.place import here
from segfocal.parallel.sharded import ShardedModule, with_synchronised_batchnorm
from segfocal.parallel.share import check_shares
from segfocal.parallel.team import Team, join
from segfocal.quiet import quieten
from segfocal.recipe import settled
from segfocal.restored import restoring
from segfocal.rundir import claimed, kept_checkpoints, shown_path
from segfocal.stopping import asked, at_step_ends
from segfocal.sweeps.record import key_of_run
from segfocal.sweeps.trial import Pruned
from segfocal.switches import kernels_told
from segfocal.weights import normalization
from segfocal.wholefile import refusal, write_whole

log = logging.getLogger("segfocal")


@memory_told()
@kernels_told()
def fit(config: TrainConfig, run_dir: Path) -> float:
    """Train, keep the best and the last checkpoint, evaluate the best.

    Args:
        config: of the run.
        run_dir: a directory of its own for everything that is written. Of several processes the leading one's is taken by all.

    Returns:
        The best value of the objective; NaN where the validation masks leave it undefined.

    Raises:
        UserError: anything that the user can mend.
        Pruned: the study of a search has stopped it.
    """
    quieten()
    device = placed(config.profile, config.trainer.precision, config.data.num_workers, config.strategy, config.trainer.devices)
    team = join(device.place, device.accelerator, device.torch_device)
    run_dir = Path(team.told(str(run_dir.absolute())))
    with claimed(run_dir, key_of_run(config), config.ckpt == AUTO) if team.leads else nullcontext():
        try:
            return _fit(config, run_dir, device, team)
        except (OSError, RuntimeError) as error:
            if reason := refusal(error):
                raise UserError(f"{shown_path(run_dir)}: cannot be written ({reason}): {_stands(run_dir)}") from None
            raise


def _stands(run_dir: Path) -> str:
    """What is left of a run whose disk is full."""
    kept = kept_checkpoints(run_dir)
    return f"make room; {shown_path(kept[0])} is whole, and the same command goes on with ckpt=auto" if kept else "make room"


def _fit(config: TrainConfig, run_dir: Path, device: PlacedDevice, team: Team) -> float:
    started = time.monotonic()
    resumed = before(config, run_dir, team)
    log.info("device: %s", device.reason)
    chosen = config.data
    if resumed:
        config, chosen = resumed.with_found(config), checkpoints.with_splits(chosen, resumed.content)
    compiled = mode_of(config.profile.compile, device.torch_device)
    seed_everything(config.seed, verbose=False)
    data = SegmentationData(
        chosen,
        config.augment,
        config.task,
        config.model.in_channels,
        device.workers,
        config.seed,
        device.pin_memory,
        config.sampling,
    )
    if device.place.world > 1 and "train" in data.sources:  # else it is told with all else that is wrong
        log.info(check_shares(data, config, device.place))
    with team.one_first():
        found = look(data)
    if found.faults:
        raise told(found.faults, data.where)
    for line in notes(found):
        log.info(line)
    stats = found.stats
    used = resumed.normalisation if resumed else None  # the weights are made for it
    data.normalise(
        *(used or normalization(config.model.weights, config.model.encoder, config.model.in_channels) or stats["train"].mean_std)
    )
    config = decided(config, data, device, run_dir, stats["train"])
    seed_everything(config.seed, verbose=False)
    with team.one_first():  # weights are downloaded once
        module = build_module(config, data, stats["train"], pretrained=not resumed)
    if resumed:
        checkpoints.load_weights(module.model, resumed.content, resumed.path)  # before anything is written
    if team.leads:
        write_whole(run_dir / "config.yaml", lambda file: file.write(OmegaConf.to_yaml(dataclasses.asdict(config)).encode()))
        write_whole(run_dir / "splits.json", lambda file: file.write(data.splits_as_text().encode()))
        if resumed:
            resumed.bring_best(run_dir)
    team.wait()
    trainer = build_trainer(config, run_dir, device, team, data, resumed)
    compile_model(module.model, compiled)
    try:
        with at_step_ends(), restoring(trainer, resumed.path if resumed else None):
            trainer.fit(module, datamodule=data, ckpt_path=resumed.path if resumed else None, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into an exit of its own
        if not team.failed():
            log.info("the same command goes on with ckpt=auto, or another with ckpt=%s", shown_path(run_dir))
        raise Interrupted(asked() or INTERRUPTED) from None
    except RuntimeError as error:
        if "find_unused_parameters" not in str(error):
            raise
        raise UserError(
            f"strategy=ddp: model={config.model.name} with model.encoder={config.model.encoder} has weights that its output does not depend "
            "on: strategy.find_unused_parameters=true"
        ) from None
    stop_pruned(trainer)
    best = best_of(run_dir, config.objective)
    split: Split = "test" if config.trainer.test and "test" in data.sources else "val"
    evaluate_trained(best, split, config, device, data, run_dir)
    objective = best_value(trainer)
    log.info("%s %.4f at its best, %.1f minutes in all", config.objective, objective, (time.monotonic() - started) / 60)
    return objective


def decided(asked: TrainConfig, data: SegmentationData, device: PlacedDevice, run_dir: Path, train: SplitStats) -> TrainConfig:
    """The configuration with what the training data decides and what is found by trying, each told; `data` is told, too."""
    config, lines = settled(asked, train, device.place.world)
    for line in lines:
        log.info("recipe: %s", line)
    data.settle(dataclasses.replace(data.config, batch_size=config.data.batch_size), config.augment, config.sampling)
    found = find(config, data, device, run_dir, lambda tried: build_module(tried, data, train))
    if found == config:
        return config
    by_trying = {group: getattr(found, group) for group in ("data", "optimizer", "trainer")}
    config, again = settled(dataclasses.replace(asked, **by_trying), train, device.place.world)  # other batches make other numbers of steps
    for line in again:
        if line not in lines:
            log.info("recipe: %s", line)
    return config


def stop_pruned(trainer: Trainer) -> None:
    """Raise Pruned where the study of a search has stopped this training."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's Trainer has them
        if isinstance(callback, Reports) and callback.pruned is not None:
            raise Pruned(callback.pruned)


def best_value(trainer: Trainer) -> float:
    """The objective of the best checkpoint; NaN where the validation masks left it undefined."""
    kept = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint) and callback.monitor)
    value = math.nan if kept.best_model_score is None else float(kept.best_model_score)
    return value if math.isfinite(value) else math.nan


def build_module(config: TrainConfig, data: SegmentationData, train: SplitStats, pretrained: bool = True) -> SegmentationModule:
    """Model and loss, the head's bias at the class frequencies where the loss wants that.

    Args:
        config, data, train: of the run, its data, and its training split.
        pretrained: False leaves `model.weights` alone: a checkpoint is about to be loaded.
    """
    model = build_model(config.model, config.task, pretrained)
    synchronised = isinstance(config.strategy, SharedConfig) and config.strategy.sync_batchnorm
    alone = not synchronised and 1 in (config.data.batch_size, train.total)
    check_size(model, config.model, config.data.crop or list(train.sizes[0]), alone)
    if config.model.bias_prior:
        set_bias_prior(model, train.prior, config.task)
    if synchronised:
        model = with_synchronised_batchnorm(model)
    sharded = config.strategy.name == "fsdp" and here().world > 1
    about = checkpoints.about(
        dataclasses.asdict(config), config.task.class_names, data.mean, data.std, data.drawn, train.prior, data.reading
    )
    last = config.profile.channels_last and not sharded  # fully_shard takes weights in the usual layout alone
    kind = ShardedModule if sharded else SegmentationModule
    return kind(model, config.task, build_loss(config.loss, config.task), config, about, last, config.inference)


def build_trainer(
    config: TrainConfig, run_dir: Path, device: PlacedDevice, team: Team, data: SegmentationData, resumed: Before | None
) -> Trainer:
    """Lightning's Trainer, as the configuration has it."""
    loggers: list[Logger] = []
    history = History(run_dir / FILE, resumed.history if resumed else []) if config.logger.csv else None
    if history:
        loggers.append(history)
    if config.logger.tensorboard:
        step = resumed.step if resumed else None  # what a killed run has drawn beyond it is left out
        loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=step))
    options = device.trainer_options(config.strategy)
    plugins = [*options.pop("plugins"), DurableCheckpointIO()]
    return Trainer(
        default_root_dir=run_dir,
        **options,
        max_epochs=config.trainer.max_epochs,
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.trainer.gradient_clip or None,
        check_val_every_n_epoch=config.trainer.validate_every,
        callbacks=build_callbacks(config, run_dir, data, history, team),
        logger=loggers,
        plugins=plugins,
        inference_mode=config.strategy.name != "fsdp",  # weights that are gathered within it could not be trained afterwards
        num_sanity_val_steps=0,  # the data has been checked, and a validation before any step says nothing
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
