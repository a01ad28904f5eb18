"""What the training split decides, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from segfocal.checkpoint import check_same_model
from segfocal.config.run import TrainConfig
from segfocal.config.sampling import RareClassConfig, UniformConfig
from segfocal.config.task import TaskConfig
from segfocal.data.measure import SampleStats, measure
from segfocal.data.sampling import class_chances
from segfocal.data.stats import SplitStats
from segfocal.errors import UserError
from segfocal.recipe import _line, kept, settled, steps_of
from tests.test_training import configured

AUTO = ["sampling=auto", "augment=auto", "callbacks.ema=auto"]
EIGHT = "data.batch_size=8"


def split(config: TrainConfig, masks: list[np.ndarray], total: int | None = None) -> SplitStats:
    samples: list[SampleStats] = [measure(np.zeros((*mask.shape[:2], 3), np.uint8), mask, config.task) for mask in masks]
    return SplitStats(samples, total=total)


def blobs(images: int = 12, top: int = 0, bottom: int = 64, size: int = 6, label: int = 1) -> list[np.ndarray]:
    """A square in each mask, somewhere between two rows."""
    rng = np.random.default_rng(0)
    masks = np.zeros((images, 64, 64), np.uint8)
    for mask, row in zip(masks, np.linspace(top, bottom - size, images).round().astype(int), strict=True):
        column = rng.integers(0, 64 - size)
        mask[row : row + size, column : column + size] = label
    return list(masks)


def test_what_is_rare_is_aimed_at() -> None:
    config = configured("task=binary", "data.crop=[32,32]", *AUTO, EIGHT)
    train = split(config, blobs(size=4))
    chosen, lines = settled(config, train, 1)
    assert chosen.sampling == RareClassConfig()
    assert lines[0] == "sampling=rare_class: crops that are cut around what is rare: crack 50%"
    often, lines = settled(config, split(config, blobs(size=30)), 1)
    assert often.sampling == UniformConfig()
    assert lines[0] == "sampling=uniform: no class has less than 5% of the pixels"


def test_the_rarest_class_is_named_first_and_the_background_is_none() -> None:
    config = configured("task=multiclass", *AUTO, EIGHT)
    masks = blobs(size=8, label=1)
    for mask in masks:
        mask[:3, :3] = 4
        mask[-30:, :50] = 2
    train = split(config, masks)
    chosen, lines = settled(config, train, 1)
    assert isinstance(chosen.sampling, RareClassConfig)
    chances = class_chances(train, chosen.sampling.temperature, 0.5 * train.total) * 0.5
    assert lines[0] == f"sampling=rare_class: crops that are cut around what is rare: pore {chances[4]:.0%}, panel {chances[1]:.0%}"


def test_a_first_class_that_is_rare_is_aimed_at_too() -> None:
    """Classes without a background among them: the first is one like the others."""
    config = configured("task=multiclass", "data=folder", "data.root=/x", "task.classes=[crack,road]", *AUTO, EIGHT)
    chosen, lines = settled(config, split(config, [1 - mask for mask in blobs(size=6)]), 1)
    assert isinstance(chosen.sampling, RareClassConfig)
    assert lines[0] == "sampling=rare_class: crops that are cut around what is rare: crack 50%"


def test_of_samples_that_nobody_has_measured_every_one_is_shown_once() -> None:
    config = configured("task=binary", *AUTO, EIGHT)
    chosen, lines = settled(config, split(config, blobs(size=4), total=1000), 1)
    assert chosen.sampling == UniformConfig() and lines[0] == "sampling=uniform: not every sample was measured"


@pytest.mark.parametrize(
    ("weights", "scale", "reason"),
    [("null", 1.0, "no weights that were trained before"), ("imagenet", 0.3, "model.weights=imagenet are to be changed less")],
)
def test_pretrained_weights_are_changed_less(weights: str, scale: float, reason: str) -> None:
    config = configured(f"model.weights={weights}", *AUTO, EIGHT)
    chosen, lines = settled(config, split(config, blobs()), 1)
    assert chosen.optimizer.encoder_lr_scale == scale
    assert f"optimizer.encoder_lr_scale={scale:g}: {reason}" in lines
    said = configured(f"model.weights={weights}", "optimizer.encoder_lr_scale=0.5", *AUTO, EIGHT)
    assert settled(said, split(said, blobs()), 1)[0].optimizer.encoder_lr_scale == 0.5


@pytest.mark.parametrize(
    ("masks", "turned", "reason"),
    [
        (blobs(), (0.5, 0.75), "no class keeps to the upper or the lower part of the pictures"),
        (blobs(top=42), (0.0, 0.0), "pictures have an upright direction: crack lies at 83% of the height"),
        (blobs(bottom=22), (0.0, 0.0), "pictures have an upright direction: crack lies at 18% of the height"),
        (blobs(images=7), (0.0, 0.0), "too few pictures to tell whether they have an upright direction"),
    ],
    ids=["anywhere", "low", "high", "few"],
)
def test_pictures_without_an_upright_direction_are_turned(masks: list[np.ndarray], turned: tuple[float, float], reason: str) -> None:
    config = configured("task=binary", "data.crop=[32,32]", *AUTO, EIGHT)
    chosen, lines = settled(config, split(config, masks), 1)
    assert (chosen.augment.vflip, chosen.augment.rotate90) == turned
    assert lines[1:3] == [f"augment.vflip={turned[0]:g}: {reason}", f"augment.rotate90={turned[1]:g}: {reason}"]


def test_a_class_that_is_off_the_middle_by_chance_says_nothing() -> None:
    """Half of it at the top and a little more than half of it at the bottom: a tenth off, within what so few images vary by."""
    config = configured("task=binary", "data.crop=[32,32]", *AUTO, EIGHT)
    train = split(config, [*blobs(images=6, bottom=12), *blobs(images=10, top=52)])
    assert settled(config, train, 1)[0].augment.vflip == 0.5


@pytest.mark.parametrize("crop", ["null", "[32,64]"])
def test_what_is_not_square_is_not_turned_by_quarters(crop: str) -> None:
    config = configured("task=binary", f"data.crop={crop}", *AUTO)
    chosen, _ = settled(config, split(config, blobs()), 1)
    assert (chosen.augment.vflip, chosen.augment.rotate90) == (0.5, 0.0)


@pytest.mark.parametrize(("steps", "decay"), [(10, 0.5), (1000, 0.95), (20_000, 0.9975), (10**6, 0.999)])
def test_weights_are_averaged_over_a_share_of_the_training(steps: int, decay: float) -> None:
    config = configured("task=binary", *AUTO, "trainer.max_epochs=1", "data.batch_size=1")
    assert settled(config, split(config, blobs(), total=steps), 1)[0].callbacks.ema == pytest.approx(decay)


def test_steps_are_counted_as_lightning_counts_them() -> None:
    config = configured("trainer.max_epochs=3", "trainer.accumulate=2")
    assert steps_of(config, 21, 4, 1) == 3 * 3  # five batches: two steps of two, and one of what is left
    assert steps_of(config, 21, 4, 2) == 3 * 1
    assert steps_of(config, 2, 4, 1) == 3


@pytest.mark.parametrize(
    ("samples", "world", "size", "reason"),
    [
        (1599, 1, 4, "by 8 there would be 1990 steps, 2000 are better"),
        (1600, 1, 8, "by 8 there would be 2000 steps, 2000 are enough"),
        (1600, 2, 4, "by 8 there would be 1000 steps, 2000 are better"),
    ],
)
def test_batches_are_smaller_where_there_would_be_few_steps(samples: int, world: int, size: int, reason: str) -> None:
    config = configured("task=binary", "trainer.max_epochs=10", *AUTO)
    chosen, lines = settled(config, split(config, blobs(), total=samples), world)
    assert chosen.data.batch_size == size
    assert lines[0] == f"data.batch_size={size}: {reason}"


@pytest.mark.parametrize(("loss", "prior"), [("focal", True), ("dice", False)])
def test_the_head_starts_at_the_frequencies_where_the_loss_wants_it(loss: str, prior: bool) -> None:
    config = configured(f"loss={loss}", *AUTO)
    assert settled(config, split(config, blobs()), 1)[0].model.bias_prior is prior


def test_what_is_said_is_left_as_it_is() -> None:
    said = [
        EIGHT,
        "sampling=uniform",
        "augment=light",
        "optimizer.encoder_lr_scale=1",
        "callbacks.ema=0.9",
        "model.bias_prior=false",
        "loss=ce",
        "loss.class_weights=[2.0]",
    ]
    config = configured("task=binary", *said)
    assert settled(config, split(config, blobs(top=40)), 1) == (config, [])


def test_words_for_class_weights_become_numbers() -> None:
    config = configured(
        "task=binary",
        "loss=ce",
        "loss.class_weights=inverse",
        "model.bias_prior=true",
        "sampling=uniform",
        "augment=none",
        "callbacks.ema=null",
        "optimizer.encoder_lr_scale=1",
        EIGHT,
    )
    train = split(config, blobs())
    chosen, lines = settled(config, train, 1)
    share = train.prior[0]
    assert chosen.loss.class_weights == pytest.approx([(1 - share) / share])  # type: ignore[attr-defined]  # of cross-entropy
    assert dataclasses.replace(chosen, loss=config.loss) == config
    assert lines == [f"loss.class_weights=inverse from the training data: crack {(1 - share) / share:.4g}"]


def test_a_number_that_is_not_one_for_each_class_is_told_without_their_names() -> None:
    """As a loss of somebody's own may take it from the data."""
    task = TaskConfig(name="multiclass", classes=["a", "b", "c"])
    assert _line("rate", "auto", 0.25, task) == "loss.rate=auto from the training data: 0.25"
    assert _line("rate", "auto", [1.0, 2.0, 3.0], task) == "loss.rate=auto from the training data: a 1, b 2, c 3"


@pytest.mark.parametrize(
    ("task", "meant"), [("binary", "sqrt_inverse"), ("multilabel", "sqrt_inverse"), ("multiclass", "median_frequency")]
)
def test_which_formula_auto_means(task: str, meant: str) -> None:
    auto, named = (configured(f"task={task}", f"loss.terms.ce.class_weights={word}") for word in ("auto", meant))
    masks = blobs()
    if task == "multilabel":
        masks = [np.stack([mask, np.roll(mask, 9, 0), mask * 0], 2) for mask in masks]
    assert settled(auto, split(auto, masks), 1)[0].loss == settled(named, split(named, masks), 1)[0].loss


@pytest.mark.parametrize(("task", "weight"), [("binary", 1.0), ("multilabel", 1.0), ("multiclass", 2.0)])
def test_dice_counts_for_more_where_classes_exclude_each_other(task: str, weight: float) -> None:
    masks = [np.stack([mask, mask * 0, mask * 0], 2) for mask in blobs()] if task == "multilabel" else blobs()
    auto, said = (configured(f"task={task}", *words) for words in ([], ["loss.weights.dice=0.25"]))
    chosen, lines = settled(auto, split(auto, masks), 1)
    assert chosen.loss.weights == {"ce": 1.0, "dice": weight}  # type: ignore[attr-defined]  # of a sum
    assert [line.split(": ")[0] for line in lines if "dice" in line] == [f"loss.weights.dice={weight}"]
    chosen, lines = settled(said, split(said, masks), 1)
    assert chosen.loss.weights == {"ce": 1.0, "dice": 0.25}  # type: ignore[attr-defined]  # of a sum
    assert not [line for line in lines if "dice" in line]


def test_a_run_that_goes_on_keeps_what_it_has_chosen() -> None:
    begun, _ = settled(configured("task=binary", *AUTO), split(configured("task=binary"), blobs(size=4)), 1)
    stored = dataclasses.asdict(begun)
    longer = configured("task=binary", *AUTO, "trainer.max_epochs=100000")
    assert settled(longer, split(longer, blobs(size=30)), 1)[0].data.batch_size == 8
    going = kept(longer, stored)
    assert going == dataclasses.replace(begun, trainer=longer.trainer)
    assert settled(going, split(longer, blobs(size=30)), 1) == (going, [])
    other = configured("task=binary", *AUTO, "loss=ce", "loss.class_weights=auto")
    assert kept(other, stored).loss == other.loss
    said = configured(
        "task=binary",
        "data.batch_size=2",
        "sampling=uniform",
        "augment=light",
        "optimizer.encoder_lr_scale=0.5",
        "callbacks.ema=null",
        "model.bias_prior=false",
        "loss.terms.ce.class_weights=null",
        "loss.weights.dice=3",
    )
    assert kept(said, stored) == said


def test_a_run_that_goes_on_takes_numbers_for_words_alone() -> None:
    """What was switched off before is no number for the word that is said now."""
    off, on = (configured("task=binary", *AUTO, *said) for said in (["loss.terms.ce.class_weights=null"], []))
    stored = dataclasses.asdict(settled(off, split(off, blobs()), 1)[0])
    assert kept(on, stored).loss.terms["ce"].class_weights == "auto"  # type: ignore[attr-defined]  # of a sum
    words = configured("task=binary", *AUTO, "loss=logit_adjusted_ce")
    begun, _ = settled(words, split(words, blobs()), 1)
    assert isinstance(begun.loss.prior, list)  # type: ignore[attr-defined]  # of logit-adjusted cross-entropy
    assert kept(words, dataclasses.asdict(begun)).loss == begun.loss
    switch = configured("task=binary", *AUTO, "loss=focal", "loss.normalized=smp")
    off = dataclasses.asdict(configured("task=binary", *AUTO, "loss=focal", "loss.normalized=false"))
    assert kept(switch, {**stored, "loss": off["loss"]}).loss == switch.loss


@pytest.mark.parametrize(
    ("group", "value"),
    [
        ("data", {}),
        ("data", {"batch_size": "x"}),
        ("sampling", {"name": "evil"}),
        ("sampling", []),
        ("callbacks", {"ema": 7}),
        ("optimizer", {"name": "adamw", "encoder_lr_scale": -1}),
        ("augment", None),
        ("loss", None),
        ("model", {"bias_prior": "x"}),
    ],
)
def test_what_a_checkpoint_says_of_its_choices_is_looked_at(group: str, value: object) -> None:
    config = configured("task=binary", *AUTO)
    stored = dataclasses.asdict(settled(config, split(config, blobs()), 1)[0]) | {group: value}
    with pytest.raises((KeyError, TypeError, ValueError)):
        kept(config, stored)


@pytest.mark.parametrize(("key", "value"), [("class_weights", ["x"]), ("class_weights", [-1.0]), ("dice", -2.0), ("dice", [])])
def test_the_numbers_of_a_loss_are_looked_at_too(key: str, value: object) -> None:
    config = configured("task=binary", *AUTO)
    stored = dataclasses.asdict(settled(config, split(config, blobs()), 1)[0])
    (stored["loss"]["weights"] if key == "dice" else stored["loss"]["terms"]["ce"])[key] = value
    with pytest.raises((KeyError, TypeError, ValueError)):
        kept(config, stored)


def test_what_is_left_to_the_recipe_goes_on_and_another_rate_of_the_encoder_does_not() -> None:
    config = configured("task=binary", "model.weights=imagenet", *AUTO)
    begun, _ = settled(config, split(config, blobs()), 1)
    content = {"optimizer_states": [{}], "segfocal": {"config": dataclasses.asdict(begun)}}
    check_same_model(content, dataclasses.asdict(config), Path("last.ckpt"))
    content["segfocal"]["config"]["data"] = {"name": "folder", "root": "/photos"}
    with pytest.raises(
        UserError, match="^ckpt=last.ckpt: is of a run on data=folder data.root=/photos, and here no data is named: give the"
    ):
        check_same_model(content, dataclasses.asdict(config), Path("last.ckpt"))
    content["segfocal"]["config"]["data"] = dataclasses.asdict(begun)["data"]
    other = configured("task=binary", "model.weights=imagenet", "optimizer.encoder_lr_scale=1", *AUTO)
    with pytest.raises(UserError, match=r"cannot be gone on from with optimizer.encoder_lr_scale=1.0 \(the checkpoint: 0.3\)$"):
        check_same_model(content, dataclasses.asdict(other), Path("last.ckpt"))
