"""Models by name, and a head that starts at the class frequencies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segfocal.config.encoders import ARCHITECTURES
from segfocal.config.profile import ProfileConfig
from segfocal.config.run import ModelConfig
from segfocal.config.task import TaskConfig
from segfocal.devices import resolve
from segfocal.errors import UserError
from segfocal.models import build_model, check_size, set_bias_prior

BINARY = TaskConfig(name="binary", classes=["crack"])
MULTICLASS = TaskConfig(name="multiclass", classes=["a", "b", "c"])
ENCODER = {"segformer": "mit_b0", "dpt": "tu-vit_tiny_patch16_224.augreg_in21k"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_a_logit_a_class_and_pixel(name: str) -> None:
    model = build_model(ModelConfig(name=name, encoder=ENCODER.get(name, "resnet18")), MULTICLASS).eval()
    size = 224 if name == "dpt" else 128
    with torch.no_grad():
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 3, size, size)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("encoder", ["resnet18", "tu-tf_efficientnet_lite0"])
def test_any_number_of_channels(channels: int, encoder: str) -> None:
    model = build_model(ModelConfig(encoder=encoder, in_channels=channels), BINARY).eval()
    assert model(torch.zeros(1, channels, 32, 32)).shape == (1, 1, 32, 32)


def test_what_does_not_go_together_is_one_line() -> None:
    with pytest.raises(UserError, match=r"model=unetplusplus model.encoder=mit_b0: ") as error:
        build_model(ModelConfig(name="unetplusplus", encoder="mit_b0"), BINARY)
    assert "\n" not in str(error.value)


def test_sizes_that_a_model_does_not_take_and_batches_that_it_cannot_learn_from_are_one_line() -> None:
    unet = ModelConfig(encoder="resnet18")
    model = build_model(unet, BINARY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_size(model, unet, [64, 64], alone=True)
    check_size(model, unet, [32, 32])
    with pytest.raises(
        UserError, match=r"^model=unet .* cannot be trained with one image of 32 x 32 pixels .*data.batch_size or data.crop$"
    ):
        check_size(model, unet, [30, 32], alone=True)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "no statistics of zeros"
    pan = ModelConfig(name="pan", encoder="resnet18")
    with pytest.raises(UserError, match=r"^model=pan .* does not take 32 x 32 pixels .*: choose another data.crop$"):
        check_size(build_model(pan, BINARY), pan, [32, 32])


def test_the_bias_prior_makes_the_first_guess_the_class_frequencies() -> None:
    for task, prior in ((BINARY, [0.015]), (MULTICLASS, [0.9, 0.09, 0.01])):
        model = build_model(ModelConfig(), task)
        set_bias_prior(model, prior, task)
        bias = model.segmentation_head[0].bias
        guess = bias.softmax(0) if task.name == "multiclass" else bias.sigmoid()
        assert guess.tolist() == pytest.approx(prior, rel=1e-5)


@pytest.mark.parametrize("architecture", ["upernet", "segformer", "dpt", "deeplabv3plus", "linknet"])
def test_every_head_has_a_bias_for_the_prior(architecture: str) -> None:
    model = build_model(ModelConfig(name=architecture, encoder=ENCODER.get(architecture, "resnet18")), BINARY).eval()
    before = model(torch.zeros(1, 3, 224, 224)).mean().item()
    set_bias_prior(model, [1e-4], BINARY)
    assert model(torch.zeros(1, 3, 224, 224)).mean().item() < before - 4


def test_offline_weights_of_efficientnet_lite0(tmp_path: Path) -> None:
    bare = build_model(ModelConfig(encoder="tu-tf_efficientnet_lite0"), BINARY)
    loaded = build_model(ModelConfig(encoder="tu-tf_efficientnet_lite0", weights="efficientnet_lite0"), BINARY)
    key = "encoder.model.conv_stem.weight"
    assert not torch.equal(bare.state_dict()[key], loaded.state_dict()[key])
    torch.save(loaded.encoder.state_dict(), tmp_path / "mine.pth")
    again = build_model(ModelConfig(encoder="tu-tf_efficientnet_lite0", weights=str(tmp_path / "mine.pth")), BINARY)
    assert torch.equal(again.state_dict()[key], loaded.state_dict()[key])
    with pytest.raises(UserError, match="nowhere.pth"):
        build_model(ModelConfig(weights=str(tmp_path / "nowhere.pth")), BINARY)


def profile(accelerator: str) -> ProfileConfig:
    return ProfileConfig(name="test", accelerator=accelerator, channels_last=accelerator != "npu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="NOT TESTED: there is a GPU here, so its absence cannot be")
def test_devices_that_are_not_there_are_said() -> None:
    with pytest.raises(UserError, match="no CUDA GPU is seen"):
        resolve(profile("gpu"))
    with pytest.raises(UserError, match="torch_npu is not installed"):
        resolve(profile("npu"))
    with pytest.raises(UserError, match="a CPU does not train in fp16"):
        resolve(profile("cpu"), "16-mixed")
    assert resolve(profile("auto")).accelerator == "cpu"


def test_precision_and_workers_asked_for_go_before_the_profile() -> None:
    device = resolve(profile("cpu"), "32-true", workers=3)
    assert (device.precision, device.workers) == ("32-true", 3)
    assert "as asked" in device.reason
