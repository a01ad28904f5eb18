"""Which batches a step that is not finite has seen, and what is known of them: plain data that processes can tell each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segfocal.config.run import TrainConfig
from segfocal.data.splits import named

MOST = 16  # samples that are named
FAR = 1e4  # standard deviations: no pixel of a photograph is there


@dataclass(frozen=True)
class Seen:
    """A batch in training, as the device has it.

    Args:
        indices: of its samples.
        terms: names of the losses.
        fine: whether the loss, and BatchNorm's statistics after it, are finite.
        losses: one for each term.
        reach: the largest magnitude in each image.
    """

    indices: Tensor
    terms: list[str]
    fine: Tensor
    losses: Tensor
    reach: Tensor

    @property
    def values(self) -> Tensor:
        """All that the host is told, in one tensor; `culprit` reads it."""
        return torch.cat([self.fine.float()[None], self.losses, self.reach])

    def culprit(self, values: Sequence[float], names: Sequence[str]) -> Culprit:
        """In words.

        Args:
            values: of `values`.
            names: of all samples.
        """
        fine, losses, reach = values[0], values[1 : 1 + len(self.terms)], values[1 + len(self.terms) :]
        wrong = [f"the {name} is {value:g}" for name, value in zip(self.terms, losses, strict=True) if not math.isfinite(value)]
        if not fine and not wrong:
            wrong = ["BatchNorm's statistics are not finite"]
        samples = [names[index] for index in self.indices.tolist()]
        return Culprit(samples, " and ".join(wrong), far(samples, reach))


class Culprit(NamedTuple):
    """
    Args:
        names: of the samples.
        wrong: what is not finite; nothing where it is the gradient alone.
        far: images whose pixels are not finite, or far from all others, and how far.
    """

    names: list[str]
    wrong: str
    far: list[str]


@dataclass(frozen=True)
class Step:
    """A step of the optimiser whose values are on their way to the host.

    Args:
        epoch, number: which one, from 1.
        seen: its batches.
        values: whether it is not taken, the norm of its gradient, and what there is of each batch; on the CPU once that has `arrived`.
        arrived: None where it has.
    """

    epoch: int
    number: int
    seen: list[Seen]
    values: Tensor
    arrived: torch.Event | None

    @classmethod
    def sent(cls, epoch: int, number: int, seen: list[Seen], bad: Tensor, norm: Tensor) -> Step:
        """On its way; nobody waits for it."""
        values = torch.cat([bad.float()[None], norm[None], *(batch.values for batch in seen)]).to("cpu", non_blocking=True)
        arrived = None if norm.device.type == "cpu" else torch.Event(norm.device)
        if arrived is not None:
            arrived.record()
        return cls(epoch, number, seen, values, arrived)

    def wait(self) -> bool:
        """Until it has arrived; whether the step was not taken."""
        if self.arrived is not None and not self.arrived.query():
            self.arrived.synchronize()
        return bool(self.values[0])

    @property
    def norm(self) -> float:
        """Of the gradient, before it was clipped."""
        return float(self.values[1])

    def culprits(self, names: Sequence[str]) -> list[Culprit]:
        """The batches of this process, in words."""
        parts = torch.split(self.values[2:], [1 + len(batch.terms) + len(batch.indices) for batch in self.seen])
        return [batch.culprit(part.tolist(), names) for batch, part in zip(self.seen, parts, strict=True)]


def far(names: Sequence[str], reach: Sequence[float]) -> list[str]:
    """The images among these whose pixels are not where pixels are."""
    return [f"{name} holds {value:.3g}" for name, value in zip(names, reach, strict=True) if not value <= FAR]


def described(culprits: list[Culprit], norm: float = math.nan) -> str:
    """What is not finite, and the samples: those of the batches that are to blame, where that is known."""
    guilty = [batch for batch in culprits if batch.wrong] or culprits
    wrong = (
        ", ".join(dict.fromkeys(batch.wrong for batch in guilty if batch.wrong)) or f"the gradient is {norm:g}, though the loss is finite"
    )
    images = [image for batch in guilty for image in batch.far]
    inputs = f"of the normalised images {named(images)}" if images else "the images are finite"
    return f"{wrong}, for the samples {named([name for batch in guilty for name in batch.names], MOST)}; {inputs}"


def mend(culprits: list[Culprit], config: TrainConfig, precision: str) -> str:
    """What to do about it.

    Args:
        culprits: of the step.
        config: of the run.
        precision: that it computes in.
    """
    if any(batch.far for batch in culprits):
        return "look at these images: mend them or leave them out"
    clip = ", trainer.gradient_clip=1" if not config.trainer.gradient_clip else ""
    single = "" if precision == "32-true" else ", take trainer.precision=32-true"
    return f"lower optimizer.lr={config.optimizer.lr:g}{clip}{single}, or look at the options of loss={config.loss.name}"
