"""What SegmentationMetrics counts, what it leaves out, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import segfocal
from segfocal.config.metrics import MetricsConfig
from segfocal.config.task import Mode, TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import SCORE_BINS, PixelSample, SegmentationMetrics, class_curves, counts, fit, iou

NAMES = {"binary": ["crack"], "multiclass": ["road", "crack", "patch"], "multilabel": ["rust", "crack"]}
MODES: list[Mode] = ["binary", "multiclass", "multilabel"]


def random_images(mode: Mode, images: int, height: int = 5, width: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = len(NAMES[mode])
    shape = (images, count, height, width) if mode == "multilabel" else (images, height, width)
    target = torch.randint(0, count if mode == "multiclass" else 2, shape, generator=generator)
    ignored = torch.rand(shape, generator=generator) < 0.2
    return 5 * torch.randn((images, count, height, width), generator=generator), torch.where(ignored, 255, target)


def counted(mode: Mode, *batches: tuple[Tensor, Tensor], **options: Any) -> SegmentationMetrics:
    metrics = SegmentationMetrics(mode, NAMES[mode], **options)
    for logits, target in batches:
        metrics.update(logits, target)
    return metrics


def assert_same_counts(a: SegmentationMetrics, b: SegmentationMetrics) -> None:
    assert torch.equal(a.confusion, b.confusion)
    assert torch.equal(a.histogram, b.histogram)
    assert a.compute() == b.compute()


def sure_of(predicted: Tensor, count: int) -> Tensor:
    """Multiclass logits that predict these ids."""
    return 10.0 * torch.nn.functional.one_hot(predicted, count).movedim(-1, 1)


# --- the figures of a case small enough to be counted by hand


def test_every_figure_of_a_small_case() -> None:
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 255, 2]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 1, 0, 1, 2]]])
    metrics = counted("multiclass", (sure_of(predicted, 3), target))

    assert metrics.confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert metrics.histogram.sum(dim=2).tolist() == [[3, 4], [5, 2], [6, 1]]
    figures = metrics.compute()
    # road: 3 positives and 1 negative score high, 1 positive and 2 negatives low, so 3 * 2 pairs are right, 3 * 1 + 1 * 2 are ties.
    # crack: 1 positive and 1 negative score high, 1 positive and 4 negatives low.
    expected = {
        "iou": [3 / 5, 1 / 3, 1],
        "dice": [6 / 8, 2 / 4, 1],
        "precision": [3 / 4, 1 / 2, 1],
        "recall": [3 / 4, 1 / 2, 1],
        "auroc": [(6 + 5 / 2) / 12, (4 + 5 / 2) / 10, 1],
        "ap": [(3 * 3 / 4 + 4 / 7) / 4, (1 / 2 + 2 / 7) / 2, 1],
        "pixel_share": [4 / 7, 2 / 7, 1 / 7],
        "accuracy": [5 / 7, 5 / 7, 1],
        # The wrong ones are as sure as the right ones: of seven pixels each class has two that say 1 for 0, or 0 for 1.
        "ece": [2 / 7, 2 / 7, 0],
        "brier": [2 / 7, 2 / 7, 0],
    }
    for name, values in expected.items():
        near = 1e-3 if name in ("ece", "brier") else 1e-12
        assert [figures.pop(f"{name}/{label}") for label in NAMES["multiclass"]] == pytest.approx(values, abs=near), name
        if name not in ("pixel_share", "accuracy"):
            assert figures.pop(f"{name}_macro") == pytest.approx(sum(values) / 3, abs=near), name
    overall = {"iou_micro": 5 / 9, "dice_micro": 5 / 7, "iou_weighted": (4 * 3 / 5 + 2 / 3 + 1) / 7, "accuracy": 5 / 7, "absent_classes": 0}
    assert figures == pytest.approx(overall)


def test_the_first_of_equal_scores_is_predicted() -> None:
    metrics = counted("multiclass", (torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 2)))
    assert metrics.confusion.tolist() == [[0, 0, 0], [0, 0, 0], [4, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_binary_targets_come_with_or_without_a_channel(dtype: torch.dtype) -> None:
    logits, target = random_images("binary", 2)
    assert_same_counts(counted("binary", (logits, target.to(dtype))), counted("binary", (logits, target[:, None])))


# --- what is not defined


def test_a_class_that_is_neither_there_nor_predicted_is_left_out_and_counted() -> None:
    target = torch.tensor([[[0, 0, 1, 1]]])
    figures = counted("multiclass", (sure_of(torch.tensor([[[0, 1, 1, 1]]]), 3), target)).compute()

    assert [figures[f"{name}/patch"] for name in ("iou", "dice", "precision", "recall", "auroc", "ap")] == [None] * 6
    assert figures["pixel_share/patch"] == 0
    assert figures["absent_classes"] == 1
    assert figures["iou_macro"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["recall_macro"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_class_that_is_only_predicted_counts_as_a_failure() -> None:
    figures = counted("multiclass", (sure_of(torch.tensor([[[0, 2]]]), 3), torch.tensor([[[0, 0]]]))).compute()

    assert (figures["iou/patch"], figures["dice/patch"], figures["precision/patch"]) == (0, 0, 0)
    assert (figures["recall/patch"], figures["auroc/patch"], figures["ap/patch"]) == (None, None, None)
    assert figures["iou_macro"] == pytest.approx((1 / 2 + 0) / 2)
    assert figures["absent_classes"] == 1


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    figures = counted("binary", (torch.full((1, 1, 1, 2), -3.0), torch.tensor([[[0, 1]]]))).compute()
    assert (figures["precision/crack"], figures["precision_macro"]) == (None, None)
    assert (figures["recall/crack"], figures["iou/crack"], figures["absent_classes"]) == (0, 0, 0)


def test_without_negatives_there_is_no_auroc() -> None:
    figures = counted("binary", (torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 2, dtype=torch.long))).compute()
    assert (figures["auroc/crack"], figures["auroc_macro"]) == (None, None)
    assert figures["ap/crack"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_without_a_valid_pixel_nothing_is_defined(mode: Mode) -> None:
    logits, target = random_images(mode, 2)
    figures = counted(mode, (logits, torch.full_like(target, 255))).compute()
    assert figures.pop("absent_classes") == len(NAMES[mode])
    assert set(figures.values()) == {None}


# --- what does not count, and what is refused


@pytest.mark.parametrize("ignore_index", [0, 1, 255, -100])
@pytest.mark.parametrize("mode", MODES)
def test_ignored_pixels_count_nowhere(mode: Mode, ignore_index: int) -> None:
    logits, target = random_images(mode, 3)
    ignored = target == 255
    metrics = counted(mode, (logits, target.masked_fill(ignored, ignore_index)), ignore_index=ignore_index)
    pixels = int((target.masked_fill(ignored, ignore_index) != ignore_index).sum())
    assert metrics.confusion.sum() == pixels
    assert metrics.histogram.sum() == pixels * (3 if mode == "multiclass" else 1)

    broken = logits.masked_fill(ignored if mode == "multilabel" else ignored[:, None], torch.nan)
    assert_same_counts(metrics, counted(mode, (broken, target.masked_fill(ignored, ignore_index)), ignore_index=ignore_index))


@pytest.mark.parametrize("mode", MODES)
def test_nan_scores_are_reported(mode: Mode) -> None:
    logits, target = random_images(mode, 2)
    target = target % 2  # every pixel counts
    logits[0, 0, 1, 1:4] = torch.nan
    metrics = counted(mode, (logits, target), random_images(mode, 1))
    with pytest.raises(ValueError, match="3 scores were NaN"):
        metrics.compute()
    metrics.reset()
    metrics.update(*random_images(mode, 1))
    assert metrics.compute()["accuracy"] is not None


@pytest.mark.parametrize("mode", MODES)
def test_infinite_scores_are_the_surest(mode: Mode) -> None:
    logits, target = random_images(mode, 2)
    logits[0, 0, 1], logits[1, 0, 1] = torch.inf, -torch.inf
    assert_same_counts(counted(mode, (logits, target)), counted(mode, (logits.clamp(-1e31, 1e31), target)))


@pytest.mark.parametrize(("mode", "foreign"), [("binary", 2), ("multiclass", 3), ("multilabel", 7), ("multiclass", -1), ("binary", -1)])
def test_ids_out_of_range_are_reported(mode: Mode, foreign: int) -> None:
    logits, target = random_images(mode, 1)
    target.view(-1)[:2] = foreign
    last = 2 if mode == "multiclass" else 1
    with pytest.raises(ValueError, match=rf"2 target ids were neither 0 \.\. {last} nor ignore_index=255"):
        counted(mode, (logits, target)).compute()


def test_without_ignore_index_255_is_out_of_range() -> None:
    logits, target = random_images("multiclass", 1)
    with pytest.raises(ValueError, match="nor ignore_index=None"):
        counted("multiclass", (logits, target), ignore_index=None).compute()


@pytest.mark.parametrize(
    ("mode", "logits", "target"),
    [
        ("binary", (2, 2, 4, 4), (2, 4, 4)),
        ("binary", (2, 1, 4, 4), (2, 2, 4, 4)),
        ("multiclass", (2, 3, 4, 4), (2, 4, 5)),
        ("multiclass", (2, 3, 4, 4), (2, 1, 4, 4)),
        ("multiclass", (2, 4, 4, 4), (2, 4, 4)),
        ("multiclass", (2, 3, 4, 4), (1, 4, 4)),
        ("multilabel", (2, 2, 4, 4), (2, 4, 4)),
        ("multilabel", (2, 4, 4), (2, 4, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_both_named(mode: Mode, logits: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        counted(mode, (torch.zeros(logits), torch.zeros(target, dtype=torch.long)))
    assert str(logits) in str(error.value) and str(target) in str(error.value)


def test_targets_of_a_float_type_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        counted("binary", (torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2)))


@pytest.mark.parametrize(
    ("mode", "classes"), [("binary", ["a", "b"]), ("binary", []), ("multiclass", ["a"]), ("multilabel", []), ("multilabel", ["a", "a"])]
)
def test_class_names_must_fit_the_mode(mode: Mode, classes: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{mode} takes"):
        SegmentationMetrics(mode, classes)


@pytest.mark.parametrize(
    "decision", [Decision("multilabel"), Decision("binary", thresholds=[0.3, 0.3]), Decision("multiclass", offsets=[1.0, 0.0])]
)
def test_the_decision_is_for_these_classes(decision: Decision) -> None:
    with pytest.raises(ValueError, match=f"decision is for {decision.mode}"):
        SegmentationMetrics("binary", ["crack"], decision=decision)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="binary, multiclass, multilabel"):
        SegmentationMetrics("multi", ["a", "b"])  # type: ignore[arg-type]  # the mistake that is tested


# --- counts add up: batches, orders, ranks


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODES), st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False), st.data())
def test_neither_batches_nor_order_matter(mode: Mode, images: int, height: int, width: int, random: Any, data: st.DataObject) -> None:
    logits, target = random_images(mode, images, height, width, seed=random.randrange(1000))
    order = torch.tensor(data.draw(st.permutations(range(images))))
    cuts = sorted(data.draw(st.sets(st.integers(1, images - 1)))) if images > 1 else []
    batches = zip(logits[order].tensor_split(cuts), target[order].tensor_split(cuts), strict=True)
    assert_same_counts(counted(mode, (logits, target)), counted(mode, *batches))


TUNED = {
    "binary": Decision("binary", [2.0], [0.3]),
    "multiclass": Decision("multiclass", offsets=[-0.5, 0.75, 0.0]),
    "multilabel": Decision("multilabel", thresholds=[0.3, 0.8]),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_fitted_decision_is_counted_beside_the_plain_one(mode: Mode) -> None:
    logits, target = random_images(mode, 3)
    metrics, plain = counted(mode, (logits, target), decision=TUNED[mode]), counted(mode, (logits, target))
    figures, expected = metrics.compute(), plain.compute()
    tuned = {name.removeprefix("tuned/"): value for name, value in figures.items() if name.startswith("tuned/")}
    assert {name: value for name, value in figures.items() if not name.startswith("tuned/")} == expected
    averaged = ("iou", "dice", "precision", "recall", *(("ece", "brier") if TUNED[mode].temperature else ()))
    of_each = {f"{figure}/{name}" for figure in (*averaged, "accuracy") for name in NAMES[mode]}
    assert set(tuned) == of_each | {f"{figure}_macro" for figure in averaged} | {"accuracy"}

    # What it decides, given as logits that leave no doubt, is counted by the plain rule.
    labels = TUNED[mode].labels(logits).long()
    sure = sure_of(labels, 3) if mode == "multiclass" else 20.0 * labels - 10
    by_hand = counted(mode, (sure, target))
    assert torch.equal(metrics.tuned_confusion, by_hand.confusion) and not torch.equal(metrics.tuned_confusion, metrics.confusion)
    decided = [name for name in tuned if not name.startswith(("ece", "brier"))]
    assert [tuned[name] for name in decided] == [by_hand.compute()[name] for name in decided]


@pytest.mark.parametrize("mode", MODES)
def test_a_plain_decision_costs_nothing(mode: Mode) -> None:
    assert counted(mode, random_images(mode, 1), decision=Decision(mode))._defaults.keys() == counted(mode)._defaults.keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), [(7, 9), (40, 33), (1, 1)])
def test_an_image_is_counted_the_same_in_any_bands(mode: Mode, height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(mode, 2, height, width)
    whole = counted(mode, images, decision=TUNED[mode])
    for most in (1, 300):
        monkeypatch.setitem(counts._BAND, "cpu", most)
        bands = counted(mode, images, decision=TUNED[mode])
        assert_same_counts(whole, bands)
        assert torch.equal(whole.tuned_confusion, bands.tuned_confusion)


def test_a_huge_image_needs_little_memory_beside_itself() -> None:
    """In a process of its own, whose peak is that of this image: 2500 x 1000 and eight classes, 76 MiB of logits."""
    code = (
        "import resource, torch; from segfocal.metrics import SegmentationMetrics\n"
        "torch.set_num_threads(1)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "def count(height):\n"
        "    metrics = SegmentationMetrics('multiclass', list('abcdefgh'))\n"
        "    metrics.update(logits[:, :, :height], target[:, :height])\n"
        "logits, target = torch.zeros(1, 8, 2500, 1000).normal_(), torch.zeros(1, 2500, 1000, dtype=torch.uint8)\n"
        "count(10); before = peak(); count(2500); print(peak() - before)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(segfocal.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 40


@pytest.mark.parametrize("mode", MODES)
def test_memory_does_not_grow(mode: Mode) -> None:
    def sizes(metrics: SegmentationMetrics) -> list[tuple[torch.Size, torch.dtype]]:
        return [(getattr(metrics, state).shape, getattr(metrics, state).dtype) for state in metrics._defaults]

    fresh = counted(mode)
    assert sizes(fresh) == sizes(counted(mode, *[random_images(mode, 2)] * 100))
    assert {dtype for _, dtype in sizes(fresh)} == {torch.int64}
    assert fresh.histogram.shape == (len(NAMES[mode]), 2, SCORE_BINS)


def test_figures_of_more_pixels_than_int32_holds() -> None:
    metrics = counted("binary", random_images("binary", 1))
    many = counted("binary", random_images("binary", 1))
    many.confusion, many.histogram = many.confusion * 2**40, many.histogram * 2**40
    assert many.compute() == pytest.approx(metrics.compute())


def test_a_call_gives_the_batch_and_keeps_the_sum() -> None:
    first, second = random_images("multiclass", 2, seed=1), random_images("multiclass", 1, seed=2)
    metrics = counted("multiclass", first)
    assert metrics(*second) == counted("multiclass", second).compute()
    assert_same_counts(metrics, counted("multiclass", first, second))


def test_counts_stay_out_of_checkpoints() -> None:
    assert counted("multiclass", random_images("multiclass", 1)).state_dict() == {}


def test_a_reset_in_inference_mode_does_not_bind_the_next_update() -> None:
    metrics = counted("binary", random_images("binary", 1))
    with torch.inference_mode():
        metrics.reset()
        metrics.update(*random_images("binary", 1))
    metrics.update(*random_images("binary", 1, seed=1))
    assert_same_counts(metrics, counted("binary", random_images("binary", 1), random_images("binary", 1, seed=1)))


@pytest.mark.parametrize("mode", MODES)
def test_an_update_reads_nothing_back_from_the_device(mode: Mode) -> None:
    """Tensors on `meta` have no values: whatever would make the host wait for one raises."""
    logits, target = random_images(mode, 2)
    metrics = counted(mode).to("meta")
    metrics.update(logits.to("meta"), target.to("meta"))
    assert metrics.histogram.device.type == "meta"


def test_iou_reads_both_kinds_of_matrix_and_refuses_others() -> None:
    assert iou(torch.tensor([[2, 1], [1, 4]])).tolist() == pytest.approx([2 / 4, 4 / 6])
    assert iou(torch.tensor([[[2, 1], [1, 4]]])).tolist() == pytest.approx([4 / 6])
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        iou(torch.zeros(2, 3))


# --- two processes: this one and one that runs this file


TASK = TaskConfig(name="multiclass", classes=NAMES["multiclass"])


def all_of(numbers: list[int]) -> dict[str, Any]:
    """Figures and fitted decision of these of seven images, and of those of the other process."""
    metrics, samples = counted("multiclass", decision=TUNED["multiclass"]), [PixelSample(TASK), PixelSample(TASK, most=60)]
    logits, target = random_images("multiclass", 7, height=40, width=60)
    for number in numbers:
        metrics.update(logits[[number]], target[[number]])
        for sample in samples:
            sample.update(logits[[number]], target[[number]], torch.tensor([number]))
    config = MetricsConfig(calibrate=True)
    figures = metrics.compute()
    with metrics.sync_context():
        decisions = [fit(TASK, config, metrics.histogram, sample).as_dict() for sample in samples]
        curves = class_curves(metrics.histogram, points=20)
    return {
        "figures": figures,
        "decisions": decisions,
        "curves": json.loads(json.dumps(curves)),
        "pixels": [len(sample.pixels()[1]) for sample in samples],
    }


def all_of_rank(rank: int, rendezvous: str) -> list[dict[str, Any]]:
    """Count this rank's images; that brings in the other's."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        shares = [([0, 2, 4, 6], [5, 3, 1]), ([6, 5, 4, 3, 2, 1, 0], [])]  # the second process may have nothing at all
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method")  # of torchmetrics, to who has nothing
            return [all_of(share[rank]) for share in shares]
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rendezvous = str(tmp_path_factory.mktemp("gloo") / "rendezvous")  # a file, since a free port may be taken meanwhile
    environment = os.environ | {"PYTHONPATH": str(Path(segfocal.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, __file__, rendezvous], env=environment, stdout=subprocess.PIPE, text=True) as other:
        here = all_of_rank(0, rendezvous)
        return here, json.loads(other.communicate(timeout=60)[0])


@pytest.mark.xdist_group("counts of ranks")
def test_two_processes_with_unequal_shares_count_and_fit_as_one(ranks: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    here, other = ranks
    alone = all_of(list(range(7)))
    assert here == other["found"] == [alone, alone]
    assert alone["pixels"][0] > 10_000 and alone["pixels"][1] == 60
    assert any(alone["decisions"][0]["offsets"]) and alone["decisions"][0]["temperature"] != [1.0]


@pytest.mark.xdist_group("counts of ranks")
def test_neither_hydra_nor_lightning_is_imported(ranks: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    assert ranks[1]["frameworks"] == []


if __name__ == "__main__":
    found = all_of_rank(1, sys.argv[1])
    print(json.dumps({"found": found, "frameworks": sorted({"hydra", "lightning"} & set(sys.modules))}))
