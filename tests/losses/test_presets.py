"""The presets in conf/loss/ against what they stand for: installed packages, MindSpore's own numbers, or the formula written out here.

Values and gradients, in double precision, to 1e-6 or better.
"""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from segmentation_models_pytorch.losses import FocalLoss as SMPFocalLoss
from torchvision.ops import sigmoid_focal_loss

from segfocal.config.loss_focal import FocalConfig
from segfocal.config.parse import CONF, mistakes
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.losses import build_loss
from segfocal.registry import LOSSES
from tests.config.test_yaml import composed

PRESETS = [
    "smp_focal",
    "smp_focal_0_5",
    "mindspore_focal",
    "mindspore_focal_onehot",
    "mindspore_course_focal",
    "yateng_focal",
    "weighted_focal",
    "scalar_alpha_focal",
    "torchvision_focal",
]
VECTORS = Path(__file__).parent / "vectors/mindspore"
CASES = json.loads((VECTORS / "index.json").read_text())
ALPHA = [0.25, 1.0, 2.5]
CLASS_WEIGHTS = [0.5, 1.0, 4.0]  # SMP holds them in fp32: numbers that are exact there
GAMMAS = [0.0, 0.5, 2.0, 3.5]
IGNORE = 255


def values(name):
    found = yaml.safe_load((CONF / "loss" / f"{name}.yaml").read_text())
    assert found.pop("defaults") == ["/schema/loss/focal@_here_", "_self_"]
    return {"name": "focal", **found}


def preset(name, mode="multiclass", **options):
    """The preset of the YAML, with options as on the command line."""
    config, task = LOSSES.validate({**values(name), **options}), TaskConfig(name=mode, ignore_index=IGNORE)
    return LOSSES.build(config, task) if config.reduction == "none" else build_loss(config, task)  # a map is not for training


def sample(mode, ignored=0.0, images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    logits = 2 * torch.randn((images, classes, 4, 5), generator=generator, dtype=torch.float64)
    shape = {"binary": (images, 1, 4, 5), "multiclass": (images, 4, 5), "multilabel": (images, classes, 4, 5)}[mode]
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < ignored, IGNORE)


def assert_same(ours, theirs, given, target):
    """Values, and their gradients with respect to what the loss is given."""
    results = []
    for loss in (ours, theirs):
        leaf = given.clone().requires_grad_()
        value = loss(leaf, target)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        results.append((value.detach(), gradient))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-12)


def options_of(**lists):
    for chosen in itertools.product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))


# --- the YAMLs ---


@pytest.mark.parametrize("name", PRESETS)
def test_the_command_line_takes_it_and_its_example(name):
    assert composed(f"loss={name}").loss == LOSSES.validate(values(name))
    first, when, example = (CONF / "loss" / f"{name}.yaml").read_text().splitlines()[:3]
    assert first.startswith("# ")
    assert when.startswith("# Take it ")
    command = shlex.split(example.removeprefix("# Example: "))
    assert command[:3] == ["python", "train.py", f"loss={name}"]
    assert mistakes(TrainConfig, "train", command[2:]) == []


@pytest.mark.parametrize("name", PRESETS)
def test_what_it_changes_has_a_reason(name):
    lines = (CONF / "loss" / f"{name}.yaml").read_text().splitlines()
    for line in lines[lines.index("  - _self_") + 1 :]:
        assert "  # " in line, line
    standard = FocalConfig()
    for key in ("normalized", "reduced_threshold", "label_smoothing", "class_weights", "eps", "backend"):
        assert getattr(LOSSES.validate(values(name)), key) == getattr(standard, key)


# --- segmentation_models_pytorch ---


def as_smp_0_6(mode, reduction, ignoring):
    """What says in our words what SMP 0.6 does."""
    if mode == "binary":  # flattened: nothing is left of the batch
        return {"reduction": {None: "none", "batchwise_mean": "sum"}.get(reduction, reduction)}
    if reduction == "sum":
        return {"reduction": "mean", "denominator": "classes"}
    if reduction == "batchwise_mean":  # ignoring flattens the batch into one axis, which is then summed over
        return {"reduction": "mean", "denominator": "classes"} if ignoring else {"reduction": "batchwise_mean"}
    return {"reduction": "mean"}  # without a reduction, too: it takes the mean of what it has stacked


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchwise_mean", None])
@pytest.mark.parametrize(
    ("mode", "ignored"),
    [("binary", 0.0), ("binary", 0.3), ("multiclass", 0.0), ("multiclass", 0.3), ("multilabel", 0.0)],  # multilabel 0.3: IndexError in SMP
)
def test_smp_with_every_option(mode, ignored, reduction):
    logits, target = sample(mode, ignored)
    # Values that are left over as a map are multiplied by class_weights along their last axis, which is not that of the classes.
    weighable = mode != "binary" and (reduction in ("mean", "sum") or (reduction == "batchwise_mean" and ignored))
    grid = options_of(
        gamma=GAMMAS,
        alpha=[None, 0.25],
        reduced_threshold=[None, 0.3],
        normalized=[False, True],
        class_weights=[None, CLASS_WEIGHTS] if weighable else [None],
        from_logits=[True, False],
    )
    for options in grid:
        theirs = SMPFocalLoss(mode, ignore_index=IGNORE if ignored else None, reduction=reduction, **options)
        named = {**options, "normalized": "smp" if options["normalized"] else False, **as_smp_0_6(mode, reduction, ignored)}
        given = logits
        if not options["from_logits"]:
            given = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
            given[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
        if mode == "multiclass" and not options["from_logits"]:
            # It takes log p for the logit of a sigmoid there. That is no probability any more: ours, which undoes sigmoids and
            # softmaxes, is told so by being given the same numbers as logits.
            loss = preset("smp_focal", mode, **{**named, "from_logits": True})

            def ours(p, target, loss=loss):
                return loss(p.clamp(1e-7, 1 - 1e-7).log(), target)

        else:
            ours = preset("smp_focal", mode, **named)
        if named["reduction"] == "none":

            def of_valid(p, target, loss=ours):
                return loss(p, target)[target != IGNORE]

            assert_same(of_valid, theirs, given, target)
        else:
            assert_same(ours, theirs, given, target)


def smp_0_5(mode, alpha, gamma, ignoring, threshold, normalized, reduction):
    """FocalLoss of SMP 0.5 and before, in its own steps."""

    def of_sigmoid(logit, label):
        label = label.to(logit.dtype)
        ce = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
        p_t = torch.exp(-ce)
        factor = (1 - p_t) ** gamma
        if threshold is not None:
            factor = torch.where(p_t < threshold, 1.0, ((1 - p_t) / threshold) ** gamma)
        value = factor * ce
        if alpha is not None:
            value = value * (alpha * label + (1 - alpha) * (1 - label))
        if normalized:
            value = value / factor.sum().clamp_min(1e-6)
        return value.mean() if reduction == "mean" else value.sum()

    def loss(logits, target):
        valid = target != IGNORE if ignoring else torch.ones_like(target, dtype=torch.bool)
        if mode != "multiclass":
            return of_sigmoid(logits.reshape(-1)[valid.reshape(-1)], target.reshape(-1)[valid.reshape(-1)])
        return sum(of_sigmoid(logits[:, c][valid], (target == c)[valid]) for c in range(logits.shape[1]))

    return loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_smp_before_0_6(mode, ignored, reduction):
    logits, target = sample(mode, ignored)
    denominator = {"denominator": "elements"} if mode == "multilabel" else {}  # as the YAML says
    for options in options_of(gamma=GAMMAS, alpha=[None, 0.25], threshold=[None, 0.3], normalized=[False, True]):
        if options["normalized"] and mode == "multilabel":
            continue  # one factor for all classes; 0.6, and loss.normalized=smp, have one for each
        theirs = smp_0_5(mode, ignoring=bool(ignored), reduction=reduction, **options)
        ours = preset(
            "smp_focal_0_5",
            mode,
            gamma=options["gamma"],
            alpha=options["alpha"],
            reduced_threshold=options["threshold"],
            normalized="smp" if options["normalized"] else False,
            reduction=reduction,
            **denominator,
        )
        assert_same(ours, theirs, logits, target)


def test_multiclass_of_smp_before_0_6_is_c_times_that_of_0_6():
    logits, target = sample("multiclass", 0.3)
    theirs = SMPFocalLoss("multiclass", ignore_index=IGNORE)
    assert_same(preset("smp_focal_0_5"), lambda x, y: 3 * theirs(x, y), logits, target)


# --- softmaxes ---


def softmax_terms(logits, target, weight, gamma):
    """a_t (1 - p_t)^gamma * -log p_t of every valid pixel, and its a_t."""
    valid = target != IGNORE
    log_p = logits.log_softmax(1).gather(1, target.where(valid, 0).unsqueeze(1)).squeeze(1)[valid]
    weights = torch.tensor(weight, dtype=logits.dtype)[target[valid]]
    return weights * (1 - log_p.exp()) ** gamma * -log_p, weights


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.25, 0.75, ALPHA])
def test_yateng(alpha, gamma, ignored, reduction):
    # In the original a number a is written into a vector: a at 0, 1 - a from 1 on.
    weight = alpha if isinstance(alpha, list) else [alpha, 1 - alpha, 1 - alpha]

    def theirs(logits, target):
        terms, _ = softmax_terms(logits, target, weight, gamma)
        return terms.mean() if reduction == "mean" else terms.sum()

    assert_same(preset("yateng_focal", alpha=weight, gamma=gamma, reduction=reduction), theirs, *sample("multiclass", ignored))


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.25, 1.0, 2.0])
def test_one_factor_for_all_classes(alpha, gamma, ignored):
    def theirs(logits, target):
        ce = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        return (alpha * (1 - torch.exp(-ce)) ** gamma * ce)[target != IGNORE].mean()

    assert_same(preset("scalar_alpha_focal", alpha=[alpha] * 3, gamma=gamma), theirs, *sample("multiclass", ignored))


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [ALPHA, [3.0, 0.0, 1.0]])
def test_weighted_mean(alpha, gamma, ignored):
    logits, target = sample("multiclass", ignored)

    def theirs(logits, target):
        terms, weights = softmax_terms(logits, target, alpha, gamma)
        return terms.sum() / weights.sum()

    loss = preset("weighted_focal", alpha=alpha, gamma=gamma)
    assert_same(loss, theirs, logits, target)
    torch.testing.assert_close(preset("weighted_focal", alpha=[2 * a for a in alpha], gamma=gamma)(logits, target), loss(logits, target))


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_weighted_mean_at_gamma_zero_is_the_one_of_torch(ignored):
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(ALPHA).double(), ignore_index=IGNORE)
    assert_same(preset("weighted_focal", alpha=ALPHA, gamma=0.0), theirs, *sample("multiclass", ignored))


# --- torchvision ---


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_torchvision(mode, reduction):
    logits, target = sample(mode)
    for options in options_of(gamma=GAMMAS, alpha=[None, 0.25, 0.9]):

        def theirs(logits, target, gamma=options["gamma"], alpha=options["alpha"]):
            if mode == "multiclass":
                target = F.one_hot(target, 3).movedim(-1, 1)
            values = sigmoid_focal_loss(logits, target.double(), -1 if alpha is None else alpha, gamma, reduction)
            return values.sum(1) if mode == "multiclass" and reduction == "none" else values

        assert_same(preset("torchvision_focal", mode, reduction=reduction, **options), theirs, logits, target)
    standard = preset("torchvision_focal", "multilabel")
    assert_same(standard, lambda x, y: sigmoid_focal_loss(x, y.double(), reduction="mean"), *sample("multilabel"))


# --- MindSpore ---


def mindspore(logits, target, weight, gamma, onehot, reduction):
    """nn.FocalLoss as its documentation has it, for weights, which the vectors have in half precision only."""
    log_p = logits.log_softmax(1)
    labels = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    w = torch.tensor(weight, dtype=logits.dtype).reshape(1, -1, *[1] * (logits.dim() - 2))
    terms = -w * labels * (1 - log_p.exp()) ** gamma * log_p
    values_NC = terms.flatten(2).mean(2)
    values = values_NC if onehot else values_NC.sum(1)
    return values.mean() if reduction == "mean" else values.sum()


def as_mindspore(form, reduction):
    """Preset and options for the labels and the reduction that MindSpore was given."""
    name = "mindspore_focal" if form == "index" else "mindspore_focal_onehot"
    options = {"mean": {}, "none": {"reduction": "none"}, "sum": {"reduction": "batchwise_mean", "denominator": "pixels"}}[reduction]
    return name, options


@pytest.mark.parametrize("form", ["index", "onehot"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], ALPHA])
def test_mindspore_with_weights(weight, gamma, reduction, form):
    logits, target = sample("multiclass")
    name, options = as_mindspore(form, reduction)
    loss = preset(name, alpha=weight, gamma=gamma, **options)
    assert_same(loss, lambda x, y: mindspore(x, y, weight, gamma, form == "onehot", reduction), logits, target)
    onehot = F.one_hot(target, 3).movedim(-1, 1).double()
    assert_same(lambda x, y: loss(x, onehot), loss, logits, target)  # as labels, both are the same to us


def assert_near(ours, theirs, share):
    """Equal but for a share of the largest entry: entries near 0 carry the rounding of the large ones."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=share * float(theirs.abs().max()), check_dtype=False)


@pytest.mark.parametrize("case", [case["name"] for case in CASES])
def test_mindspore_vectors(case):
    vector = np.load(VECTORS / f"{case}.npz")
    logits, labels = torch.from_numpy(vector["logits"]).requires_grad_(), torch.from_numpy(vector["labels"])
    form, reduction = str(vector["form"]), str(vector["reduction"])
    name, options = as_mindspore(form, reduction)
    weight = {"alpha": vector["weight"].tolist()} if "weight" in vector else {}
    loss = preset(name, gamma=float(vector["gamma"]), **weight, **options)

    def call(x):
        if reduction != "none":
            return loss(x, labels)
        if form == "index":
            return loss(x, labels).flatten(1).mean(1)
        assert ((labels == 0) | (labels == 1)).all() and labels.sum(1).eq(1).all()  # so a pixel's value is that of its class
        return (loss(x, labels).unsqueeze(1) * labels).reshape(*labels.shape[:2], -1).mean(2)

    value = call(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    # The fp16 case was computed in fp16, of epsilon 1e-3.
    half = logits.dtype == torch.float16
    assert_near(value.detach(), torch.from_numpy(vector["output"]), 1e-3 if half else 1.5e-6)
    assert gradient.isfinite().all()
    if case.endswith("_large"):
        assert np.isnan(vector["grad_of_sum"]).any()
        return
    # Looser than 1e-6: MindSpore's fp32 exp and 1 - p_t are off by up to 3.7e-6 of the largest entry in gradients and 1.03e-6 in values.
    # Ours in double precision differs from it by the same; ours in fp32 stays within 1e-6 of that.
    assert_near(gradient, torch.from_numpy(vector["grad_of_sum"]), 2e-3 if half else 5e-6)
    if not half:
        double = logits.detach().double().requires_grad_()
        (exact,) = torch.autograd.grad(call(double).sum(), double)
        assert_near(gradient, exact.float(), 1e-6)


def test_every_vector_is_compared():
    assert sorted(f"{case['name']}.npz" for case in CASES) == sorted(path.name for path in VECTORS.glob("*.npz"))


# --- the MindSpore course ---


def course(p, target, alpha=0.25, gamma=2.0):
    """FocalLossForLabel: the probability and the weight of the true label, the formula, and the sum that MindSpore differentiates."""
    p_t = torch.where(target == 1, p, 1 - p)
    a_t = torch.where(target == 1, alpha, 1 - alpha)
    return (-a_t * (1 - p_t) ** gamma * torch.log(p_t)).sum()


@pytest.mark.parametrize("shape", [(60, 1), (3, 1, 4, 5)])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_course(alpha, gamma, shape):
    logits, target = (tensor.reshape(shape) for tensor in sample("binary"))
    loss = preset("mindspore_course_focal", "binary", alpha=alpha, gamma=gamma)
    assert_same(loss, lambda p, y: course(p, y, alpha, gamma), logits.sigmoid(), target)
    mean = preset("mindspore_course_focal", "binary", alpha=alpha, gamma=gamma, reduction="mean")
    assert_same(mean, lambda p, y: course(p, y, alpha, gamma) / y.numel(), logits.sigmoid(), target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_course_with_probabilities_of_zero_and_one(gamma, dtype):
    target = torch.tensor([[0], [1], [0], [1], [1]])
    p = torch.tensor([[0.0], [0.0], [1.0], [1.0], [0.3]], dtype=dtype, requires_grad=True)
    value = preset("mindspore_course_focal", "binary", gamma=gamma)(p, target)
    (gradient,) = torch.autograd.grad(value, p)
    assert gradient.isfinite().all()
    # In single precision 1 - 1e-7 is 1 - 1.19e-7, and its logarithm further from 0 by as much: 1 % of the term of p = 1, y = 0.
    rtol = 2e-2 if dtype == torch.float32 else 1e-6
    torch.testing.assert_close(value, course(p.double().clamp(1e-7, 1 - 1e-7), target, gamma=gamma).to(dtype), rtol=rtol, atol=0)
