"""The generated data is the same everywhere, is labelled as promised and cannot be guessed."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.data.synthetic import EMPTY, IGNORE, make_sample

MODES = list(SYNTHETIC_CLASSES)
COUNT = 250  # samples that shares are measured on


def digest(mode, seed, index, size):
    image, mask = make_sample(mode, seed, index, size)
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def samples():
    """A data set a mode: the images and masks, stacked."""
    made = {mode: [make_sample(mode, seed=7, index=k, size=128) for k in range(COUNT)] for mode in MODES}
    return {mode: tuple(np.stack(part) for part in zip(*pairs, strict=True)) for mode, pairs in made.items()}


@given(mode=st.sampled_from(MODES), seed=st.integers(0, 2**40), index=st.integers(0, 2**40), size=st.integers(32, 80))
@settings(max_examples=60, deadline=None)
def test_any_sample_is_well_formed_and_repeatable(mode, seed, index, size):
    image, mask = make_sample(mode, seed, index, size)
    classes = len(SYNTHETIC_CLASSES[mode])
    assert image.shape == (size, size, 3)
    assert image.dtype == mask.dtype == np.uint8
    assert mask.shape == ((size, size, classes) if mode == "multilabel" else (size, size))
    assert set(np.unique(mask)) <= ({*range(classes), IGNORE} if mode == "multiclass" else {0, 1})
    np.random.default_rng().random()  # another generator's state plays no part
    assert digest(mode, seed, index, size) == hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


def test_another_process_makes_the_same():
    wanted = [(mode, 3, index, 64) for mode in MODES for index in (5, 0)]
    code = f"""
import hashlib
from segfocal.data.synthetic import make_sample
for arguments in {wanted!r}:
    image, mask = make_sample(*arguments)
    print(hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest())
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == [digest(*arguments) for arguments in wanted]


def test_torch_is_not_needed():
    code = "import sys, segfocal.data.synthetic; assert not {'torch', 'albumentations'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_argument_counts():
    digests = {digest(*arguments) for arguments in [("binary", 0, 0, 64), ("binary", 1, 0, 64), ("binary", 0, 1, 64), ("binary", 1, 1, 64)]}
    assert len(digests) == 4
    assert make_sample("binary", 0, 0, 64)[0].tobytes() != make_sample("multilabel", 0, 0, 64)[0].tobytes()


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_cracks_are_one_to_two_percent(samples, mode):
    crack = samples[mode][1].reshape(COUNT, 128, 128, -1)[..., 0]
    assert 0.01 < crack.mean() < 0.02
    assert abs((crack.sum(axis=(1, 2)) == 0).mean() - EMPTY) < 0.06


@pytest.mark.parametrize("size", [64, 256])
def test_cracks_are_as_rare_at_other_sizes(size):
    share = np.mean([make_sample("binary", 2, k, size)[1].mean() for k in range(120 if size == 64 else 40)])
    assert 0.01 < share < 0.02


def test_pores_are_below_half_a_percent_and_every_class_is_there(samples):
    labels = samples["multiclass"][1]
    shares = {name: (labels == k).mean() for k, name in enumerate(SYNTHETIC_CLASSES["multiclass"])}
    assert 0.001 < shares["pore"] < 0.005
    assert all(shares[name] > 0.01 for name in ("background", "panel", "weld", "rust"))
    assert abs((labels == 4).any(axis=(1, 2)).mean() - (1 - EMPTY)) < 0.06


def test_regions_are_parted_by_an_ignored_border(samples):
    labels = samples["multiclass"][1].astype(int)
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[:, :, 1:], labels[:, :, :-1]), (labels[:, 1:, 1:], labels[:, :-1, :-1])):
        assert not np.any((a != b) & (a != IGNORE) & (b != IGNORE))
    plate = make_sample("multiclass", 7, 0, 128)[1]
    assert 0.03 < (plate == IGNORE).mean() < 0.25  # a border, not the picture


def test_labels_overlap(samples):
    masks = samples["multilabel"][1]
    shares = masks.mean(axis=(0, 1, 2))
    assert all(shares > 0.01)
    crack, stain, lane = np.moveaxis(masks, -1, 0).astype(bool)
    assert (crack & stain).any()
    assert (crack & lane).any()


def test_what_is_labelled_is_what_was_drawn(samples):
    """Cracks and pores are darker than what surrounds them, in nearly every picture."""
    for mode, rare, around in (("binary", 1, 0), ("multiclass", 4, 2)):
        images, masks = samples[mode]
        grey = images.mean(axis=-1)
        differences = [g[m == around].mean() - g[m == rare].mean() for g, m in zip(grey, masks, strict=True) if (m == rare).any()]
        assert np.mean(np.array(differences) > 15) > 0.97


def test_darkness_alone_does_not_find_cracks(samples):
    """Joints, spots, stains and shadows are dark as well: no threshold on the grey value comes near."""
    images, masks = samples["binary"]
    grey = images.mean(axis=-1)
    ious = [((grey < t) & (masks == 1)).sum() / ((grey < t) | (masks == 1)).sum() for t in range(20, 120, 5)]
    assert max(ious) < 0.4
    assert (masks == 1).mean() < 0.02  # the IoU of calling everything a crack


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("semantic", 0, 0, 64), "mode='semantic': choose from binary, multiclass, multilabel"),
        (("binary", -1, 0, 64), "seed=-1"),
        (("binary", 0, -1, 64), "index=-1"),
        (("binary", 0, 0, 31), "size=31"),
    ],
)
def test_arguments_out_of_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        make_sample(*arguments)
