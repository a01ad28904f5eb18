"""What the README says is what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segfocal.config.export import ExportConfig
from segfocal.config.parse import CONF, mistakes
from segfocal.config.predict import PredictConfig
from segfocal.config.run import EvaluateConfig, TrainConfig
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^ *```bash\n(.*?)```", README, re.MULTILINE | re.DOTALL)
SHOWN = (" train.py", " evaluate.py", "-m segfocal.analyze", "-m segfocal.predict", "-m segfocal.export")
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if any(program in line for program in SHOWN)]
SCHEMAS = {"train": TrainConfig, "evaluate": EvaluateConfig, "analyze": TrainConfig, "predict": PredictConfig, "export": ExportConfig}
HELP = [
    re.sub(r"   .*$", "", line.strip())
    for help_of in ("train", "evaluate")
    for line in (CONF / f"hydra/help/{help_of}.yaml").read_text().splitlines()
    if line.startswith("    python")
]
COMMENTED = [line[2:] for path in CONF.glob("*/*.yaml") for line in path.read_text().splitlines() if line.startswith("# python")]


def overrides_of(command: str) -> tuple[str, list[str]]:
    words = shlex.split(re.sub("<(run|one|other)>", r"a_\1", command))
    place = next(number for number, word in enumerate(words) if word.endswith(".py") or word.startswith("segfocal."))
    program = re.split("[./]", words[place].removesuffix(".py"))[-1]
    return program, [word for word in words[place + 1 :] if word not in ("-m", "--json")]


@pytest.mark.parametrize("command", [*COMMANDS, *HELP, *COMMENTED])
def test_every_command_that_is_shown_is_right(command: str) -> None:
    if "plugins=" in command:
        return  # trained in test_plugin.py
    program, overrides = overrides_of(command)
    composed = "train" if program == "analyze" else program
    problems = [line for line in mistakes(SCHEMAS[program], composed, overrides) if "is not said" not in line]
    assert problems == []


def test_the_readme_shows_ten_commands_and_the_helps_fifteen() -> None:
    block = next(block for block in BLOCKS if "evaluate.py" in block)
    assert len(block.splitlines()) == 10
    assert len(HELP) == 15


@pytest.mark.parametrize(
    ("heading", "end"), [("Install and train", ".venv/bin/python train.py"), ("Install and test", ".venv/bin/python -m pytest")]
)
def test_ci_runs_the_set_up_commands_as_the_readme_has_them(heading: str, end: str) -> None:
    printed = subprocess.run(
        [sys.executable, str(ROOT / ".ci/readme_commands.py"), heading], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed in README
    assert printed.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ")
    assert printed.endswith(end)
    assert heading in (ROOT / ".ci/run").read_text()


def test_the_table_of_groups_is_complete() -> None:
    for group in sorted({path.parent.name for path in CONF.glob("*/*.yaml")}):
        row = re.search(rf"^\| `{group}` \| ([^|]*) \|", README, re.MULTILINE)
        assert row, group
        shown = {name.strip() for name in row.group(1).split(",")}
        assert shown == {path.stem for path in (CONF / group).glob("*.yaml")} - {"checkpoint"}


def test_what_it_links_to_is_there() -> None:
    documents = [ROOT / "README.md", ROOT / "data/README.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_nothing_points_at_files_that_users_do_not_have() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *CONF.rglob("*.yaml"), *Path(ROOT / "segfocal").rglob("*.py")]:
        assert "../shared" not in path.read_text(), path
