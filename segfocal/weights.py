"""Pretrained encoder weights from a file, without a network: every tensor of the encoder is loaded, or none and the reason is told.

SMP itself takes no path, and where the names in a file do not match, timm loads nothing and only logs it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfocal.errors import UserError, first_line
from segfocal.lites import LITES, lite_file, lite_to_timm
from segfocal.rundir import typed_path

_NESTS = ("state_dict", "model_state_dict", "model", "weights")  # where training programs put the state dict
_WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|model|net|network|backbone|encoder)\.)+")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")  # torchvision's files still say norm.1 where the modules say norm1


@dataclass(frozen=True)
class WeightsReport:
    """What was loaded.

    Args:
        loaded: tensors of the encoder that came from the file, BatchNorm's step counters not counted.
        total: tensors of the encoder, the same way; equal to `loaded`, or loading has raised.
        source: the file.
        unused: names in the file that the encoder has no place for: the classifier, a decoder.
    """

    loaded: int
    total: int
    source: str
    unused: tuple[str, ...]


def load_encoder_weights(encoder: nn.Module, weights: str, encoder_name: str) -> WeightsReport:
    """Load pretrained weights into an encoder, in place.

    Names match whatever wrappers (`module.`, `model.encoder.`, ...) stand before them; `tu-` encoders take timm's own files.
    For other than 3 input channels the first convolution is fitted as SMP does it: one channel gets the sum over red, green and
    blue, more get these in turn, scaled by 3 / channels.

    Args:
        encoder: `model.encoder` of an SMP model.
        weights: a .pth, .pt or .safetensors file, or one of `LITES` for the ImageNet weights of its package.
        encoder_name: the encoder's name in SMP.

    Returns:
        How much was loaded and from where.

    Raises:
        UserError: no such file, a URL, a damaged file, one that holds more than tensors, or one that is not of this encoder.
            The encoder is then left as it was.
    """
    source = lite_file(weights, encoder_name) if weights in LITES else typed_path(weights)
    found = _read(weights, source)
    if weights in LITES:
        found = {lite_to_timm(name, LITES[weights]): tensor for name, tensor in found.items()}
    return _load(encoder, found, str(source), encoder_name)


def normalization(weights: str | None, encoder_name: str, channels: int = 3) -> tuple[list[float], list[float]] | None:
    """The mean and standard deviation per channel, for pixel values in 0 .. 1, that pretrained weights were trained with.

    Args:
        weights: as in `load_encoder_weights`, or the name of weights on SMP's hub, such as `imagenet`. For these SMP reads
            a file of the hub, from the cache if the weights have been fetched; nothing else here uses the network.
        encoder_name: the encoder's name in SMP.
        channels: of the images; grey gets the mean over red, green and blue, more get these in turn, as the first convolution does.

    Returns:
        Mean and standard deviation of each channel; None without weights, and for a file, which does not say.

    Raises:
        UserError: SMP has no such weights for this encoder, or cannot read what belongs to them.
    """
    if weights is None or Path(weights).suffix or typed_path(weights).is_file():
        return None
    if weights in LITES:
        return [0.5] * channels, [0.5] * channels
    from segmentation_models_pytorch.encoders import get_preprocessing_params  # imports timm: seconds

    try:
        settings = get_preprocessing_params(encoder_name, pretrained=weights)
    except OSError as error:  # the hub's client: no network, no such weights there
        raise UserError(
            f"model.weights={weights}: the weights of {encoder_name} could not be downloaded ({first_line(error, 200)})"
        ) from None
    except Exception as error:  # whatever else SMP raises
        raise UserError(f"model.weights={weights}: no mean and standard deviation for the encoder {encoder_name}: {error}") from error
    mean, std = (_for_channels(list(settings[key]), channels) for key in ("mean", "std"))
    return mean, std


def _for_channels(rgb: list[float], channels: int) -> list[float]:
    return [sum(rgb) / 3] if channels == 1 else [rgb[channel % 3] for channel in range(channels)]


# --- reading ----------------------------------------------------------------------------------------------------------------


def _read(weights: str, path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name. Nothing in the file is executed."""
    if "://" in weights:
        raise UserError(f"model.weights={weights}: nothing is downloaded from an address: fetch the file and give its path")
    if not path.is_file():
        raise UserError(f"model.weights={weights}: there is no file {path}; model.weights takes a path or one of {', '.join(LITES)}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path, device="cpu"))
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load itself does not notice a flipped bit
                if (damaged := archive.testzip()) is not None:
                    raise OSError(f"checksum of {damaged}")
        tensors = _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # damaged files raise OSError, EOFError, KeyError, RuntimeError, UnpicklingError, SafetensorError, ...
        if unsafe := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds {unsafe[1]}, and loading it could run code: save the tensors alone, torch.save(model.state_dict(), ...)"
            ) from error
        raise UserError(f"{path} is damaged or no file of weights ({type(error).__name__})") from error
    if not tensors:
        raise UserError(f"{path} holds no state dict: expected tensors by name, at the top or under one of {', '.join(_NESTS)}")
    return tensors


def _tensors(content: Any) -> dict[str, Tensor]:
    """The state dict in what a training program saved; empty where there is none."""
    if not isinstance(content, Mapping):
        return {}
    for nest in _NESTS:
        if isinstance(content.get(nest), Mapping):
            return _tensors(content[nest])
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


# --- matching ---------------------------------------------------------------------------------------------------------------


def _load(encoder: nn.Module, found: Mapping[str, Tensor], source: str, encoder_name: str) -> WeightsReport:
    """Copy every tensor that the encoder needs, after all of them have been found to fit."""
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = {name: tensor for name, tensor in found.items() if not name.endswith("num_batches_tracked")}
    names: dict[str, list[str]] = {}
    for name in found:
        names.setdefault(_stem(name), []).append(name)
    fitting: dict[str, tuple[str, Tensor]] = {}
    problems: dict[str, list[str]] = {"not in the file": [], "twice in the file": [], "of another shape": []}
    for name, tensor in own.items():
        candidates = names.get(_stem(name), [])
        if len(candidates) != 1:
            problems["twice in the file" if candidates else "not in the file"].append(name)
        elif (fitted := _fit_channels(found[candidates[0]], tensor.shape)).shape != tensor.shape:
            problems["of another shape"].append(f"{name} {tuple(fitted.shape)} instead of {tuple(tensor.shape)}")
        else:
            fitting[name] = candidates[0], fitted
    used = {name: None for name, _ in fitting.values()}  # a set that keeps the encoder's order
    unused = tuple(name for name in found if name not in used)
    problems["of a deeper network"] = _further_blocks(unused, used)
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_some(which)}" for what, which in problems.items() if which)
        raise UserError(
            f"{source} is not of the encoder {encoder_name}: {len(fitting)} of {len(own)} tensors match; {listed}. "
            "Set model.encoder to the one the file was made for, or model.weights=null"
        )
    with torch.no_grad():
        for name, (_, tensor) in fitting.items():
            own[name].copy_(tensor)  # a state dict shares its storage with the module
    return WeightsReport(loaded=len(fitting), total=len(own), source=source, unused=unused)


def _stem(name: str) -> str:
    """What is common to the names that one tensor goes by: no wrappers, and timm's feature extractor says `stages_0` for `stages.0`."""
    return _OLD_DENSENET.sub(r"\1\2.", _WRAPPERS.sub("", name)).replace(".", "_")


def _fit_channels(tensor: Tensor, shape: torch.Size) -> Tensor:
    """An RGB convolution for another number of input channels, and any other tensor as it is."""
    if tensor.dim() != 4 or len(shape) != 4 or tensor.shape[1] != 3 or (len(tensor), *tensor.shape[2:]) != (shape[0], *shape[2:]):
        return tensor
    if shape[1] == 1:
        return tensor.sum(dim=1, keepdim=True)
    return tensor[:, torch.arange(shape[1]) % 3] * (3 / shape[1])


def _further_blocks(unused: Iterable[str], used: Collection[str]) -> list[str]:
    """The unused tensors of blocks within the encoder, not behind its end: all of a resnet18 fits into a resnet34's file."""
    items: set[str] = set()
    last: dict[str, int] = {}
    for place, name in enumerate(used):
        for item in _items(name):
            items.add(item)
            last[item.rpartition(".")[0]] = place  # where this list of blocks ends
    end = len(used) - 1
    return [name for name in unused if any(item not in items and last.get(item.rpartition(".")[0], end) < end for item in _items(name))]


def _items(name: str) -> list[str]:
    """The numbered blocks that a tensor stands in: `layer1.0.downsample.1.weight` -> `layer1.0`, `layer1.0.downsample.1`."""
    parts = name.split(".")
    return [".".join(parts[: k + 1]) for k, part in enumerate(parts) if part.isdigit()]


def _some(names: list[str], most: int = 3) -> str:
    """The first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
