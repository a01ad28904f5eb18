"""The names of architectures and encoders, known without importing torch, SMP or timm (which takes seconds).

The names are read out of the installed packages' source, so that they are those of the installed versions.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from segfocal.nearest import did_you_mean

ARCHITECTURES = (
    *("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet"),
    *("deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt"),
)

# SMP: `resnet_encoders = {` ... `}` at the left margin, one key of the outermost dict per line indented by four.
_TABLE = re.compile(rb"^\w+_encoders = \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_KEY = re.compile(rb'^ {4}"([^"]+)": ', re.MULTILINE)
# timm: the function under `@register_model` bears the model's name.
_MODEL = re.compile(rb"^@register_model\ndef (\w+)", re.MULTILINE)
# Legacy names that SMP itself turns into timm's (smp.encoders.get_encoder).
_LEGACY = re.compile(r"timm-(?=regnet|res2|resnest|mobilenetv3|gernet)")


@cache
def encoder_names() -> frozenset[str]:
    """SMP's own encoders, those of `smp.encoders.get_encoder_names()`."""
    tables = (table for source in _sources("segmentation_models_pytorch", "encoders") for table in _TABLE.findall(source))
    return frozenset(name.decode() for table in tables for name in _KEY.findall(table))


@cache
def timm_names() -> frozenset[str]:
    """The models of timm, those of `timm.list_models()`; as an encoder each is called `tu-` and this name."""
    return frozenset(name.decode() for source in _sources("timm", "models") for name in _MODEL.findall(source))


def check_encoder(name: str) -> str | None:
    """What is wrong with an encoder's name.

    Args:
        name: one of SMP's own (`resnet34`), or `tu-` and a model of timm, with or without a pretrained tag (`tu-resnet18.a1_in1k`).
            The tag itself is not checked. Legacy `timm-` names are taken where SMP takes them.

    Returns:
        One line that names the nearest encoders, or None where nothing is wrong.
    """
    if name in encoder_names():
        return None
    timm_name = _timm_name(name)
    if timm_name is None:
        return f"no encoder is named '{name}' (a model of timm is called tu-<name>){did_you_mean(name, encoder_names())}"
    if timm_name.partition(".")[0] in timm_names():
        return None
    hint = did_you_mean(f"tu-{timm_name}", (f"tu-{known}" for known in timm_names()))
    return f"no encoder is named '{name}': timm has no model '{timm_name}'{hint}"


def _timm_name(name: str) -> str | None:
    """What timm calls an encoder, or None where the encoder is not one of timm's."""
    if name.startswith("tu-"):
        return name.removeprefix("tu-")
    if not _LEGACY.match(name):
        return None
    return ("tf_" if "mobilenetv3" in name else "") + name.removeprefix("timm-")


def _sources(package: str, folder: str) -> list[bytes]:
    """The source files in a package's folder; the package is located, not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return [path.read_bytes() for path in sorted(Path(spec.submodule_search_locations[0], folder).glob("*.py"))]
