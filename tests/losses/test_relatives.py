"""Relatives of the focal loss that look at pixels: formulas, ignored labels, precisions, arguments, and their options."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from segfocal.config.balance import ClassCounts
from segfocal.config.loss_entropy import AsymmetricConfig, LogitAdjustedConfig, OhemConfig, Poly1FocalConfig, RecallCrossEntropyConfig
from segfocal.config.loss_overlap import UnifiedFocalConfig
from segfocal.config.task import TaskConfig
from segfocal.losses import CrossEntropyLoss, FocalLoss, build_loss
from segfocal.losses.asymmetric import AsymmetricLoss
from segfocal.losses.logit_adjusted import LogitAdjustedLoss
from segfocal.losses.lovasz import LovaszLoss
from segfocal.losses.ohem_ce import OhemCrossEntropyLoss
from segfocal.losses.poly import Poly1FocalLoss
from segfocal.losses.recall_ce import RecallCrossEntropyLoss
from segfocal.losses.region import FocalTverskyLoss, JaccardLoss, TverskyLoss
from segfocal.losses.unified_focal import UnifiedFocalLoss
from segfocal.registry import LOSSES
from tests.losses.samples import gradient, sample

CONF = Path(__file__).parents[2] / "conf" / "loss"
BINARY = TaskConfig(name="binary", classes=["crack"])
MULTICLASS = TaskConfig(name="multiclass", classes=["ground", "crack", "hole"])
MULTILABEL = TaskConfig(name="multilabel", classes=["crack", "hole", "rust"])
TASKS = {"binary": BINARY, "multiclass": MULTICLASS, "multilabel": MULTILABEL}
CLASSES = {
    "jaccard": JaccardLoss,
    "tversky": TverskyLoss,
    "focal_tversky": FocalTverskyLoss,
    "lovasz": LovaszLoss,
    "poly1_focal": Poly1FocalLoss,
    "asymmetric": AsymmetricLoss,
    "unified_focal": UnifiedFocalLoss,
    "recall_ce": RecallCrossEntropyLoss,
    "logit_adjusted_ce": LogitAdjustedLoss,
    "ohem_ce": OhemCrossEntropyLoss,
}


def decisions(mode, logits, target):
    """Class, label and probability of the label for all that counts: one after the other, flat."""
    labels = target.unsqueeze(1) if target.dim() < logits.dim() else target
    if mode == "multiclass":
        flat, ids = logits.transpose(0, 1).flatten(1), labels.flatten()
        flat, ids = flat[:, ids != 255], ids[ids != 255]
        return ids, ids, flat.softmax(0)[ids, torch.arange(len(ids))]
    classes = torch.arange(logits.shape[1]).reshape(1, -1, 1, 1).expand_as(logits)
    valid = labels != 255
    truth, p = labels[valid], logits.sigmoid()[valid]
    return classes[valid], truth, torch.where(truth == 1, p, 1 - p)


def poly(mode, alpha, gamma, epsilon):
    def loss(logits, target):
        classes, truth, p = decisions(mode, logits, target)
        weight = torch.ones_like(p)
        if alpha is not None:
            of_class = torch.tensor(alpha if isinstance(alpha, list) else [alpha] * logits.shape[1], dtype=torch.float64)[classes]
            weight = of_class if mode == "multiclass" else torch.where(truth == 1, of_class, 1 - of_class)
        return (weight * (1 - p) ** gamma * -p.log() + epsilon * (1 - p) ** (gamma + 1)).mean()

    return loss


def asymmetric(mode, positive, negative, clip, weights=None):
    def loss(logits, target):
        classes, truth, p = decisions(mode, logits, target)
        weight = torch.tensor(weights or [1.0] * logits.shape[1], dtype=torch.float64)[classes]
        yes = truth == 1
        below = (1 - p[~yes] - clip).clamp_min(0)
        some = below[below > 0]
        return ((weight[yes] * (1 - p[yes]) ** positive * -p[yes].log()).sum() + (some**negative * -(1 - some).log()).sum()) / len(p)

    return loss


def unified(mode, weight, delta, gamma, variant, smooth):
    def loss(logits, target):
        _, truth, p = decisions(mode, logits, target)
        rare = truth > 0
        share = rare.double() * delta + (~rare).double() * (1 - delta)
        if variant == "symmetric":
            focal = (share * (1 - p) ** (1 - gamma) * -p.log()).mean()
        else:
            focal = torch.cat([delta * -p[rare].log(), (1 - delta) * (1 - p[~rare]) ** gamma * -p[~rare].log()]).sum() / len(p)
        labels = target.unsqueeze(1) if target.dim() < logits.dim() else target
        pairs = []  # probability, label, rare: of each class; in binary and multilabel of its background, too
        for c in range(logits.shape[1]):
            of_class = labels[:, 0] if mode == "multiclass" else labels[:, c]
            valid = of_class != 255
            if mode == "multiclass":
                pairs.append((logits.softmax(1)[:, c][valid], (of_class[valid] == c).double(), c > 0))
            else:
                q, y = logits[:, c].sigmoid()[valid], (of_class[valid] == 1).double()
                pairs += [(q, y, True), (1 - q, 1 - y, False)]
        tversky = []
        for q, y, is_rare in pairs:
            tp, fp, fn = (q * y).sum(), (q * (1 - y)).sum(), ((1 - q) * y).sum()
            miss = 1 - (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)
            tversky.append(miss**gamma if variant == "symmetric" else miss ** (1 - gamma) if is_rare else miss)
        return weight * focal + (1 - weight) * torch.stack(tversky).mean()

    return loss


def recall(logits, target):
    _, truth, p = decisions("multiclass", logits, target)
    right = (logits.argmax(1) == target)[target != 255]
    total = 0.0
    for c in truth.unique():
        total = total + (1 - right[truth == c].double().mean()) * -p[truth == c].log().sum()
    return total / len(p)


def adjusted(mode, prior, tau):
    def loss(logits, target):
        share = torch.tensor(prior, dtype=torch.float64).reshape(1, -1, 1, 1)
        shift = share.log() if mode == "multiclass" else (share / (1 - share)).log()
        return -decisions(mode, logits + tau * shift, target)[2].log().mean()

    return loss


def ohem(mode, threshold, keep, weights=None):
    def loss(logits, target):
        classes, truth, p = decisions(mode, logits, target)
        least = math.ceil(round(keep * len(p), 6))
        hard = sorted(range(len(p)), key=lambda i: p[i].item())
        chosen = [i for place, i in enumerate(hard) if place < least or p[i] < threshold]
        weight = torch.ones_like(p)
        if weights is not None:
            weight = torch.tensor(weights, dtype=torch.float64)[classes]
            weight = weight if mode == "multiclass" else torch.where(truth == 1, weight, 1.0)
        return (weight * -p.log())[chosen].mean()

    return loss


CASES = {
    "poly binary": ("binary", lambda **k: Poly1FocalLoss("binary", 0.75, 2.0, 0.7, **k), poly("binary", 0.75, 2.0, 0.7)),
    "poly multiclass": (
        "multiclass",
        lambda **k: Poly1FocalLoss("multiclass", [0.2, 1.0, 3.0], 1.5, -0.5, **k),
        poly("multiclass", [0.2, 1.0, 3.0], 1.5, -0.5),
    ),
    "poly plain": ("multiclass", lambda **k: Poly1FocalLoss("multiclass", gamma=0.0, **k), poly("multiclass", None, 0.0, 1.0)),
    "poly multilabel": (
        "multilabel",
        lambda **k: Poly1FocalLoss("multilabel", [0.2, 0.9, 0.5], 0.5, **k),
        poly("multilabel", [0.2, 0.9, 0.5], 0.5, 1.0),
    ),
    "asymmetric binary": ("binary", lambda **k: AsymmetricLoss("binary", 0.5, 2.0, 0.1, **k), asymmetric("binary", 0.5, 2.0, 0.1)),
    "asymmetric steep": ("binary", lambda **k: AsymmetricLoss("binary", 0.0, 0.5, 0.2, **k), asymmetric("binary", 0.0, 0.5, 0.2)),
    "asymmetric unclipped": ("multilabel", lambda **k: AsymmetricLoss("multilabel", 1, 0, 0, **k), asymmetric("multilabel", 1, 0, 0)),
    "asymmetric weights": (
        "multilabel",
        lambda **k: AsymmetricLoss("multilabel", 1.0, 4.0, 0.05, [0.5, 2.0, 3.0], **k),
        asymmetric("multilabel", 1.0, 4.0, 0.05, [0.5, 2.0, 3.0]),
    ),
    **{
        f"unified {variant} {mode}": (
            mode,
            lambda mode=mode, variant=variant, **k: UnifiedFocalLoss(mode, 0.3, 0.7, 0.4, variant, 2.0, **k),
            unified(mode, 0.3, 0.7, 0.4, variant, 2.0),
        )
        for mode in TASKS
        for variant in ("symmetric", "asymmetric")
    },
    "recall": ("multiclass", lambda **k: RecallCrossEntropyLoss("multiclass", **k), recall),
    "adjusted binary": ("binary", lambda **k: LogitAdjustedLoss("binary", [0.02], 0.8, **k), adjusted("binary", [0.02], 0.8)),
    "adjusted multiclass": (
        "multiclass",
        lambda **k: LogitAdjustedLoss("multiclass", [0.9, 0.08, 0.02], **k),
        adjusted("multiclass", [0.9, 0.08, 0.02], 1.0),
    ),
    "adjusted multilabel": (
        "multilabel",
        lambda **k: LogitAdjustedLoss("multilabel", [0.5, 0.1, 0.01], 2.0, **k),
        adjusted("multilabel", [0.5, 0.1, 0.01], 2.0),
    ),
    "ohem binary": ("binary", lambda **k: OhemCrossEntropyLoss("binary", 0.05, 0.3, [4.0], **k), ohem("binary", 0.05, 0.3, [4.0])),
    "ohem multiclass": (
        "multiclass",
        lambda **k: OhemCrossEntropyLoss("multiclass", 0.5, 0.1, [0.5, 2.0, 3.0], **k),
        ohem("multiclass", 0.5, 0.1, [0.5, 2.0, 3.0]),
    ),
    "ohem multilabel": ("multilabel", lambda **k: OhemCrossEntropyLoss("multilabel", **k), ohem("multilabel", 0.7, 0.1)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_the_formula(case, seed):
    mode, make, plain = CASES[case]
    logits, target = sample(mode, seed)
    expected = gradient(plain, logits, target)
    torch.testing.assert_close(gradient(make(ignore_index=255), logits, target), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case):
    mode, make, _ = CASES[case]
    logits, target = sample(mode)
    loss = make(ignore_index=255)
    if case == "recall":  # its weights are constants to the gradient and steps to differences: here none is crossed
        logits = 3 * logits
    assert torch.autograd.gradcheck(lambda x: loss(x, target[:1, ..., :3]), logits[:1, ..., :3].clone().requires_grad_())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("junk", [float("inf"), float("-inf"), float("nan")])
def test_what_lies_beneath_the_mask_is_never_read(case, junk):
    mode, make, _ = CASES[case]
    logits, target = sample(mode)
    mask = (target == 255).unsqueeze(1).expand_as(logits) if mode == "multiclass" else target == 255
    loss = make(ignore_index=255)
    clean, dirty = gradient(loss, logits, target), gradient(loss, logits.masked_fill(mask, junk), target)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[1][mask].eq(0).all()
    value, grad = gradient(loss, torch.full_like(logits, junk), torch.full_like(target, 255))
    assert value == 0
    assert grad.eq(0).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_and_extremes(case, dtype):
    mode, make, _ = CASES[case]
    logits, target = sample(mode)
    loss = make(ignore_index=255)
    for scale in (1, 4000):
        half = (logits * scale).to(dtype)
        value, grad = gradient(loss, half, target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert grad.isfinite().all()
        torch.testing.assert_close(value, loss(half.float(), target))


@pytest.mark.parametrize("case", [case for case, (mode, _, _) in CASES.items() if mode != "multiclass"])
def test_false_positives_on_an_empty_mask_are_punished(case):
    mode, make, _ = CASES[case]
    logits = sample(mode)[0].abs() + 0.5
    value, grad = gradient(make(), logits, torch.zeros_like(logits).long())
    assert value > 0
    assert (grad >= 0).all()
    assert (grad > 0).any()


def test_what_they_are_without_their_own_part():
    for mode, alpha in (("binary", 0.75), ("multiclass", [0.2, 1.0, 3.0]), ("multilabel", 0.75)):
        logits, target = sample(mode)
        ce, ignore = CrossEntropyLoss(mode, ignore_index=255), {"ignore_index": 255}
        pairs = [
            (Poly1FocalLoss(mode, alpha, 2.0, 0.0, **ignore), FocalLoss(mode, alpha, 2.0, **ignore)),
            (LogitAdjustedLoss(mode, [0.1] * logits.shape[1], 0.0, **ignore), ce),
            (OhemCrossEntropyLoss(mode, keep=1.0, **ignore), ce),
        ]
        if mode != "multiclass":
            pairs.append((AsymmetricLoss(mode, 0.0, 0.0, 0.0, **ignore), ce))
        for ours, known in pairs:
            torch.testing.assert_close(gradient(ours, logits, target), gradient(known, logits, target))


def test_clipped_negatives_cost_nothing():
    logits = torch.tensor([[[[-4.0, -3.0, -2.0]]]])  # probabilities .018, .047, .119
    value, grad = gradient(AsymmetricLoss("binary", gamma_negative=0.5), logits, torch.zeros(1, 1, 3).long())
    assert value > 0
    assert grad.flatten()[:2].eq(0).all()
    assert grad.flatten()[2] > 0


@pytest.mark.parametrize("clip", [1e-50, 1e-30, 1e-8, 1e-6, 1e-3, 0.05])
def test_the_worst_negatives_cost_what_the_clip_leaves_of_them(clip):
    logits, target = torch.tensor([[[[17.0, 200.0]]]]), torch.zeros(1, 1, 2).long()
    value, grad = gradient(AsymmetricLoss("binary", gamma_negative=0.0, clip=clip), logits, target)
    q = torch.tensor([1 / (1 + math.exp(17)), 0.0])
    assert value.item() == pytest.approx((-(q + max(clip, 1.17549435e-38)).log()).mean().item(), rel=1e-6)
    assert grad.isfinite().all()


def test_recall_weighs_what_is_missed():
    logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]).T.reshape(1, 2, 2, 2)
    target = torch.tensor([[[0, 0], [1, 1]]])
    expected = 0.5 * (math.log1p(math.exp(-9)) + math.log1p(math.exp(9))) / 4  # class 0 is complete, class 1 half missed
    torch.testing.assert_close(RecallCrossEntropyLoss()(logits, target), torch.tensor(expected))
    assert RecallCrossEntropyLoss()(logits, torch.tensor([[[0, 0], [1, 0]]])) == 0


def test_ohem_keeps_the_hardest():
    logits = torch.tensor([[[[9.0, 8.0, 7.0, 6.0]]]])
    value, grad = gradient(OhemCrossEntropyLoss("binary", keep=0.5), logits, torch.ones(1, 1, 4).long())
    torch.testing.assert_close(value, torch.tensor((math.log1p(math.exp(-6)) + math.log1p(math.exp(-7))) / 2))
    assert grad.flatten().ne(0).tolist() == [False, False, True, True]


def test_unified_turns_up_a_class_that_is_nearly_right():
    logits, target = torch.full((1, 1, 2, 2), 200.0), torch.ones(1, 2, 2).long()
    value, grad = gradient(UnifiedFocalLoss("binary"), logits, target)
    assert value == 0
    assert grad.isfinite().all()


def test_the_prior_comes_from_the_data():
    counts = ClassCounts(pixels=[90, 10, 0], valid=[100, 100, 100], present=[5, 2, 0], pixels_where_present=[100, 50, 0], images=5)
    config = LogitAdjustedConfig(tau=0.5).balanced(counts, MULTICLASS)
    assert config.prior == [0.9, 0.1, 0.01]  # a class without a pixel is taken to have one
    assert config.tau == 0.5
    assert build_loss(config, MULTICLASS).config.prior == [0.9, 0.1, 0.01]
    assert LogitAdjustedConfig(prior=[0.5, 0.3, 0.2]).balanced(counts, MULTICLASS).prior == [0.5, 0.3, 0.2]
    full = ClassCounts(pixels=[50, 0], valid=[50, 0], present=[1, 0], pixels_where_present=[50, 0], images=1)
    assert LogitAdjustedConfig().balanced(full, MULTILABEL).prior == [0.98, 0.5]
    many = 40_000_000  # in fp32 a share of all but one of them is 1
    wide = ClassCounts(pixels=[many, 1], valid=[many] * 2, present=[9, 1], pixels_where_present=[many, many], images=9)
    two = TaskConfig(name="multilabel", classes=["all", "one"])
    loss = build_loss(LogitAdjustedConfig().balanced(wide, two), two)
    value = loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[[0.0]], [[1.0]]]]))
    assert float(value) == pytest.approx(math.log(many - 1) + math.log1p(1 / (many - 1)), rel=1e-6)  # each is wrong by that much
    with pytest.raises(ValueError, match=r"^loss\.prior=auto: [^\n]*$"):
        build_loss(LogitAdjustedConfig(), MULTICLASS)


@pytest.mark.parametrize(
    ("config", "task", "start"),
    [
        (Poly1FocalConfig(alpha=0.25), MULTICLASS, "loss.alpha=0.25: task=multiclass takes a list"),
        (Poly1FocalConfig(alpha=[0.2, 0.8]), BINARY, "loss.alpha=[0.2,0.8]: task=binary takes one number"),
        (Poly1FocalConfig(alpha=[0.2, 0.8]), MULTICLASS, "loss.alpha=[0.2,0.8]: 2 numbers for 3 classes"),
        (Poly1FocalConfig(alpha=[0.2, 0.8, 3.0]), MULTILABEL, "loss.alpha=[0.2,0.8,3.0]: task=multilabel takes numbers from 0 to 1"),
        (AsymmetricConfig(), MULTICLASS, "loss=asymmetric: needs a sigmoid"),
        (AsymmetricConfig(class_weights=[1.0]), MULTILABEL, "loss.class_weights=[1.0]: 1 numbers for 3 classes"),
        (RecallCrossEntropyConfig(), BINARY, "loss=recall_ce: weighs classes that exclude each other"),
        (RecallCrossEntropyConfig(), MULTILABEL, "loss=recall_ce: weighs classes that exclude each other"),
        (LogitAdjustedConfig(prior=[0.5, 0.5]), MULTICLASS, "loss.prior=[0.5,0.5]: 2 numbers for 3 classes"),
        (OhemConfig(class_weights=[1.0, 2.0]), BINARY, "loss.class_weights=[1.0,2.0]: 2 numbers for 1 classes"),
    ],
)
def test_what_does_not_fit_the_task(config, task, start):
    (problem,) = config.problems(task)
    assert problem.startswith(start)
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Poly1FocalLoss("binary", gamma=-1.0), "gamma"),
        (lambda: Poly1FocalLoss("binary", epsilon=-1.5), "epsilon"),
        (lambda: Poly1FocalLoss("binary", alpha=1.5), "alpha"),
        (lambda: Poly1FocalLoss("multiclass", alpha=0.5), "alpha"),
        (lambda: Poly1FocalLoss("both"), "mode"),
        (lambda: AsymmetricLoss("multiclass"), "asymmetric"),
        (lambda: AsymmetricLoss("binary", gamma_positive=-1.0), "gamma_positive"),
        (lambda: AsymmetricLoss("binary", clip=1.0), "clip"),
        (lambda: UnifiedFocalLoss("binary", weight=1.5), "weight"),
        (lambda: UnifiedFocalLoss("binary", gamma=1.0), "gamma"),
        (lambda: UnifiedFocalLoss("binary", variant="both"), "variant"),
        (lambda: RecallCrossEntropyLoss("binary"), "recall_ce"),
        (lambda: LogitAdjustedLoss("binary"), "prior"),
        (lambda: LogitAdjustedLoss("binary", [0.0]), "prior"),
        (lambda: LogitAdjustedLoss("binary", [0.5, 0.5])(*sample("binary")), "255"),
        (lambda: LogitAdjustedLoss("binary", [0.5, 0.5], ignore_index=255)(*sample("binary")), "prior"),
        (lambda: OhemCrossEntropyLoss("binary", threshold=1.0), "threshold"),
        (lambda: OhemCrossEntropyLoss("binary", keep=0.0), "keep"),
        (lambda: OhemCrossEntropyLoss("binary", class_weights=[1.0, 2.0], ignore_index=255)(*sample("binary")), "class_weights"),
    ],
)
def test_arguments_out_of_range(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("name", CLASSES)
def test_the_yaml_files_hold_the_defaults_of_their_classes(name):
    text = (CONF / f"{name}.yaml").read_text()
    what, when, example = text.splitlines()[:3]
    assert what.startswith("# ")
    assert when.startswith("# Take it ")
    assert example.startswith("# Example: python train.py ")
    assert f" loss={name}" in example
    values = yaml.safe_load(text)
    assert values.pop("defaults") == [f"/schema/loss/{name}@_here_", "_self_"]
    assert values
    assert LOSSES.validate({"name": name, **values}) == LOSSES.validate({"name": name})
    task = MULTICLASS if "task=multiclass" in example else BINARY
    words = dict(word.removeprefix("loss.").split("=") for word in example.split() if word.startswith("loss."))
    config = LOSSES.validate({"name": name, **{key: yaml.safe_load(value) for key, value in words.items()}})
    assert config.problems(task) == []
    counts = ClassCounts([90, 10, 5][: task.num_classes], [100] * task.num_classes, [5] * task.num_classes, [100] * task.num_classes, 5)
    logits, target = torch.zeros(1, task.num_classes, 2, 2, requires_grad=True), torch.ones(1, 2, 2).long()
    build_loss(config.balanced(counts, task), task)(logits, target).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", CLASSES)
def test_any_number_of_axes_and_of_images(name):
    mode = "multilabel" if name == "asymmetric" else "multiclass"
    more = {"prior": [0.5, 0.3, 0.2]} if name == "logit_adjusted_ce" else {"per_image": True} if name == "lovasz" else {}
    loss = build_loss({"name": name, **more}, TASKS[mode])
    generator = torch.Generator().manual_seed(0)
    for shape in [(6, 3), (2, 3, 4), (2, 3, 2, 3, 2)]:
        logits = torch.randn(shape, generator=generator)
        target = torch.randint(0, 2, shape if mode == "multilabel" else (shape[0], *shape[2:]), generator=generator)
        assert loss(logits, target) > 0
    for shape in [(0, 3, 2, 2), (2, 3, 0, 2)]:
        value, grad = gradient(loss, torch.zeros(shape), torch.zeros(shape if mode == "multilabel" else (shape[0], *shape[2:])).long())
        assert value == 0
        assert grad.shape == shape


OPTIONS = {
    "jaccard": {"smooth": 2.0, "class_weights": [1.0, 2.0, 3.0], "include_background": False},
    "tversky": {"alpha": 0.1, "beta": 0.8, "smooth": 2.0, "class_weights": [1.0, 2.0, 3.0], "include_background": False},
    "focal_tversky": {
        "alpha": 0.1,
        "beta": 0.8,
        "gamma": 0.5,
        "smooth": 2.0,
        "class_weights": [1.0, 2.0, 3.0],
        "include_background": False,
    },
    "lovasz": {"per_image": True},
    "poly1_focal": {"alpha": [1.0, 2.0, 3.0], "gamma": 2.0, "epsilon": 0.5},
    "asymmetric": {"gamma_positive": 1.0, "gamma_negative": 2.0, "clip": 0.1, "class_weights": [1.0, 2.0, 3.0]},
    "unified_focal": {"weight": 0.1, "delta": 0.7, "gamma": 0.2, "variant": "symmetric", "smooth": 3.0},
    "recall_ce": {},
    "logit_adjusted_ce": {"prior": [0.5, 0.4, 0.1], "tau": 2.0},
    "ohem_ce": {"threshold": 0.6, "keep": 0.2, "class_weights": [1.0, 2.0, 3.0]},
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_option_reaches_the_loss(name):
    task = MULTILABEL if name == "asymmetric" else MULTICLASS
    built = build_loss({"name": name, **OPTIONS[name]}, task)
    given = CLASSES[name](task.name, **OPTIONS[name], ignore_index=255)
    assert type(built) is CLASSES[name]
    assert repr(built) == repr(given)
    assert "ignore_index=255" in repr(built)
    default = LOSSES.find(name)()
    assert set(OPTIONS[name]) == set(vars(default)) - {"name"}
    assert all(getattr(default, key) != value for key, value in OPTIONS[name].items())


def test_which_want_the_prior():
    assert all(config.wants_prior for config in (Poly1FocalConfig, AsymmetricConfig, RecallCrossEntropyConfig, OhemConfig))
    assert not LogitAdjustedConfig.wants_prior  # its logits start as if classes were equally frequent
    assert not UnifiedFocalConfig.wants_prior


def test_their_options_are_read_without_torch():
    subprocess.run([sys.executable, "-c", "import sys, segfocal.config.schema; assert 'torch' not in sys.modules"], check=True)
