"""`data=folder`: the layouts, and every wrong one with the override that mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from tests.conftest import blobs, write_folder

TASK = TaskConfig(name="binary", classes=["blob"])
MAP: dict = {"label_map": {0: 0, 255: 1}}


def opened(root: Path, task: TaskConfig = TASK, **settings: object) -> SegmentationData:
    config = FolderConfig(root=str(root), **settings)
    return SegmentationData(config, AugmentConfig(name="none"), task, channels=3, workers=0, seed=0)


def test_split_files(folder: Path) -> None:
    data = opened(folder, **MAP)
    stats = data.check()
    assert {split: len(source) for split, source in data.sources.items()} == {"train": 6, "val": 3, "test": 3}
    assert stats["train"].positives.tolist() == [6 * 140]
    assert stats["train"].prior == pytest.approx([140 / 4096])


def test_split_folders(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        write_folder(tmp_path, blobs(3, seed=number), split=split)
    data = opened(tmp_path)
    data.check()
    assert data.sources["val"].names == ["val_00", "val_01", "val_02"]


def test_split_fractions_are_drawn_by_seed_and_share_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(20))
    first, again = opened(tmp_path), opened(tmp_path)
    names = {split: source.names for split, source in first.sources.items()}
    assert {split: len(found) for split, found in names.items()} == {"train": 14, "val": 3, "test": 3}
    assert len(set().union(*names.values())) == 20
    assert names == {split: source.names for split, source in again.sources.items()}
    other = SegmentationData(FolderConfig(root=str(tmp_path)), AugmentConfig(name="none"), TASK, 3, 0, seed=1)
    assert other.sources["train"].names != names["train"]


def test_multilabel_reads_a_file_a_class(tmp_path: Path) -> None:
    samples = blobs(6)
    write_folder(tmp_path / "a", samples)
    (tmp_path / "a" / "masks").rename(tmp_path / "blob")
    (tmp_path / "a" / "masks").mkdir()
    (tmp_path / "blob").rename(tmp_path / "a" / "masks" / "blob")
    edge = tmp_path / "a" / "masks" / "edge"
    edge.mkdir()
    for path in (tmp_path / "a" / "masks" / "blob").iterdir():
        Image.fromarray(np.eye(64, dtype=bool)).save(edge / path.name)
    task = TaskConfig(name="multilabel", classes=["blob", "edge"])
    data = opened(tmp_path / "a", task)
    stats = data.check()["train"]
    assert stats.positives.tolist() == [stats.images * 140, stats.images * 64]
    assert data.sources["train"].read(0)[1].shape == (64, 64, 2)


def test_the_mask_suffix_pairs(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_label.png"))
    with pytest.raises(UserError, match="data.mask_suffix=_label\n"):
        opened(folder, **MAP)
    with pytest.raises(UserError, match="data.mask_suffix=_label\n"):
        opened(folder, mask_suffix="label", **MAP)
    assert len(opened(folder, mask_suffix="_label", **MAP).sources["train"]) == 6


def test_images_and_masks_may_lie_in_one_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, blobs(10))
    for path in (tmp_path / "masks").iterdir():
        path.rename(tmp_path / "images" / f"{path.stem}_mask.png")
    data = opened(tmp_path / "images", images=".", masks=".", mask_suffix="_mask")
    assert sum(stats.images for stats in data.check().values()) == 10


def test_a_folder_for_each_class_is_not_taken_for_names_that_differ(folder: Path) -> None:
    (folder / "masks").rename(folder / "blob")
    (folder / "masks").mkdir()
    (folder / "blob").rename(folder / "masks" / "blob")
    with pytest.raises(UserError, match="data.masks=masks/blob names one folder; task=multilabel reads one for each class\n"):
        opened(folder, **MAP)


def fault(change: Callable[[Path], object], expected: str, **settings: object) -> tuple[Callable[[Path], object], str, dict]:
    return change, expected, settings


def _save(mask: np.ndarray) -> Callable[[Path], None]:
    return lambda root: Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / "photo_00.png")


def _ignore_all(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.fromarray(np.full((64, 64), 7, np.uint8)).save(path)


def _all_zero(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)


FAULTS = {
    "0/255 masks without a map": fault(lambda root: None, "no pixel of blob in any training mask.*data.label_map={0:0,255:1}"),
    "only background": fault(
        _all_zero, "no pixel of blob, edge in any training mask", task=TaskConfig(name="multiclass", classes=["rest", "blob", "edge"])
    ),
    "label out of range": fault(_save(np.full((64, 64), 3)), r"photo_00.png: values 3 \(4096 pixels\)", **MAP),
    "another size": fault(_save(np.zeros((32, 64))), "photo_00.png: mask of 64 x 32 pixels; its image has 64 x 64", **MAP),
    "missing mask": fault(
        lambda root: (root / "masks" / "photo_03.png").unlink(),
        "1 of 12 images has no mask: photo_03; where nothing is to be seen a mask is empty, not left out",
        **MAP,
    ),
    "missing image": fault(lambda root: (root / "images" / "photo_03.jpg").unlink(), "1 mask has no image.*photo_03", **MAP),
    "two images of a name": fault(
        lambda root: Image.new("RGB", (64, 64)).save(root / "images" / "photo_03.png"), "photo_03.jpg and photo_03.png are the same", **MAP
    ),
    "image of another kind": fault(
        lambda root: (root / "images" / "photo_03.jpg").rename(root / "images" / "photo_03.heic"),
        "1 mask has no image in .*: photo_03; photo_03.heic is not read: save it as PNG",
        **MAP,
    ),
    "unknown stem": fault(
        lambda root: (root / "val.txt").write_text("photo_0x\n"), "val.txt: 1 of 1 line names no image: photo_0x; did you mean", **MAP
    ),
    "stem in two splits": fault(
        lambda root: (root / "val.txt").write_text("photo_00\n"), "val.txt: photo_00 stand in train.txt already", **MAP
    ),
    "empty split": fault(
        lambda root: (root / "val.txt").write_text("\n"),
        "no images in val; there are 6 in train, 3 in test; training needs both; name images of each, or no splits",
        **MAP,
    ),
    "truncated image": fault(
        lambda root: (root / "images" / "photo_01.jpg").write_bytes((root / "images" / "photo_01.jpg").read_bytes()[:700]),
        "photo_01.jpg: damaged",
        **MAP,
    ),
    "empty mask file": fault(lambda root: (root / "masks" / "photo_01.png").write_bytes(b""), "photo_01.png: an empty file", **MAP),
    "no masks folder": fault(
        lambda root: (root / "masks").rename(root / "mask"), "masks: no such folder; data.masks names it; did you mean mask\\?$", **MAP
    ),
    "everything ignored": fault(_ignore_all, "no pixel of blob in any training mask", label_map={7: "ignore"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_data_set_is_refused_with_what_is_wrong_where(folder: Path, name: str) -> None:
    change, expected, settings = FAULTS[name]
    change(folder)
    with pytest.raises(UserError, match=expected):
        opened(folder, **settings).check()


def test_faults_of_files_are_told_together(folder: Path) -> None:
    (folder / "masks" / "photo_01.png").write_bytes(b"")
    _save(np.full((64, 64), 3))(folder)
    (folder / "images" / "photo_07.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(UserError, match="cannot be used, for 3 faults:") as error:
        opened(folder, **MAP).check()
    assert all(name in str(error.value) for name in ("photo_00.png", "photo_01.png", "photo_07.jpg"))


def test_faults_of_files_are_told_by_name(tmp_path: Path) -> None:
    """Whichever split they are in."""
    write_folder(tmp_path, blobs(20))
    broken = [f"photo_{number:02d}.jpg" for number in range(0, 20, 2)]
    for name in broken:
        (tmp_path / "images" / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        opened(tmp_path, stratify=False).check()
    assert [Path(line.split(": an empty file")[0]).name for line in str(error.value).splitlines()[1:]] == broken


@pytest.mark.parametrize(
    ("folders", "wrong", "split"),
    [
        (["train", "valid", "test"], "valid", "val"),
        (["train", "Validation"], "Validation", "val"),
        (["train", "val", "Test"], "Test", "test"),
        (["training", "val"], "training", "train"),
        (["training", "testing"], "training", "train"),
    ],
)
def test_folders_that_name_splits_otherwise_are_not_passed_over(tmp_path: Path, folders: list[str], wrong: str, split: str) -> None:
    for number, name in enumerate(folders):
        write_folder(tmp_path, blobs(3, seed=number), split=name)
    with pytest.raises(UserError) as error:
        opened(tmp_path).check()
    line = f"{tmp_path / 'images' / wrong}: no split has this name; splits are called train, val, test; did you mean {split}? rename it"
    assert line in str(error.value).splitlines()
    opened(tmp_path, split="fractions").check()


def test_folders_of_other_names_are_no_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "val", "valid")):
        write_folder(tmp_path, blobs(3, seed=number), split=name)
    opened(tmp_path).check()


def test_split_files_of_other_names_are_not_passed_over(folder: Path) -> None:
    (folder / "val.txt").rename(folder / "valid.txt")
    (folder / "classes.txt").write_text("blob")
    with pytest.raises(UserError) as error:
        opened(folder, **MAP).check()
    assert str(error.value) == (
        f"{folder / 'valid.txt'}: no split has this name; splits are called train, val, test; did you mean val.txt? rename it"
    )


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*nowhere: no such folder"):
        opened(tmp_path / "nowhere")


def test_hidden_files_are_passed_over(folder: Path) -> None:
    (folder / "images" / "._photo_00.jpg").write_bytes(b"rubbish of a file manager")
    (folder / "images" / "Thumbs.db").write_bytes(b"rubbish")
    opened(folder, **MAP).check()
