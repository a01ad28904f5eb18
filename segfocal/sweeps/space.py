"""What a search chooses from: the sweeps of Hydra's grammar, `interval(0,5)`, `tag(log,interval(1e-4,1e-2))`, `range(1,8)`, `focal,dice`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from segfocal.config.parse import values_of
from segfocal.config.sweep import Conditional
from segfocal.errors import UserError, first_line
from segfocal.nearest import did_you_mean
from segfocal.sweeps.record import SEED

if TYPE_CHECKING:
    from optuna import Trial

Number = int | float


@dataclass
class Parameter:
    """
    Args:
        key: of the configuration; of a group, with the package it is put into.
        choices: values as they are typed; none where it is a range.
        low, high: of a range, both included; whole numbers where both are.
        step: of a range; None: any value.
        log: whether a range is searched by its logarithm.
        when: what has to be chosen for there to be this parameter, each one of several values.
        steps: the values of a range with a step, as Hydra counts them: a sum of floats is not 0.3, but next to it.
        prefix: what stands before the key on a command line, as the + of a key that there is not yet.
    """

    key: str
    choices: list[str] = field(default_factory=list)
    low: Number = 0
    high: Number = 0
    step: Number | None = None
    log: bool = False
    when: dict[str, list[str]] = field(default_factory=dict)
    steps: list[Number] = field(default_factory=list)
    prefix: str = ""

    def is_there(self, chosen: dict[str, str]) -> bool:
        """Whether there is this parameter where others have these values."""
        return all(chosen.get(key) in values for key, values in self.when.items())

    def suggest(self, trial: Trial) -> str:
        """The value of a trial, as it is typed."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(self.key, self.low, self.high, step=int(self.step or 1), log=self.log))
        drawn = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        return repr(min(self.steps, key=lambda value: abs(value - drawn)) if self.steps else drawn)

    def holds(self, value: Any) -> bool:
        """Whether a value of another study is one of these."""
        if self.choices:
            return value in self.choices
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return isinstance(value, int if whole else int | float) and self.low <= value <= self.high

    def all_values(self) -> list[str]:
        """In their order.

        Raises:
            UserError: there is no end of them.
        """
        if self.choices:
            return self.choices
        if not self.steps:
            raise UserError(
                f"sweep.space: {self.key}: any value between two is for a search: sweep.sampler=tpe; a grid takes range(1,8) and values "
                "with commas"
            )
        return [repr(value) for value in self.steps]

    def ends(self) -> list[str]:
        """The values between which all others lie; every one where they are named."""
        return self.choices or list(dict.fromkeys([repr(self.low), repr(self.high)]))


@dataclass
class Space:
    """
    Args:
        parameters: those that others depend on stand before them.
        fixed: overrides that all trials share.
    """

    parameters: list[Parameter]
    fixed: list[str]

    def overrides(self, choose: Callable[[Parameter], str]) -> list[str]:
        """The command line of a trial, a value chosen for each parameter that there is."""
        chosen: dict[str, str] = {}
        for parameter in self.parameters:
            if parameter.is_there(chosen):
                chosen[parameter.key] = choose(parameter)
        return self._line(chosen)

    def grid(self) -> list[list[str]]:
        """Command lines of all combinations that there are; the first parameter changes last, as in Hydra's own.

        Raises:
            UserError: a parameter has no end of values.
        """
        return [self._line(job) for job in self._combinations()]

    def one_at_a_time(self) -> list[list[str]]:
        """Command lines of the first value of each parameter, then of each other value among the first ones of the rest; all with every seed.

        What there is only beside another value takes all of its own.

        Raises:
            UserError: a parameter has no end of values.
        """
        varied = [parameter for parameter in self.parameters if parameter.key != SEED]
        seeds = Space([parameter for parameter in self.parameters if parameter.key == SEED], [])
        first: dict[str, str] = {}
        for parameter in varied:
            if parameter.is_there(first):
                first[parameter.key] = parameter.all_values()[0]
        jobs = [first]
        for parameter in varied:
            for value in parameter.all_values()[1:] if parameter.key in first else ():
                held = {**first, parameter.key: value}
                near = [dataclasses.replace(each, choices=[held[each.key]]) if each.key in held else each for each in varied]
                jobs += Space(near, [])._combinations()
        return [self._line({**job, **seed}) for job in jobs for seed in seeds._combinations()]

    def _combinations(self) -> list[dict[str, str]]:
        jobs: list[dict[str, str]] = [{}]
        for parameter in self.parameters:
            jobs = [
                {**job, **more}
                for job in jobs
                for more in ([{parameter.key: value} for value in parameter.all_values()] if parameter.is_there(job) else [{}])
            ]
        return jobs

    def _line(self, chosen: dict[str, str]) -> list[str]:
        prefixes = {parameter.key: parameter.prefix for parameter in self.parameters}
        return [*self.fixed, *(f"{prefixes[key]}{key}={value}" for key, value in chosen.items())]

    def corners(self) -> list[list[str]]:
        """Command lines in which the ends of every range and every choice occur."""
        found: list[list[str]] = []
        for varied in self.parameters:
            for end in varied.ends():
                met = {key: values[0] for key, values in varied.when.items()}
                wanted = {**{parameter.key: parameter.ends()[0] for parameter in self.parameters}, **met, varied.key: end}
                line = self.overrides(lambda parameter, wanted=wanted: wanted[parameter.key])  # type: ignore[misc]
                if line not in found:
                    found.append(line)
        return found

    def plain(self) -> list[dict[str, Any]]:
        """What two studies of the same space have in common."""
        shared = [asdict(parameter) for parameter in self.parameters]
        return [{name: value for name, value in each.items() if name not in ("steps", "prefix")} for each in shared]


def read_space(said: dict[str, str | Conditional | None], overrides: Sequence[str]) -> Space:
    """The space of a configuration and a command line; the latter's values go before.

    Args:
        said: `sweep.space`.
        overrides: of the command line, without those of `sweep`.

    Raises:
        UserError: with a line for each mistake.
    """
    given = {_key(item): item for item in OverridesParser.create().parse_overrides(list(overrides))}
    alone = {key: _said(item) for key, item in given.items() if not item.is_sweep_override()}
    problems: list[str] = []
    parameters: dict[str, Parameter] = {}
    for key in [*(key for key in given if key not in said), *said]:
        if key in alone or (key not in given and said[key] is None):
            continue
        entry = said.get(key) or ""
        when = entry.when if isinstance(entry, Conditional) else {}
        place = str(given[key].input_line) if key in given else f"sweep.space: {key}: {_values(entry)}"
        try:
            parameter = _parameter(given.get(key) or _parsed(key, _values(entry)), bool(when))
            open_conditions = _conditions(when, parameters, given)
        except (HydraException, ValueError) as error:
            problems.append(f"{place}: {first_line(error, 500)}")
            continue
        if open_conditions is not None:
            parameters[parameter.key] = parameter
            parameter.when = open_conditions
    if not parameters and not problems:
        problems.append(
            "sweep.space: nothing is varied: say a parameter and its values, as in optimizer.lr=1e-3,3e-3 or, for a search, optimizer.lr='interval(1e-4,1e-2)'"
        )
    if problems:
        raise UserError("\n".join(problems))
    return Space(list(parameters.values()), [item.input_line or "" for item in given.values() if not item.is_sweep_override()])


def _key(item: Override) -> str:
    return item.get_key_element().lstrip("+~")


def _said(item: Override) -> str:
    return (item.input_line or "").partition("=")[2]


def _values(entry: str | Conditional) -> str:
    return entry.values if isinstance(entry, Conditional) else entry


def _parsed(key: str, values: str) -> Override:
    try:
        return OverridesParser.create().parse_override(f"{key}={values}")
    except HydraException as error:
        raise ValueError(f"not of Hydra's grammar ({first_line(error)})") from None


def _parameter(item: Override, conditional: bool) -> Parameter:
    value, key = item.value(), _key(item)
    choices = values_of(item)
    prefix = item.get_key_element().removesuffix(key)
    log = isinstance(value, IntervalSweep | RangeSweep) and "log" in value.tags
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        return _range(Parameter(key, low=value.start, high=value.end, log=log, prefix=prefix))
    if isinstance(value, RangeSweep):
        numbers: list[Number] = list(value.range())
        if log:
            raise ValueError("a range of steps has no logarithm: tag(log,interval(...)), or int(interval(...)) for whole numbers")
        return _range(Parameter(key, low=numbers[0], high=numbers[-1], step=value.step, steps=numbers, prefix=prefix))
    if not item.is_sweep_override() and conditional:
        return Parameter(key, choices=[_said(item)], prefix=prefix)
    if not item.is_sweep_override():
        raise ValueError("one value alone: interval(0,5), range(1,8), or several with commas")
    return Parameter(key, choices=list(dict.fromkeys(choices)), prefix=prefix)


def _range(parameter: Parameter) -> Parameter:
    low, high = parameter.low, parameter.high
    if low > high:
        raise ValueError(f"the lower end {low:g} is above the upper end {high:g}")
    if parameter.log and low <= 0:
        raise ValueError(f"a logarithm wants a lower end above 0, not {low:g}")
    return parameter


def _conditions(when: dict[str, str], before: dict[str, Parameter], given: Mapping[str, Override]) -> dict[str, list[str]] | None:
    """The conditions that a job decides on; None where one is not met by any. What the command line has left out is no mistake."""
    remaining = {}
    for key, said in when.items():
        values = [value.strip() for value in said.split(",")]
        if key in before:
            choices = before[key].choices
        elif key in given and not given[key].is_sweep_override():
            choices = [_said(given[key])]
        else:
            raise ValueError(f"when {key}: no parameter before it{did_you_mean(key, before)}")
        if not choices:
            raise ValueError(f"when {key}: is a range")
        wrong = [value for value in values if value not in choices]
        if wrong and key not in given:
            raise ValueError(f"when {key}: {wrong[0]} is not among its values{did_you_mean(wrong[0], choices)}")
        met = [value for value in values if value in choices]
        if not met:
            return None
        if key in before:
            remaining[key] = met
    return remaining
