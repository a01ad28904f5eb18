"""A run that goes on does what its configuration says now."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from torch.optim import Optimizer

from segfocal import checkpoint as checkpoints
from segfocal.config.optim import SCHEDULERS, AdamWConfig, PlateauConfig, PolyConfig
from segfocal.durable import DurableCheckpointIO
from segfocal.engine import fit
from segfocal.optim import build_optimizer
from segfocal.pace import Pace, placed
from tests.test_training import TINY, configured

STEPS, AT = 100, 40
WORDS = [*TINY, "data.train=16", "scheduler=poly", "report=false", "callbacks.overlays=0", "trainer.test=false", "logger=none"]


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
    trainer: Any = SimpleNamespace(num_training_batches=math.inf, optimizers=[optimizer])
    trainer.lr_scheduler_configs = [SimpleNamespace(scheduler=scheduler)]
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


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint after step 6 of 8, in the middle of the second epoch of two."""
    out = tmp_path_factory.mktemp("cut")
    write = DurableCheckpointIO.save_checkpoint

    def copied(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(self, checkpoint, path, storage_options)
        if checkpoint["global_step"] == 6:
            write(self, checkpoint, out / "last.ckpt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DurableCheckpointIO, "save_checkpoint", copied)
        (out / "run").mkdir()
        fit(configured(*WORDS, "data.batch_size=4", "callbacks.save_every=6"), out / "run")
    return out / "last.ckpt"


@pytest.mark.xdist_group("pace")
@pytest.mark.parametrize(("size", "batches", "at", "done"), [(2, 8, 12, 4), (16, 1, 1, 0)])
def test_with_other_steps_in_an_epoch_schedule_and_epoch_go_on_where_they_were(
    cut: Path, tmp_path: Path, size: int, batches: int, at: int, done: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As with other devices, or more images."""
    with caplog.at_level(logging.INFO, "segfocal"):
        fit(configured(*WORDS, f"data.batch_size={size}", "optimizer.lr=1e-5", f"ckpt={cut}"), tmp_path)
    (said,) = [line for line in caplog.messages if line.startswith("going on with epochs")]
    assert said == (
        f"going on with epochs of {batches} batches, {batches} steps, until here they had 4, 4: "
        f"the schedule is at step {at} of {2 * batches}, {done} of {batches} batches of this epoch are done"
    )
    last = checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (1, 6 + batches - done)
    assert last["lr_schedulers"][0]["last_epoch"] == 2 * batches
    assert last["optimizer_states"][0]["param_groups"][0]["initial_lr"] == last["lr_schedulers"][0]["base_lrs"][0] == 1e-5
    assert last["segfocal"]["epoch_has"] == {"batches": batches, "steps": batches}


@pytest.mark.parametrize(
    ("batches", "old", "new", "accumulate", "place"),
    [(3, 8, 4, 1, 1), (3, 8, 16, 4, 4), (8, 8, 5, 2, 5), (7, 8, 1, 1, 0)],
)
def test_the_place_in_an_epoch_is_where_a_step_begins(batches: int, old: int, new: int, accumulate: int, place: int) -> None:
    assert placed(batches, old, new, accumulate) == place
