"""A picture of what augmentation does: training samples, and crops of them as the model sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segfocal.config.task import TaskConfig
from segfocal.data.sampling import Key
from segfocal.data.stats import SplitStats
from segfocal.report.overlay import BACK, GAP, INK, Array, Colour, class_colours, drawn_legend, labelled

if TYPE_CHECKING:
    from segfocal.data.datamodule import SegmentationData

CELL = 240  # height of a picture in the grid, in pixels
WIDEST = 360
CAPTION = 20
STRIPE = 4  # width of the stripes over ignored pixels, as shown
DARK, LIGHT = 90, 165
RARE, STRONG, WEAK = 0.05, 0.6, 0.35  # classes of a smaller share of the pixels are shown more strongly than the others
IGNORED: Colour = (128, 128, 128)  # between the two, for the legend


class Row(NamedTuple):
    """A sample of the training split, and the class that it is shown for."""

    sample: int
    label: int


def augmentation_grid(data: SegmentationData, samples: int = 4, draws: int = 5) -> Image.Image:
    """A row for each training sample: the whole image with its truth, then crops with theirs. Ignored pixels are striped grey.

    The crops are those of the first epochs; as large a share of them as `sampling` aims at pixels is aimed at the class of the row.

    Args:
        data: what a run trains on; its augmentation, crop, sampling and seed are what is shown.
        samples: rows; those with the rarest classes come first. Fewer where fewer images show any class.
        draws: crops in each row.
    """
    dataset, _ = data.training()
    stats = data.measured["train"]
    rows = choose(stats, data.task, samples)
    strength = np.where(np.array(stats.prior) < RARE, STRONG, WEAK)
    cells, captions = [], []
    for row in rows:
        image, mask = dataset.source.read(row.sample)
        limits = limits_of(image)
        line = [shown(image, mask, limits, data.task, strength)]
        for key in _keys(row, stats, draws, getattr(data.sampling, "share", 0.0)):
            crop = dataset[key]
            line.append(shown(crop.image, crop.mask, limits, data.task, strength))
        cells.append(line)
        captions.append(f"{data.task.class_names[row.label]}: {dataset.source.names[row.sample]}")
    return _arranged(cells, captions, drawn_legend([*class_colours(data.task), ("ignored", IGNORED)]))


def choose(stats: SplitStats, task: TaskConfig, count: int) -> list[Row]:
    """Different samples for the classes in turn, the rarest first: of each class the sample with most of it. No background."""
    frequency = stats.positives / np.maximum(stats.valid, 1)
    first = 1 if task.name == "multiclass" else 0
    classes = [int(label) for label in np.argsort(frequency, kind="stable") if label >= first and stats.positives[label] > 0]
    rows: list[Row] = []
    left = stats.pixels_NC.copy()
    while len(rows) < count and left[:, classes].any():
        for label in classes:
            best = int(np.argmax(left[:, label]))
            if left[best, label] > 0 and len(rows) < count:
                rows.append(Row(stats.rows[best], label))
                left[best] = 0
    return rows


def _keys(row: Row, stats: SplitStats, draws: int, share: float) -> list[Key]:
    """What the sampler might ask for in the first epochs."""
    points = [(int(place[1]), int(place[2])) for place in stats.points[stats.rows.index(row.sample)] if place[0] == row.label]
    return [
        Key(draw, row.sample, 0, points[draw % len(points)] if int((draw + 1) * share) > int(draw * share) else None)
        for draw in range(draws)
    ]


def limits_of(image: Array) -> tuple[float, float]:
    """What is shown black and white."""
    if image.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(image, (1, 99))
    return float(low), max(float(high), float(low) + 1e-6)


def shown(image: Array, mask: Array, limits: tuple[float, float], task: TaskConfig, strength: Array) -> Image.Image:
    """An image with its labels, as large as it is shown."""
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    seen = 255 * np.clip((channels.astype(np.float32) - limits[0]) / (limits[1] - limits[0]), 0, 1)
    labels = mask if task.name == "multiclass" else mask.reshape(*mask.shape[:2], task.num_classes)
    blended = labelled(np.rint(seen).astype(np.uint8), labels, task, strength)
    height, width = mask.shape[:2]
    scale = min(CELL / height, WIDEST / width)
    ignored = labels == task.ignore_index
    where = ignored if ignored.ndim == 2 else ignored.any(-1)
    row, column = np.indices((height, width))
    stripes = np.where(((row + column) * scale // STRIPE) % 2 == 0, DARK, LIGHT)[..., None]
    striped = np.where(where[..., None], 0.3 * blended + 0.7 * stripes, blended).astype(np.uint8)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(striped).resize(size, Image.Resampling.BILINEAR)


def _arranged(cells: list[list[Image.Image]], captions: list[str], legend: Image.Image) -> Image.Image:
    widths = [max(cell.width for cell in column) for column in zip(*cells, strict=True)]
    heights = [CAPTION + max(cell.height for cell in line) + GAP for line in cells]
    size = max(sum(widths) + GAP * (len(widths) + 1), legend.width + 2 * GAP), sum(heights) + legend.height + GAP
    result = Image.new("RGB", size, BACK)
    draw, font, top = ImageDraw.Draw(result), ImageFont.load_default(13), 0
    for line, caption, height in zip(cells, captions, heights, strict=True):
        draw.text((GAP, top + 2), caption, fill=INK, font=font)
        left = GAP
        for cell, width in zip(line, widths, strict=True):
            result.paste(cell, (left, top + CAPTION))
            left += width + GAP
        top += height
    result.paste(legend, (GAP, top))
    return result
