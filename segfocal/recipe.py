"""What the training split decides where nobody else has: options that say `auto`, and class weights that are said by a word.

Each choice is told with its reason; the configuration that is kept with a run has the values.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from segfocal.config.loss import LossConfig
from segfocal.config.loss_sum import balanced
from segfocal.config.run import TrainConfig
from segfocal.config.sampling import SAMPLING, AutoConfig, RareClassConfig, SamplingConfig, UniformConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import BATCH
from segfocal.data.faults import counted
from segfocal.data.sampling import class_chances
from segfocal.data.stats import SplitStats

RARE = 0.05  # of the pixels: a class below it is rare
OFF_CENTRE = 0.1  # of the height: where pictures have an upright direction, a class lies at least so far from the middle
FEW = 8  # images, of which nothing is concluded
SURE = 3  # standard errors
MANY = 2000  # steps of the optimiser, of which it is no matter that each sees more crops
GENTLY = 0.3  # of the learning rate, for an encoder whose weights have been trained before
SPAN = 0.02  # of all steps, over which weights are averaged
LONGEST = 1000  # steps of it

EITHER_WAY_UP = "no class keeps to the upper or the lower part of the pictures"

LEFT: dict[str, Any] = {
    "data.batch_size": None,
    "sampling": AutoConfig(),
    "augment.vflip": "auto",
    "augment.rotate90": "auto",
    "model.bias_prior": None,
    "optimizer.encoder_lr_scale": "auto",
    "callbacks.ema": "auto",
}
"""What leaves an option to the training data."""


@dataclass(frozen=True)
class Choice:
    """
    Args:
        key: of the configuration, as it is said on the command line.
        value: what is taken for it.
        reason: for the log.
    """

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        plain = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value).lower()
        return f"{self.key}={getattr(self.value, 'name', plain)}: {self.reason}"


def settled(config: TrainConfig, train: SplitStats, world: int) -> tuple[TrainConfig, list[str]]:
    """The configuration with values where it leaves them to the training data, and a line for each.

    Args:
        config: of the run.
        train: of its training split.
        world: how many processes train.
    """
    lines = []
    for choice in choices(config, train, world):
        config = _with(config, choice.key.split("."), choice.value)
        lines.append(str(choice))
    config, weights = _balance(config, train)
    return config, lines + weights


def kept(config: TrainConfig, stored: dict[str, Any]) -> TrainConfig:
    """The configuration with what a run has chosen when it began: more images or epochs would make it choose anew.

    Args:
        config: of the run that goes on.
        stored: the configuration in its checkpoint.

    Raises:
        KeyError, TypeError, ValueError: that is no such configuration.
    """
    for key, left in LEFT.items():
        keys = key.split(".")
        if functools.reduce(getattr, keys, config) == left:
            value = functools.reduce(lambda tree, name: tree[name], keys, stored)
            config = _with(config, keys, SAMPLING.validate(value) if key == "sampling" else value)
    return dataclasses.replace(config, loss=_with_numbers(config.loss, stored["loss"]))


def _with_numbers(loss: LossConfig, stored: dict[str, Any]) -> LossConfig:
    """A loss with the numbers that a run has taken for its words, where it is the same loss and words were said for them."""
    said, numbers = _flat(dataclasses.asdict(loss)), _flat(dict(stored))
    if said.keys() != numbers.keys() or any(said[key] != numbers[key] for key in said if key.split(".")[-1] == "name"):
        return loss
    for key, word in said.items():
        if isinstance(word, str) and isinstance(numbers[key], int | float | list) and not isinstance(numbers[key], bool):
            loss = _with(loss, key.split("."), numbers[key])
    return loss


def steps_of(config: TrainConfig, samples: int, batch_size: int, world: int) -> int:
    """Steps of the optimiser in all.

    Args:
        config: of the run.
        samples: of the training split.
        batch_size: of each process.
        world: how many processes train.
    """
    batches = max(1, samples // batch_size // world)
    return config.trainer.max_epochs * -(-batches // config.trainer.accumulate)


def batch_size(config: TrainConfig, samples: int, world: int) -> int:
    """What is said, or half of the usual where that would make few steps."""
    usual = BATCH if steps_of(config, samples, BATCH, world) >= MANY else BATCH // 2
    return config.data.batch_size or usual


def choices(config: TrainConfig, train: SplitStats, world: int) -> list[Choice]:
    """What is chosen, in the order of the configuration."""
    found = []
    size = batch_size(config, train.total, world)
    if config.data.batch_size is None:
        steps, enough = steps_of(config, train.total, BATCH, world), "enough" if size == BATCH else "better"
        found.append(Choice("data.batch_size", size, f"by {BATCH} there would be {counted(steps, 'step', 'steps')}, {MANY} are {enough}"))
    steps = steps_of(config, train.total, size, world)
    if isinstance(config.sampling, AutoConfig):
        found.append(Choice("sampling", *_sampling(train, config.task)))
    found += _turns(config, train)
    if config.model.bias_prior is None:
        wanted = bool(getattr(config.loss, "wants_prior", False))
        reason = "the head starts at the frequencies of the classes" if wanted else f"loss={config.loss.name} has no use for it"
        found.append(Choice("model.bias_prior", wanted, reason))
    if config.optimizer.encoder_lr_scale == "auto":
        scale = 1.0 if config.model.weights is None else GENTLY
        reason = "no weights that were trained before" if scale == 1 else f"model.weights={config.model.weights} are to be changed less"
        found.append(Choice("optimizer.encoder_lr_scale", scale, reason))
    if config.callbacks.ema == "auto":
        span = min(max(SPAN * steps, 2.0), LONGEST)
        found.append(Choice("callbacks.ema", 1 - 1 / span, f"weights are averaged over the last {span:.0f} of {steps} steps"))
    return found


def _sampling(train: SplitStats, task: TaskConfig) -> tuple[SamplingConfig, str]:
    """Which samples an epoch shows."""
    if not train.whole:
        return UniformConfig(), "not every sample was measured"
    rare = [label for label in range(len(train.prior)) if train.positives[label] > 0 and train.prior[label] < RARE]
    if not rare:
        return UniformConfig(), f"no class has less than {RARE:.0%} of the pixels"
    config = RareClassConfig()
    chances = class_chances(train, config.temperature, config.share * train.total)
    most = sorted(rare, key=lambda label: -chances[label])[:3]
    named = ", ".join(f"{task.class_names[label]} {config.share * chances[label]:.0%}" for label in most)
    return config, f"crops that are cut around what is rare: {named}"


def _turns(config: TrainConfig, train: SplitStats) -> list[Choice]:
    """Mirror images upside down and quarter turns."""
    upright = _upright(train, config.task)
    crop = config.data.crop
    found = []
    if config.augment.vflip == "auto":
        found.append(Choice("augment.vflip", 0.0 if upright else 0.5, upright or EITHER_WAY_UP))
    if config.augment.rotate90 == "auto":
        square = crop is not None and crop[0] == crop[1]
        reason = upright or (EITHER_WAY_UP if square else "training crops are not square")
        found.append(Choice("augment.rotate90", 0.75 if square and not upright else 0.0, reason))
    return found


def _upright(train: SplitStats, task: TaskConfig) -> str:
    """Why pictures are taken to have an upright direction; empty where they have none."""
    if train.images < FEW:
        return "too few pictures to tell whether they have an upright direction"
    height = np.array([size[0] for size in train.sizes])
    farthest = ("", 0.0, 0.5)
    for label, name in enumerate(task.class_names):
        rows = [
            (places[places[:, 0] == label, 1].mean() + 0.5) / high
            for places, high in zip(train.points, height, strict=True)
            if (places[:, 0] == label).any()
        ]
        if len(rows) >= FEW:
            distance = abs(float(np.mean(rows)) - 0.5)
            if distance > max(OFF_CENTRE, SURE * float(np.std(rows)) / len(rows) ** 0.5, farthest[1]):
                farthest = (name, distance, float(np.mean(rows)))
    return f"pictures have an upright direction: {farthest[0]} lies at {farthest[2]:.0%} of the height" if farthest[0] else ""


def _balance(config: TrainConfig, train: SplitStats) -> tuple[TrainConfig, list[str]]:
    """Numbers where the loss takes its weights from the training data."""
    resolved = dataclasses.replace(config, loss=balanced(config.loss, train.counts, config.task))
    before, after = _flat(dataclasses.asdict(config.loss)), _flat(dataclasses.asdict(resolved.loss))
    return resolved, [_line(key, before[key], value, config.task) for key, value in after.items() if value != before[key]]


def _line(key: str, said: str, value: list[float] | float, task: TaskConfig) -> str:
    """What became of a word."""
    if "weights." in key:  # of a term, not of the classes
        return f"loss.{key}={value}: " + (
            "classes exclude each other" if task.name == "multiclass" else "each class is decided on by itself"
        )
    numbers = value if isinstance(value, list) else [value]
    names = [f"{name} " for name in task.class_names] if len(numbers) == task.num_classes else [""] * len(numbers)
    named = ", ".join(f"{name}{number:.4g}" for name, number in zip(names, numbers, strict=True))
    return f"loss.{key}={said} from the training data: {named}"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _with(config: Any, keys: list[str], value: Any) -> Any:
    """A configuration, or a mapping of some, with one value changed."""
    first, *rest = keys
    if isinstance(config, dict):
        return {**config, first: _with(config[first], rest, value) if rest else value}
    return dataclasses.replace(config, **{first: _with(getattr(config, first), rest, value) if rest else value})
