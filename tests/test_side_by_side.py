"""The plain training that the default is measured against."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.side_by_side import COLOURS, Loss, chart, main, plain, table
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
    ],
    ids=["not tested", "no split", "mistake"],
)
def test_what_cannot_be_compared_is_not_trained(
    words: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "test.txt").unlink()
    monkeypatch.setattr("sys.argv", ["side_by_side", *words, *([f"data.root={folder}"] if "data=folder" in words else [])])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in capsys.readouterr().err


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


def _logits(task: str, target: Tensor, classes: int) -> Tensor:
    """Sure ones."""
    if task == "multiclass":
        target = one_hot(target, classes).movedim(-1, 1)
    return 20 * (target[:, None] if task == "binary" else target).float() - 10
