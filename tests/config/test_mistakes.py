"""Every mistake of a command line, all at once, before torch is imported."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from segfocal.config import parse
from segfocal.config.parse import mistakes, mistakes_of_jobs
from segfocal.config.run import EvaluateConfig, TrainConfig
from segfocal.config.schema import CONF, register_schemas
from tests.conftest import ROOT, spawn

MISTAKES = [
    (["loss=focal", "+loss.gama=3"], ["loss.gama=3: no such key; did you mean gamma"]),
    (["loss=focal", "loss.gama=3"], ["loss.gama=3: no such key; did you mean gamma"]),
    (["loss.weights.ce=auto"], ["loss.weights.ce=auto: is for Dice: say a number"]),
    (["loss.terms.ce=3"], ["loss.terms.ce=3: must be a mapping with the name of a loss"]),
    (["task.classes=crack"], ["task.classes=crack: must be a list, in brackets and quoted for the shell, as in 'task.classes=[crack]'"]),
    (["data.crop=64"], ["data.crop=64: must be a list, in brackets and quoted for the shell, as in 'data.crop=[64]'"]),
    (["loss=focl"], ["loss=focl: no such option; did you mean focal"]),
    (["loss=focal", "loss.gamma=-1"], ["loss.gamma=-1: allowed is a finite number >= 0"]),
    (["loss=focal", "loss.gamma=two"], ["loss.gamma=two: allowed is a finite number >= 0"]),
    (["loss=focal", "loss.gamma=true"], ["loss.gamma=true: allowed is a finite number >= 0"]),
    (["loss=focal", "loss.gamma=inf"], ["loss.gamma=inf: allowed is a finite number >= 0"]),
    (["loss.gamma=2"], ["loss.gamma=2: no such key of this option; it is one of loss=focal, focal_tversky, poly1_focal, unified_focal"]),
    (["loss.gama=2"], ["loss.gama=2: no such key; did you mean gamma, of loss=focal or focal_tversky or poly1_focal or unified_focal?"]),
    (["sampling.share=0.3"], ["sampling.share=0.3: no such key of this option; it is one of sampling=foreground, rare_class"]),
    (["model.encoder=resnt18"], ["model.encoder=resnt18: ", "did you mean resnet18"]),
    (["model.encoder=tu-resnt18"], ["model.encoder=tu-resnt18: ", "did you mean tu-resnet18"]),
    (["model=unett"], ["model=unett: no such option; did you mean unet"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan: must be a finite number"]),
    (["optimizer.lr=0"], ["optimizer.lr=0: must be greater than 0"]),
    (["trainer.max_epochs=0"], ["trainer.max_epochs=0: must be at least 1"]),
    (["trainer.max_epochs=1.5"], ["trainer.max_epochs=1.5: must be a whole number"]),
    (["trainer.precision=8-bit"], ["trainer.precision=8-bit: must be one of 32-true, 16-mixed, bf16-mixed"]),
    (["task=multiclass", "task.classes=[crack]"], ["task=multiclass needs two classes or more"]),
    (["task.classes=[a,b]"], ["task=binary has one class"]),
    (["task=multiclass", "task.classes=[a,b,a]"], ["names must be different"]),
    (["task=multiclass", "task.classes=[a,b,c]", "task.ignore_index=2"], ["task.ignore_index=2 is the id of a class"]),
    (["data=folder"], ["task.classes is not said", "data.root is not said"]),
    (["data=folder", "data.root=x", "task.classes=[a]", "data.label_map={0:0,255:7}"], ["data.label_map: 255 -> 7"]),
    (["data=folder", "data.root=x", "task.classes=[a]", "data.fractions=[.5,.1,.1]"], ["data.fractions=[0.5,0.1,0.1]"]),
    (["data=folder", "data.root=x", "task.classes=[a]", "data.crop=[256]"], ["data.crop=[256]: must have at least 2 items, not 1"]),
    (["sampling=rare"], ["sampling=rare: no such option; there are auto, foreground, rare_class, uniform"]),
    (["sampling=foreground", "sampling.share=1.5"], ["sampling.share=1.5: must be at most 1"]),
    (["sampling=rare_class", "sampling.temperature=0"], ["sampling.temperature=0: must be greater than 0"]),
    (["data=folder", "data.root=x", "task.classes=[a]", "data.group='_('"], ["data.group=_(: not a regular expression"]),
    (["data.check=never"], ["data.check=never: must be one of fast, full"]),
    (["data=checkpoint"], ["data=checkpoint is for evaluate.py"]),
    (["task=multiclass", "loss=focal", "loss.alpha=0.25"], ["loss.alpha=0.25"]),
    (["optimzer.lr=1"], ["optimzer", "no such key; did you mean optimizer"]),
    (["experiment=crackforrest"], ["experiment=crackforrest: no such option; did you mean crackforest"]),
    (["+experiment=crackforest"], ["+experiment=crackforest: every group stands in the defaults"]),
    (["out=/dev/null/runs"], ["out=/dev/null/runs: /dev/null is not a directory"]),
    (["callbacks.ema=1"], ["callbacks.ema=1: allowed is a number between 0 and 1, auto (from the number of steps), or null"]),
    (["plugins=[no_such_module]"], ["plugins=[no_such_module]: No module named 'no_such_module'"]),
    (["loss.gamma"], ["loss.gamma: not of the form key=value (quote lists"]),
    (
        ["experiment=crackforest", "data.root=x", "data.label_map.255=1"],
        ["data.label_map.255=1: data.label_map is given as a whole, as in 'data.label_map={255:1,...}'"],
    ),
    (
        ["data.label_map={'0':0,'255':1}"],
        ["not of the form key=value (keys in braces are written without quotes: 'data.label_map={0:0,255:1}')"],
    ),
    (["data=folder", "data.group=_(.+)"], ["data.group=_(.+): not of the form key=value", "quoted twice: \"data.group='_(.+)'\""]),
    (
        ["seed=range(4,1)", "loss=focl"],
        ["seed=range(4,1): the range is empty: it starts at 4, ends before 1 and steps by 1; range(1,4) is 1,2,3", "loss=focl: no such"],
    ),
    (["optimizer.lr=range(0.5,0.1,0.1)"], ["optimizer.lr=range(0.5,0.1,0.1): the range is empty"]),
    (["seed=range(1,8,0)", "loss=focl"], ["seed=range(1,8,0): a range has a step other than 0, as in range(1,8,2)", "loss=focl: no such"]),
    (["optimizer.lr=range(1,8,0.0)"], ["optimizer.lr=range(1,8,0.0): a range has a step other than 0"]),
    (["loss=glob(*)"], ["loss=glob(*): a glob is not taken: list the options with commas, as in loss=ce,focal"]),
    (["loss=sum", "loss.terms=[{name:focal,gama:1},{name:dice}]"], ["loss.terms.focal.gama=1: no such key"]),
    (["logger=null", "loss=focl"], ["logger=null: name one, or leave it out; there are csv, none, tensorboard", "loss=focl: no such"]),
    (["plugins=[.x]"], ["plugins=[.x]: no name of a module, as in plugins=[my_losses]"]),
    (["plugins=['']"], ["plugins=[]: no name of a module"]),
    (["=3", "loss=focl"], ["=3: not of the form key=value: there is no key", "loss=focl: no such option"]),
    (["+=3"], ["+=3: not of the form key=value: there is no key"]),
]


@pytest.mark.parametrize(("overrides", "expected"), MISTAKES, ids=lambda item: " ".join(item)[:60])
def test_a_mistake_is_one_line_with_key_value_and_what_is_allowed(overrides: list[str], expected: list[str]) -> None:
    lines = mistakes(TrainConfig, "train", overrides)
    for part in expected:
        assert any(part.replace(",", ", ") in line or part in line for line in lines), lines
    assert all(line and "\n" not in line and "Traceback" not in line for line in lines)


def test_a_part_of_a_list_is_no_mistake_beside_one() -> None:
    (line,) = mistakes(TrainConfig, "train", ["data.crop=[64,64]", "data.crop.0=32", "loss=focl"])
    assert line.startswith("loss=focl: no such option")


def test_mistakes_are_told_all_at_once() -> None:
    lines = mistakes(TrainConfig, "train", ["loss=focl", "optimizer.lr=nan", "trainer.max_epochs=0", "+loss.gama=3", "seed=-1", "foo"])
    text = "\n".join(lines)
    for part in ("loss=focl", "optimizer.lr=nan", "trainer.max_epochs=0", "loss.gama=3", "seed=-1", "foo"):
        assert part in text


def test_each_job_of_a_sweep_is_checked() -> None:
    (line,) = mistakes(TrainConfig, "train", ["loss=focal", "loss.gamma=0,1,-1"])
    assert line.startswith("loss.gamma=-1: allowed is a finite number >= 0")
    assert not mistakes(TrainConfig, "train", ["loss=focal,ce", "optimizer.lr=1e-3,1e-4"])


def test_of_many_jobs_each_value_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "MOST_JOBS_CHECKED", 4)
    values = ["loss=focal", "loss.gamma=0,1,2,-2", "seed=range(0,8)"]
    for said in (values, [values[0], values[2], values[1]]):
        (line,) = mistakes(TrainConfig, "train", said)
        assert line.startswith("loss.gamma=-2: allowed is a finite number >= 0")
    register_schemas()
    jobs = [["loss=focal", f"loss.gamma={gamma}", f"seed={seed}"] for gamma in (0, -2) for seed in range(4)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (line,) = mistakes_of_jobs(TrainConfig, "train", jobs)
    assert line.startswith("loss.gamma=-2: allowed is a finite number >= 0")


def test_an_experiment_brings_its_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("plugins: [no_such_module]\n")
    (tmp_path / "experiment" / "torn.yaml").write_text("plugins: [\n")
    monkeypatch.setattr(parse, "CONF", tmp_path)
    assert parse._plugins_of_files({"experiment": ["mine", "torn", "other"]}) == ["no_such_module"]


@pytest.mark.parametrize("braces", [["0:0", "else:1"], ["128-0-0:1", "0-0-0:0", "else:ignore"]])
def test_a_mapping_that_the_shell_has_taken_apart_is_not_its_last_piece(braces):
    lines = mistakes(
        TrainConfig, "train", [f"data.label_map={piece}" for piece in braces] + ["data=folder", "data.root=/x", "task.classes=[a]"]
    )
    assert lines == [
        f"data.label_map is there {len(braces)} times: the shell has taken its braces away: quote it, 'data.label_map={{{','.join(braces)}}}'"
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seeds", "shown"), [("range(1)", False), ("range(2)", True)])
def test_many_jobs_of_a_sweep_are_checked_with_progress(monkeypatch, seeds, shown):
    monkeypatch.setattr(parse, "QUIET", 1)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert not mistakes(TrainConfig, "train", [f"seed={seeds}"])
    assert ("checking the jobs" in terminal.getvalue()) is shown
    assert any("loss.gamma" in line for line in mistakes(TrainConfig, "train", ["loss=focal,ce", "loss.gamma=0"]))


def test_what_is_right_has_no_mistakes() -> None:
    assert mistakes(TrainConfig, "train", ["loss=focal", "loss.gamma=2", "task=multiclass", "loss.alpha=[1,2,3,4,5]"]) == []
    assert mistakes(EvaluateConfig, "evaluate", ["ckpt=runs/x", "data.root=/elsewhere", "split=val"]) == []


def test_evaluation_says_what_it_needs() -> None:
    assert mistakes(EvaluateConfig, "evaluate", []) == [
        "ckpt is not said: which checkpoint to evaluate, as in ckpt=runs/<run> or ckpt=best.ckpt"
    ]
    assert "must be one of train, val, test" in mistakes(EvaluateConfig, "evaluate", ["ckpt=x", "split=tset"])[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["loss=focl"],
        ["data=folder", "data.root=/nowhere", "task.classes=[a]"],
        ["--help"],
        ["--cfg", "job"],
        ["+loss.gama=3", "model.encoder=tu-resnt18"],
    ],
    ids=" ".join,
)
def test_configuration_is_answered_without_torch(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """As `python train.py ...`; what takes seconds to import is looked for when the process ends."""
    program = f"""
import atexit, runpy, sys
heavy = {{"torch", "lightning", "segmentation_models_pytorch", "timm", "albumentations", "torchmetrics", "cv2"}}
atexit.register(lambda: print("imported:", sorted(heavy & set(sys.modules)), file=sys.stderr))
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py"] + {arguments!r}
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
    done = spawn("-c", program, cwd=tmp_path_factory.mktemp("empty"))
    assert "imported: []" in done.err
    assert done.code == (0 if arguments[0].startswith("-") else 2), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["loss=mindspore_course_focal"], "loss"),
        (["loss=sum", "loss.terms=[{name:focal,from_logits:false},{name:dice}]"], "loss.terms.focal"),
    ],
)
def test_a_loss_of_probabilities_is_not_trained_on_logits(overrides: list[str], key: str, tmp_path: Path) -> None:
    done = spawn(str(ROOT / "train.py"), *overrides, f"out={tmp_path}", cwd=tmp_path)
    assert done.code == 2
    assert done.err == f"{key}.from_logits=false: the models here end in logits, and nothing would be learned: {key}.from_logits=true\n"


def test_help_shows_the_commands_used_most(tmp_path_factory: pytest.TempPathFactory) -> None:
    done = spawn(str(ROOT / "train.py"), "--help", cwd=tmp_path_factory.mktemp("empty"))
    commands = [line for line in done.out.splitlines() if line.startswith("  python ")]
    assert len(commands) == 8
    assert "  loss       " in done.out
    assert " ce ce_dice dice focal focal_dice " in done.out
    assert "schema" not in done.out


def test_tab_completion_offers_options_and_keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    line = {"COMP_LINE": "python train.py loss=fo", "COMP_POINT": "23"}
    done = spawn(str(ROOT / "train.py"), "-sc", "query=bash", cwd=tmp_path_factory.mktemp("empty"), env=line)
    offered = done.out.split()
    assert offered[0] == "loss=focal"
    assert all(option.startswith("loss=fo") for option in offered)
