"""Compare what pip is about to install with the checksums of requirements-ci.txt: pip install --dry-run --report - ... | python3 .ci/checked.py

Ends with 1, and the names, where a file is another than those of the release that is pinned. What pip builds a source distribution with
is not in its report.
"""

import json
import re
import sys
from pathlib import Path

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pinned(text: str) -> dict[tuple[str, str], set[str]]:
    """The checksums of each name and version."""
    found: dict[tuple[str, str], set[str]] = {}
    release: set[str] = set()
    for line in text.splitlines():
        if match := PINNED.match(line):
            release = found.setdefault((canonical(match[1]), match[2]), set())
        release.update(HASH.findall(line))
    return found


def canonical(name: str) -> str:
    """A name as the index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def problems(report: dict, known: dict[tuple[str, str], set[str]]) -> list[str]:
    """A line for each distribution that is not one of the files that are known; what lies in a folder is ours."""
    found = []
    for item in report["install"]:
        if "dir_info" in item["download_info"]:
            continue
        name, version = canonical(item["metadata"]["name"]), item["metadata"]["version"]
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        allowed = known.get((name, version))
        if allowed is None:
            found.append(f"{name} {version}: not in requirements-ci.txt")
        elif sha256 not in allowed:
            found.append(
                f"{name} {version}: {item['download_info']['url'].rpartition('/')[2]} has the checksum {sha256}, which no file of it has"
            )
    return found


if __name__ == "__main__":
    known = pinned((Path(__file__).parents[1] / "requirements-ci.txt").read_text(encoding="utf-8"))
    report = json.load(sys.stdin)
    if lines := problems(report, known):
        sys.exit("\n".join(lines))
    print(f"{len(report['install'])} distributions, each file with a checksum of requirements-ci.txt")
