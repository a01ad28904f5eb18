"""LovaszLoss: algorithm 1 of the paper, SMP where it is right, and not where it is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss as SMPLovaszLoss

from segfocal.losses.lovasz import LovaszLoss, jaccard

MODES = ["binary", "multiclass", "multilabel"]


def sample(mode, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    shape = (2, 4, 5) if mode == "multiclass" else (2, classes, 4, 5)
    logits = 2 * torch.randn((2, classes, 4, 5), generator=generator)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255)


def gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


def extension(errors, truth):
    """The sum over sorted errors of what each adds to the Jaccard loss, one mistake after the other."""
    order = errors.argsort(descending=True)
    total, before, wrong = 0.0, 0.0, torch.zeros_like(truth)
    for i in order.tolist():
        wrong[i] = True
        predicted = truth ^ wrong
        now = 1 - (truth & predicted).sum().item() / (truth | predicted).sum().item()
        total, before = total + errors[i] * (now - before), now
    return total


def plain(mode, per_image):
    def loss(logits, target):
        labels = target.unsqueeze(1) if target.dim() < logits.dim() else target
        terms = []
        for image in [[i] for i in range(len(logits))] if per_image else [list(range(len(logits)))]:
            x, y = logits[image].double().transpose(0, 1).flatten(1), labels[image].transpose(0, 1).flatten(1)
            if mode == "multiclass":
                p, ids = x.softmax(0)[:, y[0] != 255], y[0][y[0] != 255]
                losses = [extension(((ids == c).double() - p[c]).abs(), ids == c) for c in range(len(p)) if (ids == c).any()]
                terms += [sum(losses) / len(losses)] if losses else []
                continue
            for scores, truth in zip(x, y, strict=True):
                scores, truth = scores[truth != 255], truth[truth != 255] == 1
                if len(truth):
                    terms.append(extension((1 - torch.where(truth, scores, -scores)).relu(), truth))
        return sum(terms) / len(terms)

    return loss


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_image", [False, True])
def test_the_formula(mode, per_image):
    logits, target = sample(mode)
    loss = LovaszLoss(mode, per_image, ignore_index=255)
    torch.testing.assert_close(gradient(loss, logits, target), gradient(plain(mode, per_image), logits, target), check_dtype=False)


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("ignore", [None, 255])
def test_smp_parity(mode, per_image, ignore):
    logits, target = sample(mode)
    if ignore is None:
        target = target.masked_fill(target == 255, 0)
    smp = SMPLovaszLoss(mode, per_image, ignore)
    torch.testing.assert_close(gradient(LovaszLoss(mode, per_image, ignore), logits, target), gradient(smp, logits, target))


def test_multilabel_is_the_mean_of_its_classes():
    logits, target = sample("multilabel")
    classes = [LovaszLoss("binary", ignore_index=255)(logits[:, c : c + 1], target[:, c]) for c in range(3)]
    ours = LovaszLoss("multilabel", ignore_index=255)(logits, target)
    torch.testing.assert_close(ours, torch.stack(classes).mean())
    assert not torch.isclose(ours, SMPLovaszLoss("multilabel", ignore_index=255)(logits, target))  # sorts them as one


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("junk", [float("inf"), float("-inf"), float("nan")])
def test_what_lies_beneath_the_mask_is_never_read(mode, per_image, junk):
    logits, target = sample(mode)
    mask = (target == 255).unsqueeze(1).expand_as(logits) if mode == "multiclass" else target == 255
    loss = LovaszLoss(mode, per_image, ignore_index=255)
    clean, dirty = gradient(loss, logits, target), gradient(loss, logits.masked_fill(mask, junk), target)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[1][mask].eq(0).all()
    value, grad = gradient(loss, torch.full_like(logits, junk), torch.full_like(target, 255))
    assert value == 0
    assert value.shape == ()
    assert grad.eq(0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_image", [False, True])
def test_an_image_without_labels_changes_nothing(mode, per_image):
    logits, target = sample(mode)
    more = torch.cat([logits, logits]), torch.cat([target, torch.full_like(target, 255)])
    loss = LovaszLoss(mode, per_image, ignore_index=255)
    torch.testing.assert_close(loss(*more), loss(logits, target))


def test_what_a_mistake_adds_has_all_digits_among_a_million_pixels():
    generator = torch.Generator().manual_seed(0)
    errors, truth = torch.linspace(1, 0, 2**20).reshape(1, 1, -1), torch.rand((1, 1, 2**20), generator=generator) < 0.1
    _, grad = gradient(lambda worst, labels: jaccard(worst, labels).sum(), errors, truth)
    found = truth.double().cumsum(2)
    loss = 1 - (truth.sum() - found) / (truth.sum() + (~truth).double().cumsum(2))
    torch.testing.assert_close(grad.double(), loss.diff(dim=2, prepend=torch.zeros(1, 1, 1).double()), rtol=1e-6, atol=1e-14)


def test_an_empty_mask_punishes_the_worst_false_positive():
    logits, empty = torch.tensor([[[[2.0, -3.0], [0.0, 1.0]]]]), torch.zeros(1, 2, 2).long()
    value, grad = gradient(LovaszLoss("binary"), logits, empty)
    assert value == 3
    assert grad.flatten().tolist() == [1, 0, 0, 0]
    assert LovaszLoss("binary")(torch.full_like(logits, -5.0), empty) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_other_precisions(dtype, mode):
    logits, target = sample(mode)
    value, grad = gradient(LovaszLoss(mode, ignore_index=255), logits.to(dtype), target)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(value, LovaszLoss(mode, ignore_index=255)(logits.to(dtype).float(), target))


def test_arguments_and_repr():
    with pytest.raises(ValueError, match="per_image"):
        LovaszLoss("binary", per_image=1)
    with pytest.raises(ValueError, match="mode='both'"):
        LovaszLoss("both")
    assert "mode='binary', per_image=True, ignore_index=7" in repr(LovaszLoss("binary", True, 7))


def test_importing_it_does_not_import_smp():
    code = "import sys, segfocal.losses.lovasz; assert 'segmentation_models_pytorch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
