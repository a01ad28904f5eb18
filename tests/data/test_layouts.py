"""manifest, coco, cityscapes, voc: the same few samples in each layout, trained and evaluated by the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DataConfig
from segfocal.config.layouts import CityscapesConfig, CocoConfig, FolderConfig, ManifestConfig, VocConfig
from segfocal.config.public_sets import CITYSCAPES_CLASSES, VOC_CLASSES
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from tests.conftest import Result, blobs, write_folder

BLOB = TaskConfig(name="binary", classes=["blob"])
SPLIT = {number: "train" if number < 6 else "val" if number < 9 else "test" for number in range(12)}
SAMPLES = blobs(12)
QUICK = ["data.crop=[32,32]", "data.num_workers=0", "data.batch_size=2", "model.encoder=tu-mobilenetv3_small_050", "trainer.max_epochs=1"]


def opened(config: DataConfig, task: TaskConfig = BLOB, seed: int = 0) -> SegmentationData:
    return SegmentationData(config, AugmentConfig(name="none"), task, channels=3, workers=0, seed=seed)


def names(data: SegmentationData) -> dict[str, list[str]]:
    return {split: source.names for split, source in data.sources.items()}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def manifest(root: Path, **columns: Callable[[int], str]) -> Path:
    """img/0.png with ids in lbl/0.png, and a table of them."""
    rows = []
    for number, (image, mask) in enumerate(SAMPLES):
        save(root / f"img/{number}.png", image)
        save(root / f"lbl/{number}.png", mask)
        rows.append({"image": f"img/{number}.png", "mask": f"lbl/{number}.png", **{key: make(number) for key, make in columns.items()}})
    with (root / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (root / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root / "data.csv"


def coco(root: Path, form: str, per_split: bool = True) -> None:
    """images/, and annotations as polygons or run lengths."""
    contents: dict[str, Any] = {}
    for number, (image, mask) in enumerate(SAMPLES):
        save(root / f"images/{number}.png", image)
        rows, columns = np.nonzero(mask)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        compressed = coco_mask.encode(np.asfortranarray(mask))
        segmentation: Any = {
            "polygon": [[int(item) for item in (left, top, right, top, right, bottom, left, bottom)]],
            "runs": {"size": [64, 64], "counts": compressed["counts"].decode()},
            "plain runs": {"size": [64, 64], "counts": plain_runs(mask)},
        }[form]
        part = contents.setdefault(
            SPLIT[number] if per_split else "all", {"images": [], "annotations": [], "categories": [{"id": 7, "name": "blob"}]}
        )
        part["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        part["annotations"].append({"id": number, "image_id": number, "category_id": 7, "segmentation": segmentation, "iscrowd": 0})
    for name, content in contents.items():
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))


def plain_runs(mask: np.ndarray) -> list[int]:
    runs, value = [0], 0
    for item in mask.ravel(order="F"):
        if item != value:
            runs.append(0)
            value = item
        runs[-1] += 1
    return runs


def cityscapes(root: Path) -> None:
    """Cars (26) on roads (7), one void pixel (4); each split has a city of its own."""
    for number, (image, mask) in enumerate(SAMPLES):
        city = {"train": "aachen", "val": "ulm", "test": "bonn"}[SPLIT[number]]
        ids = np.where(mask == 1, 26, 7).astype(np.uint8)
        ids[0, 0] = 4
        stem = f"{SPLIT[number]}/{city}/{city}_{number:06d}_000019"
        save(root / f"leftImg8bit/{stem}_leftImg8bit.png", image)
        save(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)


def voc(root: Path) -> None:
    """Cars (7) in palette images, a border of 255."""
    for number, (image, mask) in enumerate(SAMPLES):
        ids = np.where(mask == 1, 7, 0).astype(np.uint8)
        ids[0] = 255
        picture = Image.fromarray(ids)
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([number * 37 % 256 for number in range(768)])
        save(root / f"JPEGImages/{number}.jpg", image)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(root / f"SegmentationClass/{number}.png")
        path = root / f"ImageSets/Segmentation/{SPLIT[number]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{number}\n")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_names_image_mask_and_split(tmp_path: Path, ending: str) -> None:
    file = manifest(tmp_path, split=SPLIT.__getitem__).with_suffix(f".{ending}")
    data = opened(ManifestConfig(file=str(file)))
    data.check()
    assert {split: len(found) for split, found in names(data).items()} == {"train": 6, "val": 3, "test": 3}
    image, mask = data.sources["val"].read(1)
    assert np.array_equal(image, SAMPLES[7][0])
    assert np.array_equal(mask, SAMPLES[7][1])


def test_a_table_without_splits_is_drawn_and_its_groups_stay_together(tmp_path: Path) -> None:
    file = manifest(tmp_path, group=lambda number: f"patient {number // 3}")
    found = names(opened(ManifestConfig(file=str(file), fractions=[0.5, 0.25, 0.25])))
    assert {split: len(items) for split, items in found.items()} == {"train": 6, "val": 3, "test": 3}
    for items in found.values():
        assert len(items) == 3 * len({int(Path(name).stem) // 3 for name in items})


def test_a_table_has_a_column_a_class_for_multilabel(tmp_path: Path) -> None:
    file = manifest(
        tmp_path, blob=lambda number: f"lbl/{number}.png", edge=lambda number: f"lbl/{(number + 1) % 12}.png", split=SPLIT.__getitem__
    )
    data = opened(ManifestConfig(file=str(file)), TaskConfig(name="multilabel", classes=["edge", "blob"]))
    mask = data.sources["train"].read(0)[1]
    assert np.array_equal(mask[..., 0], SAMPLES[1][1])
    assert np.array_equal(mask[..., 1], SAMPLES[0][1])


def edited(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda file: file.write_text(change(file.read_text())) and None  # type: ignore[func-returns-value]


BAD_TABLES = {
    "no column": (edited(lambda text: text.replace("mask", "masque", 1)), "has no column mask; did you mean masque?"),
    "no file": (edited(lambda text: text.replace("img/3.png", "img/x.png")), "line 5: img/x.png: no such file below"),
    "no mask": (edited(lambda text: text.replace("lbl/3.png", "")), "line 5: no mask"),
    "outside": (edited(lambda text: text.replace("img/3.png", "../secret.png")), "line 5: ../secret.png is not below"),
    "absolute": (edited(lambda text: text.replace("img/3.png", "/etc/hostname")), "line 5: /etc/hostname is not below"),
    "twice": (edited(lambda text: text.replace("img/3.png", "img/2.png")), "line 5: img/2.png is in the table already"),
    "split": (edited(lambda text: text.replace("val", "valid", 1)), "line 8: split 'valid'; it must be one of train, val, test"),
    "ragged": (edited(lambda text: text.replace("img/3.png", "a,b,c,img/3.png")), "line 5 has another number of columns"),
    "semicolons": (edited(lambda text: text.replace(",", ";")), "columns are parted by ';', where a comma is expected"),
    "no rows": (edited(lambda text: text.splitlines()[0]), "has no rows"),
    "two of a name": (edited(lambda text: text.replace("split", "mask", 1)), "two columns of the same name"),
    "a long name": (edited(lambda text: text.replace("img/3.png", "x" * 300)), "line 5: xxxx"),
    "no text": (lambda file: file.write_bytes(b"\xff\xfe\x00image"), "cannot be read as csv"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_wrong_table_is_refused_with_the_line(tmp_path: Path, name: str) -> None:
    change, said = BAD_TABLES[name]
    save(tmp_path / "secret.png", SAMPLES[0][0])
    file = manifest(tmp_path / "root", split=SPLIT.__getitem__)
    change(file)
    with pytest.raises(UserError) as caught:
        opened(ManifestConfig(file=str(file))).check()
    assert said in str(caught.value)


def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    file = manifest(tmp_path / "root", split=SPLIT.__getitem__)
    save(tmp_path / "secret.png", SAMPLES[0][0])
    (tmp_path / "root/img/3.png").unlink()
    (tmp_path / "root/img/3.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="line 5: img/3.png is not below"):
        opened(ManifestConfig(file=str(file))).check()


@pytest.mark.parametrize("form", ["polygon", "runs", "plain runs"])
def test_coco_draws_what_was_annotated(tmp_path: Path, form: str) -> None:
    coco(tmp_path, form)
    data = opened(CocoConfig(root=str(tmp_path)))
    data.check()
    assert [len(found) for found in names(data).values()] == [6, 3, 3]
    for index in range(6):
        assert np.array_equal(data.sources["train"].read(index)[1], SAMPLES[index][1])


def test_coco_of_one_file_is_drawn(tmp_path: Path) -> None:
    coco(tmp_path, "runs", per_split=False)
    data = opened(CocoConfig(root=str(tmp_path), annotations="annotations/all.json", fractions=[0.5, 0.25, 0.25]))
    data.check()
    assert [len(found) for found in names(data).values()] == [6, 3, 3]


def annotated(root: Path, annotations: list[dict], categories: list[str]) -> None:
    """Annotations of squares {category, square: (top, left, size)} for each of three images."""
    for split in ("train", "val"):
        drawn = []
        for number, item in enumerate(annotations):
            top, left, size = item["square"]
            polygon = [left, top, left + size, top, left + size, top + size, left, top + size]
            drawn.append(
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": categories.index(item["category"]),
                    "segmentation": [polygon],
                    "iscrowd": item.get("crowd", 0),
                }
            )
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png"}],
            "annotations": drawn,
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories)],
        }
        save(root / f"images/{split}.png", SAMPLES[split == "val"][0])
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/{split}.json").write_text(json.dumps(content))


OVERLAPPING = [
    {"category": "car", "square": (0, 0, 4)},  # first, but smaller than the road on it
    {"category": "road", "square": (0, 0, 16)},
    {"category": "truck", "square": (30, 30, 4)},
    {"category": "car", "square": (50, 50, 8), "crowd": 1},
]


def test_coco_puts_the_smallest_on_top_and_ignores_crowds(tmp_path: Path) -> None:
    annotated(tmp_path, OVERLAPPING, ["car", "road", "truck"])
    task = TaskConfig(name="multiclass", classes=["nothing", "road", "car"], ignore_index=99)
    mask = opened(CocoConfig(root=str(tmp_path), categories={"truck": "ignore"}), task).sources["train"].read(0)[1]
    assert (mask[0, 0], mask[10, 10], mask[31, 31], mask[52, 52], mask[40, 40]) == (2, 1, 99, 99, 0)
    planes = opened(
        CocoConfig(root=str(tmp_path), categories={"truck": "background"}), TaskConfig(name="multilabel", classes=["car", "road"])
    )
    mask = planes.sources["train"].read(0)[1]
    assert (mask[0, 0].tolist(), mask[10, 10].tolist(), mask[31, 31].tolist(), mask[52, 52].tolist()) == (
        [1, 1],
        [0, 1],
        [0, 0],
        [255, 255],
    )


def test_coco_categories_are_classes_or_are_said(tmp_path: Path) -> None:
    annotated(tmp_path, OVERLAPPING, ["car", "road", "truck"])
    with pytest.raises(
        UserError,
        match=r"categories road, truck are none of task.classes=\['car'\].*'data.categories=\{road:background,truck:background\}'",
    ):
        opened(CocoConfig(root=str(tmp_path)), TaskConfig(name="binary", classes=["car"]))
    with pytest.raises(UserError, match=r"has no category lorry \(data.categories\); there are car, road, truck"):
        opened(
            CocoConfig(root=str(tmp_path), categories={"lorry": "car", "truck": "car", "road": "background"}),
            TaskConfig(name="binary", classes=["car"]),
        )


BAD_COCO = {
    "not JSON": (lambda path: path.write_text("{"), "train.json: not JSON"),
    "not COCO": (lambda path: path.write_text("[]"), "has no list images, annotations, categories: not of the COCO form"),
    "no file": (lambda path: path.unlink(), "train.json: No such file or directory (data.annotations)"),
    "no image": (edited(lambda text: text.replace('"3.png"', '"x.png"')), "x.png is not in"),
    "strange category": (
        edited(lambda text: text.replace('"category_id": 7', '"category_id": 8', 1)),
        "0.png has annotations of category [8]",
    ),
    "strange size": (edited(lambda text: text.replace('"size": [64, 64]', '"size": [64, 63]', 1)), "0.png: annotation 0"),
}


def set_in(place: str, key: str, value: Any) -> Callable[[Path], None]:
    """Change the first image, annotation or category of a JSON file."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        if value is None:
            del content[place][0][key]
        else:
            content[place][0][key] = value
        path.write_text(json.dumps(content))

    return change


BAD_COCO |= {
    "no file name": (set_in("images", "file_name", None), "images[0] has no id or file_name as COCO has them"),
    "strange id": (set_in("images", "id", [1]), "images[0] has no id or file_name as COCO has them"),
    "no image id": (set_in("annotations", "image_id", None), "annotations[0] has no image_id or category_id"),
    "text for a crowd": (set_in("annotations", "iscrowd", "0"), "annotations[0] has no"),
    "same id": (set_in("images", "id", 1), "images with the same id: 1"),
    "same name": (set_in("images", "file_name", "1.png"), "two images are called 1"),
    "unknown image": (set_in("annotations", "image_id", 99), "annotations of 1 images that it does not name: image_id 99"),
    "outside": (set_in("images", "file_name", "../made.png"), "../made.png is not below"),
    "other size": (set_in("images", "width", 640), "0.png: an image of 64 x 64 pixels; its annotations are of 640 x 64"),
    "short runs": (set_in("annotations", "segmentation", {"size": [64, 64], "counts": [0, 10]}), "run lengths that do not fill the image"),
    "short text": (set_in("annotations", "segmentation", {"size": [64, 64], "counts": "05"}), "run lengths that do not fill the image"),
    "negative runs": (set_in("annotations", "segmentation", {"size": [64, 64], "counts": [-1, 4097]}), "do not fill"),
    "far away": (set_in("annotations", "segmentation", [[1e30, 1, 5, 1e300, 1, 20]]), "points far outside of the image"),
    "no number": (set_in("annotations", "segmentation", [[float("nan"), 1, 5, 5, 1, 20]]), "or that are no numbers"),
    "odd": (set_in("annotations", "segmentation", [[1, 1, 5, 5, 1, 20, 3]]), "a polygon is a list of x, y"),
    "box": (set_in("annotations", "segmentation", [[1, 1, 5, 5]]), "a polygon is a list of x, y"),
    "nothing": (set_in("annotations", "segmentation", []), "without polygons or run lengths"),
}


@pytest.mark.parametrize("name", BAD_COCO)
def test_wrong_coco_is_refused(tmp_path: Path, name: str) -> None:
    change, said = BAD_COCO[name]
    save(tmp_path / "made.png", SAMPLES[0][0])
    coco(tmp_path, "runs")
    change(tmp_path / "annotations/train.json")
    with pytest.raises(UserError) as caught:
        opened(CocoConfig(root=str(tmp_path))).check()
    assert said in str(caught.value)


def test_changed_annotations_are_measured_again(tmp_path: Path) -> None:
    coco(tmp_path, "polygon")
    before = opened(CocoConfig(root=str(tmp_path))).check()["train"].positives[0]
    path = tmp_path / "annotations/train.json"
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][1:]
    path.write_text(json.dumps(content))
    assert opened(CocoConfig(root=str(tmp_path))).check()["train"].positives[0] == before - 140


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
    with pytest.raises(UserError, match="1 masks are not there: ulm_"):
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


def test_a_table_may_end_with_lines_of_spaces_and_begin_with_a_mark(tmp_path: Path) -> None:
    file = manifest(tmp_path, split=SPLIT.__getitem__)
    file.write_text("\ufeff" + file.read_text() + "\n   \n", encoding="utf-8")
    assert len(names(opened(ManifestConfig(file=str(file))))["train"]) == 6


def test_a_table_of_objects_has_a_line_an_object_whatever_is_in_its_texts(tmp_path: Path) -> None:
    file = manifest(tmp_path, split=SPLIT.__getitem__, group=lambda number: "a\u2028b").with_suffix(".jsonl")
    file.write_text(file.read_text().replace("\\u2028", "\u2028"), encoding="utf-8")
    with pytest.raises(UserError, match="in train and in val, too: a"):
        opened(ManifestConfig(file=str(file))).check()
    file.write_text(file.read_text(encoding="utf-8").replace("{", "[", 1), encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as jsonl: line 1: "):
        opened(ManifestConfig(file=str(file)))


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
