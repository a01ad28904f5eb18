"""`python -m segfocal.predict`: what is written is what the checkpoint says of the images, and mistakes are a line."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segfocal import checkpoint as checkpoints
from segfocal import predict
from segfocal.config.layouts import FolderConfig
from segfocal.config.parse import mistakes, parse_sweep
from segfocal.config.predict import PredictConfig, ReadingConfig
from segfocal.config.task import TaskConfig
from segfocal.data.decoders import image_size
from segfocal.data.folder import folder_sources
from segfocal.data.formats import read_mask
from segfocal.decision import Decision
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.inference import Inference
from segfocal.models import build_model
from segfocal.prediction import ledger, outputs, predictor
from segfocal.prediction.inputs import Item
from segfocal.prediction.predictor import Prediction, Predictor
from segfocal.report.overlay import FOUND, palette
from tests.conftest import ROOT
from tests.test_training import configured

SMALL = ["model.encoder=tu-mobilenetv3_small_050", "profile=cpu"]
EVERYTHING = "write=[ids,colours,probabilities,overlays]"


def make(path: Path, *overrides: str, decision: Decision | None = None) -> Path:
    """A checkpoint as training writes it, of a model that has learned nothing."""
    config = configured(*SMALL, *overrides)
    torch.manual_seed(0)
    model = build_model(config.model, config.task)
    channels = config.model.in_channels
    about = checkpoints.about(dataclasses.asdict(config), config.task.class_names, [0.5] * channels, [0.25] * channels)
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "segfocal": {**about, "epoch": 0, "metrics": {}, "decision": decision.as_dict() if decision else None},
    }
    checkpoints.DurableCheckpointIO().save_checkpoint(content, path)
    return path


def change(path: Path, **ours: Any) -> None:
    """Put something else into a checkpoint."""
    content = checkpoints.read(path)
    content["segfocal"] |= ours
    torch.save(content, path)


@pytest.fixture(scope="module")
def ckpts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task."""
    folder = tmp_path_factory.mktemp("ckpts")
    return {mode: make(folder / f"{mode}.ckpt", f"task={mode}") for mode in ("binary", "multiclass", "multilabel")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with photos/a.png and photos/more/b.jpg."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photos/a.png", (60, 90))
    picture(tmp_path / "photos/more/b.jpg", (70, 50))
    return tmp_path


def picture(path: Path, size: tuple[int, int] = (60, 90), seed: int = 0) -> np.ndarray:
    array = cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def called(ckpt: Path | str, *overrides: str, given: str = "photos") -> int:
    return predict.run([f"ckpt={ckpt}", f"input={given}", "out=out", "profile=cpu", *overrides])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def logits_of(ckpt: Path, image: np.ndarray) -> torch.Tensor:
    """By hand: a plain forward pass."""
    content = checkpoints.read(ckpt)
    config = configured(*SMALL, f"task={content['segfocal']['config']['task']['name']}")
    model = build_model(config.model, config.task).eval()
    checkpoints.load_weights(model, content, ckpt)
    normal = torch.from_numpy((image / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).float().permute(2, 0, 1)[None]
    height, width = image.shape[:2]
    padded = torch.nn.functional.pad(normal, (0, -width % 32, 0, -height % 32))
    with torch.inference_mode():
        logits: torch.Tensor = model(padded)[..., :height, :width]
    return logits


def table(out: Path) -> list[dict[str, str]]:
    with (out / "shares.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_figures_of_an_evaluation_are_those_of_what_is_predicted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, evaluated and predicted by the commands' own functions; in tiles, with another view, by both decisions."""
    monkeypatch.chdir(tmp_path)
    data = ["data=folder", f"data.root={folder}", "task.classes=[blob]", "data.crop=[32,32]", "data.label_map={0:0,255:1}"]
    quick = ["data.num_workers=0", "data.batch_size=3", "trainer.max_epochs=3", "report=false", "trainer.test=false", "optimizer.lr=0.01"]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    fit(configured(*data, *quick, *SMALL), run_dir)
    how = ["inference.tile=[64,64]", "inference.overlap=0.5", "inference.flips=[horizontal]", "profile=cpu"]
    for number, name in enumerate((folder / "test.txt").read_text().split()):  # larger than the tile, and no multiple of the stride
        for kind, ending in (("images", "jpg"), ("masks", "png")):
            path = folder / kind / f"{name}.{ending}"
            Image.open(path).resize((150 + number, 97), Image.Resampling.NEAREST).save(path, quality=95)
    tmp_path.joinpath("evaluated").mkdir()
    evaluate(configured(f"ckpt={run_dir}", "report=false", "data.num_workers=0", *how, program="evaluate"), tmp_path / "evaluated")
    figures = json.loads((tmp_path / "evaluated/metrics.json").read_text())
    names = (folder / "test.txt").read_text().split()
    given = ",".join(f"{folder}/images/{name}.jpg" for name in names)
    for decision, key in (("plain", "iou/blob"), ("stored", "tuned/iou/blob")):
        assert called(run_dir, f"out={decision}", f"decision={decision}", *how, given=f"[{given}]") == 0
        predicted = np.concatenate([np.asarray(Image.open(f"{decision}/ids/{name}.png")).ravel() for name in names]).astype(bool)
        truth = np.concatenate([np.asarray(Image.open(folder / "masks" / f"{name}.png")).ravel() for name in names]) == 255
        assert (predicted & truth).sum() / (predicted | truth).sum() == pytest.approx(figures[key], abs=1e-12)
        assert predicted.any()
    shares = [sum(int(row["pixels/blob"]) for row in table(Path(decision))) for decision in ("plain", "stored")]
    assert shares[0] != shares[1], "the two decide differently, or this shows nothing"


def test_the_stored_decision_decides(here: Path) -> None:
    ckpt = make(here / "tuned.ckpt", decision=Decision("binary", temperature=[2.0], thresholds=[0.01]))
    assert called(ckpt, "write=[ids,probabilities]", "profile.precision=32-true") == 0
    assert called(ckpt, "write=[ids,probabilities]", "profile.precision=32-true", "decision=plain", "out=plain") == 0
    tuned, plain = (np.asarray(Image.open(f"{out}/probabilities/a.png")) / 65535 for out in ("out", "plain"))
    np.testing.assert_allclose(np.log(tuned / (1 - tuned)), np.log(plain / (1 - plain)) / 2, atol=1e-3)
    assert (np.asarray(Image.open("out/ids/a.png")) == (tuned > 0.01)).all()
    assert (np.asarray(Image.open("plain/ids/a.png")) == (plain > 0.5)).mean() > 0.999


def test_npz_holds_all_classes(here: Path, ckpts: dict[str, Path]) -> None:
    assert called(ckpts["multiclass"], "write=[probabilities]", "format=npz", "profile.precision=32-true") == 0
    with np.load("out/probabilities/more/b.npz") as content:
        assert content["probabilities"].dtype == np.float16
        wanted = logits_of(ckpts["multiclass"], np.asarray(Image.open("photos/more/b.jpg"))).softmax(1)[0].numpy()
        np.testing.assert_allclose(content["probabilities"], wanted, atol=1e-3)
        assert content["classes"].tolist() == checkpoints.read(ckpts["multiclass"])["segfocal"]["classes"]
    assert files(Path("out")) == {"prediction.json", "shares.csv", "probabilities/a.npz", "probabilities/more/b.npz"}


def test_images_are_read_as_in_training(here: Path, ckpts: dict[str, Path]) -> None:
    """Depth, grey, alpha, palette and EXIF; a photograph that is turned has a mask that is, too."""
    rgb = picture(here / "kinds/rgb.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save("kinds/turned.png", exif=exif)
    Image.fromarray(np.dstack([rgb, rgb[..., 0]])).save("kinds/alpha.png")
    Image.fromarray(rgb).convert("P").save("kinds/palette.png")
    Image.fromarray(rgb).convert("L").save("kinds/grey.png")
    tifffile.imwrite("kinds/deep.tif", rgb.astype(np.uint16) * 257, photometric="rgb")
    assert called(ckpts["binary"], "profile.precision=32-true", "write=[ids,probabilities]", given="kinds") == 0
    scores = {path.stem: np.asarray(Image.open(path)).astype(int) for path in Path("out/probabilities").glob("*.png")}
    assert (scores["alpha"] == scores["rgb"]).all()
    assert np.abs(scores["deep"] - scores["rgb"]).max() <= 2
    assert scores["turned"].shape == (90, 60)
    assert scores["grey"].shape == scores["palette"].shape == (60, 90)
    assert called(ckpts["binary"], "data.exif=ignore", "out=stored", given="kinds/turned.png") == 0
    assert np.asarray(Image.open("stored/ids/turned.png")).shape == (60, 90)
    assert image_size(Path("kinds/turned.png"), "apply") == (90, 60)


def test_the_scale_of_the_training_is_the_models_alone(here: Path) -> None:
    """What is written has the size of the image; what the model saw was half of it."""
    ckpt = make(here / "half.ckpt", "data=folder", "data.root=x", "task.classes=[blob]", "data.scale=0.5")
    image = np.asarray(Image.open("photos/a.png"))
    assert called(ckpt, EVERYTHING, "profile.precision=32-true") == 0
    half = cv2.resize(image, (45, 30), interpolation=cv2.INTER_AREA)
    wanted = logits_of(ckpt, half).sigmoid()[0, 0].numpy()
    stored = np.asarray(Image.open("out/probabilities/a.png")) / 65535
    assert stored.shape == np.asarray(Image.open("out/ids/a.png")).shape == (60, 90)
    np.testing.assert_allclose(stored, cv2.resize(wanted, (90, 60), interpolation=cv2.INTER_LINEAR), atol=1e-3)
    assert np.asarray(Image.open("out/overlays/a.png")).shape == (60, 90, 3)
    assert called(ckpt, "data.max_megapixels=0.001", "out=other") == 2
    assert not Path("other").exists()


def test_any_number_of_bands(here: Path) -> None:
    ckpt = make(here / "six.ckpt", "model.in_channels=6")
    Path("bands").mkdir()
    tifffile.imwrite(
        "bands/a.tif",
        np.random.default_rng(0).integers(0, 65536, (64, 70, 6), dtype=np.uint16),
        photometric="minisblack",
        planarconfig="contig",
    )
    assert called(ckpt, "write=[ids,overlays]", given="bands") == 0
    assert np.asarray(Image.open("out/overlays/a.png")).shape == (64, 70, 3)


def test_inputs_are_files_folders_and_patterns(here: Path, ckpts: dict[str, Path]) -> None:
    picture(here / "elsewhere/c d ü.png")
    picture(here / "odd/new\nline.png")
    picture(here / "odd/[1].png")
    picture(here / "photos/.hidden.png")
    (here / "photos/notes.txt").write_text("no image")
    shutil.copytree(here / "photos", here / "deep/er/photos")
    cases = {
        "photos": {"a", "more/b"},
        "photos/a.png": {"a"},
        f"{here}/photos/*.png": {"a"},
        "photos/**/*.*": {"a", "more/b"},
        "photos/*": {"a", "more/b"},
        "deep/*/photos": {"er/photos/a", "er/photos/more/b"},
        "'odd/[1].png'": {"[1]"},
        "odd": {"[1]", "new\nline"},
        "[photos,photos/a.png,'elsewhere/c d ü.png']": {"a", "more/b", "c d ü"},
        "./photos/../photos": {"a", "more/b"},
    }
    for number, (given, wanted) in enumerate(cases.items()):
        assert called(ckpts["binary"], f"out=out{number}", given=given) == 0, given
        names = files(here / f"out{number}" / "ids")
        assert names == {f"{name}.png" for name in wanted}, given
    rows = {row["image"] for row in table(here / "out7")}
    assert rows == {"[1].png", "new\nline.png"}


def test_predictions_are_not_read_back(here: Path, ckpts: dict[str, Path]) -> None:
    for out in ("photos", "photos/first", "photos/second"):
        for _ in range(2):
            assert called(ckpts["binary"], f"out={out}", "write=[ids,overlays]") == 0
            assert files(here / out / "ids") == {"a.png", "more/b.png"}
    picture(here / "photos/ids/c.png")
    assert len(table(here / "photos")) == 2


def test_unreadable_images_are_named_and_left_out(here: Path, ckpts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos/text.png").write_text("no image")
    (here / "photos/empty.jpg").touch()
    whole = (here / "photos/more/b.jpg").read_bytes()
    (here / "photos/cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(here / "photos/pipe.png")
    (here / "photos/gone.png").symlink_to(here / "nowhere")
    (here / "photos/folder.png").mkdir()
    tifffile.imwrite(here / "photos/five.tif", np.zeros((64, 64, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu"])
    assert caught.value.code == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.split(":")[0].rpartition("/")[2] for line in lines] == [
        "cut.jpg",
        "empty.jpg",
        "five.tif",
        "gone.png",
        "pipe.png",
        "text.png",
    ]
    assert lines[2] == "photos/five.tif: 5 channels; the checkpoint takes 3"
    assert "2 predicted, 6 skipped" in said.out
    assert files(here / "out") == {"ids/a.png", "ids/more/b.png", "prediction.json", "shares.csv"}
    assert [row["image"] for row in table(here / "out")] == ["a.png", "more/b.jpg"]


def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are predicted from now on."""
    names: list[str] = []
    original = Predictor.__call__

    def counting(self: Predictor, path: Path, probabilities: bool) -> Any:
        names.append(path.name)
        return original(self, path, probabilities)

    monkeypatch.setattr(Predictor, "__call__", counting)
    return names


def test_it_goes_on_where_it_was_cut_off(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        picture(here / f"photos/c{number}.png", seed=number)
    assert called(ckpts["binary"], EVERYTHING, "out=whole") == 0
    original = ledger.Ledger.add

    def cut(self: ledger.Ledger, name: str, *given: Any) -> None:
        if name == "c1.png":
            raise KeyboardInterrupt
        original(self, name, *given)

    monkeypatch.setattr(ledger.Ledger, "add", cut)
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu", EVERYTHING])
    assert caught.value.code == 130
    monkeypatch.setattr(ledger.Ledger, "add", original)
    assert [row["image"] for row in table(here / "out")] == ["a.png", "c0.png"]
    with (here / "out/shares.csv").open("a") as file:
        file.write("c1.png,60,90,123,0.02")  # a row that was cut off, too
    names = seen(monkeypatch)
    assert called(ckpts["binary"], EVERYTHING) == 0
    assert names == ["c1.png", "c2.png", "c3.png", "b.jpg"]
    assert files(here / "out") == files(here / "whole")
    assert all((here / "out" / name).read_bytes() == (here / "whole" / name).read_bytes() for name in files(here / "whole"))


def test_only_what_is_new_or_has_changed_is_predicted_again(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names = seen(monkeypatch)
    assert called(ckpts["binary"]) == 0
    assert called(ckpts["binary"]) == 0
    assert names == ["a.png", "b.jpg"]
    picture(here / "photos/c.png")
    later = (here / "out/ids/more/b.png").stat().st_mtime + 10
    os.utime(here / "photos/more/b.jpg", (later, later))
    assert called(ckpts["binary"]) == 0
    assert names[2:] == ["c.png", "b.jpg"]
    os.utime(here / "photos/more/b.jpg", (1, 1))
    assert called(ckpts["binary"], "write=[ids,colours]") == 0
    assert names[4:] == ["a.png", "c.png", "b.jpg"], "what is wanted besides is made"
    (here / "out/ids/a.png").unlink()
    assert called(ckpts["binary"], "write=[ids,colours]") == 0
    assert names[7:] == ["a.png"]
    assert [row["image"] for row in table(here / "out")] == ["a.png", "c.png", "more/b.jpg"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["decision=plain"], "made with decision=stored (now plain)"),
        (["inference.tile=[64,64]"], "made with inference.tile=[1024, 1024] (now [64, 64])"),
        (["data.exif=ignore"], "made with data.exif=apply (now ignore)"),
        (["ckpt=other.ckpt"], "holds predictions of another checkpoint"),
    ],
)
def test_predictions_of_different_kinds_do_not_mix(here: Path, ckpts: dict[str, Path], other: list[str], said: str) -> None:
    make(here / "other.ckpt", "seed=1", decision=Decision("binary", thresholds=[0.25]))
    assert called(ckpts["binary"]) == 0
    before = {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")}
    picture(here / "photos/new.png")
    with pytest.raises(UserError) as caught:
        called(
            ckpts["binary"] if not other[0].startswith("ckpt") else "other.ckpt", *(item for item in other if not item.startswith("ckpt"))
        )
    assert said in str(caught.value)
    assert "choose another folder" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")} == before


def diverged(here: Path) -> str:
    content = checkpoints.read(make(here / "nan.ckpt"))
    name = next(name for name, value in content["state_dict"].items() if value.ndim == 4)
    content["state_dict"][name][0, 0, 0, 0] = float("nan")
    torch.save(content, here / "nan.ckpt")
    return "nan.ckpt"


def truncated(here: Path) -> str:
    whole = make(here / "cut.ckpt").read_bytes()
    (here / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    return "cut.ckpt"


def foreign(here: Path) -> str:
    torch.save({"state_dict": {}, "epoch": 3}, here / "foreign.ckpt")
    return "foreign.ckpt"


def of_other_classes(here: Path) -> str:
    make(here / "classes.ckpt", decision=Decision("binary", thresholds=[0.3]))
    change(here / "classes.ckpt", decision=Decision("multilabel", thresholds=[0.3, 0.4]).as_dict())
    return "classes.ckpt"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (diverged, r"nan\.ckpt: \S+ holds NaN or infinity: the training has diverged"),
        (truncated, r"cut\.ckpt: cannot be read as a checkpoint: damaged"),
        (foreign, r"foreign\.ckpt: not a checkpoint of this program"),
        (of_other_classes, r"classes\.ckpt: its thresholds cannot be used"),
        (lambda here: "missing.ckpt", r"ckpt=missing\.ckpt: no such file or run directory"),
        (lambda here: "photos", r"ckpt=photos: no checkpoints/best\.ckpt in that directory"),
    ],
)
def test_checkpoints_that_cannot_be_used(here: Path, made: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={made(here)}", "input=photos", "out=out", "profile=cpu"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(said, lines[0]), lines
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input=nowhere"], "input=nowhere: no such file or folder"),
        (["input=empty"], "input=empty: no images"),
        (["input=photos/*.bmp"], "input=photos/*.bmp: matches no image"),
        (["input=photos/*/../a.png"], "input=photos/*/../a.png: .. stands behind a sign that matches"),
        (["input=photos,empty"], "input=photos,empty: several are a list"),
        (["input=[]"], "input is not said"),
        (["out=photos/a.png"], "out=photos/a.png: "),
        (["out=photos/a.png/below"], "out=photos/a.png/below: "),
        (["write=[]"], "write=[]: one or more of ids"),
        (["write=[masks]"], "write"),
        (["format=npz"], "format=npz: is about probabilities"),
        (["inference.tile=[100,100]"], "not a multiple of 32"),
        (["--force"], "--force: no such flag"),
        (["wirte=[ids]"], "wirte"),
        (["input=twins"], "twins/a.jpg and twins/a.png: would both be written to new/ids/a.png"),
        (["input=lines"], "lines/a\\nb.jpg and lines/a\\nb.png: would both be written to new/ids/a\\nb.png"),
        (["input=out/ids", "out=out"], "is an image to be read, and would be overwritten"),
        (["input=photos", "out=taken"], "taken/ids/a.png: is there, and was not made by this command"),
        (["input=photos", "out=blocked"], "blocked/ids/a.png: is a folder, and in the way"),
        (["input=photos", "out=strange"], "out=strange: its prediction.json cannot be read"),
    ],
)
def test_mistakes_are_a_line(
    here: Path, ckpts: dict[str, Path], overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("twins/a.jpg", "twins/a.png", "lines/a\nb.jpg", "lines/a\nb.png", "out/ids/a.png", "taken/ids/a.png"):
        picture(here / name)
    (here / "empty").mkdir()
    (here / "blocked/ids/a.png").mkdir(parents=True)
    (here / "strange").mkdir()
    (here / "strange/prediction.json").write_text("[]")
    before = files(here)
    given = {"ckpt": f"ckpt={ckpts['binary']}", "input": "input=photos", "out": "out=new", "profile": "profile=cpu"}
    with pytest.raises(SystemExit) as caught:
        predict.main(list({**given, **{item.partition("=")[0]: item for item in overrides}}.values()))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert files(here) == before


def test_all_that_is_missing_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict.main([])
    assert [line.split(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["ckpt", "input", "out"]


def test_a_disk_that_takes_no_more_is_a_line_and_leaves_no_half_file(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu", "write=[ids,colours]"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["out=out: cannot be written: No space left on device"]
    assert files(here / "out") == {"prediction.json", "shares.csv", "ids/a.png", "colours/a.png"}


def test_logits_that_are_nan_for_an_image_leave_it_out(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Inference._seen
    monkeypatch.setattr(Inference, "_seen", lambda self, image: original(self, image) * (1 if image.shape[-1] > 64 else float("nan")))
    assert called(ckpts["binary"]) == 1
    assert "b.jpg: the model gives NaN or infinity for it" in capsys.readouterr().err
    assert files(here / "out" / "ids") == {"a.png"}


def test_class_names_stay_in_their_folder() -> None:
    assert outputs.folder_names(["crack", "../up", "a/b", "a_b", "..", "tab\tbed"]) == [
        "crack",
        "_up",
        "a_b",
        "a_b_3",
        "class_4",
        "tab_bed",
    ]


def test_names_that_are_no_text(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos/a.png").rename(here / "photos" / os.fsdecode(b"\xe9.png"))
    names = seen(monkeypatch)
    assert called(ckpts["binary"]) == 0
    assert called(ckpts["binary"]) == 0
    assert len(names) == 2
    assert (here / "out/ids" / os.fsdecode(b"\xe9.png")).is_file()


def test_the_longest_names_are_taken(here: Path, ckpts: dict[str, Path]) -> None:
    picture(here / "photos" / f"{'x' * 251}.png")
    assert called(ckpts["binary"]) == 0
    assert (here / "out/ids" / f"{'x' * 251}.png").is_file()


def test_help_names_what_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    predict.main(["--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("ids", "colours", "probabilities", "overlays", "shares.csv", "ckpt=", "input=", "out="))


def commands() -> list[str]:
    shown = (ROOT / "docs/predict.md").read_text() + str(predict.__doc__)
    return [line.strip() for line in shown.splitlines() if line.strip().startswith("python -m segfocal.predict")]


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_is_right(command: str) -> None:
    words = shlex.split(command.replace("<run>", "a_run"))
    assert [line for line in mistakes(PredictConfig, "predict", words[3:]) if "no CUDA" not in line] == []


def test_the_document_names_every_key() -> None:
    shown = (ROOT / "docs/predict.md").read_text()
    keys = {item.name for item in dataclasses.fields(PredictConfig)} - {"data"} | {
        f"data.{item.name}" for item in dataclasses.fields(ReadingConfig)
    }
    assert len(commands()) == 7
    assert [key for key in keys if f"`{key}`" not in shown] == []


def test_a_large_image_needs_no_more_than_one_and_a_half_gigabytes(tmp_path: Path) -> None:
    """The command itself, in a process of its own; 40 tiles. Held in float, the image alone would be 288 MB."""
    ckpt = make(tmp_path / "small.ckpt", "model=pspnet")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (500, 750, 3), dtype=np.uint8)).resize((6000, 4000)).save(tmp_path / "large.jpg")
    program = (  # not ru_maxrss: a new process begins with that of the process that started it
        "import pathlib, sys; from segfocal import predict; import segfocal.prediction.run;"
        "print('memory', pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]);"
        "predict.main(sys.argv[1:]);"
        "print('memory', pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    words = [f"ckpt={ckpt}", "input=large.jpg", "out=out", "profile=cpu", "write=[ids,probabilities,overlays]"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 predicted" in done.stdout
    before, peak = (int(found) * 1024 for found in re.findall(r"memory (\d+)", done.stdout))
    assert peak < 1.5e9
    assert peak - before < 0.45e9, (before, peak)
    assert Image.open(tmp_path / "out/ids/large.png").size == (6000, 4000)
    assert sum(int(row["pixels/crack"]) for row in table(tmp_path / "out")) == (read_mask(tmp_path / "out/ids/large.png") == 1).sum()
