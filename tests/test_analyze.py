"""python -m segfocal.analyze: what is found, how it is said, and that training says the same."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import SyntheticConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.sampling import RareClassConfig
from segfocal.config.task import TaskConfig
from segfocal.data.analysis import Analysis, analyse, look, notes
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from segfocal.report.analysis import as_json, lines, page
from segfocal.report.grid import choose
from tests.conftest import Result, blobs, run, write_folder

MAP = {0: 0, 255: 1}
SAID = ["data=folder", "data.root=dataset", "task.classes=[blob]"]


@pytest.fixture
def analyze(tmp_path: Path) -> Callable[..., Result]:
    return lambda *overrides: run("-m", "segfocal.analyze", *overrides, cwd=tmp_path)


def opened(root: Path, **settings: object) -> SegmentationData:
    config = FolderConfig(root=str(root), crop=[32, 32], **{"label_map": MAP, **settings})
    return SegmentationData(config, AugmentConfig(name="none"), TaskConfig(name="binary", classes=["blob"]), 3, 0, 0)


def mask_of(root: Path, name: str, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{name}.png")


def warnings(found: Analysis) -> list[str]:
    return [line for step in found.steps for line in step.warnings]


def test_a_right_data_set_has_ticks_and_a_page(folder: Path, analyze: Callable[..., Result], tmp_path: Path) -> None:
    done = analyze(*SAID, "data.label_map={0:0,255:1}", "data.crop=[32,32]", "augment=medium", "out=here")
    assert done.code == 0, done.err
    steps = ["images and masks", "files and labels", "splits", "classes", "sizes", "recipe", "crops that show a class"]
    assert re.findall(r"^(.) (\d)\. (.+)$", done.out, re.MULTILINE) == [
        ("✓", str(number), step) for number, step in enumerate(steps, start=1)
    ]
    html = (tmp_path / "here" / "analysis.html").read_text()
    assert "nothing keeps it from being trained on" in html
    assert html.count("data:image/jpeg;base64,") == 6 + 6 + 1  # training samples, those with blobs, and the crops
    assert "blob" in html
    assert "http" not in html.replace("http://www.w3.org", "")  # it is looked at without a network


def test_every_fault_is_told_at_once_with_what_mends_it(folder: Path, analyze: Callable[..., Result], tmp_path: Path) -> None:
    mask_of(folder, "photo_00", np.full((64, 64), 3))
    mask_of(folder, "photo_01", np.zeros((32, 64)))
    (folder / "images" / "photo_02.jpg").write_bytes(b"")
    (folder / "masks" / "photo_03.png").unlink()
    (folder / "images" / "photo_07.jpg").write_bytes((folder / "images" / "photo_04.jpg").read_bytes())
    done = analyze(*SAID, "data.label_map={0:0,255:1}", "--json")
    assert done.code == 2
    found = json.loads(done.out)
    assert found["usable"] is False
    faults = {Path(fault["where"]).name: fault for step in found["steps"] for fault in step["faults"]}
    assert faults["masks"]["found"] == "1 of 12 images has no mask: photo_03"
    assert faults["photo_00.png"]["found"] == "values 3 (4096 pixels)"
    assert faults["photo_00.png"]["mend"].startswith("add them, as a class")
    assert faults["photo_01.png"]["expected"] == "its image has 64 x 64"
    assert faults["photo_02.jpg"]["found"] == "an empty file"
    assert faults["data.root=dataset"]["found"] == "1 image of train is in val, too: photo_04 is photo_07"
    assert len(faults) == 5
    shown = analyze(*SAID, "data.label_map={0:0,255:1}")
    assert shown.code == 2
    assert len(re.findall(r"^   ✗ ", shown.out, re.MULTILINE)) == 5
    html = (tmp_path / "runs" / "analysis" / "analysis.html").read_text()
    assert "5 faults keep it from being trained on" in html
    assert "photo_00.png" in html


def test_training_refuses_the_same(folder: Path, cli: Callable[..., Result]) -> None:
    mask_of(folder, "photo_00", np.full((64, 64), 3))
    (folder / "masks" / "photo_03.png").unlink()
    done = cli("train", *SAID, "data.label_map={0:0,255:1}")
    assert done.code == 2
    assert done.err.splitlines()[0] == "data.root=dataset: cannot be used, for 2 faults:"
    assert len(done.err.splitlines()) == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=folder", "data.root=nowhere", "task.classes=[a]"], "data.root=nowhere: no such folder"),
        (["data=foldr"], "data=foldr: no such option"),
        (["data.size=64,128"], "combine to more than 1"),
        (["--jason"], "--jason: no such flag"),
    ],
)
def test_mistakes_are_a_line(analyze: Callable[..., Result], overrides: list[str], said: str) -> None:
    done = analyze(*overrides)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_mistakes_are_json_where_everything_is(analyze: Callable[..., Result]) -> None:
    done = analyze("data=foldr", "--json")
    assert done.code == 2
    assert json.loads(done.out)["error"].startswith("data=foldr: no such option")


def test_warnings_of_masks(folder: Path) -> None:
    speck = np.zeros((64, 64))
    speck[3, 3:6] = 255
    mask_of(folder, "photo_01", speck)
    mask_of(folder, "photo_02", np.full((64, 64), 254))
    for name in ("photo_09", "photo_10", "photo_11"):
        mask_of(folder, name, np.zeros((64, 64)))
    found = look(opened(folder, label_map={**MAP, 254: "ignore"}))
    assert warnings(found) == [
        "1 mask of train has no pixel that counts, all are ignored: photo_02",
        "1 mask of train has 9 pixels or fewer of blob: photo_01",
        "no pixel of blob in test: there will be no figure",
    ]
    assert any("test: 3 images without any of blob" in line for step in found.steps for line in step.found)
    assert notes(found)[-3:] == [f"warning: {line}" for line in warnings(found)]


def test_an_inverted_mask_is_suspected(folder: Path) -> None:
    assert "are the masks inverted? 'data.label_map={0:1,1:0}'" in warnings(look(opened(folder, label_map={0: 1, 255: 0})))[-1]


def test_images_that_are_there_twice_or_look_the_same_are_named(tmp_path: Path) -> None:
    """The third is the first, a little brighter; the second is the first."""
    smooth = [
        (np.kron(np.random.default_rng(seed).integers(40, 200, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)), mask)
        for seed, (_, mask) in enumerate(blobs(6))
    ]
    first, mask = smooth[0]
    names = write_folder(tmp_path, [(first, mask), (first, mask), (first + 3, mask), *smooth[3:]], scale=255)
    for split, part in {"train": names[:2] + names[3:4], "val": names[2:3], "test": names[4:]}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(part))
    assert warnings(look(opened(tmp_path))) == [
        "1 image is there twice in a split: photo_00 is photo_01",
        "1 image looks the same in two splits: train/photo_00 looks like val/photo_02; data.group keeps such images together",
    ]


def test_a_class_that_is_absent_from_training_is_named(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        write_folder(tmp_path, blobs(3, seed=number), split=split)
    config = FolderConfig(root=str(tmp_path))
    found = look(SegmentationData(config, AugmentConfig(name="none"), TaskConfig(name="multiclass", classes=["a", "b", "c"]), 3, 0, 0))
    assert warnings(found) == [
        "there is no test split: figures at the end will be those of val, which has chosen the checkpoint",
        "no pixel of c in train: it cannot be learned",
        "no pixel of c in val: there will be no figure",
    ]


def test_a_validation_without_foreground_is_said_to_choose_nothing(folder: Path) -> None:
    for name in ("photo_06", "photo_07", "photo_08"):
        mask_of(folder, name, np.zeros((64, 64)))
    assert warnings(look(opened(folder))) == [
        "no pixel of blob in val: the best checkpoint cannot be told, nor a threshold fitted: put images with it into val, or draw others by seed="
    ]


def test_sizes_and_crops(tmp_path: Path) -> None:
    write_folder(tmp_path, [*blobs(8), *blobs(4, size=(40, 90), seed=3)], scale=255)
    data = opened(tmp_path, fractions=[0.5, 0.25, 0.25])
    data.config.crop = [64, 64]
    sizes = next(step for step in look(data).steps if step.title == "sizes")
    assert sizes.found == ["2 different, most often 64 x 64, 90 x 40", "height 40 to 64, middle 64; width 64 to 90, middle 64"]
    small = sum(height < 64 for height, _ in data.measured["train"].sizes)
    assert sizes.warnings == [f"{small} training images are smaller than data.crop=[64, 64], and padded"]


def test_shares_of_crops_are_measured_and_rare_classes_get_their_sampling() -> None:
    """Pores are below half a percent of the pixels."""
    task = TaskConfig(name="multiclass", classes=["background", "panel", "weld", "rust", "pore"])
    config = SyntheticConfig(size=256, train=40, val=2, test=2, crop=[64, 64])
    data = SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, 0)
    found = analyse(data)
    assert list(found.crops) == ["uniform", "rare_class"]
    assert found.crops["rare_class"][4] > found.crops["uniform"][4] + 0.3
    assert data.sampling.name == "uniform"
    loader = data.train_dataloader()
    exact = np.mean([[(target == label).any() for label in range(5)] for batch in loader for target in batch.target.numpy()], axis=0)
    np.testing.assert_allclose(found.crops["uniform"], exact)
    assert "sampling=rare_class" in found.suggested
    data.sampling = RareClassConfig(share=1.0)
    assert analyse(data).crops["rare_class"][4] > found.crops["rare_class"][4]


def test_json_has_all_numbers(folder: Path) -> None:
    data = opened(folder)
    plain = json.loads(json.dumps(as_json(analyse(data), data)))
    assert plain["splits"]["train"]["pixels"] == {"blob": 6 * 140}
    assert plain["splits"]["val"]["images_with"] == {"blob": 3}
    assert plain["splits"]["test"]["sizes"] == ["64x64"]
    assert plain["crops"]["uniform"]["blob"] > 0
    assert plain["usable"] is True


def test_names_from_files_are_text_on_the_page(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(12), scale=255)
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (tmp_path / kind / f"photo_00.{ending}").rename(tmp_path / kind / f"<script>alert(1)<.{ending}")
    data = opened(tmp_path)
    html = page(analyse(data), data)
    assert "<script" not in html


def test_without_a_check_a_few_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfocal.data.scan.FEW", 2)
    (folder / "images" / "photo_01.jpg").write_bytes(b"")
    data = opened(folder, check="off")
    stats = data.check()["train"]
    assert (stats.images, stats.total, stats.rows) == (2, 6, [0, 3])
    dataset, sampler = data.training()
    assert sorted(key.sample for key in sampler) == list(range(6))
    with pytest.raises(UserError, match=r"photo_01.jpg: an empty file"):
        list(data.train_dataloader())
    data.sampling = RareClassConfig()
    with pytest.raises(
        UserError, match=r"^sampling=rare_class: wants every sample measured, which data.check=off does not: data.check=fast$"
    ):
        data.training()
    assert len(dataset) == 6


def test_without_a_check_what_was_looked_at_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten training images the fourth alone of those that are looked at has a blob: the picture is of it."""
    monkeypatch.setattr("segfocal.data.scan.FEW", 3)
    samples = [(image, mask * (number == 3)) for number, (image, mask) in enumerate(blobs(14))]
    names = write_folder(tmp_path, samples, scale=255)
    for split, part in {"train": names[:10], "val": names[10:12], "test": names[12:]}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(part))
    data = opened(tmp_path, check="off")
    found = analyse(data)
    assert found.stats["train"].rows == [0, 3, 6]
    assert list(found.crops) == ["uniform"]
    assert found.steps[1].found == ["7 of 14 samples were looked at"]
    assert [row.sample for row in choose(found.stats["train"], data.task, 4)] == [3]
    assert "blob: photo_03" in page(found, data)


def test_what_the_few_do_not_show_is_not_said_to_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten training images the fifth alone has a blob, and is not looked at."""
    monkeypatch.setattr("segfocal.data.scan.FEW", 3)
    samples = [(image, mask * (number in (4, 11, 13))) for number, (image, mask) in enumerate(blobs(14))]
    names = write_folder(tmp_path, samples, scale=255)
    for split, part in {"train": names[:10], "val": names[10:12], "test": names[12:]}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(part))
    found = analyse(opened(tmp_path, check="off"))
    (step,) = [step for step in found.steps if step.title == "classes"]
    assert step.warnings == ["no pixel of blob in the 3 of 10 samples of train that were read"]
    assert not found.faults


def test_the_rarest_class_is_one_that_is_there(tmp_path: Path) -> None:
    """A class that nobody can learn is no reason not to aim at the one that is rare."""
    samples = [(image, mask * (number % 5 == 0)) for number, (image, mask) in enumerate(blobs(20, size=(128, 128)))]
    write_folder(tmp_path, samples)
    task = TaskConfig(name="multiclass", classes=["nothing", "absent", "blob"])
    config = FolderConfig(root=str(tmp_path), crop=[32, 32], label_map={0: 0, 1: 2})
    assert "sampling=rare_class" in analyse(SegmentationData(config, AugmentConfig(name="none"), task, 3, 0, 0)).suggested


def test_names_that_are_no_text_are_shown_all_the_same(folder: Path, analyze: Callable[..., Result]) -> None:
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (folder / kind / f"photo_00.{ending}").rename(folder / kind / (os.fsdecode(b"\xe9.") + ending))
    done = analyze(*SAID, "data.split=fractions", "data.label_map={0:0,255:1}", "data.crop=[32,32]")
    assert done.code == 0, done.err


def test_console_lines_are_numbered(folder: Path) -> None:
    shown = lines(analyse(opened(folder)))
    assert [line[2] for line in shown if re.match(r"[✓!✗] ", line)] == list("123456")
