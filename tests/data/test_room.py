"""How much may be filled, on this machine and within limits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segfocal.data import room


def tree(root: Path, **contents: str) -> Path:
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


MEMINFO = {"proc__meminfo": "MemTotal: 100 kB\nMemAvailable: 50 kB\n"}


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, 50 * 1024),
        ({"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__memory.max": "max\n"}, 50 * 1024),
        (
            {
                "proc__self__cgroup": "0::/job/step\n",
                "sys__fs__cgroup__job__memory.max": "30000\n",
                "sys__fs__cgroup__job__memory.current": "20000\n",
                "sys__fs__cgroup__job__memory.stat": "anon 15000\ninactive_file 4000\n",
            },
            14000,
        ),
        (
            {
                "proc__self__cgroup": "5:cpu:/\n4:memory:/docker/abc\n",
                "sys__fs__cgroup__memory__memory.limit_in_bytes": "40000\n",
                "sys__fs__cgroup__memory__memory.usage_in_bytes": "10000\n",
                "sys__fs__cgroup__memory__memory.stat": "total_inactive_file 500\n",
            },
            30500,
        ),
        ({"proc__self__cgroup": "4:memory:/\n", "sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712\n"}, 50 * 1024),
    ],
)
def test_memory_is_free_within_the_limits_of_control_groups(tmp_path: Path, contents: dict[str, str], expected: int) -> None:
    assert room.free_memory(tree(tmp_path / "root", **MEMINFO, **contents)) == expected


def test_the_room_of_this_machine() -> None:
    assert 0 < room.free_memory() < 1 << 50
    assert room.free_disk(Path("/no/such/folder")) == pytest.approx(shutil.disk_usage("/").free, rel=0.01)
