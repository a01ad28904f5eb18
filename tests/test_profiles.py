"""Profiles: what they set, what they refuse, and that a checkpoint of one opens under each other."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segfocal import checkpoint as checkpoints
from segfocal import engine
from segfocal.config.parse import mistakes
from segfocal.config.profile import ProfileConfig
from segfocal.config.run import TrainConfig
from segfocal.config.strategy import SingleConfig
from segfocal.devices import resolve
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.parallel.devices import placed
from segfocal.switches import switch
from tests.accelerators.test_refusals import fake
from tests.conftest import ROOT, blobs, in_one_process, write_folder
from tests.test_training import TINY, configured, equal, figures

SMALL = [*TINY, "model.encoder=tu-test_resnet", "callbacks.overlays=0", "trainer.test=false", "report=false", "logger=csv"]
LOSS = """
from dataclasses import dataclass
import torch
from torch import nn
from segfocal.config.loss import LossConfig
from segfocal.registry import LOSSES

@dataclass
class PutConfig(LossConfig):
    name: str = "put"

class Put(nn.Module):
    def forward(self, logits, target):
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
        return logits.square().mean()

@LOSSES.register("put", PutConfig)
def build(config, task):
    return Put()
"""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Switches are of the whole process."""
    yield
    switch(ProfileConfig(name="test", accelerator="gpu", tf32=False, cudnn_benchmark=False), "gpu")
    torch.backends.cudnn.allow_tf32 = True  # torch's default


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["profile=cpu", "profile.precision=16-mixed"], "profile.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true"),
        (["profile=cpu", "trainer.precision=16-mixed"], "trainer.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true"),
        (["profile=cpu", "profile.tf32=true"], "profile.tf32: is about CUDA GPUs, not profile=cpu: leave it out"),
        (
            ["profile=ascend", "profile.cudnn_benchmark=false"],
            "profile.cudnn_benchmark: is about CUDA GPUs, not profile=ascend: leave it out",
        ),
        (
            ["profile=cpu", "profile.compile=reduce-overhead"],
            "profile.compile=reduce-overhead: records CUDA graphs, which profile=cpu has none",
        ),
        (["profile=ascend", "profile.compile=true"], "profile.compile=true: torch.compile knows no NPU: profile.compile=false"),
        (["profile=ascend", "profile.channels_last=true"], "profile.channels_last=true: torch_npu has no such layout"),
        (["profile.deterministic=true", "profile.cudnn_benchmark=true"], "profile.cudnn_benchmark=true: chooses by the clock"),
        (["profile=gpu", "profile.compile=reduce-overhead", "trainer.accumulate=2"], "trainer.accumulate=2: CUDA graphs overwrite"),
        (["profile.compile=fast"], "profile.compile=fast: must be true or false or must be one of reduce-overhead"),
        (["profile.deterministic=maybe"], "profile.deterministic=maybe: must be true or false or must be one of warn"),
        (["profile.threads=0"], "profile.threads=0: must be at least 1"),
        (["trainer.find_batch_size=1"], "trainer.find_batch_size=1: must be at least 2"),
        (
            ["trainer.find_lr=true", "strategy=ddp", "trainer.devices=2"],
            "trainer.find_lr: is looked for on one device, not with strategy=ddp: ",
        ),
        (["trainer.find_lr=true", "ckpt=runs/x"], "trainer.find_lr: is for a run that starts, not for one that goes on with ckpt="),
    ],
)
def test_what_does_not_go_together_is_said_before_torch_is_imported(overrides: list[str], line: str) -> None:
    (found,) = mistakes(TrainConfig, "train", overrides)
    assert found.startswith(line)


@pytest.mark.skipif(torch.cuda.is_available(), reason="NOT TESTED: there is a GPU here, so its absence cannot be")
@pytest.mark.timeout(250)
def test_what_this_machine_lacks_is_one_line_through_the_command(tmp_path: Path) -> None:
    (tmp_path / "put_loss.py").write_text(LOSS)
    nowhere = ["data=folder", "data.root=.", "task.classes=[crack]"]  # it would be said that it has no images, were it read
    fake(tmp_path, metadata.version("torch"), "raise ImportError('libhccl.so: cannot open shared object file')")
    put = ["plugins=[put_loss]", "loss=put", *SMALL, "profile=auto", "trainer.max_epochs=1"]
    commands = [
        ("train", ["profile=gpu", *nowhere]),
        ("train", ["profile=ascend", *nowhere]),
        ("train", ["profile=auto", "trainer.precision=16-mixed", *nowhere]),
        ("train", ["profile=auto", "profile.precision=16-mixed", *nowhere]),
        ("train", ["profile=cpu", "profile.compile=true", *nowhere]),
        ("train", ["profile=auto", "profile.compile=reduce-overhead", *nowhere]),
        ("train", [*put, "profile.deterministic=true"]),
        ("train", [*put, "profile.deterministic=warn", "profile.compile=null", "out=trained"]),
    ]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}  # no compiler
    env |= {"ASCEND_HOME_PATH": str(tmp_path), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    answers = in_one_process([(program, {}, words) for program, words in commands], tmp_path, env)
    lines = [
        "profile=gpu: no CUDA GPU is seen by torch ",
        "profile=ascend: torch_npu cannot be imported (libhccl.so: cannot open shared object file)",
        "trainer.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true",
        "profile.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true",
        "profile.compile=true: ",
        "profile.compile=reduce-overhead: records CUDA graphs, which a CPU has none of",
        "profile.deterministic=true: put_ has no deterministic kernel on this device: ",
    ]
    for done, line in zip(answers, lines, strict=False):
        assert done.code == 2, done.err
        assert done.err.strip().startswith(line)
        assert len(done.err.strip().splitlines()) == 1
    done = answers[-1]
    assert done.code == 0, done.err
    assert "device: profile=auto, no CUDA GPU is seen by torch " in done.out
    assert "torch_npu is installed: profile=ascend takes NPUs: cpu (1 threads)" in done.out
    assert "profile.compile=null: the model is not compiled: " in done.out
    assert [path.name for path in (tmp_path / "runs").iterdir() if not (path / "config.yaml").exists()] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which profile=auto takes")
def test_auto_is_the_profile_that_it_takes_and_says_why() -> None:
    auto, cpu = (resolve(configured(f"profile={name}").profile) for name in ("auto", "cpu"))
    assert auto.reason == f"profile=auto, no CUDA GPU is seen by torch {torch.__version__}: {cpu.reason}"
    assert dataclasses.replace(auto, reason="") == dataclasses.replace(cpu, reason="")


def test_tf32_and_determinism_are_set_whatever_was_set_before() -> None:
    for tf32, said in ((None, "high"), (False, "highest"), (True, "high")):
        told = switch(ProfileConfig(name="test", accelerator="gpu", tf32=tf32), "gpu")
        assert (
            torch.get_float32_matmul_precision() == said
        )  # what Lightning and Inductor ask; it raises where both kinds of switches are used
        assert torch.backends.cudnn.allow_tf32 == (tf32 is not False)
        assert torch.backends.cudnn.conv.fp32_precision == ("none" if tf32 is False else "tf32")
        assert told == {"deterministic": False, "benchmark": True}
    told = switch(ProfileConfig(name="test", accelerator="gpu", deterministic="warn"), "gpu")
    assert told == {"deterministic": "warn", "benchmark": False}
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert placed(ProfileConfig(name="test", accelerator="cpu", deterministic=True)).trainer_options()["deterministic"] is True
    assert torch.are_deterministic_algorithms_enabled()
    switch(ProfileConfig(name="test", accelerator="cpu"), "cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_old_gpu_is_asked_for_bf16_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of such a card, beside a newer one; there is neither here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: ("Tesla T4", "A100")[number])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: ((7, 5), (8, 0))[number])
    gpu = ProfileConfig(name="gpu", accelerator="gpu")
    assert resolve(gpu).precision == "16-mixed"
    with pytest.raises(Exception, match="^trainer.precision=bf16-mixed: Tesla T4 does not compute in bf16: 16-mixed or 32-true$"):
        resolve(gpu, "bf16-mixed")
    with pytest.raises(Exception, match="^profile.precision=bf16-mixed: Tesla T4 does not"):
        resolve(dataclasses.replace(gpu, precision="bf16-mixed"))
    newer = placed(gpu, strategy=SingleConfig(), devices=[1])
    assert newer.precision == "bf16-mixed"
    assert newer.reason.startswith("gpu (A100), precision bf16-mixed (computed natively)")
    with pytest.raises(UserError, match=r"^trainer.devices=\[2\]: torch sees 2 GPUs, numbered from 0: ask for fewer"):
        placed(gpu, strategy=SingleConfig(), devices=[2])


def test_bf16_on_a_processor_without_it_is_said_to_be_slow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve(ProfileConfig(name="cpu", accelerator="cpu")).precision == "32-true"
    with caplog.at_level(logging.WARNING, "segfocal"):
        assert resolve(ProfileConfig(name="cpu", accelerator="cpu"), "bf16-mixed").precision == "bf16-mixed"
    assert "trainer.precision=bf16-mixed: this processor has no bf16 of its own" in caplog.text


def test_a_checkpoint_of_each_setting_opens_under_each_other(tmp_path: Path) -> None:
    settings = {
        "half": ["trainer.precision=bf16-mixed"],
        "single": ["trainer.precision=32-true", "profile.channels_last=false", "optimizer=adamw"],
    }
    for name, chosen in settings.items():
        (tmp_path / name).mkdir()
        engine.fit(configured(*SMALL, *chosen, "trainer.max_epochs=1"), tmp_path / name)
    shapes = [{key: value.shape for key, value in kept(tmp_path / name)["state_dict"].items()} for name in settings]
    assert shapes[0] == shapes[1]
    for before, after in (("half", "single"), ("single", "half")):
        content = kept(tmp_path / before)
        groups = content["optimizer_states"][0]["param_groups"]
        assert all(group["fused"] for group in groups)
        groups[0]["fused"] = None  # as another device has it
        torch.save(content, tmp_path / before / "checkpoints" / "last.ckpt")
        more = tmp_path / f"{before} to {after}"
        more.mkdir()
        engine.fit(configured(*SMALL, *settings[after], f"ckpt={tmp_path / before}"), more)
        assert all(group["fused"] for group in kept(more)["optimizer_states"][0]["param_groups"])
        for precision in ("bf16-mixed", "32-true"):
            out = tmp_path / f"{before} in {precision}"
            out.mkdir()
            judged = ["report=false", "overlays=0", "bootstrap=0", "data.num_workers=0", "profile=cpu", f"profile.precision={precision}"]
            evaluate(configured(f"ckpt={tmp_path / before}", *judged, program="evaluate"), out)
        of_half, of_single = (figures(tmp_path / f"{before} in {precision}") for precision in ("bf16-mixed", "32-true"))
        assert of_half["auroc_macro"] == pytest.approx(of_single["auroc_macro"], abs=0.02)


def kept(run_dir: Path) -> dict[str, Any]:
    return checkpoints.read(run_dir / "checkpoints" / "last.ckpt")


class Tiny(nn.Module):
    """Compiled in seconds, where a Unet takes a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.segmentation_head = nn.Conv2d(4, 1, 1)
        self.seen: list[bool] = []

    def forward(self, image: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.seen.append(self.training)
        logits: Tensor = self.segmentation_head(self.features(image))
        return logits


@pytest.mark.timeout(250)
def test_a_compiled_model_trains_goes_on_and_is_evaluated_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[Tiny] = []

    def build(*_: Any, **__: Any) -> Tiny:
        models.append(Tiny())
        return models[-1]

    monkeypatch.setattr(engine, "build_model", build)
    monkeypatch.setattr(checkpoints, "build_model", build)
    write_folder(tmp_path / "data", blobs(8), split="train")
    for number, size in enumerate([(64, 64), (64, 96), (96, 64), (128, 96)]):  # a recompilation each, were validation compiled
        write_folder(tmp_path / "data", blobs(1, size, seed=10 + number), split="val")
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            folder = tmp_path / "data" / kind / "val"
            (folder / f"val_00.{suffix}").rename(folder / f"of_{number}.{suffix}")
    data = ["data=folder", f"data.root={tmp_path / 'data'}", "task.classes=[crack]", "data.crop=[32,32]", "data.batch_size=4"]
    rest = ["profile=cpu", "data.num_workers=0", "callbacks.overlays=0", "trainer.test=false", "report=false", "logger=csv"]
    rest += ["callbacks.ema=0.9", "trainer.precision=32-true", "scheduler=constant"]
    runs = {"eager": ["trainer.max_epochs=2"], "compiled": ["trainer.max_epochs=2", "profile.compile=true"]}
    runs["first"] = ["trainer.max_epochs=1", "profile.compile=true"]
    runs["second"] = ["trainer.max_epochs=2", "profile.compile=true", f"ckpt={tmp_path / 'first'}"]
    runs["second, eager"] = ["trainer.max_epochs=2", f"ckpt={tmp_path / 'first'}"]
    seen = {}
    for name, how in runs.items():
        (tmp_path / name).mkdir()
        models.clear()
        engine.fit(configured(*data, *rest, *how), tmp_path / name)
        seen[name] = models[0].seen  # without the size check, which is in evaluation mode
    assert True in seen["eager"]
    assert True not in seen["compiled"]  # the training step was compiled,
    assert False in seen["compiled"]  # validation was not
    assert kept(tmp_path / "compiled")["state_dict"].keys() == kept(tmp_path / "eager")["state_dict"].keys()
    assert equal(kept(tmp_path / "second")["current_model_state"], kept(tmp_path / "compiled")["current_model_state"])
    assert equal(kept(tmp_path / "second")["state_dict"], kept(tmp_path / "compiled")["state_dict"])
    for name in ("compiled", "second, eager"):
        for key, value in kept(tmp_path / "eager")["state_dict"].items():
            torch.testing.assert_close(kept(tmp_path / name)["state_dict"][key], value, rtol=1e-3, atol=1e-4, msg=f"{name}: {key}")
    out = tmp_path / "evaluated"
    out.mkdir()
    evaluate(configured(f"ckpt={tmp_path / 'compiled'}", "split=val", "report=false", "overlays=0", "bootstrap=0", program="evaluate"), out)
    assert figures(out)["auroc_macro"] is not None
