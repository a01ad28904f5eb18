"""What the losses take for a target, and what they say about the rest."""

from __future__ import annotations

import pytest
import torch

from segfocal.losses import CrossEntropyLoss, DiceLoss, FocalLoss
from segfocal.losses.targets import align

LOSSES = [FocalLoss, CrossEntropyLoss, DiceLoss]


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.float32, torch.float64]
)
def test_any_dtype_that_holds_whole_labels(dtype):
    target = torch.tensor([[[0, 2, 255, 1]]]).to(dtype)
    labels = align("multiclass", torch.zeros(1, 3, 1, 4), target, 255).check()
    assert labels.target_NKHW.dtype == torch.int64
    assert labels.target_NKHW.tolist() == [[[[0, 2, 0, 1]]]]
    assert labels.valid_NKHW.tolist() == [[[[True, True, False, True]]]]


@pytest.mark.parametrize("loss", LOSSES)
def test_masks_of_two_bytes_as_pngs_have_them(loss):
    logits, target = torch.randn(1, 3, 1, 4), torch.tensor([[[0, 2, 65535, 1]]])
    module = loss("multiclass", ignore_index=65535)
    assert module(logits, target.to(torch.uint16)) == module(logits, target)
    with pytest.raises(ValueError, match="the target holds 65535;"):
        loss("multiclass", ignore_index=-1)(logits, target.to(torch.uint16))  # compared modulo 65536 it would be ignored


def test_bool_masks():
    labels = align("binary", torch.zeros(1, 1, 1, 2), torch.tensor([[[True, False]]]), 255)
    assert labels.target_NKHW.tolist() == [[[[1, 0]]]]


def test_multilabel_ignores_each_class_on_its_own():
    target = torch.tensor([[[[1, 255]], [[255, 0]]]])
    assert align("multilabel", torch.zeros(1, 2, 1, 2), target, 255).valid_NKHW.tolist() == [[[[True, False]], [[False, True]]]]


def test_a_class_may_be_ignored():
    labels = align("multiclass", torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), 0)
    assert labels.valid_NKHW.tolist() == [[[[False, True]]]]


def test_no_images():
    assert align("binary", torch.zeros(0, 1, 2, 2), torch.zeros(0, 2, 2).long(), 255).valid_NKHW.shape == (0, 1, 2, 2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("mode", "logits", "target", "fitting"),
    [
        ("binary", (2, 1, 4, 5), (2, 5, 4), r"\(2, 4, 5\) or \(2, 1, 4, 5\)"),
        ("binary", (2, 1, 4, 5), (2, 2, 4, 5), r"\(2, 4, 5\) or \(2, 1, 4, 5\)"),
        ("binary", (2, 3, 4, 5), (2, 3, 4, 5), "one channel"),
        ("binary", (2, 4, 5), (2, 4, 5), "one channel"),
        ("multiclass", (2, 3, 4, 5), (2, 2, 4, 5), r"\(2, 4, 5\) or \(2, 1, 4, 5\)"),
        ("multiclass", (2, 1, 4, 5), (2, 4, 5), "two channels or more"),
        ("multilabel", (2, 3, 4, 5), (2, 4, 5), r"target of \(2, 3, 4, 5\);"),
        ("multilabel", (2,), (2,), r"\(N, C, H, W\)"),
    ],
)
def test_shapes_that_do_not_go_together_are_both_named(loss, mode, logits, target, fitting):
    with pytest.raises(ValueError, match=fitting) as error:
        loss(mode)(torch.zeros(logits), torch.zeros(target).long())
    assert str(logits) in str(error.value)
    assert str(target) in str(error.value)


@pytest.mark.parametrize("loss", LOSSES)
def test_integer_logits(loss):
    with pytest.raises(ValueError, match=r"logits must be floating point.*torch.int64"):
        loss("binary")(torch.zeros(1, 1, 2, 2).long(), torch.zeros(1, 2, 2).long())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("mode", "labels", "found"),
    [
        ("binary", [0.0, 2.0], "holds 2; mode=binary takes (numbers from )?0 to 1"),
        ("binary", [0.0, -1.0], "holds -1; "),
        ("binary", [1.5, 1.0], r"holds 1\.5; "),
        ("binary", [float("nan"), 1.0], "holds nan; "),
        ("multiclass", [0, 3], "holds 3; mode=multiclass takes 0 to 2 here, and ignore_index=255"),
        ("multiclass", [-100, 7], "holds -100, 7; "),
    ],
)
def test_labels_out_of_range_are_named(loss, mode, labels, found):
    logits = torch.zeros(1, 1 if mode == "binary" else 3, 1, 2)
    with pytest.raises(ValueError, match=found):
        loss(mode, ignore_index=255)(logits, torch.tensor([[labels]]))


def test_many_wrong_labels_are_not_all_listed():
    with pytest.raises(ValueError, match=r"holds 3, 4, 5, 6, 7, \.\.\.; .*no ignore_index is set"):
        align("multiclass", torch.zeros(1, 3, 1, 20), torch.arange(20).reshape(1, 1, 20), None).check()
