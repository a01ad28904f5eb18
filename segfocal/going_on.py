"""Which checkpoint a run goes on from, and what it takes along."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal import checkpoint as checkpoints
from segfocal.config.run import AUTO, TrainConfig
from segfocal.errors import UserError, first_line
from segfocal.history import FILE, Row, read_rows
from segfocal.parallel.team import Team
from segfocal.recipe import kept
from segfocal.restored import check_loss, check_state
from segfocal.rundir import BEST, CHECKPOINTS, kept_checkpoints, shown_path

log = logging.getLogger("segfocal")


@dataclass
class Before:
    """The part of a run that has been.

    Args:
        path: of its checkpoint.
        content: of that.
    """

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps of the optimiser that are done."""
        return int(self.content["global_step"])

    @property
    def epochs(self) -> int:
        """Those that are done."""
        return int(self.content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel."""
        return self.content["segfocal"]["mean"], self.content["segfocal"]["std"]

    @property
    def history(self) -> list[Row]:
        """The rows of metrics.csv until the checkpoint was written."""
        count = self.content.get("callbacks", {}).get("Means", {}).get("rows", 0)
        return read_rows(self.path.absolute().parent.parent / FILE, int(count))

    def with_found(self, config: TrainConfig) -> TrainConfig:
        """The configuration with what the run has chosen and found when it began.

        Raises:
            UserError: the checkpoint does not say, or not what an option takes.
        """
        stored = self.content["segfocal"]["config"]
        try:
            config = kept(config, stored)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: its configuration cannot be used: {first_line(error)}") from None
        if config.trainer.find_batch_size is not None:
            data = dataclasses.replace(config.data, batch_size=stored["data"]["batch_size"])
            config = dataclasses.replace(config, data=data, trainer=dataclasses.replace(config.trainer, find_batch_size=None))
        if config.trainer.find_lr:
            optimizer = dataclasses.replace(config.optimizer, lr=stored["optimizer"]["lr"])
            config = dataclasses.replace(config, optimizer=optimizer, trainer=dataclasses.replace(config.trainer, find_lr=False))
        return config

    def bring_best(self, run_dir: Path) -> None:
        """The best checkpoint so far, in the run's directory: it may stay the best. One of later steps is of a future that is not this run's."""
        for best in self.path.parent.glob(f"{Path(BEST).stem}*.ckpt"):
            here = run_dir / CHECKPOINTS / best.name
            if not self._has_been(best):
                here.unlink(missing_ok=True)
            elif here != best:
                here.parent.mkdir(exist_ok=True)
                shutil.copy(best, here)

    def _has_been(self, best: Path) -> bool:
        try:
            step = checkpoints.read(best).get("global_step")
        except UserError as error:
            log.warning("%s; the best is looked for anew", error)
            return False
        return type(step) is int and step <= self.step


def before(config: TrainConfig, run_dir: Path, team: Team) -> Before | None:
    """What `ckpt=` says to go on from; None where the run starts afresh.

    Of a directory it is the newest checkpoint that is whole: the leading process looks for it, and puts a damaged one aside.

    Raises:
        UserError: there is none, or it is of another task, model, optimiser or schedule.
    """
    found = _found(config, run_dir) if team.leads else None
    path = team.told(str(found.path) if found else "")
    return Before(Path(path), checkpoints.read(Path(path))) if path and not found else found


def _found(config: TrainConfig, run_dir: Path) -> Before | None:
    if config.ckpt is None:
        return None
    if config.ckpt == AUTO:
        found = _newest(kept_checkpoints(run_dir), ours=True)
    elif Path(config.ckpt).is_dir():
        found = _newest(kept_checkpoints(Path(config.ckpt)) or [checkpoints.locate(config.ckpt, "last")], ours=False)
    else:
        found = _newest([checkpoints.locate(config.ckpt, "last")], ours=False)
    if found is not None:
        checkpoints.check_same_model(found.content, dataclasses.asdict(config), found.path)
        check_loss(found.content, config.loss.name, found.path)
        check_state(found.content, found.path)
        if config.ckpt != AUTO:  # there a training that has ended goes on with its evaluation
            _check_left(found, config.trainer.max_epochs)
        log.info("going on from %s, after step %d", shown_path(found.path), found.step)
    return found


def _check_left(found: Before, most: int) -> None:
    """Say that no epoch is left; raises UserError where Lightning would."""
    if found.epochs >= most:
        said = f"ckpt={found.path}: {found.epochs} epochs are done, trainer.max_epochs={most} leaves none to train: a larger one goes on"
        if found.content["epoch"] > most:
            raise UserError(said)
        log.warning("%s", said)


def _newest(paths: list[Path], ours: bool) -> Before | None:
    """The first that can be read.

    Args:
        paths: the newest first.
        ours: they lie in the directory of this run, which writes there: a damaged one is put aside.
    """
    for number, path in enumerate(paths):
        try:
            return Before(path, checkpoints.read(path))
        except UserError as error:
            if number + 1 == len(paths):
                raise
            log.warning("%s; going on from the one before it", error)
            if ours:
                path.replace(path.with_suffix(".damaged"))
    return None
