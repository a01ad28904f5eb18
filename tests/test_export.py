"""python -m segfocal.export: files that give what the checkpoint gives, or no file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import runpy
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import ExifTags, Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segfocal import checkpoint as checkpoints
from segfocal import predict
from segfocal.config.export import ExportConfig
from segfocal.config.inference import InferenceConfig
from segfocal.config.parse import mistakes
from segfocal.config.run import ModelConfig
from segfocal.data.dataset import Normalise
from segfocal.decision import Decision
from segfocal.engine import fit
from segfocal.errors import UserError
from segfocal.export import command, graph, parity
from segfocal.export.command import export
from segfocal.export.source import open_source
from segfocal.inference import Inference
from segfocal.models import build_model
from tests import checkpoints as checkpoints_made
from tests.checkpoints import BAD, TINIEST, made
from tests.conftest import ROOT, Result, run, spawn
from tests.test_training import TINY, configured

pytestmark = pytest.mark.xdist_group("export")

MEAN, STD = checkpoints_made.MEAN[:3], checkpoints_made.STD[:3]
BINARY = {"mode": "binary", "temperature": [1.7], "thresholds": [0.46], "offsets": [], "fitted_for": "iou"}
MULTICLASS = {"mode": "multiclass", "temperature": [0.8], "offsets": [0.3, 0.0, -0.2, 0.1, 0.5], "thresholds": [], "fitted_for": "iou"}


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("binary") / "best.ckpt", decision=BINARY)


@pytest.fixture(scope="module")
def multiclass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that pools into several bins, which ONNX cannot at any size."""
    return made(tmp_path_factory.mktemp("multiclass") / "best.ckpt", "task=multiclass", "model=pspnet", decision=MULTICLASS)


@pytest.fixture(scope="module")
def as_onnx(binary: Path) -> dict[str, str]:
    """Normalising, from the command's own function; beside the checkpoint, for no place is said."""
    return export(ExportConfig(ckpt=str(binary), normalise=True))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(expected: str, **settings: Any) -> None:
    """In one line that matches, and without a file more than before."""
    folder = Path(settings.get("out") or settings["ckpt"]).parent
    before = sorted(folder.iterdir()) if folder.is_dir() else []
    with pytest.raises(UserError, match=expected) as error:
        export(ExportConfig(**settings))
    assert "\n" not in str(error.value)
    assert (sorted(folder.iterdir()) if folder.is_dir() else []) == before


def test_onnx_is_one_valid_file_that_says_how_it_is_used(binary: Path, as_onnx: dict[str, str]) -> None:
    path = binary.with_suffix(".onnx")
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", int(as_onnx["opset"]))]
    assert not any(item.external_data for item in model.graph.initializer)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(item.name, item.type, item.shape) for item in session.get_inputs()] == [
        ("image", "tensor(float)", ["batch", 3, "height", "width"])
    ]
    assert [(item.name, item.shape) for item in session.get_outputs()] == [
        ("logits", ["batch", 1, "height", "width"]),
        ("probabilities", ["batch", 1, "height", "width"]),
    ]
    about = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert about == {
        "task": "binary",
        "classes": ["crack"],
        "thresholds": [0.46],
        "temperature": [1.7],
        "ignore_index": 255,
        "label_map": None,
        "channels": 3,
        "input": "pixels",
        "scale": 255,
        "mean": MEAN,
        "std": STD,
        "image_scale": 1,
        "exif": "apply",
        "multiple": 32,
        "size": None,
        "architecture": "unet",
        "encoder": TINIEST,
        "epoch": 3,
        "segfocal": checkpoints.segfocal.__version__,
        "checkpoint_sha256": sha256(binary),
    }
    assert as_onnx["sha256"] == sha256(path)
    assert sha256(binary) in as_onnx["checkpoint"]
    assert str(ROOT).encode() not in path.read_bytes()  # nobody learns where it was made
    assert sys.prefix.encode() not in path.read_bytes()


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 64, 96), (5, 128, 64)])
def test_onnx_takes_any_number_of_images_of_any_multiple_of_32(binary: Path, as_onnx: dict[str, str], shape: tuple[int, int, int]) -> None:
    session = onnxruntime.InferenceSession(binary.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    logits, probabilities = session.run(None, {"image": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
    source = open_source(str(binary))
    with torch.inference_mode():
        wanted = source.model(torch.from_numpy(Normalise(MEAN, STD)(pixels).transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-3 * float(wanted.abs().max()))
    np.testing.assert_allclose(probabilities, (wanted / 1.7).sigmoid().numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["pixels", "normalised"])
def test_the_example_writes_the_masks_that_the_program_does(
    binary: Path, multiclass: Path, as_onnx: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """Of a picture whose size 32 does not divide; with fitted thresholds, or offsets."""
    if kind == "pixels":
        ckpt, model = binary, binary.with_suffix(".onnx")
    else:
        ckpt, model = multiclass, tmp_path / "m.onnx"
        export(ExportConfig(ckpt=str(ckpt), out=str(model)))
    (picture,) = parity.images((1, 90, 130), 3)[1]
    Image.fromarray(picture).save(tmp_path / "photo.png")
    done = spawn(str(ROOT / "examples/onnx_numpy.py"), str(model), "photo.png", "mask.png", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "", "")
    source = open_source(str(ckpt))
    image = torch.from_numpy(Normalise(MEAN, STD)(picture[None]).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        wanted = source.decision.labels(Inference(source.model, InferenceConfig())(image))[0].numpy().squeeze()
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (90, 130)
    assert len(np.unique(wanted)) > 1
    assert (mask != wanted).mean() < 1e-3


def test_the_example_shows_images_to_the_model_as_large_as_in_training(tmp_path: Path) -> None:
    ckpt = made(tmp_path / "scaled.ckpt", "data=folder", "data.root=x", "task.classes=[blob]", "data.scale=0.5")
    export(ExportConfig(ckpt=str(ckpt), out=str(tmp_path / "m.onnx")))
    (picture,) = parity.images((1, 90, 130), 3)[1]
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture).save(tmp_path / "photos/photo.png")
    done = spawn(str(ROOT / "examples/onnx_numpy.py"), "m.onnx", "photos/photo.png", "mask.png", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert predict.run([f"ckpt={ckpt}", f"input={tmp_path}/photos", f"out={tmp_path}/out", "profile=cpu", "profile.precision=32-true"]) == 0
    mask, wanted = (np.asarray(Image.open(tmp_path / path)) for path in ("mask.png", "out/ids/photo.png"))
    assert mask.shape == wanted.shape == (90, 130)
    assert 0.02 < wanted.mean() < 0.98
    assert (mask != wanted).mean() < 0.05  # Pillow and OpenCV reduce alike, not equally


def test_the_example_reads_what_predict_reads_at_a_fixed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey picture of 16 bit that its tag turns, a small one, and one that is too large."""
    ckpt = made(tmp_path / "fixed.ckpt", "data=folder", "data.root=x", "task.classes=[blob]")
    export(ExportConfig(ckpt=str(ckpt), out=str(tmp_path / "m.onnx"), size=[96, 128]))
    (picture,) = parity.images((1, 90, 126), 3)[1]
    (tmp_path / "photos").mkdir()
    tag = Image.Exif()
    tag[ExifTags.Base.Orientation] = 6
    stored = np.rot90(picture[..., 0].astype(np.uint16) * 257)
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photos/photo.png", exif=tag)
    Image.fromarray(picture[:30, :40]).save(tmp_path / "small.png")
    Image.fromarray(np.tile(picture, (2, 1, 1))).save(tmp_path / "large.png")

    def mask_of(photo: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "m.onnx"), str(tmp_path / photo), str(tmp_path / "mask.png")])
        runpy.run_path(str(ROOT / "examples/onnx_numpy.py"))
        return np.asarray(Image.open(tmp_path / "mask.png"))

    assert predict.run([f"ckpt={ckpt}", f"input={tmp_path}/photos", f"out={tmp_path}/out", "profile=cpu", "profile.precision=32-true"]) == 0
    mask, wanted = mask_of("photos/photo.png"), np.asarray(Image.open(tmp_path / "out/ids/photo.png"))
    assert mask.shape == wanted.shape == (90, 126)
    assert 0.02 < wanted.mean() < 0.98
    assert (mask != wanted).mean() < 1e-3
    assert mask_of("small.png").shape == (30, 40)
    with pytest.raises(SystemExit, match=r"large.png: 180 x 126 pixels; \S+ takes no more than 96 x 128: cut it, or export without size="):
        mask_of("large.png")


def test_the_example_needs_this_program_not() -> None:
    text = (ROOT / "examples/onnx_numpy.py").read_text()
    assert {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))} == {
        *("json", "sys", "numpy", "onnxruntime", "PIL")
    }


def test_torch_export_is_loaded_without_this_program(multiclass: Path, tmp_path: Path) -> None:
    said = export(ExportConfig(ckpt=str(multiclass), format="torch_export", normalise=True, out=str(tmp_path / "m.pt2")))
    assert said["sha256"] == sha256(tmp_path / "m.pt2")
    pixels = parity.images((1, 64, 96), 3)[1]
    np.save(tmp_path / "pixels.npy", pixels.transpose(0, 3, 1, 2).astype(np.float32))
    program = """
import json, sys, numpy, torch
extra = {"segfocal.json": ""}
module = torch.export.load("m.pt2", extra_files=extra).module()
logits, probabilities = module(torch.from_numpy(numpy.load("pixels.npy")))
numpy.savez("found.npz", logits=logits.detach(), probabilities=probabilities.detach())
about = json.loads(extra["segfocal.json"])
print(about["classes"], about["offsets"], about["input"], "segfocal" in sys.modules, "segmentation_models_pytorch" in sys.modules)
"""
    done = spawn("-c", program, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out == "['background', 'panel', 'weld', 'rust', 'pore'] [0.3, 0.0, -0.2, 0.1, 0.5] pixels False False\n"
    found = np.load(tmp_path / "found.npz")
    source = open_source(str(multiclass))
    logits, probabilities = parity.eager(source, torch.from_numpy(Normalise(MEAN, STD)(pixels).transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], probabilities.numpy(), atol=1e-5)
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())


def test_safetensors_are_the_weights_as_smp_names_them(binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    said = export(ExportConfig(ckpt=str(binary), format="safetensors", out=str(path)))
    assert said["sha256"] == sha256(path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    model = build_model(ModelConfig(encoder=TINIEST), open_source(str(binary)).task)
    model.load_state_dict(load_file(path), strict=True)
    content = checkpoints.read(path)
    assert content["segfocal"] == checkpoints.read(binary)["segfocal"]
    source = open_source(str(path))
    assert source.decision == Decision(**BINARY)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["segfocal"])["config"]["model"]["encoder"] == TINIEST
    again = tmp_path / "again.safetensors"
    assert export(ExportConfig(ckpt=str(path), format="safetensors", out=str(again)))["sha256"] == said["sha256"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_evaluate_gives_the_same_of_safetensors_and_training_does_not_go_on_from_them(cli: Callable[..., Result], tmp_path: Path) -> None:
    tiny = [*TINY, "trainer.max_epochs=1", "trainer.test=false", "report=false", "callbacks.overlays=0"]
    (tmp_path / "run").mkdir()
    fit(configured(*tiny), tmp_path / "run")  # ends with figures of the validation split
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    done = spawn("-m", "segfocal.export", "ckpt=run", "format=safetensors", "out=w.safetensors", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert f"sha256      {sha256(tmp_path / 'w.safetensors')}\n" in done.out
    assert f"best.ckpt, sha256 {sha256(best)}\n" in done.out
    done = cli("evaluate", "ckpt=w.safetensors", "profile=cpu", "split=val", "overlays=0", "report=false")
    assert done.code == 0, done.err
    (written,) = tmp_path.glob("runs/*/metrics.json")
    wanted, found = (json.loads(path.read_text()) for path in (tmp_path / "run" / "metrics.json", written))
    assert {**found, "checkpoint": ""} == {**wanted, "checkpoint": ""}
    assert found["iou/crack"] is not None
    shared = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=rf"^ckpt={shared}: holds the weights alone: training goes on from checkpoints of a training$"):
        fit(configured(*tiny, f"ckpt={shared}"), tmp_path)


def test_a_file_that_computes_something_else_is_not_kept(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter forgets the division by 255."""
    monkeypatch.setattr(command, "traced", lambda source, config: graph.traced(source, dataclasses.replace(config, normalise=False)))
    refused(
        rf"^model=unet model.encoder={TINIEST}: logits differ by at most .*; allowed are .*: nothing is kept$",
        ckpt=str(binary),
        format="torch_export",
        normalise=True,
        out=str(tmp_path / "b.pt2"),
    )


@pytest.mark.parametrize(("factor", "kept"), [(1 + 0.5 * parity.TOLERANCE, True), (1 + 2 * parity.TOLERANCE, False), (float("nan"), False)])
def test_the_tolerance_is_relative_to_the_logits(multiclass: Path, factor: float, kept: bool) -> None:
    source = open_source(str(multiclass))

    def off(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = parity.eager(source, torch.from_numpy(image))
        return logits.numpy() * np.float32(factor), probabilities.numpy()

    config = ExportConfig(ckpt="x", size=[64, 64])
    if kept:
        assert parity.check(source, config, off).endswith("at 1 x 64 x 64, 2 x 64 x 64")
    else:
        with pytest.raises(UserError, match="nothing is kept"):
            parity.check(source, config, off)


def test_a_file_that_cannot_be_run_is_not_kept(multiclass: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As models with several bins of pooling: traced in one size, they run in no other."""
    fixed = lambda source, config: graph.traced(source, dataclasses.replace(config, size=[64, 64]))  # noqa: E731
    monkeypatch.setattr(command, "traced", fixed)
    out = str(tmp_path / "m.pt2")
    refused(r"does not run on 1 x 288 x 320 .*: nothing is kept$", ckpt=str(multiclass), format="torch_export", out=out)


@pytest.mark.parametrize("bins", [(2, 2), (3, 6), (1, 4)])
@pytest.mark.parametrize("size", [(6, 6), (7, 11), (2, 3), (1, 1)])
def test_pooling_by_products_is_adaptive_pooling(bins: tuple[int, int], size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(graph.Pool(*bins)(features), torch.nn.AdaptiveAvgPool2d(bins)(features))


def test_a_model_of_one_size_wants_it_said(tmp_path: Path) -> None:
    ckpt = made(tmp_path / "d.ckpt", "model=dpt", "model.encoder=tu-vit_tiny_patch16_224.augreg_in21k")
    refused(r"^model=dpt .*: cannot be exported \(.*\); where it takes one size alone, say that, as in size=\[224,224\]$", ckpt=str(ckpt))


def test_a_size_that_is_said_is_the_only_one(multiclass: Path, tmp_path: Path) -> None:
    said = export(ExportConfig(ckpt=str(multiclass), format="torch_export", size=[64, 96], out=str(tmp_path / "m.pt2")))
    assert said["image"] == "float32 (batch, 3, 64, 96), normalised: (pixel / 255 - mean) / std"
    assert said["parity"].endswith("at 1 x 64 x 96, 2 x 64 x 96")


@pytest.mark.parametrize("kind", BAD)
def test_checkpoints_that_cannot_be_used(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, said = BAD[kind]
    ckpt = make(tmp_path)
    refused(f"{ckpt}: .*{said}", ckpt=str(ckpt), format="safetensors", out=str(tmp_path / "x.safetensors"))
    assert not Path("executed").exists()


def test_what_is_not_the_models_is_not_missed(tmp_path: Path) -> None:
    ckpt = made(tmp_path / "x.ckpt", spoil=lambda content: content["state_dict"].popitem())
    assert export(ExportConfig(ckpt=str(ckpt), format="safetensors"))["weights"].startswith("152 tensors")


def test_damaged_and_foreign_files_are_refused(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(binary.read_bytes()[:-1000])
    refused("cut.ckpt: cannot be read as a checkpoint: damaged", ckpt=str(tmp_path / "cut.ckpt"))
    export(ExportConfig(ckpt=str(binary), format="safetensors", out=str(tmp_path / "good.safetensors")))
    good = (tmp_path / "good.safetensors").read_bytes()
    about = checkpoints.read(binary)["segfocal"]
    weights = load_file(tmp_path / "good.safetensors")
    path = tmp_path / "bad.safetensors"

    def says(told: str | None, tensors: dict[str, torch.Tensor] = weights) -> Callable[[], None]:
        return lambda: save_file(tensors, path, metadata=None if told is None else {"segfocal": told})

    deep = "[" * 100_000
    for write, said in [
        (lambda: path.write_bytes(good[:-1000]), "damaged, or something else"),
        (lambda: path.write_bytes(good[:5]), "damaged, or something else"),
        (lambda: path.write_bytes(b""), "damaged, or something else"),
        (lambda: path.write_bytes(struct.pack("<Q", 2**60) + good[8:]), "damaged, or something else"),
        (lambda: shutil.copy(binary, path), "damaged, or something else"),
        (says(None), "safetensors of another program"),
        (says("{"), "its header cannot be read"),
        (says(deep), "its header cannot be read"),
        (says("[]"), "not a checkpoint of this program"),
        (says(json.dumps({**about, "mean": [float("nan")] * 3})), "its header cannot be read"),
        (says(json.dumps({**about, "std": [0, 1, 1]})), r"not a checkpoint of this program \(std.0"),
        (says(json.dumps({**about, "config": {"task": 1}})), "not a checkpoint of this program"),
        (says(json.dumps(about), {"x": torch.ones(1, dtype=torch.complex64)}), "x is of torch.complex64"),
        (says(json.dumps(about), {"x": torch.ones(1)}), "do not fit its configuration"),
    ]:
        write()
        refused(rf"^{path}: .*{said}", ckpt=str(path), out=str(tmp_path / "out.onnx"))


def test_places_that_cannot_be_written_to(binary: Path, as_onnx: dict[str, str], tmp_path: Path) -> None:
    there = binary.with_suffix(".onnx").read_bytes()
    refused(r"best.onnx: is there already: name another file, or overwrite=true$", ckpt=str(binary))
    assert binary.with_suffix(".onnx").read_bytes() == there
    refused(r"there is no directory .*nowhere$", ckpt=str(binary), out=str(tmp_path / "nowhere" / "x.onnx"))
    refused("is a directory", ckpt=str(binary.parent / "best.ckpt"), out=str(a_directory(tmp_path / "d.onnx")))
    shared = tmp_path / "w.safetensors"
    export(ExportConfig(ckpt=str(binary), format="safetensors", out=str(shared)))
    refused("is the checkpoint itself", ckpt=str(shared), format="safetensors", overwrite=True)
    export(ExportConfig(ckpt=str(binary), format="safetensors", out=str(shared), overwrite=True))


def a_directory(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_disk_that_is_full_leaves_the_old_file(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(r"cannot be written \(No space left on device\)$", ckpt=str(binary), format="safetensors", out=str(out), overwrite=True)
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "ckpt is not said: which checkpoint to export, as in ckpt=runs/<run> or ckpt=best.ckpt"),
        (["ckpt=x", "format=onx"], "format=onx: must be one of onnx, torch_export, safetensors; did you mean onnx?"),
        (["ckpt=x", "out=x.pt"], "out=x.pt: format=onnx is written to a file whose name ends in .onnx"),
        (["ckpt=x", "size=[224,225]"], "size: 225 is not a multiple of 32, which images are padded to: 256"),
        (["ckpt=x", "format=safetensors", "normalise=true"], "normalise: format=safetensors has no graph: leave it out"),
        (["ckpt=x", "normalize=true"], "normalize=true: no such key; did you mean normalise?"),
    ],
)
def test_mistakes_on_the_command_line(given: list[str], said: str) -> None:
    assert mistakes(ExportConfig, "export", given) == [said]


def test_what_is_missing_is_said_with_the_extra(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(r"^format=onnx: onnxruntime not installed: pip install 'segfocal\[onnx\]'$", ckpt=str(binary), out=str(tmp_path / "x.onnx"))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(
        r"^format=safetensors: safetensors not installed: pip", ckpt=str(binary), format="safetensors", out=str(tmp_path / "x.safetensors")
    )
    (tmp_path / "y.safetensors").write_bytes(b"")
    refused(r"safetensors is not installed: pip", ckpt=str(tmp_path / "y.safetensors"), format="torch_export")


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    done = run("-m", "segfocal.export", "ckpt=x.ckpt", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("x.ckpt: cannot be read as a checkpoint: damaged") and done.err.count("\n") == 1
    assert "--help" in run("-m", "segfocal.export", "--quick", cwd=tmp_path).err
    assert "format=safetensors" in run("-m", "segfocal.export", "--help", cwd=tmp_path).out
