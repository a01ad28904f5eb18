"""The graph that is exported: normalisation where it is wanted, the model, and probabilities beside its logits."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from segfocal.config.export import STRIDE, ExportConfig
from segfocal.decision import Decision
from segfocal.errors import UserError, first_line
from segfocal.export.source import Source

TRACED = (2, 256, 384)  # batch, height, width; at every level of every model more than one pixel, which would count as fixed


class Graph(nn.Module):
    """Image (N, channels, H, W) -> logits and probabilities (N, C, H, W).

    Args:
        model: image -> logits.
        decision: its temperature is what probabilities are made with.
        mean_std: of each channel, of pixels in 0..1; with it images are pixels of 0..255, without they come normalised.
    """

    def __init__(self, model: nn.Module, decision: Decision, mean_std: tuple[list[float], list[float]] | None = None) -> None:
        super().__init__()
        self.model, self.decision = model, decision
        self.normal = None if mean_std is None else tuple(torch.tensor(values).reshape(-1, 1, 1) for values in mean_std)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.normal is not None:
            mean, std = self.normal
            image = (image / 255 - mean) / std
        logits: Tensor = self.model(image)
        return logits, self.decision.probabilities(logits)


class Pool(nn.Module):
    """nn.AdaptiveAvgPool2d as two matrix products: ONNX has no pooling into a number of bins at sizes that are not known."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.bins = rows, columns

    def forward(self, features: Tensor) -> Tensor:
        rows, columns = (self._shares(bins, length) for bins, length in zip(self.bins, features.shape[-2:], strict=True))
        return (rows.to(features) @ features) @ columns.to(features).T

    @staticmethod
    def _shares(bins: int, length: int) -> Tensor:
        """(bins, length): bin i is the mean of what lies from floor(i L / bins) to ceil((i + 1) L / bins)."""
        number, place = torch.arange(bins)[:, None], torch.arange(length)
        begin, end = number * length // bins, ((number + 1) * length + bins - 1) // bins
        return ((place >= begin) & (place < end)) / (end - begin)


def traced(source: Source, config: ExportConfig) -> torch.export.ExportedProgram:
    """The graph of a checkpoint, for any number of images, and for any size unless one is said.

    Raises:
        UserError: the model cannot be traced.
    """
    graph = Graph(with_pools(source.model), source.decision, (source.mean, source.std) if config.normalise else None)
    batch, height, width = (TRACED[0], *config.size) if config.size else TRACED
    dims: dict[int, object] = {0: torch.export.Dim("batch")}
    if not config.size:
        dims |= {2: STRIDE * torch.export.Dim("rows"), 3: STRIDE * torch.export.Dim("columns")}
    image = torch.zeros(batch, source.architecture.in_channels, height, width)
    try:
        with quietly():
            program = torch.export.export(graph.eval(), (image,), dynamic_shapes=({**dims},), strict=False)
    except Exception as error:  # what models meet when they are traced is of every kind
        hint = "" if config.size else "; where it takes one size alone, say that, as in size=[224,224]"
        raise UserError(f"{source.name}: cannot be exported ({first_line(error)}){hint}") from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def with_pools(model: nn.Module) -> nn.Module:
    """A copy whose pooling into more than one bin is `Pool`."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            bins = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size, layer.output_size)
            if bins[0] is not None and bins[1] is not None and bins != (1, 1):
                model.set_submodule(name, Pool(bins[0], bins[1]))
    return model


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing of what exporters tell on their way."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
