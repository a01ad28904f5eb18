"""What would import or run something is refused, on the command line and in files; what the program documents is not."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from segfocal.config import hydrakeys, parse
from segfocal.config.commandline import ELSEWHERE
from segfocal.config.export import ExportConfig
from segfocal.config.parse import mistakes
from segfocal.config.predict import PredictConfig
from segfocal.config.run import EvaluateConfig, TrainConfig
from tests.conftest import ROOT, run, spawn

CANARY = "from pathlib import Path\nPath({!r}).touch()\n"
HOSTILE = [
    "hydra.searchpath=[pkg://canary]",
    "hydra.searchpath=[file:///tmp]",
    "+hydra.callbacks.canary._target_=canary.run",
    "hydra/callbacks=canary",
    "+hydra/callbacks=canary",
    "hydra.launcher._target_=canary.run",
    "+hydra.launcher._target_=canary.run",
    "++hydra.sweeper._target_=canary.run",
    "hydra/launcher=canary",
    "hydra/launcher=../../canary",
    "hydra/sweeper=canary",
    "+hydra.launcher.setup=[touch executed]",
    "+hydra.launcher.python=/tmp/python",
    "hydra.job_logging.handlers.file.class=canary.Handler",
    "+hydra.job_logging.handlers.file.()=canary.run",
    "hydra.hydra_logging.handlers.console.stream=ext://canary.run",
    "hydra/job_logging=none",
    "+hydra.job.env_set.LD_PRELOAD=/tmp/canary.so",
    "hydra.job.chdir=true",
    "hydra.output_subdir=x",
    "hydra.verbose=true",
    "hydra=null",
    "~hydra.job_logging",
    "loss@hydra.callbacks.canary=focal",
    "+experiment@hydra=camvid",
    "experiment=../../canary",
    "experiment=/tmp/canary",
    "+local=../canary",
    "logger=[csv,../canary]",
    "+loss._target_=canary.run",
    "model._target_=canary.run",
    "+_target_=canary.run",
    "+data.label_map={_target_:canary.run}",
]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there when the module `canary` has been imported, which can be."""
    (tmp_path / "canary.py").write_text(CANARY.format(str(tmp_path / "executed")) + "def run(*_, **__): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "executed"
    sys.modules.pop("canary", None)


@pytest.mark.parametrize("override", HOSTILE)
def test_an_override_that_would_run_something_is_a_line(override: str, canary: Path) -> None:
    given = ["data=folder", "data.root=x", "task.classes=[a]"] if "label_map" in override else []
    lines = mistakes(TrainConfig, "train", [*given, override])
    assert len(lines) == 1 and "\n" not in lines[0], lines
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    assert key in lines[0] or "data.label_map" in lines[0]
    assert not canary.exists()
    assert "canary" not in sys.modules


def test_a_command_with_all_of_them_is_a_line_for_each(tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text(CANARY.format(str(tmp_path / "executed")))
    given = [override for override in HOSTILE if "label_map" not in override and not override.startswith(("+loss", "model", "+_target_"))]
    done = run(str(ROOT / "train.py"), *given, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert (done.code, done.out) == (2, "")
    assert sorted(line.partition(": ")[0] for line in done.err.splitlines()) == sorted(given)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["canary.py"]


@pytest.mark.parametrize("flag", sorted(ELSEWHERE))
def test_a_configuration_from_elsewhere_is_not_taken(flag: str, tmp_path: Path) -> None:
    for words in ([flag, str(tmp_path)], [f"{flag}={tmp_path}"]):
        done = run(str(ROOT / "train.py"), *words, "--cfg", "job", cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"{flag}: the configuration is that of conf/") and done.err.count("\n") == 1


@pytest.mark.parametrize(("schema", "program"), [(PredictConfig, "predict"), (ExportConfig, "export")])
def test_commands_that_hydra_does_not_run_take_nothing_of_it(schema: type, program: str) -> None:
    given = ["ckpt=x", *(["input=x", "out=y"] if program == "predict" else [])]
    for override in ("hydra.run.dir=x", "+hydra.callbacks.x._target_=os.system", "hydra.searchpath=[pkg://canary]"):
        (line,) = mistakes(schema, program, [*given, override])
        assert line.startswith(f"{override}: ")


def test_analyze_takes_nothing_of_hydra(tmp_path: Path) -> None:
    done = run("-m", "segfocal.analyze", "+hydra.callbacks.x._target_=os.system", cwd=tmp_path)
    assert done.code == 2
    assert done.err.startswith("+hydra.callbacks.x._target_=os.system: ") and done.err.count("\n") == 1


def test_the_environment_of_the_user_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/data")
    assert mistakes(TrainConfig, "train", ["data=folder", "data.root=${oc.env:WHERE}", "task.classes=[a]"]) == []


DOCUMENT = (ROOT / "docs/reliability.md").read_text()


def test_what_may_be_set_of_hydra_is_documented() -> None:
    part = DOCUMENT.split("## What of Hydra may be set")[1].split("\n## ")[0]
    named = set(re.findall(r"`([^`]+)`", part))
    values = {f"{group}={name}" for group, names in hydrakeys.OPTIONS.items() for name in names}
    fields = {f"hydra.launcher.{name}" for name in hydrakeys.LAUNCHER}
    assert {*hydrakeys.SETTABLE, *values, *fields} <= named


@pytest.mark.parametrize(
    "override", ["hydra.run.dir=x", "hydra.sweep.dir=x", "hydra.sweep.subdir=x", "hydra/launcher=basic", "hydra/sweeper=basic"]
)
def test_what_is_documented_is_taken(override: str) -> None:
    assert mistakes(TrainConfig, "train", [override]) == []
    assert mistakes(EvaluateConfig, "evaluate", ["ckpt=x", override]) == []


FILES = {
    "hydra:\n  callbacks:\n    canary:\n      _target_: canary.run\n": "hydra.callbacks: ",
    "hydra:\n  launcher:\n    _target_: canary.run\n": "hydra.launcher._target_=canary.run: ",
    "hydra:\n  launcher:\n    setup: ['touch executed']\n": "hydra.launcher.setup: ",
    "hydra:\n  sweeper:\n    _target_: canary.run\n": "hydra.sweeper._target_=canary.run: ",
    "hydra:\n  sweeper:\n    params: {seed: '1,2'}\n": "hydra.sweeper.params: ",
    "hydra:\n  job:\n    env_set: {LD_PRELOAD: /tmp/canary.so}\n": "hydra.job.env_set: ",
    "hydra:\n  job_logging:\n    handlers: {file: {'()': canary.run}}\n": "hydra.job_logging: ",
    "hydra:\n  hydra_logging:\n    handlers: {console: {stream: 'ext://canary.run'}}\n": "hydra.hydra_logging: ",
    "hydra:\n  searchpath: ['pkg://canary']\n": "hydra.searchpath",
    "model:\n  _target_: canary.run\n": "model._target_=canary.run: nothing is built by the path of its code",
    "loss:\n  _target_: canary.run\n": "loss._target_=canary.run: nothing is built by the path of its code",
    "canary:\n  _target_: canary.run\n": "canary=",
}


@pytest.mark.parametrize("content", FILES)
@pytest.mark.parametrize("where", ["experiment/theirs.yaml", "local/default.yaml"])
def test_a_file_that_would_run_something_is_a_line(
    where: str, content: str, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    shutil.rmtree(conf / "local", ignore_errors=True)
    (conf / where).parent.mkdir(exist_ok=True)
    (conf / where).write_text(f"# @package _global_\n{content}")
    monkeypatch.setattr(parse, "CONF", conf)
    lines = mistakes(TrainConfig, "train", ["experiment=theirs"] if where.startswith("experiment") else [])
    assert len(lines) == 1 and FILES[content] in lines[0] and "\n" not in lines[0], lines
    assert not canary.exists()


def test_a_file_of_ones_own_that_runs_something_ends_the_program(tmp_path: Path) -> None:
    """Before Hydra has seen it: the program as a user has it, with a recipe of a stranger."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("segfocal", "hydra_plugins"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "canary.py").write_text(CANARY.format(str(tmp_path / "executed")) + "def run(*_, **__): ...\n")
    (tmp_path / "conf/experiment/theirs.yaml").write_text(f"# @package _global_\n{next(iter(FILES))}")
    done = spawn(str(tmp_path / "train.py"), "experiment=theirs", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("hydra.callbacks: is not what a file may set") and done.err.count("\n") == 1
    assert not (tmp_path / "executed").exists()
