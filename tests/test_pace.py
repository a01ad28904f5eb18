"""A run that goes on does what its configuration says now."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from torch.optim import Optimizer

from segfocal.config.optim import SCHEDULERS, AdamWConfig, PlateauConfig, PolyConfig
from segfocal.optim import build_optimizer
from segfocal.pace import Pace

STEPS, AT = 100, 40


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)


def built(config: AdamWConfig, schedule: object) -> tuple[Optimizer, Any]:
    optimizer = build_optimizer(config, Model())
    return optimizer, SCHEDULERS.build(schedule, optimizer, STEPS, False)["scheduler"]


def gone_on(before: AdamWConfig, now: AdamWConfig, schedule: object, metric: tuple[float, ...]) -> tuple[Optimizer, Any, Optimizer]:
    """An optimiser and its schedule after `AT` steps, gone on with, and the optimiser that they were loaded from."""
    first, schedule_of_first = built(before, schedule)
    for _ in range(AT):
        first.step()
        schedule_of_first.step(*metric)
    optimizer, scheduler = built(now, schedule)
    said = [dict(group, lr=group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    optimizer.load_state_dict(first.state_dict())
    scheduler.load_state_dict(schedule_of_first.state_dict())
    pace = Pace()
    pace.before = {"config": {"optimizer": dataclasses.asdict(before)}}
    trainer: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)])
    pace.on_train_start(trainer, SimpleNamespace(config=SimpleNamespace(optimizer=now), said=said))
    return optimizer, scheduler, first


def rates(optimizer: Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


BEFORE = AdamWConfig(lr=1e-3, weight_decay=0.1, encoder_lr_scale=0.3)


@pytest.mark.parametrize(("schedule", "metric"), [(PolyConfig(), ()), (PlateauConfig(patience=30), (0.5,))])
def test_a_run_goes_on_with_the_rate_and_decay_that_it_is_told(
    schedule: object, metric: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    now = dataclasses.replace(BEFORE, lr=1e-6, weight_decay=0.2)
    with caplog.at_level(logging.INFO, "segfocal"):
        optimizer, scheduler, first = gone_on(BEFORE, now, schedule, metric)
    assert caplog.messages == [
        "going on with optimizer.lr=1e-06, until here it was 0.001",
        "going on with optimizer.weight_decay=0.2, until here it was 0.1",
    ]
    assert rates(optimizer) == pytest.approx([rate * 1e-3 for rate in rates(first)])  # of the encoder, and where it was lowered, too
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0, 0.2, 0.0]
    optimizer.step()
    scheduler.step(*metric)
    assert all(0 < rate < 1e-6 for rate in rates(optimizer))


@pytest.mark.parametrize(("schedule", "metric"), [(PolyConfig(), ()), (PlateauConfig(patience=30), (0.5,))])
def test_what_nobody_has_changed_stays(schedule: object, metric: tuple[float, ...], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "segfocal"):
        optimizer, _, first = gone_on(BEFORE, BEFORE, schedule, metric)
    assert caplog.messages == [] and rates(optimizer) == rates(first)
