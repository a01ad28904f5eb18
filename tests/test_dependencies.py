"""What is installed to run: under which licences, in which versions, with which checksums."""

from __future__ import annotations

import importlib.util
import re
from email.message import Message
from importlib import metadata
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

REFUSED = re.compile(r"(?<!L)GPL|GNU (?!Lesser)|Affero|Server Side Public|Commons Clause|Business Source|NonCommercial|CC-BY-NC")
KNOWN_BAD = {"lightning": ("2.6.2", "2.6.3"), "torch": ("2.9.1",), "hydra-core": ("1.3.7",), "albumentations": ("2.1.0",)}
"""Malware; a reader of checkpoints that could be made to write where it should not; what a configuration could run; AGPL."""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences, checked = script("licences"), script("checked")
NAMES = sorted(licences.runtime("segfocal", licences.EXTRAS))


class Stated(metadata.Distribution):
    """A distribution of which only its metadata is known."""

    def __init__(self, **fields: str) -> None:
        self.message = Message()
        self.message["Name"] = "x"
        for name, value in fields.items():
            for line in value.split("|"):
                self.message[name.replace("_", "-")] = line

    @property
    def metadata(self) -> Message:
        return self.message

    def read_text(self, filename: str) -> None:
        return None

    def locate_file(self, path: object) -> None:
        raise NotImplementedError


def test_the_walk_finds_what_others_need() -> None:
    """Directly, through others, and none of what only the tests need."""
    assert {"torch", "sympy", "mpmath", "antlr4-python3-runtime", "onnxruntime", "sqlalchemy"} <= {*NAMES}
    assert not {"pytest", "hypothesis", "ruff", "mypy", "scikit-learn", "segfocal"} & {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_at_run_time_is_under_the_gpl_or_under_nothing(name: str) -> None:
    stated = licences.licence(metadata.distribution(name))
    assert stated, f"{name} states no licence: look, and say it in .ci/licences.py"
    assert not REFUSED.search(stated), f"{name}: {stated}"
    assert f"| {name} | {stated} |" in (ROOT / "docs/licences.md").read_text(), (
        "docs/licences.md: python .ci/licences.py > docs/licences.md"
    )


@pytest.mark.parametrize(
    "stated",
    [
        {"License_Expression": "AGPL-3.0-only"},
        {"License_Expression": "MIT AND GPL-2.0-or-later"},
        {"Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"},
        {"Classifier": "License :: OSI Approved :: MIT License|License :: OSI Approved :: GNU General Public License v3 (GPLv3)"},
        {"License": "GPLv3"},
    ],
)
def test_a_licence_of_the_gpl_would_be_seen(stated: dict[str, str]) -> None:
    assert REFUSED.search("\n".join([licences.licence(Stated(**stated)), *stated.values()]))
    assert REFUSED.search(licences.licence(Stated(**stated))) or len(stated["Classifier"].split("|")) > 1


def test_releases_that_are_known_to_be_bad_are_excluded() -> None:
    lines = re.findall(r'^ {4}"([^"]+)",', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    bounds = {item.name: item.specifier for item in map(Requirement, (line for line in lines if re.search("[<>=]=?[0-9]", line)))}
    for name, versions in KNOWN_BAD.items():
        assert not any(bounds[name].contains(Version(version), prereleases=True) for version in versions), name


def pins(text: str) -> set[tuple[str, str]]:
    return {(checked.canonical(name), version) for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)}


def test_every_version_that_is_pinned_has_checksums() -> None:
    """And nothing else has, but for what other systems need."""
    constraints = pins((ROOT / "constraints.txt").read_text())
    known = checked.pinned((ROOT / "requirements-ci.txt").read_text())
    assert constraints <= set(known)
    assert {name for name, _ in set(known) - constraints} <= {
        *("colorama", "coloredlogs", "humanfriendly", "httpx2-jsfetch", "pyreadline3", "tzdata"),
        "setuptools",
    }
    assert all(known.values())


def test_a_file_with_another_checksum_is_named() -> None:
    known = {("a", "1"): {"0" * 64}}

    def report(version: str, sha256: str) -> dict[str, object]:
        info = {"url": "https://index/a-1.whl", "archive_info": {"hashes": {"sha256": sha256}}}
        ours = {"metadata": {"name": "segfocal", "version": "1"}, "download_info": {"url": "file:///", "dir_info": {}}}
        return {"install": [{"metadata": {"name": "A", "version": version}, "download_info": info}, ours]}

    assert checked.problems(report("1", "0" * 64), known) == []
    assert checked.problems(report("1", "1" * 64), known) == [f"a 1: a-1.whl has the checksum {'1' * 64}, which no file of it has"]
    assert checked.problems(report("2", "0" * 64), known) == ["a 2: not in requirements-ci.txt"]
