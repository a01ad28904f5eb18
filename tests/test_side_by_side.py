"""The plain training that the default is measured against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.side_by_side import COLOURS, IMAGENET, Crops, Loss, chart, checked, main, mean_std, ours, plain, seconds_of, table
from segfocal.data.datamodule import SegmentationData
from segfocal.data.dataset import Normalise
from segfocal.data.source import Array
from segfocal.errors import UserError
from tests.conftest import blobs, write_folder
from tests.test_training import TINY, configured


def test_the_plain_training_learns_and_is_counted_as_ours_is() -> None:
    config = configured(
        "task=multiclass", *TINY, "data.train=24", "data.crop=[32,32]", "trainer.max_epochs=24", "trainer.validate_every=24"
    )
    ((name, (figures, seconds)),) = plain(config, "ce", 2).items()
    assert name == "plain, ce"
    assert set(figures) >= {*(f"iou/{name}" for name in config.task.class_names), "iou_macro", "auroc_macro", "ap_macro"}
    assert figures["auroc_macro"] > 0.7 and seconds > 0  # .92 to .95 over three seeds; chance is .5
    rows = table(config, {"plain": [(figures, 2.0)], "train.py": [({**figures, "iou_macro": 0.5}, 4.0)]}, images=100)
    assert rows[0] == "| | plain | train.py |"
    assert f"| iou_macro | {figures['iou_macro']:.3f} | 0.500 |" in rows
    assert rows[-2:] == ["| minutes of training | 0.0 | 0.1 |", "| images per second | 50.0 | 25.0 |"]
    two = table(config, {"plain": [({**figures, "iou_macro": value}, 2.0) for value in (0.25, 0.75)]}, images=100)
    assert "| iou_macro | 0.500 ±0.354 |" in two
    absent = table(config, {"plain": [({**figures, "iou/pore": None}, 2.0)]}, images=100)
    assert "| pore | - |" in absent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.test=false"], "both trainings are measured on the test split"),
        (["data=folder", "task.classes=[blob]", "data.label_map={0:0,255:1}"], "both trainings are measured on the test split"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be at least 1"),
        (["--loss", "ce"], "--loss ce: not for task=binary, which takes bce, focal, dice"),
        (["--loss", "ce", "task=multilabel"], "--loss ce: not for task=multilabel, which takes bce, focal, dice"),
        (["--loss", "bce", "task=multiclass"], "--loss bce: not for task=multiclass, which takes ce, focal, dice"),
        (["data.train=3", "data.batch_size=4"], "data=synthetic: 3 training images are no batch of 4: data.batch_size=3 at most"),
        (["data=folder", "task.classes=[blob]", "data.overfit=true"], "no pixel of blob in any training mask"),
    ],
    ids=["not tested", "no split", "mistake", "ce in binary", "ce in multilabel", "bce in multiclass", "no batch", "faults"],
)
def test_what_cannot_be_compared_is_not_trained(
    words: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "test.txt").unlink()
    monkeypatch.setattr("benchmarks.side_by_side.plain", lambda *_: pytest.fail("it trains"))
    assert said in _refused([*words, *([f"data.root={folder}"] if "data=folder" in words else [])], monkeypatch, capsys)


def test_a_mistake_that_only_the_plain_training_meets_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused([*TINY, "model.weights=nowhere.pth"], monkeypatch, capsys)
    assert said.startswith("model.weights=nowhere.pth: there is no file") and len(said.splitlines()) == 1


def _refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command that ends with 2."""
    monkeypatch.setattr("sys.argv", ["side_by_side", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    return capsys.readouterr().err


def test_a_mistake_that_train_py_meets_ends_both_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        ours(["trainer.max_epochs=0"], 0)


class OneImage:
    """A split of one."""

    def __init__(self, image: Array) -> None:
        self.image, self.names, self.settings = image, ["image"], ""

    def __len__(self) -> int:
        return 1

    def size(self, index: int) -> tuple[int, int]:
        return 8, 8

    def identity(self, index: int) -> str:
        return ""

    def read(self, index: int) -> tuple[Array, Array]:
        return self.image, np.zeros((8, 8), np.uint8)

    def known(self, index: int) -> None:
        return None


def test_its_crops_are_those_of_the_seed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    first, again, other = ([Crops(OneImage(image), [4, 4], 255, *IMAGENET, seed)[0][0] for _ in range(2)] for seed in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_without_a_crop_it_sees_whole_images_as_ours_does(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert Crops(OneImage(image), None, 255, *IMAGENET)[0][0].shape == (3, 8, 8)
    names = write_folder(tmp_path, [*blobs(4), *blobs(2, (64, 96), seed=1), *blobs(2, seed=2)])
    for split, part in {"train": names[:6], "val": names[6:7], "test": names[7:]}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(part) + "\n")
    config = configured("data=folder", f"data.root={tmp_path}", "task.classes=[blob]", "data.crop=null", "data.batch_size=2")
    with pytest.raises(UserError, match=r"^data\.crop=null: images of several sizes"):
        checked(config, "bce", 0)


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.float32, 1), (np.float32, 0.1), (np.float32, 3000)])
def test_its_images_are_normalised_as_ours_whatever_the_source_reads(kind: Any, top: float) -> None:
    image = (np.random.default_rng(0).random((8, 8, 3)) * top).astype(kind)
    mean, std = [0.4 * top, 0.5 * top, 0.6 * top], [0.2 * top, 0.25 * top, 0.3 * top]
    if kind == np.uint8:
        mean, std = ([value / 255 for value in values] for values in (mean, std))
    crops = Crops(OneImage(image), [8, 8], 255, mean, std)
    made = [crops[0][0] for _ in range(60)]
    wanted = [torch.from_numpy(Normalise(mean, std)(flipped)).movedim(-1, 0) for flipped in (image, image[:, ::-1].copy())]
    assert sum(any(torch.allclose(each, other, atol=1e-3) for other in wanted) for each in made) > 3  # half are as bright as they were
    assert all(each.std() > 0.5 for each in made)  # 1.2 without


def test_images_of_other_than_three_channels_are_normalised_by_their_own_numbers() -> None:
    config = configured(*TINY, "model.in_channels=1", "data.crop=[32,32]", "trainer.max_epochs=1")
    data = SegmentationData(config.data, config.augment, config.task, 1, 0, 0)
    train = data.check()["train"]
    assert mean_std(config, train) == train.mean_std
    assert mean_std(configured(*TINY), train) == IMAGENET
    assert mean_std(configured(*TINY, "model.in_channels=1", "model.weights=efficientnet_lite0"), train) == ([0.5], [0.5])
    ((_, (figures, _)),) = plain(config, "bce", 0).items()
    assert 0 <= figures["auroc_macro"] <= 1


def test_the_time_of_training_begins_before_the_warnings_of_its_first_epoch() -> None:
    lines = [
        "2026-11-29 18:39:51,608 INFO segfocal: device: cpu",
        "2026-11-29 18:40:00,000 INFO segfocal: recipe: data.batch_size=4",
        "2026-11-29 18:40:07,000 WARNING segfocal: epoch 1, step 3: the loss is nan",
        "and so on",
        "2026-11-29 18:40:20,000 WARNING segfocal: after 9 steps nothing of pore is found",
        "2026-11-29 18:40:30,000 INFO segfocal: epoch 1 of 2  train/loss 0.5000",
        "2026-11-29 18:40:45,000 WARNING segfocal: 1 step was left out",
        "2026-11-29 18:41:00,000 INFO segfocal: epoch 2 of 2  train/loss 0.4000",
        "2026-11-29 18:42:00,000 INFO segfocal: val/iou_macro 0.5000 at its best, 2.0 minutes in all",
    ]
    assert seconds_of(lines) == 60
    assert seconds_of([line for line in lines if " INFO " in line]) == 60


def test_the_chart_has_a_bar_for_each_class_and_training(tmp_path: Path) -> None:
    config = configured("task=multiclass")
    keys = [*(f"iou/{name}" for name in config.task.class_names), "iou_macro"]
    heights = {"plain": 0.2, "train.py": 0.4, "fitted": 0.8}
    made = {name: [({**dict.fromkeys(keys, height), "iou/pore": None}, 1.0)] for name, height in heights.items()}
    chart(config, made, tmp_path / "ious.png")
    drawn = Image.open(tmp_path / "ious.png").convert("RGB")
    bars = drawn.crop((drawn.width // 10, drawn.height // 5, drawn.width, drawn.height))  # without the legend
    pixels = {colour: count for count, colour in bars.getcolors(1 << 20) or []}
    low, middle, high = (pixels[tuple(round(255 * part) for part in to_rgb(colour))] for colour in COLOURS)
    assert (middle / low, high / low) == pytest.approx((2, 4), rel=0.1)  # areas are as the figures are


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        *(("binary", loss) for loss in ("bce", "focal", "dice")),
        *(("multiclass", loss) for loss in ("ce", "focal", "dice")),
        *(("multilabel", loss) for loss in ("bce", "focal", "dice")),
    ],
)
def test_its_losses_prefer_what_is_right(task: str, loss: str) -> None:
    config = configured(f"task={task}")
    classes = config.task.num_classes
    draw = torch.Generator().manual_seed(0)
    shape = (2, classes, 8, 8) if task == "multilabel" else (2, 8, 8)
    target = torch.randint(0, max(2, classes) if task == "multiclass" else 2, shape, generator=draw)
    right = _logits(task, target, classes)
    of = Loss(loss, config)
    assert 0 <= of(right, target) < 0.1 < of(-right, target)


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        *((task, loss) for task in ("binary", "multilabel") for loss in ("bce", "focal", "dice")),
        *(("multiclass", loss) for loss in ("ce", "focal", "dice")),
    ],
)
def test_its_losses_leave_out_what_is_ignored(task: str, loss: str) -> None:
    config = configured(f"task={task}")
    classes = config.task.num_classes
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (2, classes, 8, 8) if task == "multilabel" else (2, 8, 8), generator=draw)
    logits = torch.randn(2, classes, 8, 8, generator=draw)
    of = Loss(loss, config)
    half, ignored = of(logits[..., :4], target[..., :4]), target.clone()
    ignored[..., 4:] = 255
    whole = of(logits, ignored) * (2 if loss == "bce" else 1)  # SoftBCEWithLogitsLoss counts them in its mean, as 0
    assert whole.item() == pytest.approx(half.item(), rel=1e-5)


def _logits(task: str, target: Tensor, classes: int) -> Tensor:
    """Sure ones."""
    if task == "multiclass":
        target = one_hot(target, classes).movedim(-1, 1)
    return 20 * (target[:, None] if task == "binary" else target).float() - 10
