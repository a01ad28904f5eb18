"""Learning rates over a training, and what decays."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from segfocal.config.optim import (
    SCHEDULERS,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    PlateauConfig,
    PolyConfig,
    SGDConfig,
)
from segfocal.models import build_model
from segfocal.optim import build_optimizer
from tests.test_training import configured

STEPS = 100


def rates(config: object) -> list[float]:
    optimizer = build_optimizer(SGDConfig(lr=0.1), nn.Conv2d(1, 1, 1))
    scheduler = SCHEDULERS.build(config, optimizer, STEPS, False)["scheduler"]
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_poly_is_the_formula() -> None:
    assert rates(PolyConfig(warmup=0.0)) == pytest.approx([0.1 * (1 - step / STEPS) ** 0.9 for step in range(STEPS)])


def test_cosine_is_the_formula_after_a_warm_up() -> None:
    found = rates(CosineConfig(warmup=0.1))
    assert found[:11] == sorted(found[:11])
    assert found[10:] == pytest.approx([0.1 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in range(10, STEPS)])


def test_onecycle_is_torchs_without_its_momentum() -> None:
    optimizer = build_optimizer(SGDConfig(lr=0.1), nn.Conv2d(1, 1, 1))
    reference = OneCycleLR(optimizer, 0.1, total_steps=STEPS, pct_start=0.29292929, div_factor=20, cycle_momentum=False)
    expected = []
    for _ in range(STEPS - 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    # torch peaks at step pct_start * total - 1; ours at the same share of the steps from first to last
    found = rates(OneCycleConfig(pct_start=(0.29292929 * STEPS - 1) / (STEPS - 1), div_factor=20))
    assert found[:-1] == pytest.approx(expected, rel=1e-6)


def test_constant_stays() -> None:
    assert set(rates(ConstantConfig())) == {0.1}


@pytest.mark.parametrize(("minimise", "values"), [(False, [0.5, 0.5, 0.5, 0.5]), (True, [1.0, 1.0, 1.0, 1.0])])
def test_plateau_lowers_the_rate_when_the_objective_stalls(minimise: bool, values: list[float]) -> None:
    optimizer = build_optimizer(SGDConfig(lr=0.1), nn.Conv2d(1, 1, 1))
    schedule = SCHEDULERS.build(PlateauConfig(patience=2, factor=0.5), optimizer, STEPS, minimise)
    assert schedule["interval"] == "epoch"
    for value in values:
        schedule["scheduler"].step(value)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("config", [AdamWConfig(weight_decay=0.3), SGDConfig(weight_decay=0.3)])
def test_only_weights_decay(config: object) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decayed, free = build_optimizer(config, model).param_groups
    assert decayed["weight_decay"] == 0.3
    assert [tensor.ndim for tensor in decayed["params"]] == [4]
    assert free["weight_decay"] == 0
    assert [tensor.ndim for tensor in free["params"]] == [1, 1, 1]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_encoder_has_a_rate_of_its_own_and_the_schedule_moves_both(name: str) -> None:
    run = configured(f"optimizer={name}", "optimizer.lr=0.2", "optimizer.encoder_lr_scale=0.1", "model.encoder=tu-test_resnet")
    config, model = run.optimizer, build_model(run.model, run.task)
    optimizer = build_optimizer(config, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert found == {name: pytest.approx(0.02 if name.startswith("encoder.") else 0.2) for name in names.values()}
    decays = {parameter.ndim > 1: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decays == {True: config.weight_decay, False: 0}
    schedule = SCHEDULERS.build(CosineConfig(warmup=0.0), optimizer, STEPS, False)
    for _ in range(STEPS // 2):
        optimizer.step()
        schedule["scheduler"].step()
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.1)] * 2 + [pytest.approx(0.01)] * 2


def test_optimisers_take_their_settings() -> None:
    adamw = build_optimizer(AdamWConfig(lr=0.2, betas=[0.8, 0.9]), nn.Conv2d(1, 1, 1))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.8, 0.9)
    assert adamw.defaults["lr"] == 0.2
