"""Splits by group: what is nearly the same is never on both sides."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segfocal.config.augment import AugmentConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.files import Sample
from segfocal.data.splits import draw, groups_of, named, torn
from segfocal.errors import UserError
from tests.conftest import blobs, write_folder

TASK = TaskConfig(name="binary", classes=["blob"])


def opened(root: Path, **options: object) -> dict[str, list[str]]:
    data = SegmentationData(FolderConfig(root=str(root), **options), AugmentConfig(name="none"), TASK, channels=3, workers=0, seed=0)
    data.check()
    return {split: source.names for split, source in data.sources.items()}


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=30), seed=st.integers(0, 5))
def test_groups_stay_together_and_shares_are_kept_as_well_as_they_can_be(sizes: list[int], seed: int) -> None:
    groups = {f"{number:02d}_{member}": str(number) for number, size in enumerate(sizes) for member in range(size)}
    fractions = [0.6, 0.2, 0.2]
    splits = draw(list(groups), fractions, seed, groups)
    assert sorted(name for names in splits.values() for name in names) == sorted(groups)
    assert not torn({split: [Sample(name, Path(name), group=groups[name]) for name in names] for split, names in splits.items()}, "key")
    for names, share in zip(splits.values(), fractions, strict=True):
        assert abs(len(names) - share * len(groups)) < max(sizes) * 2
    assert splits == draw(list(reversed(groups)), fractions, seed, groups)


def test_another_seed_draws_other_groups() -> None:
    groups = {f"{number:03d}": str(number // 3) for number in range(90)}
    assert draw(list(groups), [0.6, 0.2, 0.2], 0, groups) != draw(list(groups), [0.6, 0.2, 0.2], 1, groups)


def test_a_group_is_what_is_found_or_what_its_parentheses_enclose() -> None:
    names = ["1025_386RS", "1047_060BD"]
    assert groups_of(names, "_(.+)", "data.group") == {"1025_386RS": "386RS", "1047_060BD": "060BD"}
    assert groups_of(names, "^..", "data.group") == {"1025_386RS": "10", "1047_060BD": "10"}
    with pytest.raises(UserError, match=r"^data\.group=RS: 1 of 2 names have no group: 1047_060BD$"):
        groups_of(names, "RS", "data.group")


def test_names_in_split_files_are_found_however_their_accents_are_written(tmp_path: Path) -> None:
    names = write_folder(tmp_path, blobs(3))
    for number, name in enumerate(names):
        for path in tmp_path.glob(f"*/{name}.*"):
            form = "NFD" if path.parent.name == "images" else "NFC"
            path.rename(path.with_name(unicodedata.normalize(form, f"é{number}") + path.suffix))
    for number, split in enumerate(("train", "val", "test")):
        (tmp_path / f"{split}.txt").write_text(unicodedata.normalize("NFC", f"é{number}\n"), encoding="utf-8")
    found = opened(tmp_path)
    assert found == {split: [unicodedata.normalize("NFD", f"é{number}")] for number, split in enumerate(("train", "val", "test"))}
    (tmp_path / "splits.json").write_text(
        json.dumps({split: [unicodedata.normalize("NFC", name) for name in names] for split, names in found.items()})
    )
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    assert opened(tmp_path, splits=str(tmp_path / "splits.json")) == found


def test_drawn_splits_of_a_folder_keep_groups_together(tmp_path: Path) -> None:
    for group in range(6):
        write_folder(tmp_path, blobs(3, seed=group), split="")
        for path in [*(tmp_path / "images").iterdir(), *(tmp_path / "masks").iterdir()]:
            if path.name.startswith("photo"):
                path.rename(path.with_name(f"road{group}-{path.name.removeprefix('photo_')}"))
    splits = opened(tmp_path, group="road(.)")
    assert {split: len(names) for split, names in splits.items()} == {"train": 12, "val": 3, "test": 3}
    assert all(len({name for names in splits.values() for name in names if name.startswith(f"road{group}")}) == 3 for group in range(6))
    homes = [{split for split, names in splits.items() if any(name.startswith(f"road{group}") for name in names)} for group in range(6)]
    assert all(len(home) == 1 for home in homes)


def test_given_splits_that_tear_a_group_apart_are_refused(folder: Path) -> None:
    """photo_00 .. photo_05 train, 06 .. 08 validate, 09 .. 11 test."""
    assert len(opened(folder, group=r"\d+", label_map={0: 0, 255: 1})["train"]) == 6
    with pytest.raises(UserError) as caught:
        opened(folder, group="photo_(.)", label_map={0: 0, 255: 1})
    mend = "keep each group in one split, or leave the splits to be drawn"
    assert str(caught.value).splitlines() == [
        f"data.root={folder}: cannot be used, for 3 faults:",
        f"data.group=photo_(.): in train and in val, too: 0; {mend}",
        f"data.group=photo_(.): in train and in test, too: 0; {mend}",
        f"data.group=photo_(.): in val and in test, too: 0; {mend}",
    ]


@settings(max_examples=60, deadline=None)
@given(
    has=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=20, max_size=60),
    members=st.integers(1, 2),
    seed=st.integers(0, 3),
)
def test_each_split_gets_its_share_of_each_class(has: list[list[bool]], members: int, seed: int) -> None:
    names = [f"{number:02d}" for number in range(len(has))]
    classes = {name: np.array(row) for name, row in zip(names, has, strict=True)}
    groups = {name: str(number // members) for number, name in enumerate(names)}
    fractions = [0.5, 0.25, 0.25]
    splits = draw(names, fractions, seed, groups, classes)
    assert sorted(name for found in splits.values() for name in found) == names
    rarest = int(np.argmin([np.sum(column) or np.inf for column in np.transpose(has)]))
    holders = sum(row[rarest] for row in has)
    for split, share in zip(splits, fractions, strict=True):
        found = sum(classes[name][rarest] for name in splits[split])
        assert abs(found - share * holders) <= members  # of the rarest class, to a group


def test_the_rarest_class_is_in_every_split_where_drawing_at_random_loses_it() -> None:
    names = [f"{number:03d}" for number in range(100)]
    classes = {name: np.array([True, name in ("003", "040", "041", "077")]) for name in names}
    for seed in range(20):
        splits = draw(names, [0.5, 0.25, 0.25], seed, classes=classes)
        assert [sum(int(classes[name][1]) for name in found) for found in splits.values()] == [2, 1, 1]
        assert [len(found) for found in splits.values()] == [50, 25, 25]
    lost = [
        min(sum(int(classes[name][1]) for name in found) for found in draw(names, [0.5, 0.25, 0.25], seed).values()) for seed in range(20)
    ]
    assert lost.count(0) > 5


def test_drawn_splits_of_a_folder_are_stratified(tmp_path: Path) -> None:
    samples = blobs(20)
    write_folder(tmp_path, [(image, mask * (number in (2, 9, 13))) for number, (image, mask) in enumerate(samples)])
    for seed in range(3):
        data = SegmentationData(FolderConfig(root=str(tmp_path)), AugmentConfig(name="none"), TASK, channels=3, workers=0, seed=seed)
        assert {split: int(stats.present[0]) for split, stats in data.check().items()} == {"train": 2, "val": 1, "test": 0} or {
            split: int(stats.present[0]) for split, stats in data.measured.items()
        } == {"train": 2, "val": 0, "test": 1}


def test_the_same_image_is_never_drawn_into_two_splits(tmp_path: Path) -> None:
    first, *others = blobs(12)
    write_folder(tmp_path, [first, first, first, *others])
    for seed in range(8):
        data = SegmentationData(FolderConfig(root=str(tmp_path)), AugmentConfig(name="none"), TASK, channels=3, workers=0, seed=seed)
        data.check()
        homes = {split for split, source in data.sources.items() if {"photo_00", "photo_01", "photo_02"} & set(source.names)}
        assert len(homes) == 1


def test_given_splits_that_share_an_image_are_refused_unless_allowed(folder: Path) -> None:
    """photo_00 trains, photo_07 validates."""
    for name, ending in (("images", "jpg"), ("masks", "png")):
        (folder / name / f"photo_07.{ending}").write_bytes((folder / name / f"photo_00.{ending}").read_bytes())
    with pytest.raises(UserError, match="1 image of train is in val, too: photo_00 is photo_07; .* or say data.overlap=allow$"):
        opened(folder, label_map={0: 0, 255: 1})
    assert len(opened(folder, label_map={0: 0, 255: 1}, overlap="allow")["train"]) == 6


def test_split_files_may_name_files(folder: Path) -> None:
    names = (folder / "val.txt").read_text().split()
    (folder / "val.txt").write_text("\n".join(f"{name}.jpg" for name in names))
    assert opened(folder, label_map={0: 0, 255: 1})["val"] == names


def test_splits_of_an_earlier_run_are_kept_when_samples_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = blobs(40)
    write_folder(tmp_path, samples[:20])
    first = opened(tmp_path)
    (tmp_path / "splits.json").write_text(json.dumps(first))
    write_folder(tmp_path, samples)
    assert opened(tmp_path)["test"] != first["test"]
    for splits in (first, str(tmp_path / "splits.json")):
        caplog.clear()
        assert opened(tmp_path, splits=splits) == first
        assert "20 samples are in no split, for they have come since: photo_20, photo_21" in caplog.text
    (tmp_path / "images" / f"{first['val'][0]}.jpg").unlink()
    (tmp_path / "masks" / f"{first['val'][0]}.png").unlink()
    with pytest.raises(UserError, match=f"1 of its samples are not there: {first['val'][0]}; bring them back"):
        opened(tmp_path, splits=first)
    for wrong, said in (("nowhere.json", "No such file"), (str(tmp_path / "images" / "photo_30.jpg"), "not the splits.json of a run")):
        with pytest.raises(UserError, match=said):
            opened(tmp_path, splits=wrong)


def test_splits_that_the_data_says_are_not_said_again(folder: Path) -> None:
    with pytest.raises(UserError, match="the data says its splits itself"):
        opened(folder, label_map={0: 0, 255: 1}, splits={"train": ["photo_00"], "val": ["photo_01"]})


def test_names_in_messages_are_text_that_a_terminal_shows() -> None:
    assert named(["a\nb", "x\udcff", "c"], most=2) == r"a\nb, x\udcff and 1 more"


def test_names_that_are_not_utf_8_are_in_the_splits_of_a_run(tmp_path: Path) -> None:
    names = write_folder(tmp_path, blobs(9))
    for path in tmp_path.glob(f"*/{names[0]}.*"):
        path.rename(path.with_name(f"latin\udce9{path.suffix}"))
    found = opened(tmp_path)
    (tmp_path / "splits.json").write_text(json.dumps(found))
    assert opened(tmp_path, splits=str(tmp_path / "splits.json")) == found
