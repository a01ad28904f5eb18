"""The history of a training, `metrics.csv`: a run that goes on continues it, and it ends as if the run had never been cut off."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from segfocal.data.dataset import Batch
from segfocal.parallel.callbacks import of_all_processes
from segfocal.parallel.place import here
from segfocal.wholefile import write_whole

FILE = "metrics.csv"
Row = dict[str, Any]


class History(Logger):
    """A row for each time that something is logged, on the disk before the next step.

    Lightning's own keeps rows in memory, and removes the file of a run that goes on.

    Args:
        path: of the file.
        rows: of the part of the run that is gone on from.
    """

    def __init__(self, path: Path, rows: list[Row]) -> None:
        super().__init__()
        self.path, self.count = path, len(rows)
        self.columns: list[str] = sorted({name for row in rows for name in row})
        if here().rank == 0:  # what came after the checkpoint that is gone on from has not been
            self._rewrite(rows) if rows else path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        return self.path

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()} | {"step": step}
        if new := set(row) - set(self.columns):
            self.columns = sorted({*self.columns, *new})
            self._rewrite([*read_rows(self.path), row])
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        self.count += 1

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    def _rewrite(self, rows: list[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))


def read_rows(path: Path, count: int | None = None) -> list[Row]:
    """The first rows of a history, all of them by default; none where there is no file.

    A run that is killed may leave a row that is not whole: it comes after the last checkpoint.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, restval=""))
    return rows if count is None else rows[:count]


class Means(Callback):
    """The means over an epoch of what its steps have lost, in the history before the epoch's checkpoint is written.

    Lightning's own are logged after it, and start anew where a run goes on in the middle of an epoch.

    Args:
        history: that is gone on with; None: there is none.
    """

    def __init__(self, history: History | None) -> None:
        self.history = history
        self.sums: dict[str, Tensor] = {}  # of values times samples, and of samples

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        for name, value in pl_module.losses.items():  # type: ignore[union-attr,operator]  # of the segmentation module
            count = len(batch.image) * value.isfinite().float()  # a step that is left out is no part of the mean
            added = torch.stack([value.float().nan_to_num(0, 0, 0) * count, count])
            before = self.sums.get(name)  # of a run that goes on, on the CPU
            self.sums[name] = added if before is None else before.to(added.device) + added

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        means = {f"train/{name}": total / count if count else math.nan for name, (total, count) in self._of_all().items()}
        self.sums = {}
        pl_module.log_dict(means, logger=False)
        known = {name: mean for name, mean in means.items() if math.isfinite(mean)}  # every step of the epoch may have been left out
        for logger in trainer.loggers:
            logger.log_metrics({**known, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.history.count if self.history else 0, "sums": {name: list(pair) for name, pair in self._of_all().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if here().rank == 0:  # those of all processes: one has them, and they are added up again
            self.sums = {name: torch.tensor(pair) for name, pair in state_dict["sums"].items()}

    def _of_all(self) -> dict[str, tuple[float, float]]:
        shares = of_all_processes({name: pair.tolist() for name, pair in self.sums.items()})
        names = dict.fromkeys(name for share in shares for name in share)
        return {
            name: (sum(share[name][0] for share in shares if name in share), sum(share[name][1] for share in shares if name in share))
            for name in names
        }
