"""`data=manifest`: tables, and every wrong one with its line."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from segfocal.config.layouts import ManifestConfig
from segfocal.config.task import TaskConfig
from segfocal.errors import UserError
from tests.data.made import SAMPLES, SPLIT, edited, manifest, names, opened, save


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


BAD_TABLES = {
    "a split by another name": (edited(lambda text: text.replace("split", "Split", 1)), "the column Split is not read: call it split"),
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
    "two of a name but for blanks": (edited(lambda text: text.replace("split", " mask", 1)), "two columns of the same name"),
    "neither": (edited(lambda text: text.replace("img/3.png,lbl/3.png", ",")), "line 5: no image and no mask"),
    "a long name": (edited(lambda text: text.replace("img/3.png", "x" * 300)), "line 5: 'xxxx"),
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


def test_a_link_in_a_circle_is_told_with_its_line(tmp_path: Path) -> None:
    file = manifest(tmp_path, split=SPLIT.__getitem__)
    (tmp_path / "img/3.png").unlink()
    (tmp_path / "img/3.png").symlink_to("3.png")
    with pytest.raises(UserError, match="line 5: '?img/3.png'?"):
        opened(ManifestConfig(file=str(file))).check()


def test_blanks_around_the_values_of_objects_do_not_count(tmp_path: Path) -> None:
    file = manifest(tmp_path, split=SPLIT.__getitem__).with_suffix(".jsonl")
    file.write_text(file.read_text().replace('"train"', '" train "').replace('"img/0.png"', '"img/0.png "'))
    assert names(opened(ManifestConfig(file=str(file))))["train"][0] == "img/0.png"


def test_columns_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = manifest(tmp_path, patient=lambda number: str(number // 3), split=SPLIT.__getitem__)
    with caplog.at_level(logging.INFO, "segfocal"):
        opened(ManifestConfig(file=str(file)))
    assert [record.getMessage() for record in caplog.records] == [f"data.file={file}: columns that are not read: patient"]
