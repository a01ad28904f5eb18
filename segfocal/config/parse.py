"""From what Hydra composed to typed configuration; every mistake of a command line at once, each in one line.

Nothing here imports torch. Hydra stops at the first mistake and says it in its own words: so a command line is checked
before Hydra runs, mistake by mistake only where it does not compose as a whole.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]  # Hydra brings it, and no types

from segfocal.config import hydrakeys, launchers
from segfocal.config.messages import lines_of
from segfocal.config.schema import CONF, load_plugins, register_schemas
from segfocal.errors import UserError, first_line
from segfocal.nearest import did_you_mean

RUN_BY_HYDRA = ("train", "evaluate")  # programs; in the others Hydra composes the configuration, and no more
MOST_JOBS_CHECKED = 64  # of a sweep; a mistake in a later one is said when its turn comes
QUIET = 8  # so few jobs are checked within a second

Config = TypeVar("Config")
Job = TypeVar("Job")


def parse(schema: type[Config], composed: DictConfig | dict[str, Any]) -> Config:
    """Typed configuration from what Hydra composed, or from the plain dictionary that a checkpoint holds.

    Raises:
        UserError: with a line for each mistake.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
        return TypeAdapter(schema).validate_python(plain)
    except ValidationError as error:
        raise UserError("\n".join(lines_of(error, plain))) from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error, 500)) from None


def mistakes(schema: type, config_name: str, overrides: list[str], look: Callable[[Any], list[str]] = lambda config: []) -> list[str]:
    """Every mistake of a command line's overrides, a line each; the jobs of a sweep are checked one by one.

    Args:
        schema, config_name: of the program.
        overrides: of the command line.
        look: what else is wrong with the configuration of a job that is right by itself.
    """
    register_schemas()
    parsed, problems = _parse_overrides(overrides)
    problems += _torn(parsed)
    wrong = hydrakeys.refused(parsed, config_name in RUN_BY_HYDRA)
    problems += wrong.values()
    parsed = [item for place, item in enumerate(parsed) if place not in wrong]
    said, unclear = _said(parsed)
    problems += unclear.values()
    parsed = [item for place, item in enumerate(parsed) if place not in unclear]
    problems += load_plugins([*_named_plugins(parsed), *_plugins_of_files(said)], said)
    for item in [item for item in parsed if item.key_or_group == launchers.GROUP]:
        if missing := launchers.prepare(str(item.value())):
            problems += missing
            parsed.remove(item)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in _shown(list(_jobs_checked(parsed))):
            problems += [line for line in _mistakes_of_job(schema, config_name, job, look) if line not in problems]
    return problems


def mistakes_of_jobs(schema: type, config_name: str, jobs: list[list[str]]) -> list[str]:
    """Every mistake of jobs, a line each; for use while Hydra runs."""
    problems: list[str] = []
    parser = OverridesParser.create()
    for job in _shown(_telling(jobs)):
        problems += [
            line for line in _mistakes_of_job(schema, config_name, parser.parse_overrides(job), lambda config: []) if line not in problems
        ]
    return problems


def _telling(jobs: list[list[str]]) -> list[list[str]]:
    """As many jobs as are checked, each time the one with most values that none before it has."""
    left, chosen, seen = dict(enumerate(jobs)), list[list[str]](), set[str]()
    while left and len(chosen) < MOST_JOBS_CHECKED:
        job = left.pop(max(left, key=lambda number: len(seen.union(left[number]))))
        chosen.append(job)
        seen.update(job)
    return chosen


def sweeps(overrides: list[str]) -> list[str]:
    """A line for each override that only a sweep takes, unless it is said that this is one."""
    parsed, _ = _parse_overrides(overrides)
    if any(item.key_or_group == "hydra.mode" for item in parsed):
        return []
    lines = [item.input_line or "" for item in parsed if item.is_sweep_override()]
    searches = [
        item
        for item in parsed
        if item.key_or_group in ("sweep.sampler", "sweep.one_at_a_time") or (item.key_or_group == "sweep" and item.value() != "grid")
    ]
    return [f"{item.input_line}: a sweep is what -m does" for item in searches] + [
        f"{line}: several values are tried one after another by -m; a list stands in brackets, '{key}=[{value}]'"
        for line in lines
        for key, _, value in [line.partition("=")]
    ]


def parse_sweep(schema: type[Config], config_name: str, overrides: list[str], most: int) -> list[tuple[dict[str, str], Config]]:
    """The jobs of a sweep: what is swept, with its value there, and the configuration; one job where nothing is swept.

    Raises:
        UserError: with a line for each mistake, or for more than `most` jobs; that is at most as many as `mistakes` looks at.
    """
    configs: list[Config] = []

    def keep(config: Config) -> list[str]:
        configs.append(config)
        return []

    given, _ = _parse_overrides(overrides)
    said, _ = _said(given)
    if math.prod(map(len, said.values())) > most:  # before each is composed
        raise UserError(f"the values given with commas combine to more than {most}: sweep fewer of them")
    if problems := mistakes(schema, config_name, overrides, keep):
        raise UserError("\n".join(problems))
    found = []
    for job, config in zip(_jobs(given), configs, strict=True):
        lines = zip([item.input_line or "" for item in job], given, strict=True)
        found.append(({of.key_or_group: line.partition("=")[2] for line, of in lines if of.is_sweep_override()}, config))
    return found


def _parse_overrides(overrides: list[str]) -> tuple[list[Override], list[str]]:
    parser = OverridesParser.create()
    parsed, problems = [], []
    for override in overrides:
        try:
            (item,) = parser.parse_overrides([override])
        except HydraException:
            problems.append(f"{override}: not of the form key=value {_quoted(override)}")
            continue
        if item.key_or_group:
            parsed.append(item)
        else:
            problems.append(f"{override}: not of the form key=value: there is no key")
    return parsed, problems


def _said(overrides: list[Override]) -> tuple[dict[str, list[str]], dict[int, str]]:
    """What each key is given; a line for each override whose values cannot be told, by its place."""
    said, problems = {}, {}
    for place, item in enumerate(overrides):
        try:
            said[item.key_or_group] = values_of(item)
        except (HydraException, ValueError) as error:
            problems[place] = f"{item.input_line}: {first_line(error, 500)}"
    return said, problems


def _quoted(override: str) -> str:
    """How to write what Hydra's grammar does not take as it stands."""
    key, equals, value = override.partition("=")
    if equals and value and value[0] not in "[{":
        return f"(a value with signs like ( ^ + is quoted twice: \"{key}='{value}'\")"
    if value[:1] == "{" and ("'" in value or '"' in value):
        return "(keys in braces are written without quotes: 'data.label_map={0:0,255:1}')"
    return "(quote lists and braces for the shell: 'task.classes=[a,b]')"


def _torn(overrides: list[Override]) -> list[str]:
    """A line for each mapping that bash, without quotes, has made several overrides of: key={a:1,b:2} is key=a:1 key=b:2 to it."""
    pieces: dict[str, list[str]] = {}
    for item in overrides:
        pieces.setdefault(item.key_or_group, []).append((item.input_line or "").partition("=")[2])
    return [
        f"{key} is there {len(values)} times: the shell has taken its braces away: quote it, '{key}={{{','.join(values)}}}'"
        for key, values in pieces.items()
        if len(values) > 1 and all(re.fullmatch(r"[^{\[:/]+:[^:/]+", value) for value in values)
    ]


def values_of(override: Override) -> list[str]:
    """What an override says, or each of what a sweep says; of an interval, its ends.

    Raises:
        ValueError: there are none, no end of them, or they are a pattern's.
        HydraException: Hydra cannot tell.
    """
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        return [repr(value.start), repr(value.end)]
    if isinstance(value, Glob):
        raise ValueError("a glob is not taken: list the options with commas, as in loss=ce,focal")
    if isinstance(value, RangeSweep) and value.step == 0:
        raise ValueError("a range has a step other than 0, as in range(1,8,2)")
    if not override.is_sweep_override():
        return [str(value)]
    values = list(override.sweep_string_iterator())
    if not values and isinstance(value, RangeSweep):
        raise ValueError(
            f"the range is empty: it starts at {value.start}, ends before {value.stop} and steps by {value.step}; range(1,4) is 1,2,3"
        )
    return values


def _named_plugins(overrides: list[Override]) -> list[str]:
    named = [item.value() for item in overrides if item.key_or_group == "plugins"]
    return [str(name) for value in named if isinstance(value, list) for name in value]


def _plugins_of_files(said: dict[str, list[str]]) -> list[str]:
    """Those that the experiments which are asked for name, and what is always read; what is wrong with a file is told when it is composed."""
    found: list[str] = []
    for path in [CONF / "local" / "default.yaml", *(CONF / "experiment" / f"{name}.yaml" for name in said.get("experiment", []))]:
        with suppress(OSError, ValueError, YAMLError, OmegaConfBaseException):
            content = OmegaConf.load(path)
            found += [str(name) for name in (content.get("plugins") or [] if isinstance(content, DictConfig) else [])]
    return found


def _choices(overrides: list[Override]) -> list[list[str]]:
    """What jobs of a sweep are given, each of it with its values; one where nothing is swept."""
    return [
        [f"{override.get_key_element()}={value}" for value in values_of(override)]
        if override.is_sweep_override()
        else [override.input_line or ""]
        for override in overrides
    ]


def _jobs(overrides: list[Override]) -> Iterator[list[Override]]:
    """What each job of a sweep is given; the overrides themselves where nothing is swept."""
    parser = OverridesParser.create()
    for job in itertools.product(*_choices(overrides)):
        yield parser.parse_overrides(list(job))


def _jobs_checked(overrides: list[Override]) -> Iterator[list[Override]]:
    """All jobs or, of many, some in which each value occurs: the first ones of all would differ in what varies fastest alone."""
    choices = _choices(overrides)
    if math.prod(map(len, choices)) <= MOST_JOBS_CHECKED:
        yield from _jobs(overrides)
        return
    parser = OverridesParser.create()
    for number in range(min(MOST_JOBS_CHECKED, max(map(len, choices)))):
        yield parser.parse_overrides([values[number % len(values)] for values in choices])


def _shown(jobs: list[Job]) -> Iterable[Job]:
    """Jobs; where they are many, on a terminal, with how far they have come."""
    if len(jobs) <= QUIET or not sys.stderr.isatty():
        return jobs
    from rich.console import Console  # a tenth of a second that a single run can do without
    from rich.progress import track

    return track(jobs, description="checking the jobs", transient=True, console=Console(stderr=True))


def _mistakes_of_job(schema: type, config_name: str, overrides: list[Override], look: Callable[[Any], list[str]]) -> list[str]:
    try:
        composed = compose(config_name, [item.input_line or "" for item in overrides], return_hydra_config=True)
        hydra = composed.hydra
        with open_dict(composed):
            del composed["hydra"]
        foreign = hydrakeys.foreign(hydra) if config_name in RUN_BY_HYDRA else []
        return foreign or look(parse(schema, composed))
    except UserError as error:
        return str(error).splitlines()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last for a group that is null
        return _one_by_one(schema, config_name, overrides) or [first_line(error, 500)]


def _one_by_one(schema: type, config_name: str, overrides: list[Override]) -> list[str]:
    """The mistakes of overrides that do not compose: groups and options first, then values on what the right ones compose to."""
    problems, options, values = [], [], []
    for item in overrides:
        known = _options(item.key_or_group)
        if not known and not item.is_delete():
            values.append(item)
            continue
        value: Any = item.value()
        wanted = value if isinstance(value, list) else [value]
        wrong = [str(name) for name in wanted if name is not None and str(name) not in known]
        problems += [f"{item.key_or_group}={name}: no such option{did_you_mean(name, known)}" for name in wrong]
        if item.is_add() and not item.key_or_group.startswith("hydra"):
            problems.append(f"{item.input_line}: every group stands in the defaults: leave out the +")
        if not wrong:
            options.append((item.input_line or "").lstrip("+"))
    try:
        plain = OmegaConf.to_container(compose(config_name, options))
    except (HydraException, OmegaConfBaseException) as error:
        return problems or [first_line(error, 500)]
    except ValueError:
        nothing = [group for group, _, value in (option.partition("=") for option in options) if value.lower() == "null"]
        return problems + [f"{group}=null: name one, or leave it out{did_you_mean('', _options(group), most=40)}" for group in nothing]
    for item in values:
        if not item.key_or_group.startswith("hydra"):
            problems += _put(plain, item.key_or_group.split("."), item)
    try:
        parse(schema, DictConfig(plain))
    except UserError as error:
        problems += str(error).splitlines()
    return problems


def _options(group: str) -> list[str]:
    """The options of a group; none where it is not a group."""
    return [name for name in GlobalHydra.instance().config_loader().get_group_options(group) if group.split("/")[0] != "schema"]


def _put(tree: Any, path: list[str], item: Override) -> list[str]:
    """Set a value in a tree; returns the mistake where there is something that has no keys."""
    for depth, key in enumerate(path[:-1], start=1):
        if isinstance(tree.get(key), list):  # Hydra can set a part of it
            return []
        if not isinstance(tree.get(key), dict):
            if key in tree and not item.is_add():
                whole, rest = ".".join(path[:depth]), ".".join(path[depth:])
                return [f"{item.input_line}: {whole} is given as a whole, as in '{whole}={{{rest}:{item.value()},...}}'"]
            tree[key] = {}
        tree = tree[key]
    tree[path[-1]] = item.value()
    return []
