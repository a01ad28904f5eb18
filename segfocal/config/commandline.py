"""The words of a command line, before Hydra has seen them."""

from __future__ import annotations

import itertools
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from segfocal.nearest import did_you_mean

# Hydra's flags: those that would take the configuration from elsewhere, those that a word follows, and those that stand alone.
ELSEWHERE = {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"}
WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--info", "-i"} | ELSEWHERE
SWEEPS = {"--multirun", "-m"}
COMPLETES = {"--shell-completion", "-sc"}
ALONE = SWEEPS | COMPLETES | {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"}


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Flags, each with the value that follows it, and overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in WITH_VALUE:
            flags += itertools.islice(words, 1)
    return flags, overrides


def unknown(flags: list[str]) -> list[str]:
    """A line for each flag that there is not, or that is not taken."""
    known = WITH_VALUE | ALONE
    given = [word.partition("=")[0] for word in flags if word.startswith("-")]
    taken = "the configuration is that of conf/: options of your own go into conf/experiment/, what is the machine's into conf/local/"
    return [f"{flag}: {taken}" for flag in given if flag in ELSEWHERE] + [
        f"{flag}: no such flag{did_you_mean(flag, {*known, '--json'})}; see --help" for flag in given if flag not in known
    ]


def run_dir_of(overrides: list[str]) -> Path | None:
    """The run directory that a command line names; None where it leaves that to the program."""
    named = [line for line in overrides if line.startswith("hydra.run.dir=")]
    return Path(str(OverridesParser.create().parse_override(named[-1]).value())) if named else None
