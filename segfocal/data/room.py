"""How much more memory or disk may be filled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

UNLIMITED = 1 << 60  # bytes; control groups without a limit say a number like that, or `max`


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that a process may still take and share: what is available, within the limits of control groups and of /dev/shm.

    Args:
        root: where /proc, /sys and /dev are.
    """
    rooms = [_available(root), *_left_in_groups(root)]
    if (root / "dev/shm").is_dir():
        rooms.append(shutil.disk_usage(root / "dev/shm").free)
    return max(0, min(rooms))


def _available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: half of what there is, as good a guess as any
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_in_groups(root: Path) -> list[int]:
    """What is left of each limit that the process's control groups, and those above them, set."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.strip("/")
        rooms += [left for place in (group, *group.parents) if place.is_relative_to(top) and (left := _left(place, *names)) is not None]
    return rooms


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Bytes that a control group leaves; files that it has read count as free, as they do in MemAvailable."""
    try:
        most = (group / limit).read_text().strip()
        if most == "max" or int(most) > UNLIMITED:
            return None
        taken = int((group / usage).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return int(most) - taken + int(statistics.get(reclaimable, 0))


def free_disk(directory: Path) -> int:
    """Bytes that may still be written to where a directory is, or will be."""
    there = next(place for place in (directory.absolute(), *directory.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
