"""What the tests of predictions share: pictures, the command's own function, and what it has written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segfocal import checkpoint as checkpoints
from segfocal import predict
from segfocal.models import build_model
from segfocal.prediction.ledger import LOCK
from segfocal.prediction.predictor import Predictor
from tests.checkpoints import train_config

EVERYTHING = "write=[ids,colours,probabilities,overlays]"


def picture(path: Path, size: tuple[int, int] = (60, 90), seed: int = 0) -> np.ndarray:
    array = cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def called(ckpt: Path | str, *overrides: str, given: str = "photos") -> int:
    return predict.run([f"ckpt={ckpt}", f"input={given}", "out=out", "profile=cpu", *overrides])


def files(folder: Path) -> set[str]:
    """But for the one by which a process holds it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def logits_of(ckpt: Path, image: np.ndarray) -> torch.Tensor:
    """By hand: a plain forward pass."""
    content = checkpoints.read(ckpt)
    config = train_config(f"task={content['segfocal']['config']['task']['name']}")
    model = build_model(config.model, config.task).eval()
    checkpoints.load_weights(model, content, ckpt)
    mean, std = (np.array(content["segfocal"][name], np.float32) for name in ("mean", "std"))
    normal = torch.from_numpy((image / np.float32(255) - mean) / std).permute(2, 0, 1)[None]
    height, width = image.shape[:2]
    padded = torch.nn.functional.pad(normal, (0, -width % 32, 0, -height % 32))
    with torch.inference_mode():
        logits: torch.Tensor = model(padded)[..., :height, :width]
    return logits


def table(out: Path) -> list[dict[str, str]]:
    with (out / "shares.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are predicted from now on."""
    names: list[str] = []
    original = Predictor.__call__

    def counting(self: Predictor, path: Path, probabilities: bool) -> Any:
        names.append(path.name)
        return original(self, path, probabilities)

    monkeypatch.setattr(Predictor, "__call__", counting)
    return names
