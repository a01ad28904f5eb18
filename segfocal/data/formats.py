"""Images and masks as arrays, with one policy for each thing that decoders disagree about."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segfocal.config.labels import HIGHEST
from segfocal.data.decoders import (
    TURNED,
    alpha_of_tiff,
    check_megapixels,
    check_regular,
    deep_png,
    holds_jpeg,
    image_size,
    is_tiff,
    jpeg,
    load,
    open_picture,
    orientation,
    read_tiff,
    stored_numbers,
    upright,
)
from segfocal.data.faults import BadFileError
from segfocal.data.palettes import Palettes, colours_of
from segfocal.data.source import Array

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
LOSSY = ("JPEG", "WEBP", "MPO")  # as Pillow finds them in the content, whatever the name
MOST_COLOURS = 64  # in a mask; a photograph has thousands


def read_image(path: Path, channels: int, exif: str | None = None, max_megapixels: float = 200.0, scale: float | None = None) -> Array:
    """An image as (H, W, channels): uint8 in 0..255, or float32 (16-bit files in 0..1, float files as they are).

    Grey is repeated for three channels, colour becomes luminance for one, alpha is dropped; any other difference between
    the file's bands and `channels` is an error. With a scale, JPEG is decoded no larger than is needed for it.

    Raises:
        BadFileError: with the file's name, what was found and what to do.
    """
    check_regular(path)
    alpha = True  # of two or four bands
    if is_tiff(path):
        array, alpha = read_tiff(path, max_megapixels, exif), alpha_of_tiff(path)
    else:
        with open_picture(path, max_megapixels, header_only=True) as image:
            decoded = deep_png(path, image)  # before the EXIF tag, for which Pillow loads a PNG
            turned = orientation(image, path)
            if turned not in (0, 1) and exif is None:
                raise BadFileError(path, *TURNED)
            if decoded is None and scale is None and turned in (0, 1):
                decoded = jpeg(path, image)
            if decoded is None:
                load(image, path, None if scale is None else scaled(image.size, scale))
                decoded = _pixels(image)
            array = upright(decoded, turned) if exif == "apply" else decoded
    return _with_channels(_as_float(array, path), channels, path, alpha)


def read_scaled(path: Path, channels: int, exif: str | None, max_megapixels: float, scale: float | None) -> tuple[Array, tuple[int, int]]:
    """An image at a scale, as `read_image` gives it, and its height and width in the file."""
    if scale is None:
        image = read_image(path, channels, exif, max_megapixels)
        return image, (image.shape[0], image.shape[1])
    stored = image_size(path, exif)
    size = scaled(stored, scale)
    if scale > 1:
        check_megapixels(path, size, max_megapixels, scale)
    image = read_image(path, channels, exif, max_megapixels, scale)
    return resized(image, size, cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC), stored


def scaled(size: tuple[int, int], scale: float | None) -> tuple[int, int]:
    """Height and width at a scale."""
    return size if scale is None else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def resized(array: Array, size: tuple[int, int], interpolation: int) -> Array:
    """An image or mask of another height and width; OpenCV takes four channels at a time."""
    if array.shape[:2] == size:
        return array
    height, width = size
    if array.ndim == 2:
        return cv2.resize(array, (width, height), interpolation=interpolation)
    planes = [cv2.resize(array[..., channel], (width, height), interpolation=interpolation) for channel in range(array.shape[2])]
    return np.stack(planes, axis=-1)


def read_mask(
    path: Path,
    max_megapixels: float = 200.0,
    colours: bool = False,
    lossy: bool = False,
    exif: str | None = None,
    palettes: Palettes | None = None,
) -> Array:
    """A mask as (H, W) of the numbers in the file: palette indices, 0/1 for 1-bit, ids of 8 or 16 bit.

    Args:
        path: of the file.
        max_megapixels: larger ones are refused before they are decoded.
        colours: what counts is the colour that a pixel shows: (H, W, 3) uint8.
        lossy: JPEG and WebP are taken; their values are near those that were saved.
        exif: `apply` and `ignore` as for its image; null refuses a tag that asks for a rotation.
        palettes: of the masks before; null compares none.

    Raises:
        BadFileError: also for pictures in colour where numbers are expected.
    """
    check_regular(path)
    alpha = True  # of two or four bands
    if not lossy and holds_jpeg(path):
        raise _inexact(path, "JPEG")
    if is_tiff(path, numbers=not colours):
        array, alpha = read_tiff(path, max_megapixels, exif, numbers=not colours), alpha_of_tiff(path)
    else:
        with open_picture(path, max_megapixels, header_only=True) as image:
            if image.format in LOSSY and not lossy:
                raise _inexact(path, image.format)
            array = _shown_colours(path, image) if colours else _numbers(path, image, palettes)
            array = _as_image(array, orientation(image, path), path, exif)
    if colours and array.dtype != np.uint8:
        raise BadFileError(path, f"colours of {array.dtype}", "8 bit is expected", "save it with 8 bit a channel")
    if colours:
        return _with_channels(array, 3, path, alpha)
    if array.ndim == 3 and (array[..., :1] == array[..., : array.shape[2] - (alpha and array.shape[2] in (2, 4))]).all():
        array = array[..., 0]  # grey, saved as colour, or with alpha
    if array.ndim != 2:
        raise BadFileError(path, f"a colour picture of {array.shape[2]} channels", "one number a pixel is expected", _colour_map(array))
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() > HIGHEST:
        raise BadFileError(
            path,
            f"mask of {array.dtype} from {array.min()} to {array.max()}",
            f"whole numbers from 0 to {HIGHEST} are expected",
        )
    return array


def _inexact(path: Path, kind: str) -> BadFileError:
    mend = "save them as PNG, or say where to cut: 'data.label_map={0-127:0,128-255:1}'"
    return BadFileError(path, f"masks in {kind} are not exact", mend=mend)


def _as_image(mask: Array, turned: int, path: Path, exif: str | None) -> Array:
    """A mask, turned as its image is."""
    if turned in (0, 1) or exif == "ignore":
        return mask
    if exif is None:
        raise BadFileError(path, "its EXIF tag asks for a rotation", mend=TURNED[2])
    return upright(mask, turned)


def _numbers(path: Path, image: Image.Image, palettes: Palettes | None) -> Array:
    deep = deep_png(path, image)
    if deep is not None:
        return deep
    indexed = image.mode == "P"
    array = stored_numbers(path, image)
    if not indexed:
        return array
    shown = colours_of(image)
    if image.format == "GIF" and (shown[:, :1] == shown).all():  # whose writers number the greys of each file anew
        return np.ascontiguousarray(shown[:, 0][array])
    if palettes is not None:
        palettes.compare(path, array, shown)
    return array


def _shown_colours(path: Path, image: Image.Image) -> Array:
    """Of 8 bit; deep ones as they are, to be refused. Pillow would make white of all grey above 255."""
    if image.mode.startswith(("I", "F")):
        bits = 16 if image.mode.startswith("I;16") else 32
        raise BadFileError(path, f"grey of {bits} bit", "colours of 8 bit are expected", "name its numbers: 'data.label_map={0:0,300:1}'")
    deep = deep_png(path, image)
    if deep is not None:
        return deep
    load(image, path)
    return np.asarray(image.convert("RGB"))


def _colour_map(array: Array) -> str:
    """The override for the colours of a picture, where they are few; in the order of their numbers, as in all pictures."""
    if array.dtype != np.uint8 or array.shape[2] not in (3, 4):
        return ""
    colours = np.unique(array[..., :3].reshape(-1, 3), axis=0)
    if len(colours) > MOST_COLOURS:
        return f"it has {len(colours)} colours: is it a photograph? data.masks names the folder of the masks"
    named = ",".join(f"{red}-{green}-{blue}:{label}" for label, (red, green, blue) in enumerate(colours))
    return f"say which colour is which class, as in 'data.label_map={{{named}}}' (the order is a guess)"


def _pixels(image: Image.Image) -> Array:
    """Palette, 1-bit and CMYK pictures as the colours that they show."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _as_float(array: Array, path: Path) -> Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype in (np.uint16, np.int32):  # Pillow gives 16-bit grey as int32 in some files
        if array.min() < 0 or array.max() > HIGHEST:
            raise BadFileError(path, f"pixels from {array.min()} to {array.max()}", f"0 to {HIGHEST} is expected", "save them as floats")
        unit = np.empty(array.shape, np.float32)
        return np.divide(array, HIGHEST, out=unit, casting="same_kind")  # in float64, but not all of it at once
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if not np.isfinite(single).all():
            raise BadFileError(path, "holds NaN, infinite or huge values", mend="replace them in the file")
        return single
    raise BadFileError(path, f"pixels of type {array.dtype}", "8-bit, 16-bit or float is expected")


def _with_channels(array: Array, channels: int, path: Path, alpha: bool = True) -> Array:
    array = array[..., None] if array.ndim == 2 else array
    found = array.shape[2]
    if found == channels:
        return array
    colours: Array = array[..., :-1] if alpha and found in (2, 4) else array
    if channels == 3 and colours.shape[2] in (1, 3):
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    if channels == 1 and colours.shape[2] in (1, 3):
        weights = np.array([0.299, 0.587, 0.114]) if colours.shape[2] == 3 else np.ones(1)  # ITU-R BT.601
        grey = colours @ weights
        result: Array = (np.rint(grey) if array.dtype == np.uint8 else grey).astype(array.dtype)[..., None]
        return result
    raise BadFileError(path, f"{found} channels", f"model.in_channels={channels} is expected", f"say model.in_channels={found}")
