"""What the metrics of an evaluation cost: python -m benchmarks.metrics [--runs 9] [--slow-runs 2] [--threads 2]

On 2 x 11 x 384 x 480 logits, times of one update as medians of runs that take turns: ours, by the plain decision and by a fitted one
besides; all that an evaluation counts of a batch, image by image, too; torchmetrics' binned AUROC with 200 thresholds, which is run less often since one
takes seconds; and the forward pass of a resnet18 Unet. Each number is to be read as a ratio to another of the same run. Then the size
of the state after some images and after ten times as many.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAUROC

from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics import PixelSample, SegmentationMetrics
from segfocal.metrics.images import ImageTable

CLASSES = [f"class {number}" for number in range(11)]
TASK = TaskConfig(name="multiclass", classes=CLASSES)
FITTED = Decision("multiclass", offsets=[number / 10 for number in range(11)])


def batch(images: int = 2, height: int = 384, width: int = 480) -> tuple[Tensor, Tensor]:
    """Logits of a model that has learned something, and labels with an ignored margin; frequent classes and rare ones."""
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor([2.0**-number for number in range(1, 12)])
    target = torch.multinomial(share, images * height * width, replacement=True, generator=generator).view(images, height, width)
    truth = torch.nn.functional.one_hot(target, len(CLASSES)).movedim(-1, 1)
    logits = torch.randn(truth.shape, generator=generator) * 2 + 4 * truth + share.log()[:, None, None]
    target[:, :8] = TASK.ignore_index
    return logits, target


def contenders() -> dict[str, Callable[[], object]]:
    """What is timed, by name; the last is slow."""
    logits, target = batch()
    plain = SegmentationMetrics("multiclass", CLASSES)
    tuned = SegmentationMetrics("multiclass", CLASSES, decision=FITTED)
    sample, numbers = PixelSample(TASK), torch.arange(len(logits))
    model = smp.Unet("resnet18", encoder_weights=None, classes=len(CLASSES)).eval().to(memory_format=torch.channels_last)
    image = torch.randn(len(logits), 3, *logits.shape[2:]).contiguous(memory_format=torch.channels_last)
    binned = MulticlassAUROC(len(CLASSES), thresholds=200, ignore_index=TASK.ignore_index, average=None)

    def validation() -> None:
        plain.update(logits, target)
        sample.update(logits, target, numbers)

    def evaluation() -> None:
        tuned.update(logits, target)
        ImageTable(TASK, FITTED).add(["first", "second"], logits, target)

    return {
        "forward pass of a resnet18 Unet": lambda: model(image),
        "SegmentationMetrics": lambda: plain.update(logits, target),
        "with a fitted decision": lambda: tuned.update(logits, target),
        "validation: with the sample of pixels": validation,
        "evaluation: with a fitted decision and the table of images": evaluation,
        "torchmetrics AUROC, 200 thresholds": lambda: binned.update(logits, target),
    }


def timed(runs: int, slow_runs: int) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {}
    todo = contenders()
    slow = list(todo)[-1]
    for turn in range(runs + 1):
        for name, call in todo.items():
            if name == slow and not 0 < turn <= slow_runs:
                continue
            start = time.perf_counter()
            call()
            if turn:  # the first is to warm up
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def state_bytes(images: int) -> int:
    """What is held after so many images."""
    metrics = SegmentationMetrics("multiclass", CLASSES, decision=FITTED)
    logits, target = batch(1, 24, 32)
    for _ in range(images):
        metrics.update(logits, target)
    return sum(getattr(metrics, state).numel() * getattr(metrics, state).element_size() for state in metrics.metric_state)


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--slow-runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = timed(arguments.runs, arguments.slow_runs)
    forward, ours = found["forward pass of a resnet18 Unet"], found["SegmentationMetrics"]
    print(f"torch {torch.__version__}, {arguments.threads} threads\n\n{'':60}{'ms':>9}{'of forward':>12}{'of ours':>9}")
    for name, seconds in found.items():
        print(f"{name:60}{seconds * 1e3:9.1f}{seconds / forward:12.2f}{seconds / ours:9.2f}")
    print(f"\nstate after 20 images {state_bytes(20):,} bytes, after 200 {state_bytes(200):,}")


if __name__ == "__main__":
    main()
