"""Whether what was written computes what the checkpoint's model does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segfocal.config.export import ExportConfig
from segfocal.data.dataset import Normalise
from segfocal.data.source import Array
from segfocal.errors import UserError, first_line
from segfocal.export.source import Source

TOLERANCE = 1e-3  # of the largest logit: some hundred times what fp32 rounds, a hundredth of what changes a mask
CHECKED = ((1, 288, 320), (2, 320, 256))  # batch, height, width; none of them what was traced
Run = Callable[[Array], tuple[Array, Array]]
"""From an image as the file takes it to logits and probabilities."""


def check(source: Source, config: ExportConfig, run: Run) -> str:
    """Compare with the model itself on noise and on a picture, each in two sizes and numbers of images.

    Returns:
        What was found, in words.

    Raises:
        UserError: they do not agree.
    """
    shapes = [(batch, config.size[0], config.size[1]) if config.size else (batch, height, width) for batch, height, width in CHECKED]
    normalise = Normalise(source.mean, source.std)
    worst = largest = unsure = 0.0
    for shape in shapes:
        for pixels in images(shape, source.architecture.in_channels):
            normalised = np.ascontiguousarray(np.moveaxis(normalise(pixels), -1, 1))
            logits, probabilities = eager(source, torch.from_numpy(normalised))
            given = np.ascontiguousarray(np.moveaxis(pixels, -1, 1).astype(np.float32)) if config.normalise else normalised
            try:
                found = run(given)
            except Exception as error:  # whatever the runtime meets
                raise UserError(
                    f"{source.name}: what was exported does not run on {shown(shape)} ({first_line(error)}): nothing is kept"
                ) from None
            largest = max(largest, float(logits.abs().max()))
            worst = max(worst, difference(found[0], logits))
            unsure = max(unsure, difference(found[1], probabilities))
    said = f"logits differ by at most {worst:.1e}, probabilities by {unsure:.1e}, from the checkpoint's"
    if not (worst <= TOLERANCE * largest and unsure <= TOLERANCE):
        raise UserError(f"{source.name}: {said}; allowed are {TOLERANCE * largest:.1e} and {TOLERANCE:.0e}: nothing is kept")
    return f"{said} (logits up to {largest:.1f}, allowed {TOLERANCE * largest:.1e}) at {', '.join(map(shown, shapes))}"


def eager(source: Source, normalised: Tensor) -> tuple[Tensor, Tensor]:
    """What the checkpoint's model gives."""
    with torch.inference_mode():
        logits: Tensor = source.model(normalised)
        return logits, source.decision.probabilities(logits)


def images(shape: tuple[int, int, int], channels: int) -> list[Array]:
    """(N, H, W, channels) uint8: noise, and ramps with dark bars and a white patch on them."""
    batch, height, width = shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    rows, columns = np.linspace(0, 120, height)[:, None], np.linspace(0, 120, width)[None]
    picture = np.repeat((rows + columns).astype(np.uint8)[None, ..., None], channels, axis=3).repeat(batch, axis=0)
    for number in range(batch):
        picture[number, :, 20 * (number + 1) :: 50] //= 4
        picture[number, height // 3 : height // 2, width // 4 : width // 2] = 255
    return [noise, picture]


def difference(found: Array, wanted: Tensor) -> float:
    """The largest; infinite for another shape or NaN."""
    if found.shape != tuple(wanted.shape):
        return float("inf")
    most = float(np.abs(found.astype(np.float64) - wanted.double().numpy()).max())
    return most if most == most else float("inf")


def shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
