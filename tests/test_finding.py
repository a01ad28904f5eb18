"""What is looked for, and that the run is then the one that is told it."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from segfocal import engine, finding
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from segfocal.finding import Memory, steepest
from segfocal.module import SegmentationModule
from segfocal.parallel.devices import placed
from tests.test_profiles import SMALL, kept
from tests.test_training import configured, curve, equal

LONGER = [*SMALL, "data.train=16", "data.crop=[32,32]", "trainer.max_epochs=1", "callbacks.ema=0.9"]


def ran(out: Path, *overrides: str) -> tuple[dict[str, Any], list[dict[str, str]], Any]:
    out.mkdir()
    engine.fit(configured(*LONGER, *overrides), out)
    return kept(out), curve(out), OmegaConf.load(out / "config.yaml")


def test_a_run_with_what_was_found_is_the_run_that_found_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "segfocal"):
        found, steps, config = ran(tmp_path / "found", "trainer.find_batch_size=8", "trainer.find_lr=true", "data.num_workers=1")
    assert "trainer.find_batch_size=8: data.batch_size=8 is the largest that was tried" in caplog.text
    assert f"trainer.find_lr=true: optimizer.lr={config.optimizer.lr:g}, where the loss falls fastest" in caplog.text
    assert (config.trainer.find_batch_size, config.trainer.find_lr, config.data.batch_size) == (None, False, 8)
    assert 1e-6 < config.optimizer.lr < 1
    assert [path.name for path in (tmp_path / "found").glob(".*")] == [".run"]  # where Lightning kept the state meanwhile
    told, same_steps, same_config = ran(tmp_path / "told", "data.batch_size=8", f"optimizer.lr={config.optimizer.lr}", "data.num_workers=1")
    assert config == same_config
    assert steps == same_steps
    for state in ("state_dict", "current_model_state"):
        assert equal(found[state], told[state])
    assert found["segfocal"]["config"] == told["segfocal"]["config"]
    assert found["global_step"] == told["global_step"] == 2


def test_batches_that_do_not_fit_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The machine is said to have less memory than it has; what would take more is not tried."""
    monkeypatch.setattr(finding, "free_memory", lambda: 400_000_000)
    tried: list[int] = []
    plain = finding._trainer
    monkeypatch.setattr(finding, "_trainer", lambda *of, **named: tried.append(2 ** (len(tried) + 1)) or plain(*of, **named))
    monkeypatch.setattr(engine, "build_trainer", enough)
    large = ["data.size=256", "data.crop=null", "data.val=1", "data.test=1", "trainer.find_batch_size=64"]
    with caplog.at_level(logging.INFO, "segfocal"), pytest.raises(Enough):
        ran(tmp_path / "found", *large)
    (line,) = [record.getMessage() for record in caplog.records if "find_batch_size" in record.getMessage()]
    found = re.fullmatch(r"trainer.find_batch_size=64: data.batch_size=(\d+) is the largest that fits", line)
    assert found and int(found[1]) in (2, 4, 8, 16)
    assert tried[-1] in (int(found[1]), 2 * int(found[1]))  # what the process had left over from before may let one more seem to fit
    monkeypatch.setattr(finding, "free_memory", lambda: 1_000_000)
    with pytest.raises(UserError, match=r"^trainer.find_batch_size=64: not even 2 crops fit into memory"):
        ran(tmp_path / "none", *large, "data.size=512", "data.train=2")


def test_each_size_is_tried_with_three_steps_and_a_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    plain = SegmentationModule._step

    def watched(self: SegmentationModule, batch: Any, stage: str) -> Any:
        seen.append((stage, len(batch.image)))
        return plain(self, batch, stage)

    monkeypatch.setattr(SegmentationModule, "_step", watched)
    config = configured(*LONGER, "data.val=3", "trainer.find_batch_size=4", "trainer.accumulate=2")
    data = SegmentationData(config.data, config.augment, config.task, 3, 0, 0, sampling=config.sampling)
    train = data.check()["train"]
    engine.decided(config, data, placed(config.profile, config.trainer.precision, 0), tmp_path, train)
    assert seen == [("train", 2)] * 6 + [("val", 2)] + [("train", 4)] * 6 + [("val", 3)]


def test_the_peak_of_memory_is_that_since_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(placed(configured("profile=cpu").profile))
    assert memory.taken() < 200_000_000
    np.ones(1_000_000_000, np.uint8)  # beside it what other tests have left is little, whether it is freed meanwhile or not
    assert 800_000_000 < memory.taken() < 1_200_000_000
    assert memory.taken() < 200_000_000
    monkeypatch.setattr(finding, "STATUS", Path("/proc/self/nothing"))
    elsewhere = Memory(placed(configured("profile=cpu").profile))
    assert (elsewhere.taken(), elsewhere.room) == (0, math.inf)


class Enough(Exception):
    """What is found is found before the run."""


def enough(*_: Any) -> Any:
    raise Enough


def test_the_steepest_place_is_found_on_a_logarithmic_scale() -> None:
    rates = np.geomspace(1e-6, 1, 100).tolist()
    noise = np.random.default_rng(0).normal(0, 2e-4, 100)
    fall = 0.05 - 0.03 / (1 + np.exp(-3 * (np.log10(rates) + 3))) + 0.05 * np.clip(np.log10(rates) + 1, 0, None) + noise
    found = steepest(rates, fall.tolist())
    assert found is not None
    assert 3e-4 < found < 3e-3  # the middle of the fall is at 1e-3
    cut = fall.copy()
    cut[90:] = np.nan
    assert steepest(rates, cut.tolist()) == found
    assert steepest(rates, np.linspace(1, 2, 100).tolist()) is None
    assert steepest(rates, [1.0] * 12) is None


def test_what_depends_on_the_number_of_steps_is_decided_by_the_batch_that_was_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(*SMALL, "data.train=64", "trainer.max_epochs=12", "trainer.find_batch_size=8", "data.batch_size=null")
    data = SegmentationData(config.data, config.augment, config.task, 3, 0, 0, sampling=config.sampling)
    train = data.check()["train"]
    with caplog.at_level(logging.INFO, "segfocal"):
        found = engine.decided(config, data, placed(config.profile, config.trainer.precision, 0), tmp_path, train)
    assert found.data.batch_size == data.batch_size == 8
    assert found.callbacks.ema == 0.5
    told = [record.getMessage() for record in caplog.records if "callbacks.ema" in record.getMessage()]
    assert told == [
        "recipe: callbacks.ema=0.7396: weights are averaged over the last 4 of 192 steps",
        "recipe: callbacks.ema=0.5: weights are averaged over the last 2 of 96 steps",
    ]
