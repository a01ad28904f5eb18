"""A checkpoint, applied to files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from segfocal import checkpoint as checkpoints
from segfocal.config.parse import parse
from segfocal.config.predict import PredictConfig, ReadingConfig
from segfocal.data.dataset import Normalise
from segfocal.data.faults import BadFileError
from segfocal.data.formats import read_scaled, resized
from segfocal.data.source import Array
from segfocal.decision import Decision, labels_of
from segfocal.devices import resolve
from segfocal.errors import UserError
from segfocal.inference import Inference
from segfocal.memory import out_of_memory

ROWS = 128  # of an image, decided at a time: what is computed of logits takes several times their memory
HIGHEST = 65535  # what a probability of 1 is in 16 bit


class NotFiniteError(BadFileError):
    """The model gives NaN or infinity for a file."""


class Prediction(NamedTuple):
    """Of an image, in its size.

    Args:
        image: (H, W, channels), as it was read.
        labels: class ids (H, W), or 0/1 (H, W, C) for binary and multilabel; uint8.
        probabilities: (C, H, W) uint16, 65535 for 1; None where they are not wanted.
    """

    image: Array
    labels: Array
    probabilities: Array | None


class Predictor:
    """
    Args:
        config: says the checkpoint and how it is applied.

    Raises:
        UserError: the checkpoint cannot be used, or the device is not there.
    """

    def __init__(self, config: PredictConfig) -> None:
        self.path = checkpoints.locate(config.ckpt or "", "best")
        content = checkpoints.read(self.path)
        stored = content["segfocal"]
        self.task, self.model_config, self.decision, model = checkpoints.rebuild(content, self.path)
        self.shares: list[float] | None = stored.get("shares")
        self.reading = reading_of({**stored["config"]["data"], **(stored.get("reading") or {})}, config.data)
        if config.decision == "plain":
            self.decision = Decision(self.task.name)
        self.normalise = Normalise(stored["mean"], stored["std"])
        self.device = resolve(config.profile)
        self.on = self.device.torch_device
        model = model.to(self.on).eval()
        if config.profile.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.infer = Inference(model, config.inference)
        views = {f"inference.{key}": value for key, value in dataclasses.asdict(config.inference).items() if key != "name"}
        reading = {"data.exif": self.reading.exif, "data.scale": self.reading.scale}
        self.settings = {
            "checkpoint": checkpoints.checksum(self.path),
            "decision": config.decision,
            "precision": self.device.precision,
            **views,
            **reading,
        }

    @torch.inference_mode()
    def __call__(self, path: Path, probabilities: bool) -> Prediction:
        """Predict for a file.

        Raises:
            BadFileError: it cannot be read, or the model does not take it.
        """
        image, stored = self._read(path)
        try:
            labels, scores = self._decided(image, path, probabilities)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise UserError(f"{path}: memory ran out: take smaller tiles, as in 'inference.tile=[512,512]'") from None
        if image.shape[:2] == stored:
            return Prediction(image, labels, scores)
        if scores is not None:
            scores = np.stack([resized(plane, stored, cv2.INTER_LINEAR) for plane in scores])
        return Prediction(resized(image, stored, cv2.INTER_LINEAR), resized(labels, stored, cv2.INTER_NEAREST_EXACT), scores)

    def _read(self, path: Path) -> tuple[Array, tuple[int, int]]:
        reading, channels = self.reading, self.model_config.in_channels
        assert reading.max_megapixels is not None
        try:
            return read_scaled(path, channels, reading.exif, reading.max_megapixels, reading.scale)
        except BadFileError as error:
            if "model.in_channels" not in error.fault.mend:
                raise
            raise BadFileError(path, error.fault.found, f"the checkpoint takes {channels}") from None
        except OSError as error:  # of the disk, or of what is mounted
            raise BadFileError(path, f"cannot be read: {error.strerror or error}") from None

    def _decided(self, image: Array, path: Path, probabilities: bool) -> tuple[Array, Array | None]:
        height, width = image.shape[:2]
        classes = self.task.num_classes
        labels = np.empty((height, width) if self.task.name == "multiclass" else (height, width, classes), np.uint8)
        scores = np.empty((classes, height, width), np.uint16) if probabilities else None

        def read(top: int, bottom: int, left: int, right: int) -> Tensor:
            pixels = self.normalise(np.ascontiguousarray(image[top:bottom, left:right]))
            return torch.from_numpy(pixels).movedim(-1, 0)[None].to(self.on)

        with self.device.autocast():
            for top, band in self.infer.bands((height, width), read):
                for start in range(0, band.shape[-2], ROWS):
                    logits = band[..., start : start + ROWS, :]
                    if not logits.isfinite().all():
                        raise NotFiniteError(path, "the model gives NaN or infinity for it")
                    rows = slice(top + start, top + start + logits.shape[-2])
                    labels[rows] = labels_of(logits, self.decision)[0]
                    if scores is not None:
                        scores[:, rows] = (self.decision.probabilities(logits)[0] * HIGHEST).round().cpu().numpy()
                del band, logits  # or the next row of tiles would be computed beside it
        return labels, scores


def reading_of(stored: dict[str, Any], given: ReadingConfig) -> ReadingConfig:
    """How images are read: as the command says, else as in training."""
    trained = parse(ReadingConfig, {key: stored.get(key) for key in ("exif", "scale", "max_megapixels")})
    named = {key: value for key, value in dataclasses.asdict(given).items() if value is not None}
    whole = {"exif": trained.exif or "apply", "scale": trained.scale, "max_megapixels": trained.max_megapixels or 200.0}
    return ReadingConfig(**{**whole, **named})
