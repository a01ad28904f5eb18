"""`data=coco`: what is drawn, and what is refused, for pycocotools would crash on it or make it up."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segfocal.config.layouts import CocoConfig
from segfocal.config.task import TaskConfig
from segfocal.data.coco_masks import CocoMasks, CocoSample
from segfocal.errors import UserError
from tests.data.made import SAMPLES, coco, edited, names, opened, save


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


def test_of_many_annotations_one_is_drawn_at_a_time(tmp_path: Path) -> None:
    """A mask of each of them at once would take an image's size for each."""
    side, count = 1000, 200
    squares = [[x, x, x + 9, x, x + 9, x + 9, x, x + 9] for x in range(count)]
    drawn = [{"id": n, "category_id": 1, "segmentation": [square], "size": (None, None)} for n, square in enumerate(squares)]
    sample = CocoSample("a", tmp_path / "a.png", annotations=drawn)
    tracemalloc.start()
    mask = CocoMasks({1: 1}, TaskConfig(name="binary", classes=["a"])).read(sample, (side, side))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mask.diagonal().sum() == count + 8
    assert peak < 5 * side**2  # bytes


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
    "no image": (edited(lambda text: text.replace('"3.png"', '"x.png"')), "x.png: no such file below"),
    "strange category": (
        edited(lambda text: text.replace('"category_id": 7', '"category_id": 8', 1)),
        "0.png has annotations of category 8, which it does not name",
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
    "same id as a text": (set_in("images", "id", "1"), "images with the same id: 1"),
    "empty name": (set_in("images", "file_name", ""), "train.json: an empty name: no such file below"),
    "name of the folder": (set_in("images", "file_name", "."), "train.json: .: no such file below"),
    "name with NUL": (set_in("images", "file_name", "a\0.png"), "train.json: 'a\\x00.png' names no file (embedded null byte)"),
    "name with half a sign": (set_in("images", "file_name", "\ud800.png"), "train.json: '\\ud800.png' names no file"),
    "long name": (set_in("images", "file_name", "x" * 300), "names no file (File name too long)"),
    "same name": (set_in("images", "file_name", "1.png"), "two images are called 1"),
    "unknown image": (set_in("annotations", "image_id", 99), "annotations of 1 image that it does not name: image_id 99"),
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


def test_ids_may_be_numbers_here_and_texts_there(tmp_path: Path) -> None:
    coco(tmp_path, "runs")
    path = tmp_path / "annotations/train.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation |= {"image_id": str(annotation["image_id"]), "category_id": str(annotation["category_id"])}
    path.write_text(json.dumps(content))
    data = opened(CocoConfig(root=str(tmp_path)))
    data.check()
    assert np.array_equal(data.sources["train"].read(0)[1], SAMPLES[0][1])


def test_class_0_of_coco_is_what_nothing_is_drawn_on(tmp_path: Path) -> None:
    annotated(tmp_path, OVERLAPPING, ["car", "road", "truck"])

    def mask(classes: list[str], **categories: str) -> np.ndarray:
        config = CocoConfig(root=str(tmp_path), categories={"truck": "ignore", **categories})
        return opened(config, TaskConfig(name="multiclass", classes=classes)).sources["train"].read(0)[1]

    with pytest.raises(UserError, match=r"category road would be class 0, .*'data.categories=\{road:background\}'"):
        mask(["road", "car"])
    with pytest.raises(UserError, match=r"task.classes=\['car', 'background', 'road'\]: class 0 is .*: name background first"):
        mask(["car", "background", "road"])
    assert mask(["road", "car"], road="background")[[0, 10, 40], [0, 10, 40]].tolist() == [1, 0, 0]
    assert mask(["background", "road", "car"])[[0, 10, 40], [0, 10, 40]].tolist() == [2, 1, 0]


def test_a_category_called_background_may_be_class_0_of_another_name(tmp_path: Path) -> None:
    annotated(tmp_path, [{"category": "background", "square": (0, 0, 16)}], ["background", "car"])
    config = CocoConfig(root=str(tmp_path), categories={"background": "nothing"})
    assert not opened(config, TaskConfig(name="multiclass", classes=["nothing", "car"])).sources["train"].read(0)[1].any()


def test_an_image_of_two_splits_has_the_annotations_of_each(tmp_path: Path) -> None:
    annotated(tmp_path, [{"category": "car", "square": (0, 0, 4)}], ["car"])
    path = tmp_path / "annotations/val.json"
    content = json.loads(path.read_text())
    content |= {"images": [{"id": 1, "file_name": "train.png"}], "annotations": []}
    path.write_text(json.dumps(content))
    data = opened(CocoConfig(root=str(tmp_path), overlap="allow"), TaskConfig(name="binary", classes=["car"]))
    assert [data.sources[split].read(0)[1].sum() for split in ("train", "val")] == [16, 0]
    assert data.sources["train"].identity(0) != data.sources["val"].identity(0)


def test_an_image_that_is_a_link_in_a_circle_is_told(tmp_path: Path) -> None:
    coco(tmp_path, "runs")
    (tmp_path / "images/3.png").unlink()
    (tmp_path / "images/3.png").symlink_to("3.png")
    with pytest.raises(UserError, match=r"train.json: .*3.png"):
        opened(CocoConfig(root=str(tmp_path))).check()
