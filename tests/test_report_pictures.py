"""The pictures in report.html: small, and labels as they are."""

from __future__ import annotations

import base64
import io
import zlib
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.evaluation.judge import _shown
from segfocal.module import SegmentationModule
from segfocal.report.evaluated import Shown
from segfocal.report.page import page
from segfocal.report.pictures import BUDGET, gallery, shrunk
from tests.reports import Elements, evaluated, shown

MEGABYTES = 1_000_000


@pytest.mark.parametrize(("size", "detail", "stored"), [((360, 480), 5, (480, 360)), ((640, 1024), 10, (640, 400))])
def test_it_is_small_enough_for_forty_photographs(size: tuple[int, int], detail: int, stored: tuple[int, int]) -> None:
    """As detailed as photographs of streets, which take up to 2.3 bits a pixel."""
    names = [f"class {number}" for number in range(11)]
    item, random = evaluated("multiclass", names), np.random.default_rng(0)

    def coarse(step: int, channels: int, highest: int) -> Image.Image:
        return Image.fromarray(random.integers(0, highest, (size[0] // step, size[1] // step, channels), dtype=np.uint8).squeeze())

    def sample(number: int) -> Shown:
        layers = [np.asarray(coarse(step, 3, 255).resize(size[::-1], Image.Resampling.BICUBIC), np.float32) for step in (80, 20, detail)]
        noise = random.normal(0, 2 + detail / 3, layers[0].shape)
        photo = np.clip(0.6 * layers[0] + 0.25 * layers[1] + 0.15 * layers[2] + noise, 0, 255).astype(np.uint8)
        truth = np.asarray(coarse(40, 1, 11).resize(size[::-1], Image.Resampling.NEAREST))
        wrong = np.asarray(coarse(8, 1, 100).resize(size[::-1], Image.Resampling.NEAREST)) < 10
        return Shown(f"{number}", "random", 0.5, photo, truth, np.where(wrong, (truth + 1) % 11, truth))

    samples = [sample(number) for number in range(8)] * 5
    html = page([item, evaluated("multiclass", names, name="other")], samples)
    assert len(html.encode()) < 8 * MEGABYTES
    files = [base64.b64decode(source.split(",")[1]) for source in Elements(html).having("img", "src")]
    assert len(files) == 40
    assert {Image.open(io.BytesIO(file)).size for file in files} == {stored}
    assert 2 < np.mean([8 * len(file) for file in files]) / (stored[0] * stored[1]) < 2.6


def test_what_cannot_be_packed_gets_smaller() -> None:
    random = np.random.default_rng(0)
    noise = [
        Shown(
            "a",
            "worst",
            None,
            random.integers(0, 255, (640, 640, 3), dtype=np.uint8),
            *random.integers(0, 11, (2, 640, 640), dtype=np.uint8),
        )
        for _ in range(8)
    ]
    drawn = gallery(noise, TaskConfig(name="multiclass", classes=[str(number) for number in range(11)]))
    assert drawn[0].width < 640
    assert sum(len(item.picture) + len(item.labels) for item in drawn) <= BUDGET


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_labels_are_packed_as_they_are(mode: Mode) -> None:
    task = TaskConfig(name=mode, classes=["a"] if mode == "binary" else ["a", "b", "c"])
    item = shown(task, 1)[0]
    [drawn] = gallery([item], task)
    assert (drawn.width, drawn.height) == (60, 40)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(drawn.labels)), np.uint8).reshape(-1, 40, 60)
    if mode == "multiclass":
        assert planes.tolist() == [item.truth.tolist(), item.prediction.tolist()]
    else:
        assert len(planes) == task.num_classes
        for label, plane in enumerate(planes):
            assert (plane & 1).tolist() == (item.truth[..., label] == 1).astype(int).tolist()
            assert (plane >> 1 & 1).tolist() == item.prediction[..., label].tolist()
            assert (plane >> 2).tolist() == (item.truth[..., label] == 255).astype(int).tolist()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.picture.split(",")[1]))))
    assert abs(picture.astype(int) - item.image).max() <= 2


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("size", [(700, 900), (1500, 4000)])
def test_what_is_a_pixel_wide_is_seen_in_a_large_image(mode: Mode, size: tuple[int, int]) -> None:
    task = TaskConfig(name=mode, classes=["a"] if mode == "binary" else ["a", "b", "c"])
    label, depth = (2, ()) if mode == "multiclass" else (1, (task.num_classes,))
    truth = np.zeros((*size, *depth), np.uint8)
    columns = np.arange(size[1])
    truth[columns * size[0] // size[1], columns] = label
    item = Shown("a", "worst", 0.5, np.zeros((*size, 3), np.uint8), truth, np.zeros_like(truth))
    small = shrunk(item, task)
    assert max(small.image.shape) == 640 and small.truth.shape[:2] == small.image.shape[:2]
    assert (small.truth == label).any(axis=0).all() and (small.truth == label).any(axis=1).all(), "no gap"
    assert (small.truth == label).mean() < 0.01 and not small.prediction.any()
    assert gallery([item], task) == gallery([small], task)


def test_pictures_of_an_evaluation_are_collected_as_small_as_they_are_shown() -> None:
    task = TaskConfig(name="binary", classes=["scratch"])
    data = SegmentationData(SyntheticConfig(size=704, train=1, val=1, test=1), AugmentConfig(name="none"), task, 3, 0, 0)
    data.normalise([0.0] * 3, [1.0] * 3)
    module = SegmentationModule(torch.nn.Conv2d(3, 1, 1), task)
    table = SimpleNamespace(names=data.sources["test"].names, mean_iou=lambda tuned: np.array([0.5]))
    device = SimpleNamespace(torch_device="cpu", autocast=nullcontext)
    [item] = _shown([(0, "worst")], module, data, "test", table, device)  # type: ignore[arg-type]
    assert item.image.shape == (640, 640, 3) and item.truth.shape == item.prediction.shape == (640, 640, 1)
    assert item.truth.any()


def test_large_labels_are_thinned_not_mixed() -> None:
    task = TaskConfig(name="multiclass", classes=["a", "b", "c"], ignore_index=7)
    labels = np.zeros((1280, 1280), np.uint8)
    labels[:, 640:] = 2
    labels[:2] = 7
    [drawn] = gallery([Shown("x", "best", 1.0, np.zeros((1280, 1280, 3), np.uint8), labels, labels)], task)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(drawn.labels)), np.uint8).reshape(2, 640, 640)
    assert (planes[0] == 255).sum() == 640  # ignored whatever the task calls it
    assert (planes[1, 1:] == 2).sum() == 639 * 320
    assert set(np.unique(planes)) == {0, 2, 255}
