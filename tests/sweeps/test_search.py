"""Searches: Optuna asks, jobs of `tiny.py` run, the study is told. The logic of study and record is tested without processes."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState

from segfocal import checkpoint as checkpoints
from segfocal.config.parse import parse_sweep, sweeps
from segfocal.config.run import TrainConfig
from segfocal.config.sweep import Conditional, SweepConfig
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.sweeps.compare import best_first, pareto
from segfocal.sweeps.record import Job, Record
from segfocal.sweeps.search import Search, begin
from segfocal.sweeps.space import read_space
from segfocal.sweeps.storage import located, open_storage
from segfocal.sweeps.trial import Pruned, Reporter, TrialOfJob
from tests.sweeps.test_launcher import TINY, Sweep, environment, started, sweep  # noqa: F401  # a fixture
from tests.test_training import TINY as SMALL
from tests.test_training import configured

RANGES = ["loss.gamma=interval(0,5)", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]


def states(directory: Path) -> list[str]:
    """Of the trials, by number, as the journal has them."""
    study = optuna.load_study(study_name="segfocal", storage=open_storage(str(directory / "study.log")))
    return [trial.state.name for trial in study.trials]


def recorded(directory: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((directory / "sweep.json").read_text())["jobs"]
    return found


def test_a_search_goes_on_to_its_trials_whatever_fails(sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    command = ("sweep.sampler=tpe", "sweep.dir=s", "loss.gamma=0,1,5")
    done = sweep(*command, "sweep.trials=8", TINY_FAULTS="raise:5,nan:1")
    assert done.code == 0, done.err  # a trial that fails is a trial
    jobs = {str(job["overrides"][-1]): job for job in recorded(tmp_path / "s")}  # type: ignore[index]
    assert {key: (job["state"], job["attempts"]) for key, job in jobs.items()} == {
        "loss.gamma=0": ("finished", 1),
        "loss.gamma=1": ("finished", 1),
        "loss.gamma=5": ("failed", 1),
    }
    assert "job 2 loss.gamma" in done.out and "val/iou_macro undefined: a failed trial" in done.out
    told = states(tmp_path / "s")
    complete = jobs["loss.gamma=0"]["trials"]
    assert [number for number, state in enumerate(told) if state == "COMPLETE"] == complete
    assert (len(told), set(told)) == (8, {"COMPLETE", "FAIL"})  # what was tried before is told again, and not run again

    again = sweep(*command, "sweep.trials=9")
    assert (again.code, len(states(tmp_path / "s")), len(recorded(tmp_path / "s"))) == (0, 9, 3)
    assert "the study segfocal has 8 of 9 trials, in s/study.log" in again.out


def test_a_search_that_is_killed_goes_on_with_its_trial(sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    command = ("loss.gamma=0,0", "sweep.sampler=qmc", "sweep.dir=s", "sweep.trials=1")
    process: subprocess.Popen[str] = started(tmp_path, *command)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert states(tmp_path / "s") == ["RUNNING"]
    assert sweep(*command).code == 0
    assert states(tmp_path / "s") == ["COMPLETE"]
    assert [(job["state"], job["attempts"], job["trials"]) for job in recorded(tmp_path / "s")] == [("finished", 2, [0])]


def test_trials_that_fall_behind_are_pruned(sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    done = sweep(
        "sweep=asha", "sweep.dir=s", "sweep.trials=4", "sweep.seed=3", "loss=focal", "loss.gamma=interval(0,5)", "optimizer.lr=0.001"
    )
    assert done.code == 0, done.err
    pruned = [job for job in recorded(tmp_path / "s") if job["state"] == "pruned"]
    assert pruned and all(job["epoch"] in (1, 3, 9) and job["objective"] is None for job in pruned)
    assert f"pruned after epoch {pruned[0]['epoch']}" in done.out
    assert states(tmp_path / "s").count("PRUNED") == len(pruned)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.gama=interval(0,5)"], "loss.gama=0.0: no such key; did you mean gamma?\nloss.gama=5.0: no such key; did you mean gamma?\n"),
        (
            ["loss.gamma=0,1", "sweep.storage=nowhere/study.log"],
            "/nowhere/study.log: cannot be opened ([Errno 2] No such file or directory: ",
        ),
    ],
)
def test_mistakes_are_said_before_the_first_job(sweep: Sweep, tmp_path: Path, overrides: list[str], said: str) -> None:  # noqa: F811
    done = sweep("sweep.sampler=tpe", *overrides)
    assert done.code == 2 and "Traceback" not in done.err
    assert said in done.err
    assert not list(tmp_path.glob("runs/*"))


def test_the_grid_takes_no_interval(sweep: Sweep) -> None:  # noqa: F811
    assert sweeps(["sweep.one_at_a_time=true"]) == ["sweep.one_at_a_time=true: a sweep is what -m does"]
    assert sweeps(["sweep=asha", "seed=1"]) == ["sweep=asha: a sweep is what -m does"]
    assert sweeps(["sweep=grid", "sweep.jobs=2"]) == []  # which each job is told
    done = sweep("loss.gamma=interval(0,5)")
    assert (done.code, done.err) == (2, "loss.gamma=interval(0,5): an interval is for a search: sweep.sampler=tpe\n")


# The space.


def test_the_command_line_goes_before_the_space_of_the_option() -> None:
    said: dict[str, str | Conditional | None] = {
        "loss": "focal,dice",
        "loss.gamma": Conditional(when={"loss": "focal"}, values="interval(0, 5)"),
        "optimizer.lr": "tag(log, interval(1e-4, 1e-2))",
    }
    space = read_space(said, ["seed=3", "optimizer.lr=1e-3", "model.encoder=resnet18,resnet34", "data.batch_size=range(2,9,2)"])
    assert [parameter.key for parameter in space.parameters] == ["model.encoder", "data.batch_size", "loss", "loss.gamma"]
    trial = optuna.trial.FixedTrial({"loss": "dice", "model.encoder": "resnet34", "data.batch_size": 4})
    fixed = ["seed=3", "optimizer.lr=1e-3"]
    expected = [*fixed, "model.encoder=resnet34", "data.batch_size=4", "loss=dice"]
    assert space.overrides(lambda parameter: parameter.suggest(trial)) == expected  # type: ignore[arg-type]
    corners = space.corners()
    assert any("loss.gamma=5.0" in line for line in corners) and any("data.batch_size=8" in line for line in corners)
    assert not any("loss=dice" in line and any(word.startswith("loss.gamma") for word in line) for line in corners)

    assert [parameter.key for parameter in read_space(said, ["loss=focal"]).parameters] == ["loss.gamma", "optimizer.lr"]
    assert [parameter.key for parameter in read_space(said, ["loss=dice"]).parameters] == ["optimizer.lr"]


def test_a_grid_has_the_combinations_that_there_are() -> None:
    said: dict[str, str | Conditional | None] = {
        "loss": "ce,focal,focal_dice",
        "loss.gamma": Conditional(when={"loss": "focal"}, values="range(0,2)"),
        "loss.smooth": Conditional(when={"loss": "focal_dice, ce"}, values="0.5,1"),
        "seed": "0,1",
    }
    lines = [" ".join(line) for line in read_space(said, ["out=x"]).grid()]
    assert lines[:5] == [
        "out=x loss=ce loss.smooth=0.5 seed=0",
        "out=x loss=ce loss.smooth=0.5 seed=1",
        "out=x loss=ce loss.smooth=1 seed=0",
        "out=x loss=ce loss.smooth=1 seed=1",
        "out=x loss=focal loss.gamma=0 seed=0",
    ]
    assert len(set(lines)) == len(lines) == 12
    narrowed = [" ".join(line) for line in read_space(said, ["loss=ce,focal", "seed=3", "loss.gamma=range(0,1,0.25)"]).grid()]
    assert narrowed[:3] == ["seed=3 loss=ce loss.smooth=0.5", "seed=3 loss=ce loss.smooth=1", "seed=3 loss=focal loss.gamma=0.0"]
    assert narrowed[-1] == "seed=3 loss=focal loss.gamma=0.75"
    assert [line[1:] for line in read_space(said, ["loss=dice", "seed=1,2"]).grid()] == [["seed=1"], ["seed=2"]]
    alone = read_space({"loss": "ce,focal", "loss.alpha": Conditional(when={"loss": "focal"}, values="[1,2]")}, [])
    assert alone.grid() == [["loss=ce"], ["loss=focal", "loss.alpha=[1,2]"]]
    with pytest.raises(UserError, match="sweep.space: loss.gamma: any value between two is for a search: sweep.sampler=tpe"):
        read_space({"loss.gamma": "interval(0,5)"}, []).grid()


def test_a_range_of_floats_has_the_values_that_hydra_gives_it() -> None:
    override = "sampling.share=range(0,1,0.1)"
    hydras = [f"sampling.share={value}" for value in OverridesParser.create().parse_override(override).sweep_string_iterator()]
    assert hydras[3] == "sampling.share=0.3" != f"sampling.share={3 * 0.1}"
    space = read_space({}, [override])
    assert space.grid() == [[line] for line in hydras]
    for share in (3 * 0.1, 0.3):  # whichever Optuna comes to
        trial = optuna.trial.FixedTrial({"sampling.share": share})
        assert space.overrides(lambda parameter, trial=trial: parameter.suggest(trial)) == ["sampling.share=0.3"]  # type: ignore[misc]
    assert [set(each) for each in space.plain()] == [{"key", "choices", "low", "high", "step", "log", "when"}]  # as older studies have it


def test_the_space_keeps_the_plus_and_the_package_of_a_key() -> None:
    given = ["loss=ce", "loss@other=focal,dice", "+data.categories.x=a,b", "++data.n=range(0,2)"]
    space = read_space({"data.categories.x": "c,d"}, given)
    assert [parameter.key for parameter in space.parameters] == ["loss@other", "data.n", "data.categories.x"]
    assert space.grid()[0] == ["loss=ce", "loss@other=focal", "++data.n=0", "+data.categories.x=a"]
    assert len(space.grid()) == 8
    assert space.one_at_a_time()[1] == ["loss=ce", "loss@other=dice", "++data.n=0", "+data.categories.x=a"]
    assert ["loss=ce", "loss@other=focal", "++data.n=1", "+data.categories.x=a"] in space.corners()


def test_null_leaves_a_parameter_of_the_space_out() -> None:
    said: dict[str, str | Conditional | None] = {"loss": "ce,dice", "optimizer.lr": None, "augment": None}
    assert read_space(said, ["augment=auto,none"]).grid() == [
        [loss, augment] for loss in ("loss=ce", "loss=dice") for augment in ("augment=auto", "augment=none")
    ]
    ((_, config),) = parse_sweep(TrainConfig, "train", ["sweep=ablation", "sweep.space={loss.gamma: null, seed: null}"], 1)
    left = {parameter.key for parameter in read_space(config.sweep.space, []).parameters}
    assert left == set(config.sweep.space) - {"loss.gamma", "seed"}


def test_one_value_is_changed_at_a_time_with_every_seed() -> None:
    said: dict[str, str | Conditional | None] = {
        "loss": "ce,focal,dice",
        "loss.class_weights": Conditional(when={"loss": "ce"}, values="auto,null"),
        "loss.gamma": Conditional(when={"loss": "focal"}, values="0,2"),
        "optimizer.lr": "1,2,3",
        "seed": "0,1",
    }
    lines = [" ".join(line) for line in read_space(said, ["out=x"]).one_at_a_time()]
    assert lines[::2] == [
        "out=x loss=ce loss.class_weights=auto optimizer.lr=1 seed=0",
        "out=x loss=focal loss.gamma=0 optimizer.lr=1 seed=0",  # what there is only here takes all its values
        "out=x loss=focal loss.gamma=2 optimizer.lr=1 seed=0",
        "out=x loss=dice optimizer.lr=1 seed=0",
        "out=x loss=ce loss.class_weights=null optimizer.lr=1 seed=0",
        "out=x loss=ce loss.class_weights=auto optimizer.lr=2 seed=0",
        "out=x loss=ce loss.class_weights=auto optimizer.lr=3 seed=0",
    ]
    assert lines[1::2] == [line.replace("seed=0", "seed=1") for line in lines[::2]]
    assert read_space({}, ["optimizer.lr=1,2"]).one_at_a_time() == [["optimizer.lr=1"], ["optimizer.lr=2"]]
    with pytest.raises(UserError, match="sweep.space: loss.gamma: any value between two is for a search"):
        read_space({"loss.gamma": "interval(0,5)"}, []).one_at_a_time()


@pytest.mark.parametrize(
    ("said", "override", "message"),
    [
        ({}, "loss.gamma=interval(5,0)", "loss.gamma=interval(5,0): the lower end 5 is above the upper end 0"),
        ({}, "optimizer.lr=tag(log,interval(0,1))", "optimizer.lr=tag(log,interval(0,1)): a logarithm wants a lower end above 0, not 0"),
        ({}, "seed=tag(log,range(1,9))", "seed=tag(log,range(1,9)): a range of steps has no logarithm"),
        ({}, "seed=range(3,3)", "seed=range(3,3): the range is empty"),
        ({"seed": "range(1,8,0)"}, "out=x", "sweep.space: seed: range(1,8,0): a range has a step other than 0"),
        ({"optimizer.lr": "range(1,8,0.0)"}, "out=x", "sweep.space: optimizer.lr: range(1,8,0.0): a range has a step other than 0"),
        ({"loss": "glob(*)"}, "out=x", "sweep.space: loss: glob(*): a glob is not taken: list the options with commas"),
        ({}, "seed=3", "sweep.space: nothing is varied"),
        ({"loss.gamma": "2"}, "seed=3", "sweep.space: loss.gamma: 2: one value alone"),
        ({"loss.gamma": "interval(0"}, "seed=3", "sweep.space: loss.gamma: interval(0: not of Hydra's grammar"),
        ({"seed": Conditional(when={"loss": "ce"}, values="1,2"), "loss": "ce,dice"}, "out=x", "when loss: no parameter before it"),
        (
            {"loss": "ce,dice", "seed": Conditional(when={"loss": "dise"}, values="1,2")},
            "out=x",
            "dise is not among its values; did you mean dice?",
        ),
    ],
)
def test_a_space_that_is_none(said: dict[str, str | Conditional | None], override: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_space(said, [override])
    assert message in str(raised.value)


def test_a_space_that_is_no_text_is_one_line() -> None:
    with pytest.raises(UserError) as raised:
        parse_sweep(TrainConfig, "train", ["sweep=ablation", "sweep.space={loss: 3}"], 1)
    assert str(raised.value) == "sweep.space.loss=3: must be text or must be a mapping"


def test_options_of_a_search_want_a_sampler() -> None:
    for wrong, message in [
        ({"pruner": "asha"}, "sweep.pruner: is for a search: sweep.sampler=tpe"),
        (
            {"sampler": "cmaes", "also": ["val/loss"]},
            r"sweep.also=\[val/loss\]: sweep.sampler=cmaes takes one objective: sweep.sampler=nsga2",
        ),
        ({"sampler": "tpe", "also": ["val/loss"], "pruner": "median"}, "sweep.pruner=null"),
    ]:
        with pytest.raises(ValueError, match=message):
            SweepConfig(**wrong)


# Studies, without processes: `worked` is what jobs do.


def search(directory: Path, config: SweepConfig, overrides: list[str] = RANGES, objective: str = "val/iou_macro") -> Search:
    directory.mkdir(exist_ok=True)
    record = Record(directory, "tiny", [], objective, others=config.also)
    return begin(config, read_space(config.space, overrides), record, 9, " ".join)


def gamma_of(job: Job) -> float:
    return float(next(line for line in job.overrides if line.startswith("loss.gamma=")).partition("=")[2])


def worked(queue: Search, most: int = 100, value: Callable[[float], float] = lambda gamma: -abs(gamma - 2)) -> list[float]:
    gammas: list[float] = []
    while len(gammas) < most and (job := queue.next()):
        job.state, job.attempts, job.objective = "finished", 1, value(gamma_of(job))
        about = TrialOfJob(**json.loads(queue.environment(job)["SEGFOCAL_TRIAL"]))
        Reporter(about).report(1, dict.fromkeys(about.objectives, job.objective))
        queue.ended(job)
        gammas.append(gamma_of(job))
    return gammas


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "cmaes", "nsga2"])
def test_samplers_are_seeded_and_draw_nothing_twice_when_a_study_goes_on(sampler: str, tmp_path: Path) -> None:
    config = SweepConfig(sampler=sampler, trials=14 if sampler != "gp" else 11)  # type: ignore[arg-type]
    whole = worked(search(tmp_path / "whole", config))
    parts = search(tmp_path / "parts", config)
    first = worked(parts, 5)
    resumed = worked(begin(config, parts.space, parts.record, 9, " ".join))
    assert [*first, *resumed] == whole
    assert len(set(whole)) == config.trials
    other = SweepConfig(sampler=sampler, trials=3, seed=1)  # type: ignore[arg-type]
    assert worked(search(tmp_path / "other", other)) != whole[:3]


def test_the_objective_is_maximised_and_the_loss_is_minimised(tmp_path: Path) -> None:
    for objective, sign in (("val/iou_macro", -1), ("val/loss", 1)):
        config = SweepConfig(sampler="tpe", trials=30, storage=str(tmp_path / objective[4:]))
        gammas = worked(
            search(tmp_path / objective[4:7], config, objective=objective), value=lambda gamma, sign=sign: sign * abs(gamma - 4)
        )  # type: ignore[misc]
        assert sum(abs(gamma - 4) for gamma in gammas[20:]) < sum(abs(gamma - 4) for gamma in gammas[:10])


def test_several_sweeps_work_on_one_study_in_a_database(tmp_path: Path) -> None:
    config = SweepConfig(sampler="tpe", trials=6, storage=f"sqlite:///{tmp_path}/x.db", study="ours")
    one, other = search(tmp_path / "one", config), search(tmp_path / "other", config)
    gammas = worked(one, 2) + worked(other, 2)
    stays = other.next()
    assert stays is not None
    gammas += worked(one)
    assert len(set(gammas)) == 5 and one.next() is None  # the sixth is the other's, and it is running
    taken = begin(config, other.space, other.record, 9, " ".join)
    stays.state = "interrupted"
    assert begin(config, other.space, other.record, 9, " ".join).next() is stays
    assert taken.count() == 6


def test_a_study_of_another_space_is_refused(tmp_path: Path) -> None:
    config = SweepConfig(sampler="tpe")
    search(tmp_path / "s", config)
    with pytest.raises(UserError, match="the study there has another space: it differs in loss.gamma: sweep.dir=<another directory>"):
        search(tmp_path / "s", config, ["loss.gamma=interval(0,4)", RANGES[1]])
    with pytest.raises(UserError, match="has the objective val/iou_macro, not val/loss"):
        search(tmp_path / "s", config, objective="val/loss")
    with pytest.raises(UserError, match=r"sweep.storage=postgresql://me:\*\*\*@there/x: cannot be opened"):
        search(tmp_path / "s", SweepConfig(sampler="tpe", storage="postgresql://me:secret@there/x"))


def test_a_study_of_another_configuration_is_refused(tmp_path: Path) -> None:
    config, space = SweepConfig(sampler="tpe", storage=f"sqlite:///{tmp_path}/x.db"), read_space({}, RANGES)
    base = {"optimizer.lr": "0.1", "model.name": '"unet"', "data.root": '"/here"'}

    def asked(base: dict[str, str]) -> Search:
        return begin(config, space, Record(tmp_path, "tiny", [], "val/iou_macro", base=base), 9, " ".join)

    asked(base)
    asked({**base, "optimizer.lr": "0.2", "data.root": '"/there"'})  # the one is searched, the other is of the machine
    asked({})  # of an older release
    with pytest.raises(UserError, match=r"^sweep.study=segfocal: the configuration has changed since the study was begun \(model.name\): "):
        asked({**base, "model.name": '"fpn"'})


def test_a_storage_that_is_locked_or_lost_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfocal.sweeps.storage.PATIENCE", 0.1)
    config = SweepConfig(sampler="tpe", storage=f"sqlite:///{tmp_path}/x.db")
    queue = search(tmp_path / "s", config)
    job = queue.next()
    assert job is not None
    reporter = Reporter(TrialOfJob(**json.loads(queue.environment(job)["SEGFOCAL_TRIAL"])))
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"^sweep.storage=sqlite:.*(database is locked|cannot be)"):
            search(tmp_path / "t", config)
        assert not reporter.report(1, {"val/iou_macro": 0.5})  # a training does not end for it
        with pytest.raises(UserError, match="sweep.storage: the study is out of reach .*: the same command goes on"):
            queue.next()
    job.state, job.objective = "finished", 0.5
    queue.ended(job)
    assert queue.study.trials[0].value == 0.5


def test_a_trial_that_was_asked_for_but_not_recorded_is_run(tmp_path: Path) -> None:
    queue = search(tmp_path / "s", SweepConfig(sampler="tpe", trials=2))
    trial = queue.study.ask()
    trial.set_user_attr("directory", str(tmp_path / "s"))  # and then the sweep was killed
    worked(begin(SweepConfig(sampler="tpe", trials=2), queue.space, queue.record, 9, " ".join))
    assert [trial.state for trial in queue.study.trials] == [TrialState.COMPLETE] * 2


def test_two_objectives(tmp_path: Path) -> None:
    config = SweepConfig(sampler="nsga2", trials=3, also=["val/loss"])
    queue = search(tmp_path / "s", config)
    worked(queue)
    assert all(job.others == [job.objective] for job in queue.record.jobs)
    assert [direction.name for direction in queue.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for job, values in zip(queue.record.jobs, [(0.5, 0.2), (0.6, 0.3), (0.4, 0.3)], strict=True):
        job.objective, job.others = values[0], [values[1]]
    assert pareto(queue.record) == {0, 1}
    assert [job.number for job in best_first(queue.record)] == [1, 0, 2]


def test_a_study_begins_with_what_another_knows(tmp_path: Path) -> None:
    gammas = worked(search(tmp_path / "old", SweepConfig(sampler="tpe", trials=4)))
    same = search(tmp_path / "same", SweepConfig(sampler="tpe", trials=2, warm_start=str(tmp_path / "old")))
    assert [trial.params["loss.gamma"] for trial in same.study.trials] == gammas
    assert len(worked(same)) == 2  # of its own

    best = min(gammas, key=lambda gamma: abs(gamma - 2))
    narrower = SweepConfig(sampler="tpe", trials=2, warm_start=str(tmp_path / "old"))
    assert worked(search(tmp_path / "narrower", narrower, ["loss.gamma=interval(0,4.99)"]))[0] == best
    for wrong, message in [(str(tmp_path / "none"), "no journal of a study there"), (str(tmp_path / "empty"), "has finished")]:
        if "finished" in message:
            search(tmp_path / "empty", SweepConfig(sampler="tpe"))
        with pytest.raises(UserError, match=message):
            search(tmp_path / f"new{len(message)}", SweepConfig(sampler="tpe", warm_start=wrong))


def test_a_training_reports_each_validation_and_stops_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=open_storage(str(tmp_path / "x.log")), study_name="x", direction="maximize")
    for _ in range(5):  # better at every epoch than any training is
        study.add_trial(optuna.trial.create_trial(value=2.0, intermediate_values=dict.fromkeys((1, 2, 3), 2.0)))
    stopped = TrialOfJob(str(tmp_path / "x.log"), "x", study.ask().number, ["val/iou_macro"], "median", 2, 3)
    for name, value in stopped.environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(Pruned, match="pruned after epoch 2"):
        fit(configured(*SMALL, "trainer.max_epochs=3", "callbacks.overlays=0"), out)
    assert checkpoints.read(out / "checkpoints" / "last.ckpt")["epoch"] == 1  # the epoch is whole
    reported = study.trials[stopped.number].intermediate_values
    assert list(reported) == [1, 2]
    assert reported[2] == pytest.approx(checkpoints.read(out / "checkpoints" / "last.ckpt")["segfocal"]["metrics"]["iou_macro"])
    assert not (out / "metrics.json").exists()


def test_a_journal_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("x.log", Path("s")) == str(tmp_path / "x.log")
    assert located("sqlite:///x.db", Path("s")) == "sqlite:///x.db"
