"""Encoder-decoder models of segmentation-models-pytorch, and where their head starts."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import cast

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from segfocal.config.run import ModelConfig
from segfocal.config.task import TaskConfig
from segfocal.data.dataset import STRIDE
from segfocal.errors import UserError, first_line


def build_model(config: ModelConfig, task: TaskConfig, pretrained: bool = True) -> nn.Module:
    """A model with a channel a class (one for binary).

    Args:
        config: architecture, encoder, weights.
        task: how many classes.
        pretrained: False leaves `config.weights` alone: a checkpoint is about to be loaded.

    Raises:
        UserError: architecture and encoder do not go together, or the weights do not fit.
    """
    hub = "imagenet" if pretrained and config.weights == "imagenet" else None
    try:
        model: nn.Module = smp.create_model(
            config.name, encoder_name=config.encoder, encoder_weights=hub, in_channels=config.in_channels, classes=task.num_classes
        )
    except OSError as error:  # the hub's client: no network, no such weights there
        raise UserError(
            f"model.weights=imagenet: the weights of {config.encoder} could not be downloaded ({first_line(error, 200)})"
        ) from None
    except UserError:
        raise
    except Exception as error:  # SMP raises ValueError, KeyError, AttributeError and RuntimeError of timm alike
        raise UserError(f"model={config.name} model.encoder={config.encoder}: {first_line(error, 200)}") from None
    if pretrained and config.weights and not hub:
        from segfocal.weights import load_encoder_weights

        load_encoder_weights(cast(nn.Module, model.encoder), config.weights, config.encoder)
    return model


@contextlib.contextmanager
def within(most: int) -> Iterator[None]:
    """Models that are made in the block may have so many bytes of weights, counted before they are filled.

    Raises:
        UserError: of what would be larger.
    """
    made = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        nonlocal made
        made += weight.nbytes
        if made > most:
            raise UserError(f"its model would have more than {most / 1e9:.1f} GB of weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def check_size(model: nn.Module, config: ModelConfig, size: list[int], alone: bool = False) -> None:
    """Raise UserError where the model does not take images of a size; some have none left after so many halvings.

    Args:
        model, config: it, and what it was built by.
        size: height and width.
        alone: each is a batch by itself: some models have a single value left for a channel then, which BatchNorm cannot be trained with.
    """
    height, width = (-(-length // STRIDE) * STRIDE for length in size)
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, config.in_channels, height, width))
    except Exception as error:  # RuntimeError, ValueError or AssertionError, as the layer that fails has it
        raise UserError(
            f"model={config.name} model.encoder={config.encoder}: does not take {height} x {width} pixels ({first_line(error, 200)}): "
            "choose another data.crop"
        ) from None
    model.train()
    if alone:
        try:
            with torch.no_grad():
                copy.deepcopy(model)(torch.zeros(1, config.in_channels, height, width))  # a copy: it counts means and variances
        except ValueError as error:
            raise UserError(
                f"model={config.name} model.encoder={config.encoder}: cannot be trained with one image of {height} x {width} pixels at a time "
                f"({first_line(error, 200)}): choose a larger data.batch_size or data.crop"
            ) from None


def set_bias_prior(model: nn.Module, prior: list[float], task: TaskConfig) -> None:
    """Start the head at the class frequencies: b = log(p / (1 - p)) under a sigmoid, b_c = log p_c under a softmax.

    Args:
        model: of SMP, whose head is `segmentation_head`.
        prior: share of the training pixels that are of each class, each in (0, 1].

    Reference:
        Focal loss, arXiv 1708.02002, section 3.3 (there one value for all classes).
    """
    layers = list(cast(nn.Module, model.segmentation_head).modules())
    head = next(layer for layer in reversed(layers) if isinstance(layer, nn.Conv2d))
    if head.bias is None:
        raise UserError(f"model.bias_prior=true: the head of {type(model).__name__} has no bias")
    clipped = [min(max(share, 1e-6), 1 - 1e-6) for share in prior]
    values = [math.log(share) if task.name == "multiclass" else math.log(share / (1 - share)) for share in clipped]
    with torch.no_grad():
        head.bias.copy_(torch.tensor(values))
