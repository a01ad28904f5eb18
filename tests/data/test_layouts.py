"""Every layout by the command line; Cityscapes and VOC; how names go together."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segfocal.config.layouts import CityscapesConfig, FolderConfig, VocConfig
from segfocal.config.public_sets import CITYSCAPES_CLASSES, VOC_CLASSES
from segfocal.config.task import TaskConfig
from segfocal.errors import UserError
from tests.conftest import Result, blobs, write_folder
from tests.data.made import SAMPLES, SPLIT, cityscapes, coco, manifest, names, opened, save, voc

QUICK = ["data.crop=[32,32]", "data.num_workers=0", "data.batch_size=2", "model.encoder=tu-test_resnet", "trainer.max_epochs=1"]


def test_cityscapes_as_it_is_unpacked(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    task = TaskConfig(name="multiclass", classes=CITYSCAPES_CLASSES)
    data = opened(CityscapesConfig(root=str(tmp_path)), task)
    data.check()
    assert {split: len(found) for split, found in names(data).items()} == {"train": 6, "val": 3}
    mask = data.sources["train"].read(0)[1]
    expected = np.where(SAMPLES[0][1] == 1, CITYSCAPES_CLASSES.index("car"), CITYSCAPES_CLASSES.index("road"))
    expected[0, 0] = 255
    assert np.array_equal(mask, expected)
    next((tmp_path / "gtFine/val").glob("*/*")).unlink()
    with pytest.raises(UserError, match="1 mask is not there: ulm_"):
        opened(CityscapesConfig(root=str(tmp_path)), task).check()


def test_voc_as_it_is_unpacked(tmp_path: Path) -> None:
    voc(tmp_path)
    data = opened(VocConfig(root=str(tmp_path)), TaskConfig(name="multiclass", classes=VOC_CLASSES))
    stats = data.check()["train"]
    assert {split: len(found) for split, found in names(data).items()} == {"train": 6, "val": 3, "test": 3}
    assert stats.positives[VOC_CLASSES.index("car")] == 6 * 140
    assert stats.valid[0] == 6 * 63 * 64


MADE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "folder of nested folders, by a pattern": (
        lambda root: [
            (
                save(root / f"images/road{number % 3}/frame_{number}.png", image),
                save(root / f"masks/road{number % 3}/label_{number}.png", mask),
            )
            for number, (image, mask) in enumerate(SAMPLES)
        ],
        ["data=folder", "data.root=made", r"data.match='\d+$'", "task.classes=[blob]"],
    ),
    "manifest": (lambda root: manifest(root, split=SPLIT.__getitem__), ["data=manifest", "data.file=made/data.csv", "task.classes=[blob]"]),
    "coco": (lambda root: coco(root, "runs"), ["data=coco", "data.root=made", "task.classes=[blob]"]),
    "cityscapes": (cityscapes, ["data=cityscapes", "data.root=made", "task=multiclass"]),
    "voc": (voc, ["data=voc", "data.root=made", "task=multiclass"]),
}


@pytest.mark.parametrize("layout", MADE)
def test_every_layout_trains_and_evaluates_by_the_command_line(tmp_path: Path, cli: Callable[..., Result], layout: str) -> None:
    make, overrides = MADE[layout]
    make(tmp_path / "made")
    done = cli("train", *overrides, *QUICK)
    assert done.code == 0, done.err
    (run_dir,) = (tmp_path / "runs").iterdir()
    figures = json.loads((run_dir / "metrics.json").read_text())
    assert figures["iou_macro"] is not None
    done = cli("evaluate", f"ckpt={run_dir}", f"split={figures['split']}", "out=again")
    assert done.code == 0, done.err
    (again,) = (tmp_path / "again").iterdir()
    assert json.loads((again / "metrics.json").read_text())["iou_macro"] == figures["iou_macro"]


def test_names_go_together_by_suffix_or_pattern_and_the_suffix_is_proposed(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(12))
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_gt"))
    with pytest.raises(UserError, match="12 of 12 images have no mask: .*; data.mask_suffix=_gt"):
        opened(FolderConfig(root=str(tmp_path))).check()
    by_suffix = names(opened(FolderConfig(root=str(tmp_path), mask_suffix="_gt")))
    by_pattern = names(opened(FolderConfig(root=str(tmp_path), match=r"photo_(\d+)")))
    assert {split: [f"photo_{name}" for name in found] for split, found in by_pattern.items()} == by_suffix
    with pytest.raises(UserError, match="data.match=x finds nothing in its name"):
        opened(FolderConfig(root=str(tmp_path), match="x")).check()


def test_reduced_images_are_read_small_with_their_masks(tmp_path: Path) -> None:
    mask = blobs(1, size=(200, 300))[0][1]
    rows, columns = np.mgrid[:400, :600]
    image = np.stack([rows * 255 / 400, columns * 255 / 600, (rows + columns) / 4], axis=-1).astype(np.uint8)
    save(tmp_path / "images/a.jpg", image)
    save(tmp_path / "masks/a.png", np.repeat(np.repeat(mask, 2, 0), 2, 1))
    for name in "bcdefgh":
        for folder, ending in (("images", "jpg"), ("masks", "png")):
            (tmp_path / folder / f"{name}.{ending}").symlink_to(tmp_path / folder / f"a.{ending}")
    data = opened(FolderConfig(root=str(tmp_path), scale=0.5, overlap="allow", stratify=False))
    small, labels = data.sources["train"].read(0)
    assert data.sources["train"].size(0) == small.shape[:2] == labels.shape == (200, 300)
    assert np.array_equal(labels, mask)
    assert np.abs(small.astype(int) - image.reshape(200, 2, 300, 2, 3).mean((1, 3))).max() < 6  # JPEG is not exact
    assert opened(FolderConfig(root=str(tmp_path), overlap="allow", stratify=False)).sources["train"].size(0) == (400, 600)


def test_enlarged_images_are_smooth_and_their_masks_exact(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(8))
    data = opened(FolderConfig(root=str(tmp_path), scale=3.0, stratify=False))
    plain = opened(FolderConfig(root=str(tmp_path), stratify=False)).sources["train"]
    image, mask = plain.read(0)
    large, labels = data.sources["train"].read(0)
    height, width = mask.shape
    assert data.sources["train"].size(0) == large.shape[:2] == labels.shape == (3 * height, 3 * width)
    assert np.array_equal(labels, mask.repeat(3, 0).repeat(3, 1))
    expected = cv2.resize(image, (3 * width, 3 * height), interpolation=cv2.INTER_CUBIC).astype(int)
    assert np.abs(large - expected).max() <= 1  # OpenCV rounds three channels at once otherwise than each alone


@pytest.mark.parametrize("by", ["files", "folders"])
def test_a_set_for_testing_alone_is_evaluated_and_not_trained_on(tmp_path: Path, by: str) -> None:
    if by == "files":
        write_folder(tmp_path, blobs(4))
        (tmp_path / "test.txt").write_text("photo_00\nphoto_02")
    else:
        write_folder(tmp_path, blobs(2), split="test")
    data = opened(FolderConfig(root=str(tmp_path)))
    assert data.check("test")["test"].images == 2
    with pytest.raises(UserError, match="no images in train and val; there are 2 in test; training needs both"):
        data.check()


def test_names_in_split_files_may_have_the_folder_and_a_mark_before_them(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(4))
    (tmp_path / "train.txt").write_text("\ufeffimages/photo_00.jpg\r\n./images/photo_01.jpg\r\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("photo_02\n")
    assert names(opened(FolderConfig(root=str(tmp_path)))) == {"train": ["photo_00", "photo_01"], "val": ["photo_02"]}
    (tmp_path / "val.txt").write_bytes("photo_é".encode("latin-1"))
    with pytest.raises(UserError, match="val.txt: not UTF-8; save it as UTF-8"):
        opened(FolderConfig(root=str(tmp_path))).check()


def test_folders_that_are_links_are_looked_into_and_circles_end(tmp_path: Path) -> None:
    write_folder(tmp_path / "there", blobs(6))
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "road").symlink_to(tmp_path / "there" / kind)
        (tmp_path / "there" / kind / "again").symlink_to(tmp_path / "there" / kind)
    found = names(opened(FolderConfig(root=str(tmp_path))))
    assert sorted(name for split in found.values() for name in split) == [f"road/photo_0{number}" for number in range(6)]


def test_a_pattern_whose_group_takes_no_part_finds_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(6))
    with pytest.raises(UserError, match="data.match=.* finds nothing in its name"):
        opened(FolderConfig(root=str(tmp_path), match="(z)?photo")).check()
    with pytest.raises(UserError, match=r"data.group=\(z\)\?photo: 6 of 6 names have no group"):
        opened(FolderConfig(root=str(tmp_path), group="(z)?photo"))


OTHERWISE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "label_map": ({"label_map": {0: 1, 1: 0}}, {}),
    "exif": ({"exif": "ignore"}, {}),
    "scale": ({"scale": 0.5}, {}),
    "ignore_index": ({}, {"ignore_index": 200}),
    "task": ({}, {"name": "multiclass", "classes": ["nothing", "blob"]}),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_is_read_otherwise_is_kept_apart(tmp_path: Path, what: str) -> None:
    """Or one run would take the counts and the decoded samples of another."""
    write_folder(tmp_path, blobs(6))
    settings, task = OTHERWISE[what]
    one = opened(FolderConfig(root=str(tmp_path)))
    other = opened(FolderConfig(root=str(tmp_path), **settings), TaskConfig(**{"name": "binary", "classes": ["blob"], **task}))
    assert one.sources["train"].settings != other.sources["train"].settings


@pytest.mark.parametrize("name", ["stra\u00dfe_\u00e9", "odd_\udcff_\u00e9"])
def test_accents_taken_apart_by_macos_are_the_same_name(tmp_path: Path, name: str) -> None:
    apart = unicodedata.normalize("NFD", name)
    for number, (image, mask) in enumerate(SAMPLES[:4]):
        save(tmp_path / f"images/{apart}{number}.png", image)
        save(tmp_path / f"masks/{name}{number}.png", mask)
    data = opened(FolderConfig(root=str(tmp_path), fractions=[0.5, 0.5, 0], stratify=False))
    assert not data.sources.faults
    assert sorted(item for found in names(data).values() for item in found) == [f"{apart}{number}" for number in range(4)]
    save(tmp_path / f"images/{name}0.png", SAMPLES[4][0])
    with pytest.raises(UserError, match="are the same sample; keep one"):
        opened(FolderConfig(root=str(tmp_path), stratify=False)).check()
