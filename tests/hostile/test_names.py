"""Names in a checkpoint are shown as they are, and no terminal or page obeys them."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from tests.checkpoints import made
from tests.conftest import ROOT, run
from tests.test_training import TINY

NAMES = ["[red]a[/red]", "[link=http://x]b[/link]", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}}"]


def renamed(content: dict[str, Any]) -> None:
    content["segfocal"]["config"]["task"]["classes"] = content["segfocal"]["classes"] = NAMES


def test_classes_are_shown_as_they_are_called(tmp_path: Path) -> None:
    """On the console and in the page, by the command itself."""
    ckpt = made(tmp_path / "a.ckpt", *TINY, "task=multiclass", spoil=renamed)
    done = run(str(ROOT / "evaluate.py"), f"ckpt={ckpt}", "profile=cpu", "bootstrap=0", "data.limit=2", "data.num_workers=0", cwd=tmp_path)
    assert done.code == 0, done.err
    assert all(name in done.out for name in NAMES)
    assert "\x1b" not in done.out
    (page,) = tmp_path.glob("runs/*/report.html")
    text = page.read_text()
    for name in NAMES[2:4]:
        assert name not in text
        assert html.escape(name) in text


def test_escape_sequences_in_what_a_checkpoint_says_are_shown(tmp_path: Path) -> None:
    theirs = {"root": "\x1b[31m/data\nsecond line"}
    ckpt = made(
        tmp_path / "a.ckpt",
        *("data=folder", "data.root=x", "task.classes=[a]"),
        spoil=lambda content: content["segfocal"]["config"]["data"].update(theirs),
    )
    done = run(str(ROOT / "evaluate.py"), f"ckpt={ckpt}", "profile=cpu", cwd=tmp_path)
    assert done.code == 2
    assert "\x1b" not in done.err and r"\x1b[31m/data" in done.err, done.err
