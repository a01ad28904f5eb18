"""What each image came to."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import SegmentationMetrics
from segfocal.metrics.images import ImageTable
from segfocal.metrics.scores import one_vs_rest_logits

IGNORE = 255
CLASSES = {"binary": ["crack"], "multiclass": ["road", "crack", "patch"], "multilabel": ["rust", "crack"]}
MODES: list[Mode] = ["binary", "multiclass", "multilabel"]
BINARY = TaskConfig(classes=["crack"])
FITTED = {
    "binary": Decision("binary", temperature=[2.0], thresholds=[0.2]),
    "multiclass": Decision("multiclass", offsets=[0.0, 2.0, -1.0]),
    "multilabel": Decision("multilabel", thresholds=[0.9, 0.3]),
}


def task_of(mode: Mode) -> TaskConfig:
    return TaskConfig(name=mode, classes=CLASSES[mode])


def random_images(mode: Mode, images: int, size: tuple[int, int] = (5, 7), seed: int = 0, scale: float = 5.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = len(CLASSES[mode])
    shape = (images, count, *size) if mode == "multilabel" else (images, *size)
    target = torch.randint(0, count if mode == "multiclass" else 2, shape, generator=generator)
    ignored = torch.rand(shape, generator=generator) < 0.2
    return scale * torch.randn((images, count, *size), generator=generator), torch.where(ignored, IGNORE, target)


def table_of(mode: Mode, logits: Tensor, target: Tensor, names: list[str] | None = None, decision: Decision | None = None) -> ImageTable:
    table = ImageTable(task_of(mode), decision or Decision(mode))
    table.add(names or [f"{number:03d}" for number in range(len(logits))], logits, target)
    return table


def made(rows: list[tuple[str, int, int, int]], decision: Decision | None = None) -> ImageTable:
    """Binary images of these TP, FP and FN, and ten true negatives."""
    table = ImageTable(BINARY, decision or Decision("binary"))
    for name, tp, fp, fn in rows:
        target = torch.tensor([1] * tp + [0] * fp + [1] * fn + [0] * 10)
        table.add([name], torch.tensor([3.0] * (tp + fp) + [-3.0] * (fn + 10))[None, None, None], target[None, None])
    return table


def everything(table: ImageTable) -> list[Any]:
    arrays = [table.plain, table.tuned, table.valid, table.score]
    return [table.names, *(array.tolist() for array in arrays), table.image_auroc(), table.choose(4, seed=3)]


# --- counts


@pytest.mark.parametrize("mode", MODES)
def test_counts_of_an_image_are_those_of_the_metrics(mode: Mode) -> None:
    logits, target = random_images(mode, 4)
    table = table_of(mode, logits, target)
    for number in range(4):
        metrics = SegmentationMetrics(mode, CLASSES[mode])
        metrics.update(logits[[number]], target[[number]])
        figures = metrics.compute()
        for c, label in enumerate(CLASSES[mode]):
            assert table.iou()[number, c] == figures[f"iou/{label}"]
            assert table.dice()[number, c] == figures[f"dice/{label}"]
        assert table.mean_iou()[number] == pytest.approx(figures["iou_macro"], abs=1e-12)
        assert table.mean_dice()[number] == pytest.approx(figures["dice_macro"], abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_counts_by_the_decision_are_those_of_its_labels(mode: Mode) -> None:
    logits, target = random_images(mode, 3)
    table = table_of(mode, logits, target, decision=FITTED[mode])
    for rule, counts in ((Decision(mode), table.plain), (FITTED[mode], table.tuned)):
        labels = rule.labels(logits)
        for number in range(3):
            for c in range(len(CLASSES[mode])):
                ids = target[number] if mode != "multilabel" else target[number, c]
                predicted = labels[number] == c if mode == "multiclass" else labels[number, c] == 1
                true, valid = ids == (c if mode == "multiclass" else 1), ids != IGNORE
                expected = [int((each & valid).sum()) for each in (predicted & true, predicted & ~true, ~predicted & true)]
                assert counts[number, c].tolist() == expected
    assert not np.array_equal(table.plain, table.tuned)


@pytest.mark.parametrize("mode", MODES)
def test_by_a_plain_decision_both_are_the_same(mode: Mode) -> None:
    count = len(CLASSES[mode])
    calibrated = Decision(mode, temperature=[3.0] * (1 if mode == "multiclass" else count))
    table = table_of(mode, *random_images(mode, 3), decision=calibrated)
    assert np.array_equal(table.plain, table.tuned)
    assert np.array_equal(table.iou(tuned=True), table.iou(), equal_nan=True)


def test_sums_are_those_of_the_split() -> None:
    logits, target = random_images("multiclass", 6)
    metrics = SegmentationMetrics("multiclass", CLASSES["multiclass"])
    metrics.update(logits, target)
    confusion = metrics.confusion.numpy()
    hit = confusion.diagonal()
    expected = np.stack([hit, confusion.sum(0) - hit, confusion.sum(1) - hit], axis=1)
    assert np.array_equal(table_of("multiclass", logits, target).plain.sum(0), expected)


def test_pixels_that_count() -> None:
    target = torch.tensor([[[[0, 1, 255, 255]], [[255, 1, 0, 255]]]])
    assert table_of("multilabel", torch.zeros(1, 2, 1, 4), target).valid.tolist() == [3]
    assert table_of("binary", torch.zeros(1, 1, 1, 4), target[:, 0]).valid.tolist() == [2]


@pytest.mark.parametrize("mode", MODES)
def test_ignored_pixels_count_nowhere(mode: Mode) -> None:
    logits, target = random_images(mode, 3)
    ignored = (target == IGNORE) if mode == "multilabel" else (target == IGNORE)[:, None]
    for broken in (torch.nan, torch.inf, 1e9, -1e9):
        other = logits.masked_fill(ignored, broken)
        assert everything(table_of(mode, logits, target, decision=FITTED[mode])) == everything(
            table_of(mode, other, target, decision=FITTED[mode])
        )


def test_what_is_absent_has_no_figure() -> None:
    table = made([("nothing", 0, 0, 0), ("false", 0, 2, 0), ("missed", 0, 0, 2), ("found", 2, 0, 0)])
    assert table.names == ["false", "found", "missed", "nothing"]
    for figure in (table.iou()[:, 0], table.dice()[:, 0], table.mean_iou(), table.mean_dice()):
        np.testing.assert_array_equal(figure, [0, 1, 0, np.nan])
    assert table.plain.dtype == table.tuned.dtype == np.int64


def test_the_mean_leaves_out_absent_classes() -> None:
    target = torch.tensor([[[0, 0, 1, 1]]])
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 3).movedim(-1, 1)
    table = table_of("multiclass", logits, target)
    np.testing.assert_allclose(table.iou(), [[1 / 2, 2 / 3, np.nan]])
    np.testing.assert_allclose(table.mean_iou(), [(1 / 2 + 2 / 3) / 2])
    np.testing.assert_allclose(table.mean_dice(), [(2 / 3 + 4 / 5) / 2])


def test_of_no_images_everything_is_empty(tmp_path: Path) -> None:
    table = ImageTable(task_of("multiclass"), Decision("multiclass"))
    assert (table.plain.shape, table.score.shape, table.valid.shape, table.mean_iou().shape) == ((0, 3, 3), (0, 3), (0,), (0,))
    assert (table.names, table.image_auroc(), table.choose(4)) == ([], [None] * 3, [])
    table.write_csv(tmp_path / "images.csv")
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 1


def test_a_name_too_many_is_refused() -> None:
    with pytest.raises(ValueError):
        table_of("binary", *random_images("binary", 2), names=["a", "b", "c"])


# --- the same however the images come


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODES), st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), st.integers(0, 99), st.data())
def test_neither_batches_nor_order_matter(mode: Mode, names: list[str], seed: int, data: st.DataObject) -> None:
    logits, target = random_images(mode, len(names), seed=seed)
    whole, parts = (ImageTable(task_of(mode), FITTED[mode]) for _ in range(2))
    whole.add(names, logits, target)
    for number in data.draw(st.permutations(range(len(names)))):
        parts.add([names[number]], logits[[number]], target[[number]])
    assert everything(whole) == everything(parts)


def test_rows_are_in_order_of_names_after_each_batch() -> None:
    table = made([("b", 1, 0, 0), ("c", 2, 0, 0)])
    assert table.names == ["b", "c"]
    table._rows += made([("a", 3, 0, 0)])._rows
    assert table.names == ["a", "b", "c"]
    assert table.plain[:, 0, 0].tolist() == [3, 1, 2]


@pytest.mark.parametrize("mode", MODES)
def test_memory_layout_and_half_precision_do_not_matter(mode: Mode) -> None:
    logits, target = random_images(mode, 3)
    half = logits.bfloat16()
    expected = everything(table_of(mode, half.float(), target))
    assert everything(table_of(mode, half, target)) == expected
    assert everything(table_of(mode, half.float().contiguous(memory_format=torch.channels_last), target)) == expected
    assert everything(table_of(mode, half, target.to(torch.uint8))) == expected


def test_no_pixel_is_kept() -> None:
    small, large = (table_of("multiclass", *random_images("multiclass", 2, size)) for size in ((4, 4), (64, 64)))
    held = [[np.asarray(part).nbytes for row in table._rows for part in row[1:]] for table in (small, large)]
    assert held[0] == held[1] and sum(held[0]) < 2 * 300
    assert all(part.base is None or part.base.nbytes <= part.nbytes for row in large._rows for part in (row.plain, row.score))


# --- the score of an image


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.sampled_from([1e-3, 0.3, 3.0, 30.0, 300.0]), st.integers(0, 999), st.booleans())
def test_the_score_is_the_highest_logit_against_the_rest(classes: int, scale: float, seed: int, rounded: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(1, classes, 4, 5, generator=generator)
    logits = logits.round() if rounded else logits  # ties, among them of all classes
    target = torch.randint(0, classes, (1, 4, 5), generator=generator)
    target[0, 1] = IGNORE
    table = ImageTable(TaskConfig(name="multiclass", classes=[str(c) for c in range(classes)]), Decision("multiclass"))
    table.add(["a"], logits, target)
    expected = one_vs_rest_logits(logits[0].double())[:, target[0] != IGNORE].max(1).values
    np.testing.assert_allclose(table.score[0], expected, rtol=1e-5, atol=1e-5)


def test_very_sure_images_keep_their_order() -> None:
    """A softmax is 1.0 from a margin of 17 on."""
    table = ImageTable(task_of("multiclass"), Decision("multiclass"))
    for number, margin in enumerate([17.0, 40.0, 90.0, 200.0, 1e6]):
        logits = torch.zeros(1, 3, 1, 2)
        logits[0, 1, 0, 0] = margin
        table.add([str(number)], logits, torch.zeros(1, 1, 2, dtype=torch.long))
    assert (np.diff(table.score[:, 1]) > 1).all()


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_the_score_of_overlapping_classes_is_their_highest_logit(mode: Mode) -> None:
    logits, target = random_images(mode, 3)
    valid = target != IGNORE if mode == "multilabel" else (target != IGNORE)[:, None]
    expected = torch.where(valid, logits, -torch.inf).amax((2, 3))
    assert torch.equal(torch.from_numpy(table_of(mode, logits, target).score), expected.double())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12))
def test_image_auroc_is_exact(images: list[tuple[int, bool]]) -> None:
    """Few different scores, so that many are ties."""
    scores, holds = (list(each) for each in zip(*images, strict=True))
    logits = torch.tensor(scores).float()[:, None, None, None].expand(-1, 1, 2, 2)
    target = torch.zeros(len(images), 2, 2, dtype=torch.long)
    target[:, 0, 0] = torch.tensor(holds).long()
    found = table_of("binary", logits, target).image_auroc()
    expected = None if len(set(holds)) == 1 else pytest.approx(sklearn_metrics.roc_auc_score(holds, scores), abs=1e-12)
    assert found == [expected]


def test_an_image_that_is_ignored_whole_does_not_count_in_the_auroc() -> None:
    logits = torch.tensor([9.0, 1.0, -1.0])[:, None, None, None].expand(-1, 1, 1, 2)
    target = torch.tensor([[[255, 255]], [[1, 0]], [[0, 0]]])
    table = table_of("binary", logits, target)
    assert table.image_auroc() == [1.0]
    np.testing.assert_array_equal(table.score[:, 0], [np.nan, 1, -1])


# --- images to look at


def test_a_third_each() -> None:
    table = made([(f"{tp:02d}", tp, 0, 40 - tp) for tp in range(1, 31)])
    chosen = table.choose(9)
    assert [why for _, why in chosen] == ["worst"] * 3 + ["best"] * 3 + ["random"] * 3
    assert [row for row, _ in chosen[:6]] == [0, 1, 2, 29, 28, 27]
    drawn = [row for row, _ in chosen[6:]]
    assert drawn == sorted(drawn) and chosen == table.choose(9)
    assert len({tuple(table.choose(9, seed)[6:]) for seed in range(20)}) > 10
    assert {row for seed in range(99) for row, _ in table.choose(9, seed)[6:]} == set(range(3, 27))


def test_they_are_chosen_by_the_decision() -> None:
    logits = torch.tensor([[[[3.0, -0.5]]], [[[-0.5, -0.5]]]])
    target = torch.tensor([[[1, 0]], [[1, 1]]])
    plain, tuned = Decision("binary"), Decision("binary", thresholds=[0.3])
    assert table_of("binary", logits, target, decision=plain).choose(2) == [(1, "worst"), (0, "best")]
    assert table_of("binary", logits, target, decision=tuned).choose(2) == [(0, "worst"), (1, "best")]


def test_of_equal_images_the_one_with_more_wrong_pixels_is_worse() -> None:
    table = made([("a", 0, 1, 0), ("b", 0, 0, 9), ("c", 0, 4, 0), ("d", 1, 0, 0)])
    assert table.choose(1) == [(1, "worst")]
    assert table.choose(4) == [(1, "worst"), (2, "worst"), (3, "best"), (0, "random")]


def test_images_without_a_figure_are_drawn_only() -> None:
    table = made([("a", 0, 0, 0), ("b", 1, 0, 0), ("c", 0, 0, 0), ("d", 0, 0, 0)])
    assert table.choose(9) == [(1, "worst"), (0, "random"), (2, "random"), (3, "random")]
    assert made([("a", 0, 0, 0)]).choose(3) == [(0, "random")]
    two = made([("a", 0, 0, 0), ("b", 1, 0, 0), ("c", 1, 1, 0), ("d", 0, 0, 0), ("e", 0, 0, 0)])
    assert two.choose(5) == [(2, "worst"), (1, "best"), (0, "random"), (3, "random"), (4, "random")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=12), st.integers(0, 15), st.integers(0, 9))
def test_none_is_chosen_twice(rows: list[tuple[int, int, int]], count: int, seed: int) -> None:
    table = made([(f"{number:02d}", *row) for number, row in enumerate(rows)])
    chosen = table.choose(count, seed)
    assert len({row for row, _ in chosen}) == len(chosen) == min(count, len(rows))
    mean = table.mean_iou()
    worst, best = ([mean[row] for row, why in chosen if why == wanted] for wanted in ("worst", "best"))
    assert not np.isnan([*worst, *best]).any()
    assert worst == sorted(worst) and best == sorted(best, reverse=True)
    assert max(worst, default=0) <= min(best, default=1)


# --- the table as a file


def test_a_line_for_each_image(tmp_path: Path) -> None:
    made([("b", 2, 1, 1), ("a", 0, 0, 0)]).write_csv(tmp_path / "images.csv")
    assert (tmp_path / "images.csv").read_text().splitlines() == [
        "name,valid,iou,dice,tp/crack,fp/crack,fn/crack,iou/crack",
        "a,10,,,0,0,0,",
        "b,14,0.5,0.6666666666666666,2,1,1,0.5",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]


def test_what_the_decision_came_to_follows(tmp_path: Path) -> None:
    table = made([("a", 2, 1, 1)], Decision("binary", thresholds=[0.01]))
    table.write_csv(tmp_path / "images.csv")
    line = next(csv.DictReader((tmp_path / "images.csv").open(newline="")))
    assert (line["tp/crack"], line["fp/crack"], line["tuned/tp/crack"], line["tuned/fp/crack"]) == ("2", "1", "3", "11")
    assert (line["iou"], line["iou/crack"], line["tuned/iou"], line["tuned/iou/crack"]) == ("0.5", "0.5", *[str(3 / 14)] * 2)


NASTY = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", 'a"b,c', "a\nb", "zwei Wörter", "caf\udce9", "<b>", "a=b", "ordinary"]


def test_names_are_harmless(tmp_path: Path) -> None:
    task = TaskConfig(classes=['=cmd|"x",'])
    table = ImageTable(task, Decision("binary", thresholds=[0.3]))
    for name in NASTY:
        table.add([name], torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.long))
    table.write_csv(tmp_path / "images.csv")
    with (tmp_path / "images.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert {len(line) for line in (header, *lines)} == {14}
    assert {line[0] for line in lines} == {f"'{name}" for name in NASTY[:7]} | set(NASTY[7:10]) | {"caf\\udce9"} | set(NASTY[11:])
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for line in (header, *lines) for cell in line)
