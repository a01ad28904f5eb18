"""A checkpoint that somebody has prepared is one line, whatever reads it: nothing runs, nothing is fetched, and memory stays bounded."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.checkpoints import BAD
from tests.conftest import run
from tests.hostile.payloads import HOSTILE
from tests.prediction.made import picture

pytestmark = pytest.mark.xdist_group("hostile")

KINDS = {**BAD, **HOSTILE}
NO_FILE = ("missing", "a run without a checkpoint")
COMMANDS = ("evaluate", "predict", "export", "train")
ROOM = 400e6  # bytes that a command takes for a refusal: a model, and three times the file


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each command came to with each file, in a process where whatever leads out of it is refused and counted."""
    root = tmp_path_factory.mktemp("hostile")
    picture(root / "photos/a.png")
    for number, (make, _) in enumerate(KINDS.values()):
        (root / str(number)).mkdir()
        make(root / str(number))
    done = run("-m", "tests.hostile.driver", str(root), cwd=root, env={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return {kind: found[str(number)] for number, kind in enumerate(KINDS) if kind not in NO_FILE}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_FILE])
def test_it_is_refused_in_a_line(answers: dict[str, dict[str, Any]], kind: str) -> None:
    for command in COMMANDS:
        found = answers[kind][command]
        assert found["raised"] == "UserError", (command, found)
        assert re.search(r"/bad\.\w+: ", found["said"]), (command, found["said"])
        if command != "train":  # which compares with its own configuration first
            assert re.search(KINDS[kind][1], found["said"]), (command, found["said"])
        assert found["said"].isprintable() and len(found["said"]) < 1000, (command, found["said"])
        assert not found["executed"] and not found["denied"] and not found["left"], (command, found)
        assert found["took"] < ROOM, (command, found["took"])
