"""Pictures of predictions: image, truth and errors side by side."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segfocal.config.task import TaskConfig
from segfocal.report.smaller import counts_of, smaller

Array = NDArray[Any]
Colour = tuple[int, int, int]
CELL = 320  # widest picture in the sheet, in pixels
STRENGTH = 0.6  # of colours on an image
BACKDROP = 0.5  # a class of a larger share of the pixels would cover every picture
GAP = 6
HEADER = 26
ENTRY = 150  # width of a name in a legend
MISSED, FALSE, FOUND = (255, 70, 70), (255, 190, 0), (40, 220, 120)
BACK, INK = (250, 250, 250), (30, 30, 30)


@dataclass
class Picture:
    """A sample and what was predicted for it.

    Args:
        name: of the sample.
        image: (H, W, 3) uint8.
        truth, prediction: class ids (H, W), or 0/1 (H, W, C) for binary and multilabel.
        factor: how many times wider the sample is.
        counts: true pixels of each class of the sample; None: those of the picture.
    """

    name: str
    image: Array
    truth: Array
    prediction: Array
    factor: float = 1.0
    counts: Array | None = None

    def shrunk(self, task: TaskConfig) -> Picture:
        """As wide as in a sheet, where it is more than twice as wide: pictures of many megapixels would fill the memory."""
        height, width = self.image.shape[:2]
        if width <= 2 * CELL:
            return self
        factor = width / CELL
        size = CELL, max(1, round(height / factor))
        counts = counts_of(self.truth, task) if task.name == "multiclass" else None
        return Picture(self.name, *smaller(self.image, self.truth, self.prediction, task, size), factor, counts)


def sheet(pictures: list[Picture], task: TaskConfig) -> Image.Image:
    """A row for each picture: the image, the truth on it, and what the prediction found, missed and made up."""
    strengths = _strengths(pictures, task)
    shown = [
        [picture.image, labelled(picture.image, picture.truth, task, strengths), _errors(picture, task, strengths)] for picture in pictures
    ]
    scale = min(2.0, CELL / max(picture.image.shape[1] * picture.factor for picture in pictures))
    cells = [[_scaled(cell, scale * picture.factor) for cell in row] for picture, row in zip(pictures, shown, strict=True)]
    width = max(cell.width for row in cells for cell in row)
    heights = [row[0].height for row in cells]
    entries = [("found", FOUND), ("missed", MISSED), ("made up", FALSE)] if task.name == "binary" else class_colours(task)
    entries = [entry for entry, strength in zip(entries, strengths, strict=True) if strength] if task.name == "multiclass" else entries
    columns, room = ["image", "truth", "prediction"], 3 * (width + GAP) + GAP
    legend = drawn_legend(entries, room - GAP)
    result = Image.new("RGB", (max(room, GAP + legend.width), HEADER + sum(heights) + GAP * len(heights) + legend.height), BACK)
    draw = ImageDraw.Draw(result)
    for column, text in enumerate(columns):
        draw.text((GAP + column * (width + GAP), 6), text, fill=INK, font=ImageFont.load_default(14))
    top = HEADER
    for row, height in zip(cells, heights, strict=True):
        for column, cell in enumerate(row):
            result.paste(cell, (GAP + column * (width + GAP), top))
        top += height + GAP
    result.paste(legend, (GAP, top))
    return result


def palette(count: int) -> Array:
    """Colours as far apart as the eye tells, (count, 3) uint8."""
    hues = [(number * 0.61803) % 1 for number in range(count)]
    return np.array(
        [[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 0.95 - 0.25 * (number % 2))] for number, hue in enumerate(hues)],
        np.uint8,
    )


def class_colours(task: TaskConfig) -> list[tuple[str, Colour]]:
    """Each class and the colour that its pixels are shown in."""
    if task.name == "binary":
        return [(task.class_names[0], FOUND)]
    colours = [(int(red), int(green), int(blue)) for red, green, blue in palette(task.num_classes)]
    return list(zip(task.class_names, colours, strict=True))


def labelled(image: Array, labels: Array, task: TaskConfig, strength: Array | float = STRENGTH) -> Array:
    """An image with its labels blended in; where they overlap, the strongest is on top, and of equals the one of the fewest pixels.

    Args:
        image: (H, W, 3) uint8.
        labels: class ids (H, W), or 0/1 (H, W, C) for binary and multilabel; other values are left out.
        task: says the classes.
        strength: of the colours, from 0 to 1; one for all classes, or one for each.
    """
    colours = np.array([colour for _, colour in class_colours(task)], np.uint8)
    strengths = np.broadcast_to(np.asarray(strength, np.float64), len(colours))
    if task.name == "multiclass":
        known = labels < task.num_classes
        ids = np.where(known, labels, 0)
        return _blend(image, colours[ids], known, strengths[ids][..., None])
    for number in np.lexsort((-(labels == 1).sum((0, 1)), strengths)):
        image = _blend(image, colours[number], labels[..., number] == 1, strengths[number])
    return image


def strengths_of(task: TaskConfig, shares: Array | list[float] | None) -> Array:
    """Of the colour of each class; a background that most of the pixels are of would cover the pictures, and is left out.

    Args:
        task: says the classes.
        shares: of each class, of the pixels; None: not known.
    """
    covers = task.name == "multiclass" and shares is not None
    return np.where(np.array(shares) > BACKDROP, 0, STRENGTH) if covers else np.full(task.num_classes, STRENGTH)


def _strengths(pictures: list[Picture], task: TaskConfig) -> Array:
    if task.name != "multiclass":
        return strengths_of(task, None)
    counts = np.sum([counts_of(picture.truth, task) if picture.counts is None else picture.counts for picture in pictures], axis=0)
    return strengths_of(task, counts / max(1, counts.sum()))


def _errors(picture: Picture, task: TaskConfig, strengths: Array) -> Array:
    if task.name != "binary":
        return labelled(picture.image, picture.prediction, task, strengths)
    truth, predicted = picture.truth[..., 0], picture.prediction[..., 0] == 1
    result = _blend(picture.image, np.array(FOUND), (truth == 1) & predicted, 0.75)
    result = _blend(result, np.array(MISSED), (truth == 1) & ~predicted, 0.75)
    return _blend(result, np.array(FALSE), (truth == 0) & predicted, 0.75)


def _blend(image: Array, colour: Array, where: Array, strength: Array | float) -> Array:
    mixed = (1 - strength) * image + strength * colour
    return np.where(where[..., None], mixed, image).astype(np.uint8)


def _scaled(array: Array, scale: float) -> Image.Image:
    image = Image.fromarray(array)
    return (
        image
        if scale == 1
        else image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR)
    )


def drawn_legend(entries: list[tuple[str, Colour]], room: int = 6 * ENTRY) -> Image.Image:
    """Names beside their colours, at most six in a line, and no more than there is room for."""
    columns = max(1, min(6, room // ENTRY))
    legend = Image.new("RGB", (columns * ENTRY, 22 * -(-len(entries) // columns) + 4), BACK)
    draw = ImageDraw.Draw(legend)
    for number, (text, colour) in enumerate(entries):
        left, top = ENTRY * (number % columns), 22 * (number // columns) + 4
        draw.rectangle((left, top, left + 12, top + 12), fill=colour)
        draw.text((left + 18, top - 2), text[:18], fill=INK, font=ImageFont.load_default(13))
    return legend


def visible(image: Array) -> Array:
    """Three channels of 8 bit of any image (H, W, channels)."""
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, (1, 99))
    rounding = max(1e-6 * max(abs(low), abs(high)), np.finfo(np.float32).tiny)  # of a constant image
    stretched: Array = (255 * np.clip((image - low) / max(high - low, rounding), 0, 1)).astype(np.uint8)
    return stretched
