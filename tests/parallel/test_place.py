"""Which process this is, what does not go together, and what is said of it: without starting any."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from segfocal import engine
from segfocal.config.parse import mistakes
from segfocal.config.run import TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.parallel import launch
from segfocal.parallel.place import Place, first_node, here, processes_to_start, started_problems, tasks_per_node
from segfocal.parallel.sharded import with_synchronised_batchnorm
from segfocal.parallel.share import check_share, check_shares
from tests.conftest import ROOT, Result, spawn
from tests.test_training import configured

TORCHRUN = Place(1, 2, 1, 2, "torchrun")
SRUN = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],cpu1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


def test_a_process_by_itself() -> None:
    assert here({}) == Place(0, 1, 0, 1, "")
    assert here({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == Place()  # in a batch script, without srun
    assert here(SRUN | {"SLURM_STEP_NUM_TASKS": "1"}) == Place()


def test_a_process_of_torchrun_and_one_of_srun() -> None:
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    place = here(torchrun)
    assert (place, place.machines, place.machine) == (Place(5, 8, 1, 4, "torchrun", 1), 2, 1)
    one_each = {"RANK": "1", "WORLD_SIZE": "2"}  # as of a Kubernetes job
    assert here(one_each) == here(one_each) == Place(1, 2, 0, 1, "torchrun", 1)
    assert (one_each["LOCAL_RANK"], one_each["GROUP_RANK"]) == ("0", "1")  # Lightning reads them
    in_turns = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    assert here(in_turns).machine == 1
    environment = dict(SRUN)
    assert here(environment) == Place(5, 7, 1, 3, "srun", 1)
    assert here(environment) == Place(5, 7, 1, 3, "srun", 1)  # asked again, it is the same
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"], environment["RANK"]) == ("gpu03", "18456", "5")
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    assert [first_node(nodes) for nodes in ("a1", "a1,b2", "n[3,5]", "n[007-009]", "r[0-1]_b[4-9],c", "n[1-2]-ib")] == [
        "a1",
        "a1",
        "n3",
        "n007",
        "r0_b4",
        "n1-ib",
    ]


def problems(place: Place, sweep: bool, *overrides: str) -> list[str]:
    return mistakes(TrainConfig, "train", list(overrides), lambda config: started_problems(config, place, sweep))


@pytest.mark.parametrize(
    ("place", "overrides", "said"),
    [
        (Place(), ["trainer.devices=0"], "trainer.devices=0: must be at least 1"),
        (Place(), ["trainer.devices=-1"], "trainer.devices=-1: must be at least 1"),
        (Place(), ["trainer.devices=[0,0]", "strategy=ddp"], "trainer.devices=[0,0]: numbers of devices, each once, as in [0,1]"),
        (Place(), ["trainer.devices=[0,1]", "strategy=ddp", "profile=cpu"], "trainer.devices=[0,1]: a CPU has no numbers"),
        (Place(), ["trainer.devices=2"], "trainer.devices=2 with strategy=single: strategy=ddp trains on several devices"),
        (Place(), ["strategy=ddp"], "strategy=ddp: on how many devices? trainer.devices=2, or start it by torchrun or srun"),
        (Place(), ["strategy=ddp", "trainer.devices=9999"], "trainer.devices=9999: each device takes a process, and this machine has"),
        (Place(), ["strategy=ddp", "trainer.devices=2", "data.cache=ram"], "data.cache=ram: each process of a machine would hold"),
        (Place(), ["strategy=ddp", "profile=cpu", "strategy.sync_batchnorm=true"], "strategy.sync_batchnorm=true: torch has it for no CPU"),
        (Place(), ["strategy=fsdp", "trainer.devices=2"], "strategy=fsdp: the average of the weights is not divided among devices"),
        (
            Place(),
            ["strategy=fsdp", "callbacks.ema=null", "profile.compile=true"],
            "strategy=fsdp: weights that are divided are not compiled",
        ),
        (Place(), ["strategy=fsdp", "callbacks.ema=null", "profile=ascend"], "strategy=fsdp: not on NPUs (profile=ascend): strategy=ddp"),
        (Place(), ["strategy=fsdp", "callbacks.ema=null", "trainer.precision=16-mixed"], "strategy=fsdp: not with the scaled gradients"),
        (TORCHRUN, [], "strategy=single, and torchrun has started 2 processes: strategy=ddp"),
        (
            TORCHRUN,
            ["strategy=ddp", "trainer.devices=4"],
            "trainer.devices=4, and torchrun has started 2 processes, 2 on this machine: leave",
        ),
        (Place(5, 7, 1, 3, "srun"), ["strategy=ddp"], "srun has started 7 processes, not as many on each machine"),
    ],
)
def test_what_does_not_go_together_is_one_line(place: Place, overrides: list[str], said: str) -> None:
    found = problems(place, False, *overrides)
    assert any(line.startswith(said) for line in found), found
    assert len([line for line in found if "on how many devices" not in line]) <= 1


def test_what_goes_together() -> None:
    assert problems(TORCHRUN, False, "strategy=ddp") == []
    assert problems(TORCHRUN, False, "strategy=ddp", "trainer.devices=2") == []
    assert problems(Place(0, 1, 0, 1, "torchrun"), False, "strategy=ddp") == []
    assert problems(Place(), False, "trainer.devices=[0]") == []
    assert problems(Place(), True, "trainer.devices=1", "seed=0,1") == []
    config = configured("strategy=ddp", "trainer.devices=2")
    assert (processes_to_start(config, Place()), processes_to_start(config, TORCHRUN)) == (2, 0)
    assert processes_to_start(configured(), Place()) == 0


def test_a_sweep_of_several_devices_is_refused_before_its_first_job(cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli("train", "-m", "strategy=single,ddp", "trainer.devices=2", "seed=0,1")
    assert done.code == 2
    assert (
        "-m with strategy=ddp: the jobs of a sweep have one device each; for one run leave out -m: strategy=ddp trainer.devices=2, or torchrun; "
        "for a sweep one device a job: strategy=single" in done.err.splitlines()
    )
    assert not (tmp_path / "runs").exists()
    assert "started by torchrun: each process would run the sweep" in problems(TORCHRUN, True, "seed=0,1")[0]
    with pytest.raises(UserError, match=r"trainer\.devices=2: train\.py, torchrun or srun start 2 processes; there is 1"):
        fit(configured("strategy=ddp", "trainer.devices=2", "profile=cpu"), tmp_path)


def test_processes_that_start_together_say_a_mistake_once(tmp_path: Path) -> None:
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    wrong = [str(ROOT / "train.py"), "strategy=ddp", "loss=focal", "loss.gama=1"]
    done = [spawn(*wrong, cwd=tmp_path, env={**both, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    assert [each.code for each in done] == [2, 2]
    assert [each.err for each in done] == ["loss.gama=1: no such key; did you mean gamma?\n", ""]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_weights_that_are_gathered_can_be_trained_after_a_validation(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on may begin with one; under NCCL the weights gathered there would be inference tensors."""
    monkeypatch.setattr(engine, "build_callbacks", lambda *_: [])
    monkeypatch.setattr(engine, "Trainer", lambda **options: options)
    config = configured(f"strategy={strategy}", "trainer.devices=2", "callbacks.ema=null", "logger=csv")
    device = SimpleNamespace(trainer_options=lambda strategy: {"plugins": []})
    options: Any = engine.build_trainer(config, tmp_path, device, None, None, None)  # type: ignore[arg-type]  # what is asked of them
    assert options["inference_mode"] == (strategy == "ddp")


class Ends:
    """A process that ends after some time."""

    def __init__(self, seconds: float, code: int) -> None:
        self.at, self.code = time.monotonic() + seconds, code

    def poll(self) -> int | None:
        return self.code if time.monotonic() > self.at else None


def test_an_interrupted_run_has_the_time_of_its_validation_and_a_second_signal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "INTERRUPT", 0.3)
    both = [Ends(0.8, 130), Ends(0.9, 130)]
    launch._wait(both, [signal.SIGINT])  # type: ignore[arg-type]  # what is asked of them
    assert [process.poll() for process in both] == [130, 130]
    for signals, others in (([signal.SIGINT, signal.SIGINT], 9.0), ([signal.SIGINT], 0.1)):
        hangs = [Ends(others, 130), Ends(9, 130)]
        launch._wait(hangs, signals)  # type: ignore[arg-type]
        assert hangs[1].poll() is None


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """timeout(1) sends it to the process and to its group."""
    before = {number: signal.getsignal(number) for number in launch.CODES}
    try:
        come = launch._forwarded([])
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert come == [signal.SIGTERM]
        monkeypatch.setattr(launch, "DOUBLED", 0.0)
        signal.raise_signal(signal.SIGTERM)
        assert come == [signal.SIGTERM, signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_looking_at_the_configuration_starts_nothing(cli: Callable[..., Result]) -> None:
    done = cli("train", "strategy=ddp", "trainer.devices=2", "--cfg", "job")
    assert (done.code, done.out.count("optimizer:")) == (0, 1)


def test_the_launcher_imports_no_torch() -> None:
    code = "import segfocal.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def data() -> Callable[..., Any]:
    def made(*overrides: str) -> tuple[SegmentationData, Any]:
        config = configured("data.size=64", "data.train=9", "data.val=3", "data.test=2", *overrides)
        return SegmentationData(config.data, config.augment, config.task, 3, 0, 0), config

    return made


def test_each_process_has_something_to_do(data: Callable[..., Any]) -> None:
    assert (
        check_shares(*data("data.batch_size=2", "strategy=ddp"), TORCHRUN)
        == "2 processes, strategy=ddp: a step sees 2 x 2 images, 4 in all"
    )
    said = check_shares(*data("data.batch_size=3", "trainer.accumulate=2", "strategy=ddp"), Place(0, 2, 0, 1, "torchrun"))
    assert said == (
        "2 processes on 2 machines, strategy=ddp: a step sees 2 x 3 images x 2 accumulated, 12 in all; "
        "1 of 3 batches are left out of each epoch, others each time"
    )
    with pytest.raises(
        UserError, match=r"data\.batch_size=8, .*: 9 training images are too few for a batch on each of 2: data\.batch_size=4, or fewer"
    ):
        check_shares(*data("data.batch_size=8"), TORCHRUN)
    with pytest.raises(UserError, match="split=test has 2 images for 3 processes: fewer devices"):
        check_shares(*data("data.batch_size=1"), Place(0, 3, 0, 3, "torchrun"))
    check_shares(*data("data.batch_size=1", "trainer.test=false"), Place(0, 3, 0, 3, "torchrun"))
    with pytest.raises(UserError, match="split=val has 1 image for 2 processes"):
        check_share("val", 1, TORCHRUN)


def test_a_synchronised_batchnorm_is_the_same_in_evaluation_and_keeps_its_activation() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), BatchNormAct2d(4))
    image = torch.randn(2, 3, 5, 5)
    plain(image)
    before = plain.eval()(image)
    names = list(plain.state_dict())
    model = with_synchronised_batchnorm(plain)
    assert [type(part).__name__ for part in model] == ["Conv2d", "SyncBatchNorm", "Conv2d", "SyncBatchNormAct"]
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.eval()(image), before)


def test_too_few_images_are_told_before_any_is_read(tmp_path: Path) -> None:
    for split, count in (("train", 1), ("val", 2)):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            folder = tmp_path / "data" / kind / split
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{split}_{number}.{suffix}").write_bytes(b"no picture")
    said = ["data=folder", f"data.root={tmp_path / 'data'}", "task.classes=[crack]", "strategy=ddp", "trainer.devices=2", "profile=cpu"]
    done = spawn(str(ROOT / "train.py"), *said, cwd=tmp_path)
    assert done.code == 2
    assert "1 training images are too few for a batch on each of 2: data.batch_size=1, or fewer trainer.devices\n" in done.err
    assert "no picture" not in done.err and "cannot be read" not in done.err
