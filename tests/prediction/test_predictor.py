"""A checkpoint applied to files: by its decision, with images read as in training, in memory that does not grow with them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segfocal.data.decoders import image_size
from segfocal.data.formats import read_mask
from segfocal.decision import Decision
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.evaluation import evaluate
from segfocal.inference import Inference
from tests.checkpoints import made, put
from tests.conftest import ROOT
from tests.prediction.made import EVERYTHING, called, files, logits_of, picture, table
from tests.test_training import configured


def test_figures_of_an_evaluation_are_those_of_what_is_predicted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, evaluated and predicted by the commands' own functions; in tiles, with another view, by both decisions."""
    monkeypatch.chdir(tmp_path)
    data = ["data=folder", f"data.root={folder}", "task.classes=[blob]", "data.crop=[32,32]", "data.label_map={0:0,255:1}"]
    quick = ["data.num_workers=0", "data.batch_size=3", "trainer.max_epochs=3", "report=false", "trainer.test=false", "optimizer.lr=0.01"]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    fit(configured(*data, *quick, "model.encoder=tu-mobilenetv3_small_050", "profile=cpu"), run_dir)
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
    ckpt = made(here / "tuned.ckpt", decision=Decision("binary", temperature=[2.0], thresholds=[0.01]).as_dict())
    assert called(ckpt, "write=[ids,probabilities]", "profile.precision=32-true") == 0
    assert called(ckpt, "write=[ids,probabilities]", "profile.precision=32-true", "decision=plain", "out=plain") == 0
    tuned, plain = (np.asarray(Image.open(f"{out}/probabilities/a.png")) / 65535 for out in ("out", "plain"))
    np.testing.assert_allclose(np.log(tuned / (1 - tuned)), np.log(plain / (1 - plain)) / 2, atol=1e-3)
    assert (np.asarray(Image.open("out/ids/a.png")) == (tuned > 0.01)).all()
    assert (np.asarray(Image.open("plain/ids/a.png")) == (plain > 0.5)).mean() > 0.999
    said = {out: json.loads(Path(out, "prediction.json").read_text())["decision"] for out in ("out", "plain")}
    assert (said["out"]["temperature"], said["out"]["thresholds"], said["plain"]["thresholds"]) == ([2.0], [0.01], [])


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


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("scale", "interpolation"), [(0.5, cv2.INTER_AREA), (1.5, cv2.INTER_CUBIC)])
def test_the_scale_of_the_training_is_the_models_alone(here: Path, scale: float, interpolation: int, pack: bool) -> None:
    """What is written has the size of the image; what the model saw was half of it, or more."""
    if pack:
        reading = {"exif": None, "scale": scale}
        ckpt = made(here / "scaled.ckpt", "data=streaming", "data.root=x", "task.classes=[blob]", spoil=put("reading", reading))
    else:
        ckpt = made(here / "scaled.ckpt", "data=folder", "data.root=x", "task.classes=[blob]", f"data.scale={scale}")
    image = np.asarray(Image.open("photos/a.png"))
    assert called(ckpt, EVERYTHING, "profile.precision=32-true") == 0
    seen = cv2.resize(image, (round(scale * 90), round(scale * 60)), interpolation=interpolation)
    wanted = logits_of(ckpt, seen).sigmoid()[0, 0].numpy()
    stored = np.asarray(Image.open("out/probabilities/a.png")) / 65535
    assert stored.shape == np.asarray(Image.open("out/ids/a.png")).shape == (60, 90)
    np.testing.assert_allclose(stored, cv2.resize(wanted, (90, 60), interpolation=cv2.INTER_LINEAR), atol=1e-3)
    assert np.asarray(Image.open("out/overlays/a.png")).shape == (60, 90, 3)
    assert called(ckpt, "data.max_megapixels=0.001", "out=other") == 2
    assert not Path("other").exists()


def test_any_number_of_bands(here: Path) -> None:
    ckpt = made(here / "six.ckpt", "model.in_channels=6")
    Path("bands").mkdir()
    tifffile.imwrite(
        "bands/a.tif",
        np.random.default_rng(0).integers(0, 65536, (64, 70, 6), dtype=np.uint16),
        photometric="minisblack",
        planarconfig="contig",
    )
    assert called(ckpt, "write=[ids,overlays]", given="bands") == 0
    assert np.asarray(Image.open("out/overlays/a.png")).shape == (64, 70, 3)


def test_logits_that_are_nan_for_an_image_leave_it_out(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Inference._seen
    monkeypatch.setattr(Inference, "_seen", lambda self, image: original(self, image) * (1 if image.shape[-1] > 64 else float("nan")))
    assert called(ckpts["binary"]) == 1
    assert "b.jpg: the model gives NaN or infinity for it" in capsys.readouterr().err
    assert files(here / "out" / "ids") == {"a.png"}


def test_a_model_that_gives_no_numbers_at_all_is_a_mistake_and_leaves_nothing(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Inference._seen
    monkeypatch.setattr(Inference, "_seen", lambda self, image: original(self, image) * float("nan"))
    with pytest.raises(UserError, match=r"binary\.ckpt: the model gives NaN or infinity for every image: take another checkpoint$"):
        called(ckpts["binary"])
    assert not (here / "out").exists()


def test_a_large_image_needs_no_more_than_one_and_a_half_gigabytes(tmp_path: Path) -> None:
    """The command itself, in a process of its own; 40 tiles. Held in float, the image alone would be 288 MB."""
    ckpt = made(tmp_path / "small.ckpt", "model=pspnet")
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
