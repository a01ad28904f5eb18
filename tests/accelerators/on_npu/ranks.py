"""One of two processes that train with NPUDDPStrategy, each on a half of every batch."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segfocal.accelerators.load import load
from segfocal.accelerators.trainer import trainer_options
from segfocal.losses import FocalLoss
from segfocal.quiet import quieten

STEPS, BATCH = 5, 4


def samples() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS * BATCH, 3, 16, 16, generator=generator)
    return [(image, (image.sum(0) > 0).long()) for image in images]


class Small(LightningModule):
    """Without BatchNorm, whose statistics are of each rank's own images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
        self.loss = FocalLoss("binary", gamma=2.0, denominator="positives")
        self.seen: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = self.loss(self.model(batch[0]), batch[1])
        self.log("loss", loss.detach(), sync_dist=True, on_step=True)
        self.log("pixels", batch[1].sum().float(), sync_dist=True, reduce_fx="sum", on_step=True)
        self.seen.append(float(loss.detach()))
        self.where = str(loss.device)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def train(options: dict[str, Any], shown: list[tuple[Tensor, Tensor]], batch: int) -> tuple[Small, Trainer]:
    quieten()
    module = Small()
    trainer = Trainer(
        **options, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(shown, batch))
    return module, trainer


def alone() -> dict[str, Any]:
    """What one process comes to on the CPU with the batches of both."""
    module, _ = train({"accelerator": "cpu"}, samples(), BATCH)
    return {"losses": module.seen, "weights": [weight.flatten().tolist() for weight in module.parameters()]}


def main(rank: int) -> dict[str, Any]:
    load("ascend")
    mine = samples()[rank::2]
    both, trainer = train(trainer_options("32-true", devices=2), mine, BATCH // 2)
    integers = torch.tensor([rank, 5], device=trainer.strategy.root_device)
    fractions = torch.tensor([float(rank)], device=trainer.strategy.root_device)
    found = {
        "losses": both.seen,
        "weights": [weight.flatten().tolist() for weight in both.parameters()],
        "device": both.where,
        "current": torch.get_device_module("npu").current_device(),
        "backend": torch.distributed.get_backend(),
        "mean of integers": trainer.strategy.reduce(integers.clone()).tolist(),
        "sum of integers": trainer.strategy.reduce(integers, reduce_op="sum").tolist(),
        "mean": trainer.strategy.reduce(fractions).tolist(),
        "told": trainer.strategy.broadcast(f"rank {rank}"),
        "logged": float(trainer.callback_metrics["pixels"]),
        "pixels": int(sum(int(target.sum()) for _, target in mine[-BATCH // 2 :])),
    }
    trainer.strategy.barrier()
    return found


if __name__ == "__main__":
    number = int(os.environ["RANK"])
    Path(sys.argv[1], f"rank{number}.json").write_text(json.dumps(main(number)))
