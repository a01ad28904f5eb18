"""Generated inspection pictures in which the interesting pixels are rare: data to try everything on without a download.

A road (binary, multilabel): asphalt or concrete with cracks among things that look like cracks but are none: saw-cut joints, pale
scratches, soft shadows, dark spots. A welded steel plate (multiclass): rust on two panels, pores in the weld between them, and
dark drops, which look like pores, everywhere but in the weld.

A tenth of the pictures holds nothing rare. A larger picture shows more of the road, but a larger plate. What the masks hold stands
in `segfocal.config.synthetic`.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from segfocal.config.synthetic import SYNTHETIC_CLASSES
from segfocal.config.task import Mode

Field = NDArray[np.float32]  # HxW, or HxWx3 for a picture with values 0 .. 255
Mask = NDArray[np.uint8]
Points = NDArray[np.float64]  # Nx2, (x, y) in px

IGNORE = 255
EMPTY = 0.1  # share of the pictures without a rare class
FINE = 4  # lines are drawn this many times larger: a pixel is labelled where more than half of it is covered
STEP = 3.0  # px between two bends of a crack
_MODES = tuple(SYNTHETIC_CLASSES)
_SPILT, _PAINT = np.array([[[38, 36, 40], [62, 44, 30]], [[232, 230, 222], [222, 178, 60]]], np.float32)  # oil, mud; white, yellow
_RUST, _STEEL = np.array([[128, 68, 34], [0.97, 1.0, 1.04]], np.float32)


def make_sample(mode: Mode, seed: int, index: int, size: int = 128) -> tuple[NDArray[np.uint8], Mask]:
    """One picture and its mask, the same in every process and on every call.

    Args:
        mode: the task: `binary`, `multiclass` or `multilabel`; the classes are `SYNTHETIC_CLASSES[mode]`.
        seed: which data set, 0 or more.
        index: which sample of it, 0 or more.
        size: height and width in px, 32 or more.

    Returns:
        The RGB image, uint8 HxWx3, and the mask, uint8: HxW for binary (0 / 1) and multiclass (ids, 255 ignored), HxWxC for multilabel.

    Raises:
        ValueError: an unknown mode, a negative seed or index, a size below 32.
    """
    if mode not in _MODES:
        raise ValueError(f"mode={mode!r}: choose from {', '.join(_MODES)}")
    if seed < 0 or index < 0 or size < 32:
        raise ValueError(f"seed={seed}, index={index}, size={size}: seed and index start at 0, size at 32")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MODES.index(mode), index)))
    if mode == "multiclass":
        picture, mask = _plate(rng, size)
    else:
        picture, layers = _road(rng, size)
        mask = np.stack([layers[name] > 0.5 for name in SYNTHETIC_CLASSES[mode]], axis=-1).astype(np.uint8)
        mask = mask[..., 0] if mode == "binary" else mask
    picture += 2 * rng.standard_normal(picture.shape, dtype=np.float32)  # the camera
    return np.clip(picture, 0, 255).astype(np.uint8), mask


def _road(rng: np.random.Generator, size: int) -> tuple[Field, dict[str, Field]]:
    """A picture of a road, and the coverage of all things on it that have a name."""
    picture = _ground(rng, rng.uniform(80, 165), size)
    stain, lane, crack = _stain(rng, size), _lane(rng, size), _crack(rng, size)
    _tint(picture, stain * rng.uniform(0.5, 0.8), colour=rng.choice(_SPILT))
    worn = np.clip(1 + 0.35 * _noise(rng, size, 3), 0, 1) * rng.uniform(0.75, 0.95)
    _tint(picture, lane * worn, colour=rng.choice(_PAINT))
    _clutter(rng, picture, size)
    picture *= 1 - (crack * np.clip(rng.uniform(0.5, 0.75) + 0.1 * _noise(rng, size, 24), 0.42, 0.85))[..., None]
    picture *= _light(rng, size)[..., None]
    return picture, {"crack": crack, "stain": stain, "lane": lane}


def _ground(rng: np.random.Generator, grey: float, size: int) -> Field:
    """Asphalt or concrete: patches, aggregate and grains on a tinted grey."""
    grains = rng.uniform(0.3, 1)  # 0.3 concrete, 1 coarse asphalt
    texture = 6 * _noise(rng, size, 40) + 4 * _noise(rng, size, 10) + grains * (9 * _noise(rng, size, 2) + 5 * _noise(rng, size, 1))
    return cast(Field, (grey + texture)[..., None] * rng.normal(1, 0.03, 3).astype(np.float32))


def _light(rng: np.random.Generator, size: int) -> Field:
    """Illumination as a factor: a gradient, and often the soft shadow of something straight."""
    y, x = np.indices((size, size), dtype=np.float32) / size - 0.5
    angle, edge = rng.uniform(0, 2 * np.pi, 2)
    light = 1 + rng.uniform(0, 0.4) * (x * np.cos(angle) + y * np.sin(angle))
    if rng.random() < 0.4:
        inside = rng.uniform(0.03, 0.3) - np.abs(x * np.cos(edge) + y * np.sin(edge) - rng.uniform(-0.4, 0.4))
        light *= 1 - rng.uniform(0.2, 0.45) / (1 + np.exp(-inside * size / rng.uniform(1.5, 4)))
    return cast(Field, light)


def _stain(rng: np.random.Generator, size: int) -> Field:
    """Coverage of spilt liquid: round on the whole, ragged at the edge."""
    cover = np.zeros((size, size), np.float32)
    y, x = np.indices((size, size), dtype=np.float32)
    for _ in range(_number(rng, 0.7, size)):
        (x0, y0), (rx, ry) = rng.uniform(0, size, 2).tolist(), rng.uniform(12, 26, 2).tolist()
        inside = 1 - np.hypot((x - x0) / rx, (y - y0) / ry) + 0.25 * _noise(rng, size, 12)
        cover = np.maximum(cover, np.clip(6 * inside + 0.5, 0, 1))
    return cover


def _lane(rng: np.random.Generator, size: int) -> Field:
    """Coverage of a painted marking: straight and wide, in one piece or dashed."""
    canvas = _canvas(size)
    if rng.random() < 0.45:
        start, end = _across(rng, size)
        ends = np.linspace(start, end, 2 if rng.random() < 0.6 else 10)
        width = rng.uniform(7, 15)
        for a, b in zip(ends[::2], ends[1::2], strict=True):
            _stripe(canvas, a, b, width)
    return _cover(canvas)


def _clutter(rng: np.random.Generator, picture: Field, size: int) -> None:
    """What could be taken for a crack: joints are dark but straight, scratches crooked but pale, spots dark but round."""
    joint, scratches, spots = _canvas(size), _canvas(size), _canvas(size)
    if rng.random() < 0.25:
        _stripe(joint, *_across(rng, size), width=rng.uniform(2, 3.5))
    for _ in range(_number(rng, 0.5, size)):
        scratch = _walk(rng, rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi), rng.uniform(25, 90), crooked=0.2)
        _crooked(scratches, scratch, width=rng.uniform(1.5, 3))
    for _ in range(_number(rng, 3, size)):
        spot = rng.uniform(0, size, 2)
        _line(spots, spot, spot + rng.uniform(-2, 2, 2), width=rng.uniform(3, 7))
    for canvas, low, high in ((joint, -0.6, -0.35), (scratches, 0.25, 0.5), (spots, -0.6, -0.3)):
        picture *= 1 + (_cover(canvas) * rng.uniform(low, high))[..., None]


def _crack(rng: np.random.Generator, size: int) -> Field:
    """Coverage of crooked lines that branch."""
    canvas = _canvas(size)
    left = 0.0 if rng.random() < EMPTY else rng.uniform(0.0035, 0.0095) * size**2  # px of length still to be drawn
    while left > 4 * STEP:
        width, length, branches = rng.uniform(2.6, 4), min(left, rng.uniform(0.6, 1.4) * size), rng.integers(3)
        left -= length
        trunk = _walk(rng, rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, 2 * np.pi), (1 - 0.2 * branches) * length)
        _crooked(canvas, trunk, width)
        for _ in range(branches):
            node = rng.integers(len(trunk) // 4, len(trunk) - 1)
            dx, dy = trunk[node + 1] - trunk[node]
            heading = np.arctan2(dy, dx) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
            _crooked(canvas, _walk(rng, trunk[node], heading, 0.2 * length), width=max(2.4, 0.75 * width))
    return _cover(canvas)


def _plate(rng: np.random.Generator, size: int) -> tuple[Field, Mask]:
    """A picture of two welded panels on a bench and its label map."""
    background, panel, weld, rust, pore = range(len(SYNTHETIC_CLASSES["multiclass"]))
    unit, cell = max(1.0, size / 128), max(1, round(size / 128))
    centre, half = size * rng.uniform(0.42, 0.58, 2), size * rng.uniform(0.27, 0.4, 2)  # half: length and width of the plate
    angle = rng.uniform(0, 2 * np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    y, x = np.indices((size, size), dtype=np.float32)
    u, v = ((x - float(centre[0])) * float(a[0]) + (y - float(centre[1])) * float(a[1]) for a in (along, across))
    on_plate = (np.abs(u) < half[0]) & (np.abs(v) < half[1])
    on_weld = on_plate & (np.abs(v + 1.5 * unit * _noise(rng, size, 16 * cell)) < rng.uniform(5, 7) * unit)
    on_rust = on_plate & (_noise(rng, size, 14 * cell) + 0.2 * _noise(rng, size, 4 * cell) > rng.uniform(0.5, 1.3))
    drops, holes = _canvas(size), _canvas(size)
    for _ in range(rng.poisson(5)):
        place = rng.uniform(0, size, 2)
        _line(drops, place, place, width=rng.uniform(5, 8) * unit)
    for _ in range(0 if rng.random() < EMPTY else 1 + rng.poisson(2)):
        place = centre + rng.uniform(-0.92, 0.92) * half[0] * along + rng.uniform(-2, 2) * unit * across
        _line(holes, place, place, width=rng.uniform(6, 8) * unit)
    drop, hole = _cover(drops) * ~on_weld, _cover(holes) * on_weld

    picture = _ground(rng, rng.uniform(50, 110), size)
    brushed = cv2.resize(rng.standard_normal((size, 5), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    steel = rng.uniform(125, 185) + 6 * (brushed if rng.random() < 0.5 else brushed.T) + 8 * _noise(rng, size, 50 * cell)
    arcs = np.sin(2 * np.pi * (u / unit + 0.12 * (v / unit) ** 2) / rng.uniform(5, 7))
    bead = rng.uniform(135, 185) + 25 * arcs + 4 * _noise(rng, size, 2)
    picture[on_plate] = steel[on_plate, None] * _STEEL
    _tint(picture, on_rust * np.clip(0.65 + 0.25 * _noise(rng, size, 3 * cell), 0, 1), colour=_RUST)
    picture[on_weld] = bead[on_weld, None]
    picture *= (1 - 0.75 * (drop + hole))[..., None] * _light(rng, size)[..., None]

    labels = np.full((size, size), background, np.uint8)
    for label, where in ((panel, on_plate), (rust, on_rust), (weld, on_weld), (pore, hole > 0.5)):
        labels[where] = label
    border = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0  # one pixel on each side
    labels[border] = IGNORE
    return picture, labels


# --- drawing ----------------------------------------------------------------------------------------------------------------


def _number(rng: np.random.Generator, mean: float, size: int) -> int:
    """How many of a thing: `mean` in a picture of 128 px, in larger ones as many more as there is more room."""
    return int(rng.poisson(mean * (size / 128) ** 2))


def _noise(rng: np.random.Generator, size: int, cell: int) -> Field:
    """Smooth noise of about unit variance whose blobs are `cell` px wide."""
    coarse = rng.standard_normal((size // cell + 2,) * 2, dtype=np.float32)
    return coarse[:size, :size] if cell == 1 else cast(Field, cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def _walk(rng: np.random.Generator, start: Points, heading: float, length: float, crooked: float = 0.35) -> Points:
    """The bends of a crooked line: the heading drifts, and every step strays from it by about `crooked` radians."""
    steps = max(2, round(length / STEP))
    headings = heading + np.cumsum(rng.normal(0, 0.12, steps)) + rng.normal(0, crooked, steps)
    return np.vstack([start, start + STEP * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)])


def _across(rng: np.random.Generator, size: int) -> tuple[Points, Points]:
    """The ends, outside the picture, of a straight line across it."""
    angle = rng.uniform(0, np.pi)
    reach = 1.5 * size * np.array([np.cos(angle), np.sin(angle)])
    middle = rng.uniform(0.2, 0.8, 2) * size
    return middle - reach, middle + reach


def _canvas(size: int) -> Mask:
    return np.zeros((size * FINE, size * FINE), np.uint8)


def _line(canvas: Mask, start: Points, end: Points, width: float) -> None:
    """A straight line with round ends; a disc where they are one."""
    (x0, y0), (x1, y1) = np.rint(np.stack([start, end]) * FINE).astype(int).tolist()
    cv2.line(canvas, (x0, y0), (x1, y1), 255, max(1, round(width * FINE) - 1))


def _stripe(canvas: Mask, start: Points, end: Points, width: float) -> None:
    """A straight line with square ends."""
    dx, dy = (end - start) * width / 2 / np.hypot(*(end - start))
    aside = np.array([-dy, dx])
    cv2.fillConvexPoly(canvas, np.rint(np.stack([start + aside, end + aside, end - aside, start - aside]) * FINE).astype(np.int32), 255)


def _crooked(canvas: Mask, points: Points, width: float) -> None:
    """A crooked line that thins out towards its end."""
    for k in range(len(points) - 1):
        _line(canvas, points[k], points[k + 1], width * (1 - 0.3 * k / len(points)))


def _cover(canvas: Mask) -> Field:
    """The share of every pixel that the canvas covers."""
    size = canvas.shape[0] // FINE
    return cast(Field, cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255)


def _tint(picture: Field, cover: Field, colour: Any) -> None:
    """Blend a colour in where it covers."""
    picture += cover[..., None] * (colour - picture)
