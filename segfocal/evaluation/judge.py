"""A checkpoint, counted over a split."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segfocal import checkpoint as checkpoints
from segfocal.callbacks import Overlays, ProgressBar
from segfocal.config.inference import InferenceConfig
from segfocal.config.run import Split
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Batch, Collate
from segfocal.data.sampling import Key
from segfocal.decision import Decision, labels_of
from segfocal.errors import INTERRUPTED, Interrupted, UserError
from segfocal.metrics.bootstrap import intervals
from segfocal.metrics.boundary import BoundaryCounts
from segfocal.metrics.images import ImageTable, Why
from segfocal.module import Figures, SegmentationModule
from segfocal.parallel.callbacks import Together
from segfocal.parallel.devices import PlacedDevice
from segfocal.report.evaluated import Evaluated, Shown
from segfocal.report.overlay import visible
from segfocal.report.pictures import shrunk
from segfocal.rundir import shown_path
from segfocal.stopping import asked

log = logging.getLogger("segfocal")


@dataclass(frozen=True)
class Wanted:
    """How a checkpoint is evaluated; see `EvaluateConfig`."""

    split: Split
    inference: InferenceConfig
    boundary: bool = False
    bootstrap: int = 1000
    overlays: int = 0
    gallery: int = 0


def judge(
    path: Path,
    content: dict[str, Any],
    rebuilt: checkpoints.Rebuilt,
    device: PlacedDevice,
    data: SegmentationData,
    wanted: Wanted,
    out: Path,
) -> Judged:
    """Count a checkpoint's model over a split; several processes share the images, and each has the whole figures.

    Args:
        path: of the checkpoint.
        content: of that file.
        rebuilt: of that content.
        device: to compute on.
        data: checked; its normalisation is set to the checkpoint's.
        wanted: what is to be found out.
        out: where pictures are written.

    Raises:
        UserError: the model gives NaN.
    """
    stored = content["segfocal"]
    task, _, decision, model = rebuilt
    data.normalise(stored["mean"], stored["std"])
    module = SegmentationModule(model, task, channels_last=device.channels_last, inference=wanted.inference, decision=decision)
    counting = Counting(data.sources[wanted.split].names, task, decision, wanted.boundary)
    callbacks: list[Callback] = [Together(), counting]
    if wanted.overlays:
        callbacks.append(Overlays(data.dataset(wanted.split), task, wanted.overlays, out / "overlays", decision))
    if sys.stdout.isatty():
        callbacks.append(ProgressBar(leave=False))
    trainer = Trainer(
        **device.trainer_options(),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        use_distributed_sampler=False,
    )
    try:
        trainer.test(module, data.evaluation_loader(wanted.split), verbose=False)
    except SystemExit:  # Lightning turns Ctrl-C into an exit of its own
        raise Interrupted(asked() or INTERRUPTED) from None
    except ValueError as error:
        if "NaN" not in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
    counting.gather()
    if device.place.rank > 0:
        wanted = replace(wanted, bootstrap=0, gallery=0)  # the leading process draws and tells for all
    figures = {**module.figures, **counting.figures()}
    evaluated = Evaluated(
        name=_name(path),
        checkpoint=path,
        split=wanted.split,
        task=task,
        figures=figures,
        intervals={name: ends for name, ends in _intervals(counting.table, task, wanted.bootstrap).items() if name in figures},
        confusion=module.confusion,
        histogram=module.histogram,
        images=counting.table,
        decision=decision,
        about=stored,
        run_dir=path.parent.parent if path.parent.name == "checkpoints" else None,
    )
    chosen = counting.table.choose(wanted.gallery, seed=0) if wanted.gallery else []
    return Judged(evaluated, _shown(chosen, module, data, wanted.split, counting.table, device))


@dataclass(frozen=True)
class Judged:
    """What an evaluation came to, and the pictures of it."""

    evaluated: Evaluated
    shown: list[Shown]


class Counting(Callback):
    """Counts for each image, and along contours where that is wanted."""

    def __init__(self, names: list[str], task: TaskConfig, decision: Decision, boundary: bool) -> None:
        self.names = names
        self.table = ImageTable(task, decision)
        rules = {"": Decision(task.name), "tuned/": decision} if not decision.plain else {"": decision}
        self.contours = {prefix: (rule, BoundaryCounts(task)) for prefix, rule in rules.items()} if boundary else {}

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        logits: Tensor = outputs
        self.table.add([self.names[index] for index in batch.indices.tolist()], logits, batch.target)
        for rule, contours in self.contours.values():
            contours.add(rule.labels(logits), batch.target)

    def gather(self) -> None:
        """Bring together what other processes have counted."""
        self.table = self.table.gathered()
        self.contours = {prefix: (rule, contours.gathered()) for prefix, (rule, contours) in self.contours.items()}

    def figures(self) -> Figures:
        """What is not read off the two counts of the metrics."""
        found: Figures = {}
        for label, value in zip(self.table.task.class_names, self.table.image_auroc(), strict=True):
            found[f"image_auroc/{label}"] = value
        for prefix, (_, contours) in self.contours.items():
            found |= {f"{prefix}{name}": value for name, value in contours.figures().items()}
        return found


def _name(path: Path) -> str:
    """The run, where the checkpoint is the best of one."""
    kept = path.absolute().parent
    return kept.parent.name if kept.name == "checkpoints" and path.stem == "best" else shown_path(path)


def _intervals(table: ImageTable, task: TaskConfig, draws: int) -> dict[str, tuple[float, float]]:
    if not draws:
        return {}
    found = intervals(table.plain, task.class_names, draws)
    if not table.decision.plain:
        found |= {f"tuned/{name}": value for name, value in intervals(table.tuned, task.class_names, draws).items()}
    return found


def _shown(
    chosen: list[tuple[int, Why]], module: SegmentationModule, data: SegmentationData, split: str, table: ImageTable, device: PlacedDevice
) -> list[Shown]:
    """The pictures of a gallery; predicted again, for logits are not kept."""
    dataset, position = data.dataset(split), {name: index for index, name in enumerate(data.sources[split].names)}
    collate = Collate(module.task.ignore_index, dataset.normalise)
    mean_iou, pictures = table.mean_iou(tuned=True), []
    module.to(device.torch_device).eval()  # Lightning has put it back on the CPU
    for row, why in chosen:
        index = position[table.names[row]]
        image, truth = dataset.source.read(index)
        batch = collate([dataset[Key(0, index)]])
        assert isinstance(batch, Batch)
        with torch.inference_mode(), device.autocast():
            labels = labels_of(module.infer(batch.image.to(module.device)), module.decision)[0]
        value = float(mean_iou[row])
        truth = truth if truth.ndim == 3 or module.task.name == "multiclass" else truth[..., None]
        labels = labels[: image.shape[0], : image.shape[1]]
        item = Shown(table.names[row], why, None if value != value else value, visible(image), truth, labels)
        pictures.append(shrunk(item, module.task))
    return pictures
