"""One decoder for images and masks, with one policy for each thing that decoders disagree about.

Pillow reads everything but TIFF (tifffile: any number of bands and any depth). It alone keeps palette indices and 1-bit
masks as they are; 16-bit images are scaled by 65535, never clipped.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from segfocal.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
LOSSY = (".jpg", ".jpeg", ".webp")

Array = NDArray[Any]
Image.MAX_IMAGE_PIXELS = None  # the cap is `max_megapixels`, checked before decoding and said in one line


class BadFileError(UserError):
    """A file that cannot be used: its name and why."""


def read_image(path: Path, channels: int, exif: str | None = None, max_megapixels: float = 200.0) -> Array:
    """An image as (H, W, channels): uint8 in 0..255, or float32 (16-bit files in 0..1, float files as they are).

    Grey is repeated for three channels, colour becomes luminance for one, alpha is dropped; any other difference between
    the file's bands and `channels` is an error.

    Raises:
        BadFileError: with the file's name, what was found and what to do.
    """
    _check_regular(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        array = _read_tiff(path, max_megapixels)
    else:
        with _open(path, max_megapixels) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
            if turned and exif is None:
                raise BadFileError(
                    f"{path}: its EXIF tag asks for a rotation, which the mask does not have: "
                    "data.exif=apply rotates the image, data.exif=ignore takes it as stored"
                )
            array = _pixels(ImageOps.exif_transpose(image) if turned and exif == "apply" else image)
    return _with_channels(_as_float(array, path), channels, path)


def read_mask(path: Path, max_megapixels: float = 200.0) -> Array:
    """A mask as (H, W) of the numbers in the file: palette indices, 0/1 for 1-bit, ids of 8 or 16 bit.

    Raises:
        BadFileError: also for JPEG and WebP (their values are not those that were saved) and for colour pictures.
    """
    _check_regular(path)
    if path.suffix.lower() in LOSSY:
        raise BadFileError(f"{path}: masks in {path.suffix} are not exact: save them as PNG")
    if path.suffix.lower() in (".tif", ".tiff"):
        array = _read_tiff(path, max_megapixels)
    else:
        with _open(path, max_megapixels) as image:
            array = np.asarray(image)
    if array.ndim == 3 and (array[..., :1] == array[..., : min(3, array.shape[2])]).all():
        array = array[..., 0]  # grey, saved as colour
    if array.ndim != 2:
        raise BadFileError(f"{path}: a colour picture of {array.shape[2]} channels, where a mask of class ids in one channel is expected")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() > 65535:
        raise BadFileError(
            f"{path}: mask of {array.dtype} from {array.min()} to {array.max()}, where whole numbers from 0 to 65535 are expected"
        )
    return array


def image_size(path: Path, exif: str | None = None) -> tuple[int, int]:
    """Height and width, from the header alone."""
    _check_regular(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                return int(page.imagelength), int(page.imagewidth)  # type: ignore[union-attr]  # a frame has them too
        except Exception as error:
            raise BadFileError(f"{path}: cannot be read as TIFF ({error})") from None
    with _open(path, float("inf"), header_only=True) as image:
        width, height = image.size
        if exif == "apply" and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # quarter turns
            return width, height
        return height, width


def file_identity(path: Path) -> str:
    """Where a file is, how long, and when it was last written; a file that cannot be looked at is like no other."""
    try:
        about = path.stat()
    except OSError as error:
        return f"{path.absolute()} {error.errno}"
    return f"{path.absolute()} {about.st_size} {about.st_mtime_ns}"


def _check_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise BadFileError(f"{path}: not a regular file")


def _open(path: Path, max_megapixels: float, header_only: bool = False) -> Image.Image:
    try:
        image = Image.open(path)
    except Exception as error:  # Pillow's plug-ins raise whatever they meet
        raise BadFileError(f"{path}: cannot be read as an image ({_short(error)})") from None
    megapixels = image.size[0] * image.size[1] / 1e6
    if megapixels > max_megapixels:
        image.close()
        raise BadFileError(f"{path}: {megapixels:.0f} megapixels, more than data.max_megapixels={max_megapixels:g}")
    try:
        if not header_only:
            image.load()
    except Exception as error:  # truncated data is found here
        image.close()
        raise BadFileError(f"{path}: damaged ({_short(error)})") from None
    return image


def _pixels(image: Image.Image) -> Array:
    """Palette, 1-bit and CMYK pictures as the colours that they show."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _read_tiff(path: Path, max_megapixels: float) -> Array:
    height, width = image_size(path)
    if height * width / 1e6 > max_megapixels:
        raise BadFileError(f"{path}: {height * width / 1e6:.0f} megapixels, more than data.max_megapixels={max_megapixels:g}")
    try:
        with tifffile.TiffFile(path) as file:
            array, axes = file.asarray(), file.series[0].axes
    except Exception:  # compressed in a way that tifffile needs another package for: Pillow knows the common ones
        with _open(path, max_megapixels) as image:
            return np.asarray(image)
    array, axes = np.squeeze(array), "".join(axis for axis, size in zip(axes, array.shape, strict=True) if size > 1)
    if array.ndim == 3 and axes.find("Y") > 0:  # bands first
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3):
        raise BadFileError(f"{path}: {array.ndim} dimensions ({axes}), where height, width and bands are expected")
    return array


def _as_float(array: Array, path: Path) -> Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype in (np.uint16, np.int32):  # Pillow gives 16-bit grey as int32 in some files
        return (array / 65535).astype(np.float32)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise BadFileError(f"{path}: holds NaN or infinite values: replace them in the file")
        return array.astype(np.float32)
    raise BadFileError(f"{path}: pixels of type {array.dtype}, where 8-bit, 16-bit or float is expected")


def _with_channels(array: Array, channels: int, path: Path) -> Array:
    array = array[..., None] if array.ndim == 2 else array
    found = array.shape[2]
    if found == channels:
        return array
    colours: Array = array[..., :-1] if found in (2, 4) else array  # without alpha
    if channels == 3 and colours.shape[2] in (1, 3):
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    if channels == 1 and colours.shape[2] in (1, 3):
        weights = np.array([0.299, 0.587, 0.114]) if colours.shape[2] == 3 else np.ones(1)  # ITU-R BT.601
        grey = colours @ weights
        result: Array = (np.rint(grey) if array.dtype == np.uint8 else grey).astype(array.dtype)[..., None]
        return result
    raise BadFileError(f"{path}: {found} channels, where model.in_channels={channels}")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
