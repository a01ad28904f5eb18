"""Every YAML in conf/ composes, is right, and is explained in its first lines."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
import yaml

from segfocal.config.balance import ClassCounts
from segfocal.config.loss_sum import balanced
from segfocal.config.optim import OPTIMIZERS, SCHEDULERS
from segfocal.config.parse import CONF, mistakes, parse, parse_sweep
from segfocal.config.run import EvaluateConfig, TrainConfig
from segfocal.data.transforms import TrainTransform
from segfocal.losses import build_loss
from tests.conftest import blobs

GROUPS = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")
# What an option needs besides itself.
BESIDES = {
    ("data", "folder"): ["data.root=/path", "task.classes=[crack]"],
    ("data", "manifest"): ["data.file=/path.csv", "task.classes=[crack]"],
    ("data", "coco"): ["data.root=/path", "task.classes=[crack]"],
    ("data", "cityscapes"): ["data.root=/path", "task=multiclass"],
    ("data", "voc"): ["data.root=/path", "task=multiclass"],
    ("data", "streaming"): ["data.root=/path", "task.classes=[crack]"],
    ("experiment", "crackforest"): ["data.root=/path"],
    ("experiment", "camvid"): ["data.root=/path"],
    ("experiment", "camvid_best"): ["data.root=/path"],
    ("experiment", "cracks"): ["data.root=/path"],
    ("experiment", "cracks_potholes"): ["data.root=/path"],
    ("strategy", "fsdp"): ["callbacks.ema=null"],
    ("loss", "sum"): ["loss.terms=[{name:ce}]"],
    ("loss", "recall_ce"): ["task=multiclass"],
    ("loss", "logit_adjusted_ce"): ["loss.prior=[0.1]"],
}
EVALUATED = {("data", "checkpoint"), ("inference", "tta")}  # options of evaluate.py first of all
NAMELESS = ("debug", "experiment", "logger")  # groups whose options set keys of others
# Losses that are others with values of their own.
PRESETS = ("smp", "mindspore", "yateng", "weighted", "scalar_alpha", "torchvision")
BUILT_AS = {"ce_dice": "sum", "focal_dice": "sum"} | {
    path.stem: "focal" for path in CONF.glob("loss/*.yaml") if path.stem.startswith(PRESETS)
}


def composed(*overrides: str) -> TrainConfig:
    """As train.py does."""
    ((_, config),) = parse_sweep(TrainConfig, "train", [*overrides], 1)
    return config


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_is_explained_composed_named_and_built(path: Path) -> None:
    group, option = path.parent.name, path.stem
    comments = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
    program = "evaluate.py" if (group, option) in EVALUATED else "train.py"
    assert len(comments) >= 2
    assert any(f"python {program}" in line or "tensorboard" in line for line in comments)
    overrides = [f"{group}={option}", *BESIDES.get((group, option), [])]
    if program == "evaluate.py":
        assert mistakes(EvaluateConfig, "evaluate", [*overrides, "ckpt=x"]) == []
        return
    config = composed(*overrides)
    if group not in NAMELESS and (group, option) != ("trainer", "default"):
        assert getattr(config, group).name == BUILT_AS.get(option, option)
    one, two = [1] * config.task.num_classes, [2] * config.task.num_classes
    assert build_loss(balanced(config.loss, ClassCounts(one, two, one, two, 1), config.task), config.task) is not None
    assert config.optimizer.encoder_lr_scale == "auto"
    optimizer = OPTIMIZERS.build(dataclasses.replace(config.optimizer, encoder_lr_scale=0.5), torch.nn.Conv2d(1, 1, 1))
    assert SCHEDULERS.build(config.scheduler, optimizer, 10, False)["scheduler"] is not None
    settled = {key: 0.5 for key in ("vflip", "rotate90") if getattr(config.augment, key) == "auto"}
    image, mask = TrainTransform(dataclasses.replace(config.augment, **settled), [32, 32], 255)(*blobs(1)[0], seed=1)
    assert image.shape == (32, 32, 3)
    assert mask.shape == (32, 32)


def test_the_command_line_goes_before_the_experiment_and_the_experiment_before_the_defaults() -> None:
    config = composed("experiment=camvid", "data.root=/path", "trainer.max_epochs=3")
    assert config.trainer.max_epochs == 3
    longer = composed("experiment=camvid_best", "data.root=/path")  # an experiment that begins with another
    assert (longer.task, longer.model, longer.trainer.max_epochs) == (config.task, config.model, 40)
    assert config.data.crop == [256, 256]
    assert config.task.ignore_index == 11
    assert config.model.encoder == "tu-tf_efficientnet_lite0"


def test_a_label_map_on_the_command_line_takes_the_place_of_a_recipes() -> None:
    config = composed("experiment=crackforest", "data.root=/path", "data.label_map={0-127:0,128-255:1}")
    assert config.data.label_map == {"0-127": 0, "128-255": 1}
    assert composed("experiment=crackforest", "data.root=/path").data.label_map == {"0": 0, "255": 1}


def test_quarter_turns_want_a_square_crop() -> None:
    said = ["data.crop=[64,128]", "augment=surface"]
    assert mistakes(TrainConfig, "train", said) == [
        "augment.rotate90=0.75: quarter turns want a square data.crop, not [64,128]: augment.rotate90=0"
    ]
    assert mistakes(TrainConfig, "train", [*said, "augment.rotate90=0"]) == []


def test_debug_overfit_trains_and_tests_on_the_same_few() -> None:
    config = composed("debug=overfit")
    assert config.data.overfit
    assert config.data.limit == 4
    assert config.augment.name == "none"


def test_a_stored_configuration_is_plain_data_that_parses_to_the_same() -> None:
    config = composed("loss=focal", "loss.gamma=1.5", "task=multiclass", "optimizer=sgd")
    plain = dataclasses.asdict(config)
    assert parse(TrainConfig, plain) == config


def test_the_log_does_not_tell_of_fonts() -> None:
    """torchmetrics imports matplotlib, which on a machine that has never run it says at INFO that it looks for fonts."""
    said = yaml.safe_load((CONF / "hydra/job_logging/run.yaml").read_text())
    assert logging.getLevelName(said["root"]["level"]) == logging.INFO < logging.getLevelName(said["loggers"]["matplotlib"]["level"])
