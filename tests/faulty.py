"""A plug-in that injects faults into a training: plugins=[tests.faulty] loss=faulty loss.how=nan 'loss.at=[3]'."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfocal.config.loss import LossConfig
from segfocal.config.task import TaskConfig
from segfocal.data.dataset import Batch, Sample, SegmentationDataset
from segfocal.data.sampling import Key
from segfocal.losses import FocalLoss
from segfocal.module import SegmentationModule
from segfocal.registry import LOSSES

RANK = int(os.environ.get("RANK", "0"))
SEEN = "seen.json"  # in the working directory: the samples of each training batch, by their places in the split


@dataclass
class FaultyConfig(LossConfig):
    """
    Args:
        how: what is wrong: the loss is NaN, though its gradient is not; the gradient is infinite, though the loss is not.
        at: of which training batches, counted from 1.
        validations: of which validations the loss is NaN, counted from 1; all from -1 on.
        rank: of which process.
        held: steps of AdamW that change nothing, counted from 1: weights, moments and BatchNorm's statistics are as before.
        image: the place of a sample whose image is multiplied by `factor`, in the splits that are as long as `split`.
        split: that length.
        factor: NaN where it is null.
    """

    name: str = "faulty"
    how: str = "nan"
    at: list[int] = field(default_factory=list)
    validations: list[int] = field(default_factory=list)
    rank: int = 0
    held: list[int] = field(default_factory=list)
    image: int | None = None
    split: int = 0
    factor: float | None = None


class Overflow(torch.autograd.Function):
    """The same, with a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # of one argument
        return gradient * float("inf")


class FaultyLoss(nn.Module):
    def __init__(self, config: FaultyConfig) -> None:
        super().__init__()
        self.config, self.plain = config, FocalLoss("binary", ignore_index=255)
        self.trained = self.validated = 0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = self.plain(logits, target)
        if not logits.requires_grad:  # a validation is one batch
            self.validated += 1
            return loss * float("nan") if {self.validated, -1} & set(self.config.validations) else loss
        self.trained += 1
        if self.trained not in self.config.at or self.config.rank != RANK:
            return loss
        return Overflow.apply(loss) if self.config.how == "gradient" else loss + float("nan")


@LOSSES.register("faulty", FaultyConfig)
def build_faulty(config: FaultyConfig, task: TaskConfig) -> nn.Module:
    noted()
    if config.held:
        hold(config.held)
    if config.image is not None:
        spoil(config.image, config.split, float("nan") if config.factor is None else config.factor)
    return FaultyLoss(config)


def noted() -> None:
    """Write down which samples each batch has."""
    begun = SegmentationModule.on_train_batch_start
    seen: list[list[int]] = []

    def begin(self: SegmentationModule, batch: Batch, batch_idx: int) -> None:
        if batch.indices.device.type == "cpu":  # others would have to wait
            seen.append(batch.indices.tolist())
            Path(f"{RANK}{SEEN}" if RANK else SEEN).write_text(json.dumps(seen))
        begun(self, batch, batch_idx)

    SegmentationModule.on_train_batch_start = begin  # type: ignore[method-assign]


def hold(steps: list[int]) -> None:
    """Let these steps of AdamW change nothing."""
    step, count, kept = torch.optim.AdamW.step, 0, dict[str, Tensor]()

    def held(self: torch.optim.AdamW, closure: Any) -> Any:
        nonlocal count
        count += 1
        model = closure.args[0].model  # of Lightning's partial
        if count in steps:
            with torch.enable_grad():
                loss = closure()
            model.load_state_dict(kept)
        else:
            loss = step(self, closure)
        kept.update({name: value.clone() for name, value in model.state_dict().items()})
        return loss

    torch.optim.AdamW.step = held  # type: ignore[method-assign, assignment]


def spoil(place: int, length: int, factor: float) -> None:
    """Multiply an image, as if an augmentation had done it."""
    get = SegmentationDataset.__getitem__

    def spoilt(self: SegmentationDataset, key: Key) -> Sample:
        sample = get(self, key)
        return sample._replace(image=sample.image.astype("float32") * factor) if (len(self), key.sample) == (length, place) else sample

    SegmentationDataset.__getitem__ = spoilt  # type: ignore[method-assign]
