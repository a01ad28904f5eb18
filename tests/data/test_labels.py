"""`data.label_map`: values, ranges, colours, else; and what is said of what it does not name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segfocal.config.labels import rules
from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.faults import BadFileError
from segfocal.data.files import MaskFiles, Sample
from segfocal.data.formats import read_mask
from segfocal.data.labels import LabelMap

BINARY = TaskConfig(name="binary", classes=["crack"])
SIGNS = TaskConfig(name="multiclass", classes=["road", "sign"], ignore_index=9)


def test_values_join_classes_and_ignore() -> None:
    values = np.array([[0, 40, 41, 7000]])
    labels = LabelMap(SIGNS, {0: 0, 40: 1, "41": 1, 7000: "ignore"})(values, "m.png")
    assert labels.tolist() == [[0, 1, 1, 9]]
    assert labels.dtype == np.uint8


def test_ranges_are_thresholds_and_instances() -> None:
    grey = np.array([[0, 3, 127, 128, 250, 255]], np.uint8)
    assert LabelMap(BINARY, {"0-127": 0, "128-255": 1})(grey, "m.png").tolist() == [[0, 0, 0, 1, 1, 1]]
    instances = np.array([[7, 24000, 24017, 26003]], np.uint16)
    assert LabelMap(SIGNS, {"24000-24999": 1, 26003: "ignore", "else": 0})(instances, "m.png").tolist() == [[0, 1, 1, 9]]


def test_all_others_are_all_others_the_ignored_value_too() -> None:
    soft = np.array([[0, 1, 254, 255]], np.uint8)
    assert LabelMap(BINARY, {0: 0, "else": 1})(soft, "m.png").tolist() == [[0, 1, 1, 1]]
    assert LabelMap(BINARY, {0: 0, 255: "ignore", "else": 1})(soft, "m.png").tolist() == [[0, 1, 1, 255]]
    assert LabelMap(BINARY, {0: 0, 1: 1, 254: 1})(soft, "m.png").tolist() == [[0, 1, 1, 255]]


def test_a_map_may_be_a_text() -> None:
    assert FolderConfig(root="x", label_map="0-127:0, 128-255:1,else:ignore").label_map == {"0-127": 0, "128-255": 1, "else": "ignore"}


@pytest.mark.parametrize("key", ["1", "0-0-0", "else"])
def test_a_text_does_not_say_a_key_twice(key: str) -> None:
    with pytest.raises(ValueError, match=f"data.label_map: {key} is said twice"):
        FolderConfig(root="x", label_map=f"{key}:0, {key} :1")


def test_colours_are_looked_up_whole() -> None:
    colours = np.array([[[0, 0, 0], [128, 0, 0], [0, 0, 128], [1, 2, 3]]], np.uint8)
    labels = LabelMap(SIGNS, {"0-0-0": 0, "128-0-0": 1, "1-2-3": "ignore", "0-0-128": 1})
    assert labels(colours, "m.png").tolist() == [[0, 1, 1, 9]]
    with pytest.raises(
        BadFileError, match=r"^m.png: colours 0-0-128 \(1 pixel\); data.label_map names 0-0-0, 128-0-0; add them, .* else:ignore$"
    ):
        LabelMap(SIGNS, {"0-0-0": 0, "128-0-0": 1})(colours[:, :3], "m.png")


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 300), st.sampled_from([0, 1, "ignore"]), min_size=1), st.integers(0, 300))
def test_a_map_of_values_is_a_dictionary(label_map: dict, value: int) -> None:
    labels = LabelMap(SIGNS, label_map)
    expected = label_map.get(value, 9 if value == 9 else None)
    if expected is None:
        with pytest.raises(BadFileError, match=rf"^m: values {value} \(1 pixel\)"):
            labels(np.array([[value]]), "m")
    else:
        assert labels(np.array([[value]]), "m").tolist() == [[9 if expected == "ignore" else expected]]


WRONG = {
    "no key": ({"dark": 0}, "dark: a key is a value (7), a range (128-255), a colour (255-0-0), or else"),
    "backwards": ({"9-3": 0}, "9-3: values go from 0 to 65535, the lower one first"),
    "too high": ({"65536": 0}, "65536: values go from 0 to 65535, the lower one first"),
    "negative": ({-1: 0}, "-1: a key is a value (7), a range (128-255), a colour (255-0-0), or else"),
    "no colour": ({"256-0-0": 0}, "256-0-0: the parts of a colour go from 0 to 255"),
    "mixed": ({"1-0-0": 0, 3: 1}, "has colours and values: a mask holds one or the other"),
    "twice": ({"0-127": 0, 100: 1}, "100 is said twice"),
    "colour twice": ({"0-0-7": 0, "0-0-07": 1}, "0-0-07 is said twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_map_that_means_nothing_is_refused(name: str) -> None:
    label_map, said = WRONG[name]
    with pytest.raises(ValueError) as caught:
        rules(label_map)
    assert str(caught.value) == f"data.label_map: {said}".replace("data.label_map: has", "data.label_map: has")


def test_unknown_values_are_counted_the_most_frequent_first_and_the_override_is_given() -> None:
    with pytest.raises(
        BadFileError, match=r"^m.png: values 128 \(3 pixels\), 7 \(1 pixel\); ids 0 to 1 .*'data.label_map=\{0:0,else:1\}'$"
    ):
        LabelMap(BINARY, None)(np.array([0, 128, 7, 128, 128]), Path("m.png"))
    with pytest.raises(BadFileError, match=r"'data.label_map=\{0-127:0,128-255:1\}'$"):
        LabelMap(BINARY, None)(np.array([0, 3, 200, 255]), "m.png")
    with pytest.raises(BadFileError, match=r"'data.label_map=\{0:0,7:1\}'$"):
        LabelMap(BINARY, None)(np.array([0, 7]), "m.png")
    three = TaskConfig(name="multiclass", classes=["a", "b", "c"])
    with pytest.raises(BadFileError, match=r"'data.label_map=\{0:0,1:1,2:2,else:ignore\}', or name more classes$"):
        LabelMap(three, None)(np.array([0, 1, 2, 3, 4]), "m.png")
    with pytest.raises(BadFileError, match=r"'data.label_map=\{0:0,7:1\}', or name more classes$"):
        LabelMap(three, None)(np.array([0, 7]), "m.png")


def test_a_mask_in_colour_is_shown_with_its_colours(tmp_path: Path) -> None:
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[:2] = 128, 0, 0
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(BadFileError) as caught:
        read_mask(tmp_path / "m.png")
    assert str(caught.value) == (
        f"{tmp_path / 'm.png'}: a colour picture of 3 channels; one number a pixel is expected; "
        "say which colour is which class, as in 'data.label_map={0-0-0:0,128-0-0:1}' (the order is a guess)"
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(BadFileError, match="is it a photograph"):
        read_mask(tmp_path / "photo.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", colours=True), mask)


def test_a_palette_is_read_as_numbers_or_as_what_it_shows(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    palette = Image.frombytes("P", palette.size, palette.tobytes())
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1], [1, 0]]
    assert LabelMap(BINARY, {"0-0-0": 0, "255-0-0": 1})(read_mask(tmp_path / "m.png", colours=True), "m").tolist() == [[0, 1], [1, 0]]


def test_an_alpha_channel_of_a_mask_is_left_out(tmp_path: Path) -> None:
    grey = np.array([[0, 1], [1, 0]], np.uint8)
    full = np.full_like(grey, 255)
    Image.fromarray(np.dstack([grey, full]), "LA").save(tmp_path / "la.png")
    Image.fromarray(np.dstack([grey, grey, grey, full])).save(tmp_path / "rgba.png")
    assert read_mask(tmp_path / "la.png").tolist() == read_mask(tmp_path / "rgba.png").tolist() == grey.tolist()


def test_a_jpeg_mask_is_taken_where_a_range_cuts_it_and_found_out_under_another_name(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=50)
    (tmp_path / "m.jpg").rename(tmp_path / "m.png")
    with pytest.raises(BadFileError, match=r"masks in JPEG are not exact; save them as PNG, or say where to cut"):
        read_mask(tmp_path / "m.png")
    cut = LabelMap(BINARY, {"0-127": 0, "128-255": 1})
    assert np.array_equal(cut(read_mask(tmp_path / "m.png", lossy=True), "m"), mask == 255)


def test_an_index_means_the_same_in_all_masks(tmp_path: Path) -> None:
    """Programs number the colours of each file anew; where they all keep one palette nothing is said."""
    for folder in ("images", "masks", "same"):
        (tmp_path / folder).mkdir()
    colours = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    for name, ids in {"a": [0, 1, 2, 1], "b": [0, 2, 0, 2]}.items():
        shown = Image.fromarray(np.repeat(colours[np.array(ids)][None], 4, axis=0))
        shown.save(tmp_path / "images" / f"{name}.png")
        shown.convert("P", palette=Image.Palette.ADAPTIVE, colors=len(set(ids))).save(tmp_path / "masks" / f"{name}.png")
        fixed = Image.fromarray(np.repeat(np.array(ids, np.uint8)[None], 4, axis=0))
        fixed.putpalette(colours.tobytes())
        fixed.save(tmp_path / "same" / f"{name}.png")

    def read(masks: str, label_map: dict[str | int, int | str] | None = None) -> list[list[int]]:
        task = TaskConfig(name="multiclass", classes=["road", "car", "sign"])
        files = MaskFiles(FolderConfig(root=str(tmp_path), masks=masks, label_map=label_map), task)
        return [files.read(Sample(name, tmp_path, [tmp_path / masks / f"{name}.png"]), (4, 4))[0].tolist() for name in "ab"]

    assert read("same") == [[0, 1, 2, 1], [0, 2, 0, 2]]
    with pytest.raises(BadFileError, match=r"b.png: index \d shows [\d-]+, and in a.png [\d-]+; one numbering of the colours is expected"):
        read("masks")
    assert read("masks", {"0-0-0": 0, "0-0-255": 1, "255-0-0": 2}) == [[0, 1, 2, 1], [0, 2, 0, 2]]
    assert len(read("masks", {0: 0, 1: 1, 2: 2})) == 2  # it is said that the numbers count
    for name, colour in (("white", [255, 255, 255]), ("red", [255, 0, 0])):  # a folder a class
        plane = Image.fromarray(np.ones((4, 4), np.uint8))
        plane.putpalette([0, 0, 0, *colour])
        plane.save(tmp_path / f"{name}.png")
    files = MaskFiles(FolderConfig(root=str(tmp_path)), TaskConfig(name="multilabel", classes=["a", "b"]))
    assert files.read(Sample("a", tmp_path, [tmp_path / "white.png", tmp_path / "red.png"]), (4, 4)).all()


def test_greys_of_a_gif_are_its_numbers_however_they_are_stored(tmp_path: Path) -> None:
    for name, ids in {"a": [[0, 1], [2, 1]], "b": [[0, 2], [2, 0]], "c": [[255, 255], [255, 255]]}.items():
        Image.fromarray(np.array(ids, np.uint8)).save(tmp_path / f"{name}.gif")
        assert read_mask(tmp_path / f"{name}.gif").tolist() == ids
