"""What is written is what the checkpoint says of the images, in every kind of file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfocal import checkpoint as checkpoints
from segfocal.config.layouts import FolderConfig
from segfocal.config.parse import parse_sweep
from segfocal.config.predict import PredictConfig
from segfocal.config.task import TaskConfig
from segfocal.data.folder import folder_sources
from segfocal.decision import Decision
from segfocal.prediction import outputs, predictor
from segfocal.prediction.inputs import Item
from segfocal.prediction.predictor import Prediction
from segfocal.report.overlay import FOUND, palette
from tests.checkpoints import made, put
from tests.prediction.made import EVERYTHING, called, files, logits_of, table


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_what_is_written_is_what_a_forward_pass_says(
    here: Path, ckpts: dict[str, Path], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "ROWS", 25)
    assert called(ckpts[mode], EVERYTHING, "profile.precision=32-true") == 0
    image = np.asarray(Image.open("photos/a.png"))
    logits = logits_of(ckpts[mode], image)
    decision = Decision(mode)  # type: ignore[arg-type]
    labels, wanted = decision.labels(logits)[0].numpy(), decision.probabilities(logits)[0].numpy()
    classes = checkpoints.read(ckpts[mode])["segfocal"]["classes"]
    near = 1e-4  # of a threshold: rounding may decide
    if mode == "multiclass":
        sorted_ = np.sort(wanted, 0)
        sure = sorted_[-1] - sorted_[-2] > near
        ids = np.asarray(Image.open("out/ids/a.png"))
        assert ids.dtype == np.uint8 and (ids == labels)[sure].all() and sure.mean() > 0.99
        counts = np.bincount(ids.reshape(-1), minlength=len(classes))
        colours = palette(len(classes))[ids]
    else:
        places = [Path("out/ids/a.png")] if mode == "binary" else [Path("out/ids", name, "a.png") for name in classes]
        planes = np.stack([np.asarray(Image.open(place)) for place in places])
        sure = np.abs(wanted - 0.5) > near
        assert (planes == labels)[sure].all() and sure.mean() > 0.99 and set(np.unique(planes)) <= {0, 1}
        counts = planes.sum((1, 2))
        colours = np.where(planes[0][..., None] == 1, np.array(FOUND), 0) if mode == "binary" else None
    for number, name in enumerate(classes):
        place = Path("out/probabilities/a.png") if mode == "binary" else Path("out/probabilities", name, "a.png")
        stored = np.asarray(Image.open(place))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / 65535, wanted[number], atol=1e-4)
    if colours is not None:
        assert (np.asarray(Image.open("out/colours/a.png")) == colours).all()
    assert np.asarray(Image.open("out/overlays/a.png")).shape == image.shape
    row = table(Path("out"))[0]
    assert (row["image"], row["height"], row["width"]) == ("a.png", "60", "90")
    assert [int(row[f"pixels/{name}"]) for name in classes] == counts.tolist()
    assert [float(row[f"share/{name}"]) for name in classes] == pytest.approx(counts / 5400, rel=1e-5)
    assert [row["image"] for row in table(Path("out"))] == ["a.png", "more/b.jpg"]
    kinds = {path.split("/")[0] for path in files(Path("out")) if path.endswith("more/b.png")}
    assert kinds == {"ids", "colours", "probabilities", "overlays"}


def test_overlapping_classes_have_the_rarest_on_top_in_every_strip(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first class is the rarer one in the picture, though not in its upper part."""
    monkeypatch.setattr(outputs, "ROWS", 10)
    ((_, config),) = parse_sweep(PredictConfig, "predict", ["ckpt=x", "input=y", "out=out", "write=[colours,overlays]"], 1)
    task = TaskConfig(name="multilabel", classes=["first", "second"])
    labels = np.zeros((40, 20, 2), np.uint8)
    labels[:10, :, 0] = 1
    labels[:10, 5:10, 1] = 1
    labels[20:, :, 1] = 1
    image = np.full((40, 20, 3), 100, np.uint8)
    outputs.Outputs(config, task).write(Item(Path("y.png"), "y.png"), Prediction(image, labels, None))
    drawn = np.asarray(Image.open("out/colours/y.png")).astype(int)
    first, second = palette(2).astype(int)
    for rows, colour in ((slice(0, 10), first), (slice(10, 20), np.zeros(3)), (slice(20, 40), second)):
        assert np.abs(drawn[rows] - colour).max() <= 1
    over = np.asarray(Image.open("out/overlays/y.png")).astype(int)
    assert np.abs(over[:10, :5] - (40 + 0.6 * first)).max() <= 1
    assert np.abs(over[:10, 5:10] - (0.4 * (40 + 0.6 * second) + 0.6 * first)).max() <= 2
    assert (over[10:20] == 100).all()


@pytest.mark.parametrize(
    ("shares", "shown"), [([0.8, 0.2], [0.0, 0.6]), ([0.4, 0.6], [0.6, 0.0]), ([0.5, 0.5], [0.6, 0.6]), (None, [0.6, 0.6])]
)
def test_a_background_that_most_training_pixels_are_of_does_not_cover_the_pictures(
    here: Path, shares: list[float] | None, shown: list[float]
) -> None:
    """As the checkpoint says, in every picture alike; older ones do not say."""
    ckpt = made(here / "two.ckpt", "task=multiclass", "task.classes=[back,pore]", "data=folder", "data.root=x", spoil=put("shares", shares))
    assert called(ckpt, "write=[ids,colours,overlays]") == 0
    image, ids = np.asarray(Image.open("photos/a.png")), np.asarray(Image.open("out/ids/a.png"))
    over, colours = np.asarray(Image.open("out/overlays/a.png")), np.asarray(Image.open("out/colours/a.png"))
    assert set(ids.flat) == {0, 1}
    for label, strength in enumerate(shown):
        where = ids == label
        assert (colours[where] == palette(2)[label]).all()
        assert np.abs(over[where] - ((1 - strength) * image[where] + strength * palette(2)[label])).max() <= (1 if strength else 0)


def test_ids_are_masks_for_training(here: Path, ckpts: dict[str, Path]) -> None:
    """A folder of predictions is one of masks, for every task."""
    for mode in ckpts:
        assert called(ckpts[mode], f"out={mode}") == 0
        shutil.copytree("photos", f"{mode}/images", dirs_exist_ok=True)
        task = TaskConfig(name=mode, classes=checkpoints.read(ckpts[mode])["segfocal"]["classes"])  # type: ignore[arg-type]
        found = folder_sources(FolderConfig(root=mode, masks="ids", fractions=[1.0, 0.0, 0.0]), task, 3, 0)
        assert found.faults == []
        image, mask = found["train"].read(0)
        assert image.shape[:2] == mask.shape[:2]


def test_npz_holds_all_classes(here: Path, ckpts: dict[str, Path]) -> None:
    assert called(ckpts["multiclass"], "write=[probabilities]", "format=npz", "profile.precision=32-true") == 0
    with np.load("out/probabilities/more/b.npz") as content:
        assert content["probabilities"].dtype == np.float16
        wanted = logits_of(ckpts["multiclass"], np.asarray(Image.open("photos/more/b.jpg"))).softmax(1)[0].numpy()
        np.testing.assert_allclose(content["probabilities"], wanted, atol=1e-3)
        assert content["classes"].tolist() == checkpoints.read(ckpts["multiclass"])["segfocal"]["classes"]
    assert files(Path("out")) == {"prediction.json", "shares.csv", "probabilities/a.npz", "probabilities/more/b.npz"}


def test_class_names_stay_in_their_folder() -> None:
    assert outputs.folder_names(["crack", "../up", "a/b", "a_b", "..", "tab\tbed"]) == [
        "crack",
        "_up",
        "a_b",
        "a_b_3",
        "class_4",
        "tab_bed",
    ]
    assert outputs.folder_names(["a_b_2", "a/b", "a_b"]) == ["a_b_2", "a_b", "a_b_2_2"]
