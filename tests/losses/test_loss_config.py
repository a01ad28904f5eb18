"""The options of `loss=`: ranges, what does not fit a task, and that what is built is what was configured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from segfocal.config.loss import LossConfig, check_loss
from segfocal.config.loss_entropy import CrossEntropyConfig
from segfocal.config.loss_focal import FocalConfig
from segfocal.config.loss_overlap import DiceConfig
from segfocal.config.task import TaskConfig
from segfocal.losses import CrossEntropyLoss, DiceLoss, FocalLoss, build_loss
from segfocal.registry import LOSSES

CONF = Path(__file__).parents[2] / "conf" / "loss"
BINARY = TaskConfig(name="binary", classes=["crack"])
MULTICLASS = TaskConfig(name="multiclass", classes=["ground", "crack", "hole"])
MULTILABEL = TaskConfig(name="multilabel", classes=["crack", "hole", "rust"])


@pytest.mark.parametrize(
    ("config", "key", "given", "allowed"),
    [
        (lambda: FocalConfig(gamma=-0.5), "gamma", "-0.5", "a finite number >= 0"),
        (lambda: FocalConfig(gamma=float("inf")), "gamma", "inf", "finite"),
        (lambda: FocalConfig(gamma="2"), "gamma", "2", "a finite number >= 0"),
        (lambda: FocalConfig(alpha=1.5), "alpha", "1.5", "0 to 1, a list of numbers >= 0"),
        (lambda: FocalConfig(alpha=-0.1), "alpha", "-0.1", "0 to 1"),
        (lambda: FocalConfig(alpha=True), "alpha", "True", "0 to 1"),
        (lambda: FocalConfig(alpha=[0.5, -1.0]), "alpha", r"\[0.5,-1.0\]", ">= 0"),
        (lambda: FocalConfig(alpha=[]), "alpha", r"\[\]", "one for each class"),
        (lambda: FocalConfig(alpha="invers"), "alpha", "invers", "sqrt_inverse.* or null"),
        (lambda: FocalConfig(reduced_threshold=0.0), "reduced_threshold", "0.0", "greater than 0"),
        (lambda: FocalConfig(reduced_threshold=1.0), "reduced_threshold", "1.0", "less than 1"),
        (lambda: FocalConfig(normalized=1), "normalized", "1", "true, false or smp"),
        (lambda: FocalConfig(reduction="average"), "reduction", "average", "'sum', 'mean' or 'batchwise_mean'"),
        (
            lambda: FocalConfig(denominator="all"),
            "denominator",
            "all",
            "'elements', 'pixels', 'logits', 'weights', 'positives' or 'classes'",
        ),
        (lambda: FocalConfig(form="tanh"), "form", "tanh", "'softmax' or 'sigmoid'"),
        (lambda: FocalConfig(gama=2.0), "gama", "2.0", "Unexpected"),
        (lambda: FocalConfig(name="dice"), "name", "dice", "'focal'"),
        (lambda: CrossEntropyConfig(label_smoothing=1.0), "label_smoothing", "1.0", "less than 1"),
        (lambda: CrossEntropyConfig(class_weights=2.0), "class_weights", "2.0", "a list of numbers >= 0"),
        (lambda: DiceConfig(smooth=0.0), "smooth", "0.0", "greater than 0"),
    ],
)
def test_values_out_of_range_are_named_with_what_is_allowed(config, key, given, allowed):
    with pytest.raises(ValueError, match=f"(?s){key}.*{allowed}") as error:
        config()
    assert error.match(given)


def test_whole_numbers_are_numbers():
    assert FocalConfig(gamma=2, alpha=[1, 2]).alpha == [1, 2]


@pytest.mark.parametrize(
    "config", [FocalConfig(), FocalConfig(form="sigmoid", alpha=0.25), CrossEntropyConfig(), DiceConfig(include_background=False)]
)
def test_what_fits(config):
    assert check_loss(config, MULTICLASS) == []


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (FocalConfig(alpha=0.25), BINARY),
        (FocalConfig(alpha=0.25), MULTILABEL),
        (FocalConfig(alpha=[0.1, 0.9, 1.0]), MULTILABEL),
        (FocalConfig(alpha=[0.1, 0.9, 5.0]), MULTICLASS),
        (FocalConfig(alpha=[0.1, 0.9]), TaskConfig(name="multiclass")),  # classes not known yet
        (FocalConfig(form="sigmoid"), BINARY),
        (CrossEntropyConfig(class_weights=[5.0]), BINARY),
        (CrossEntropyConfig(class_weights=[1.0, 2.0, 3.0]), MULTILABEL),
    ],
)
def test_what_fits_its_task(config, task):
    assert check_loss(config, task) == []


@pytest.mark.parametrize(
    ("config", "task", "start", "says"),
    [
        (
            FocalConfig(alpha=[0.1, 0.9]),
            MULTICLASS,
            "loss.alpha=[0.1,0.9]: ",
            "2 numbers for 3 classes; give one for each of ground, crack, hole",
        ),
        (FocalConfig(alpha=[0.1, 0.9]), MULTILABEL, "loss.alpha=[0.1,0.9]: ", "3 classes"),
        (FocalConfig(alpha=[0.1, 0.9, 2.0]), MULTILABEL, "loss.alpha=[0.1,0.9,2.0]: ", "from 0 to 1"),
        (FocalConfig(alpha=[0.1, 0.9]), BINARY, "loss.alpha=[0.1,0.9]: ", "one number from 0 to 1"),
        (FocalConfig(form="softmax"), BINARY, "loss.form=softmax: ", "task=binary"),
        (FocalConfig(form="softmax"), MULTILABEL, "loss.form=softmax: ", "task=multilabel"),
        (FocalConfig(reduction="none"), BINARY, "loss.reduction=none: ", "cannot be trained on; choose mean, sum or batchwise_mean"),
        (CrossEntropyConfig(class_weights=[1.0, 2.0]), BINARY, "loss.class_weights=[1.0,2.0]: ", "2 numbers for 1 classes"),
        (DiceConfig(include_background=False), BINARY, "loss.include_background=false: ", "task=binary has no background"),
    ],
)
def test_what_does_not_fit_is_one_line_that_starts_with_the_key(config, task, start, says):
    (problem,) = check_loss(config, task)
    assert problem.startswith(start)
    assert says in problem
    assert "\n" not in problem
    with pytest.raises(ValueError, match=r"loss\."):
        build_loss(config, task)


def test_one_alpha_for_many_classes_lists_the_ways_to_say_it():
    (problem,) = check_loss(FocalConfig(alpha=0.25), MULTICLASS)
    assert problem.startswith("loss.alpha=0.25: ")
    for way in (
        "loss.alpha=[0.25,0.75,0.75] for",
        "loss.alpha=[0.75,0.25,0.25] for",
        "loss.alpha=[0.25,0.25,0.25] for",
        "loss.form=sigmoid",
    ):
        assert way in problem
    for task in (TaskConfig(name="multiclass"), TaskConfig(name="multiclass", classes=[f"class {i}" for i in range(21)])):
        assert "[0.25,0.75,0.75,...]" in check_loss(FocalConfig(alpha=0.25), task)[0]


def test_all_problems_are_told_at_once():
    assert len(check_loss(FocalConfig(alpha=[0.5], form="softmax", reduction="none"), BINARY)) == 3


def test_a_plug_in_says_what_does_not_fit_or_says_nothing():
    class Mine(LossConfig):
        def problems(self, task):
            return [f"loss.mine: not for task={task.name}"]

    assert check_loss(Mine(name="mine"), BINARY) == ["loss.mine: not for task=binary"]
    assert check_loss(object(), BINARY) == []


def test_which_losses_want_the_prior():
    assert FocalConfig.wants_prior
    assert CrossEntropyConfig.wants_prior
    assert not DiceConfig.wants_prior
    assert not LossConfig.wants_prior


def test_every_focal_option_reaches_the_loss():
    config = FocalConfig(
        gamma=1.5, alpha=[0.1, 0.2, 0.7], normalized=True, reduced_threshold=0.3, reduction="sum", denominator="weights", form="sigmoid"
    )
    loss = build_loss(config, TaskConfig(name="multiclass", classes=["a", "b", "c"], ignore_index=7))
    options = {"normalized": True, "reduced_threshold": 0.3, "denominator": "weights", "form": "sigmoid"}
    assert repr(loss) == repr(FocalLoss("multiclass", [0.1, 0.2, 0.7], 1.5, 7, reduction="sum", **options))
    assert "ignore_index=7" in repr(loss)
    assert loss.decision.alpha.weights == [0.1, 0.2, 0.7]


def test_every_option_of_the_others_reaches_the_loss():
    loss = build_loss(CrossEntropyConfig(class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1), MULTICLASS)
    assert repr(loss) == repr(CrossEntropyLoss("multiclass", [1.0, 2.0, 3.0], 0.1, 255))
    assert loss.class_weights.weights == [1.0, 2.0, 3.0]
    loss = build_loss(DiceConfig(smooth=2.0, include_background=False), MULTICLASS)
    assert repr(loss) == repr(DiceLoss("multiclass", 2.0, None, False, 255))


def test_build_from_a_plain_mapping():
    assert build_loss({"name": "focal", "gamma": 0.5}, BINARY).config.gamma == 0.5
    with pytest.raises(ValueError, match="no loss is named 'focl'; did you mean focal"):
        build_loss({"name": "focl"}, BINARY)


@pytest.mark.parametrize("name", ["focal", "ce", "dice"])
def test_the_yaml_files_hold_the_defaults_of_their_classes(name):
    text = (CONF / f"{name}.yaml").read_text()
    what, when, example = text.splitlines()[:3]
    assert what.startswith("# ")
    assert when.startswith("# Take it ")
    assert example.startswith(f"# Example: python train.py loss={name} ")
    values = yaml.safe_load(text)
    assert values.pop("defaults") == [f"/schema/loss/{name}@_here_", "_self_"]
    assert values
    assert LOSSES.validate({"name": name, **values}) == LOSSES.validate({"name": name})
    overrides = dict(word.removeprefix("loss.").split("=") for word in example.split() if word.startswith("loss."))
    config = LOSSES.validate({"name": name, **{key: yaml.safe_load(value) for key, value in overrides.items()}})
    logits, target = torch.zeros(1, 1, 2, 2, requires_grad=True), torch.ones(1, 2, 2).long()
    assert check_loss(config, BINARY) == []
    build_loss(config, BINARY)(logits, target).backward()


def loaded(statement, *modules):
    script = f"import sys; {statement}; print([name for name in {modules} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CONF.parents[1]).stdout.strip()


def test_the_losses_need_neither_hydra_nor_lightning():
    statement = "from segfocal.losses import FocalLoss, build_loss"
    assert loaded(statement, "hydra", "omegaconf", "lightning", "pytorch_lightning", "segmentation_models_pytorch", "torchvision") == "[]"


def test_the_configuration_needs_no_torch():
    assert loaded("import segfocal.config.loss", "torch", "hydra") == "[]"
