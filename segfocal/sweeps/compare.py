"""Jobs that differ only in their seed, together: mean, standard deviation, and whether the best is better than by chance."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from segfocal.sweeps.record import SEED, Job, Record, said_by, told_apart

MINIMISED = "val/loss"
MOST_EXACT = 30  # pairs; 2^15 sums for each half


@dataclass(frozen=True)
class Difference:
    """A group minus the one it is compared with, over the seeds that both have.

    Args:
        value: the mean of the differences.
        pairs: the number of common seeds.
        p: two-sided, of there being no difference; None for a single pair, which cannot tell.
        margin: to both sides, of the 95 % interval of the mean; None for a single pair.
    """

    value: float
    pairs: int
    p: float | None
    margin: float | None


@dataclass
class Group:
    """
    Args:
        values: what its jobs have in common, of what the sweep varies.
        jobs: by number.
        difference: to the best group, or to the first; None for that one itself, and where there is no common seed.
    """

    values: list[str]
    jobs: list[Job] = field(default_factory=list)
    difference: Difference | None = None

    @property
    def by_seed(self) -> dict[str, float]:
        return {seed_of(job): value for job in self.jobs if (value := value_of(job)) is not None}

    @property
    def mean(self) -> float | None:
        values = self.by_seed.values()
        return fmean(values) if values else None

    @property
    def deviation(self) -> float | None:
        """Of the sample, n - 1; None for a single job."""
        values = list(self.by_seed.values())
        return stdev(values) if len(values) > 1 else None

    @property
    def complete(self) -> bool:
        return len(self.by_seed) == len(self.jobs)


def value_of(job: Job) -> float | None:
    """The objective of a job that has one; a number that is none is not one."""
    return job.objective if job.objective is not None and math.isfinite(job.objective) else None


def seed_of(job: Job) -> str:
    return said_by(job).get(SEED, "")


def sign_of(record: Record) -> int:
    """1 where a larger objective is better, else -1."""
    return -1 if record.objective == MINIMISED else 1


def best_first(record: Record) -> list[Job]:
    """Jobs by their objective, of several objectives those first that none betters in all; after them, by number, those that have none."""
    sign, front = sign_of(record), pareto(record)
    return sorted(
        record.jobs, key=lambda job: ((value := value_of(job)) is None, job.number not in front, -sign * (value or 0.0), job.number)
    )


def pareto(record: Record) -> set[int]:
    """The numbers of the jobs that no other betters: at least as good in every objective, and better in one."""
    signs = [1 if name == MINIMISED else -1 for name in (record.objective, *record.others)]
    scores = {
        job.number: [sign * value for sign, value in zip(signs, (first, *job.others), strict=True)]
        for job in record.jobs
        if (first := value_of(job)) is not None and len(job.others) == len(record.others)
    }

    def bettered(score: list[float]) -> bool:
        return any(other != score and all(a <= b for a, b in zip(other, score, strict=True)) for other in scores.values())

    return {number for number, score in scores.items() if not bettered(score)}


def groups_of(record: Record, keys: Sequence[str]) -> list[Group]:
    """Best mean first; after those of which all jobs have a value those of which some have: a failure must not make a mean better.

    Args:
        record: of the sweep.
        keys: what it varies, but for the seed.
    """
    found: dict[tuple[str, ...], Group] = {}
    for job in record.jobs:
        said = told_apart(record, job)
        values = [said.get(key, "") for key in keys]
        found.setdefault(tuple(values), Group(values)).jobs.append(job)
    sign = sign_of(record)
    groups = sorted(
        found.values(), key=lambda group: ((mean := group.mean) is None, not group.complete, -sign * (mean or 0.0), group.jobs[0].number)
    )
    base = groups[0] if record.against == "best" else min(groups, key=lambda group: group.jobs[0].number)
    for group in groups:
        if group is not base:
            group.difference = difference_of(base.by_seed, group.by_seed)
    return groups


def difference_of(base: dict[str, float], other: dict[str, float]) -> Difference | None:
    """What the other has more, over the common seeds; None where there is none."""
    differences = [other[seed] - base[seed] for seed in base if seed in other]
    if not differences:
        return None
    several = len(differences) > 1
    return Difference(
        fmean(differences), len(differences), sign_flip_p(differences) if several else None, t_margin(differences) if several else None
    )


def t_margin(differences: Sequence[float]) -> float:
    """Half of the 95 % interval of their mean, t(0.975, n - 1) s / sqrt(n): right where differences are normally distributed.

    Unlike the signs it tells with three seeds already, at the price of that assumption.

    Reference:
        Student, The probable error of a mean, Biometrika 6, 1908.
    """
    from scipy.special import stdtrit  # a quarter of a second, of which most commands have no use

    return float(stdtrit(len(differences) - 1, 0.975)) * stdev(differences) / math.sqrt(len(differences))


def sign_flip_p(differences: Sequence[float]) -> float:
    """The share of all 2^n choices of signs with which the sum of the differences is at least as far from 0: a permutation test.

    Were both groups alike, each difference could as well have the other sign. It is never below 2^-(n-1): the signs as they are, and
    all of them turned round. Exact up to 30 pairs; beyond, the sum over the choices is as good as normally distributed.

    Reference:
        Fisher, The Design of Experiments, 1935, section 21.
    """
    reached = abs(math.fsum(differences))
    if len(differences) > MOST_EXACT:
        spread = math.sqrt(math.fsum(value**2 for value in differences))
        return math.erfc(reached / spread / math.sqrt(2)) if spread else 1.0
    half = len(differences) // 2
    first, second = _sums(differences[:half]), sorted(_sums(differences[half:]))
    least = reached - 1e-12 * math.fsum(map(abs, differences))  # sums that are equal but for rounding
    if least <= 0:
        return 1.0
    as_far = sum(len(second) - bisect_left(second, least - one) for one in first)  # those as low are as many, by symmetry
    return as_far / (1 << len(differences) - 1)


def _sums(differences: Sequence[float]) -> list[float]:
    sums = [0.0]
    for value in differences:
        sums = [total + signed for total in sums for signed in (value, -value)]
    return sums
