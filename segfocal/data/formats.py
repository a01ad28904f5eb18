"""One decoder for images and masks, with one policy for each thing that decoders disagree about.

Pillow reads everything but TIFF (tifffile: any number of bands and any depth). It alone keeps palette indices and 1-bit
masks as they are; 16-bit images are scaled by 65535, never clipped.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from segfocal.config.labels import HIGHEST
from segfocal.data.faults import BadFileError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
LOSSY = ("JPEG", "WEBP", "MPO")  # as Pillow finds them in the content, whatever the name
AS_SHOWN = (0, 3, 5, 6, 8)  # photometric: white is 0, palette, CMYK, YCbCr, Lab: Pillow knows how they look
MOST_COLOURS = 64  # in a mask; a photograph has thousands

TURNED = (
    "its EXIF tag asks for a rotation, which the mask does not have",
    "",
    "data.exif=apply rotates the image, data.exif=ignore takes it as stored",
)

Array = NDArray[Any]
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it meets is said in our line
Image.MAX_IMAGE_PIXELS = None  # the cap is `max_megapixels`, checked before decoding and said in one line


def read_image(path: Path, channels: int, exif: str | None = None, max_megapixels: float = 200.0, scale: float | None = None) -> Array:
    """An image as (H, W, channels): uint8 in 0..255, or float32 (16-bit files in 0..1, float files as they are).

    Grey is repeated for three channels, colour becomes luminance for one, alpha is dropped; any other difference between
    the file's bands and `channels` is an error. With a scale, JPEG is decoded no larger than is needed for it.

    Raises:
        BadFileError: with the file's name, what was found and what to do.
    """
    _check_regular(path)
    if _is_tiff(path):
        array = _read_tiff(path, max_megapixels, exif)
    else:
        with _open(path, max_megapixels, header_only=True) as image:
            turned = _orientation(image, path) not in (0, 1)
            if turned and exif is None:
                raise BadFileError(path, *TURNED)
            decoded = _jpeg(path, image) if scale is None and not turned else None
            if decoded is None:
                _load(image, path, scale)
                decoded = _pixels(ImageOps.exif_transpose(image) if turned and exif == "apply" else image)
            array = decoded
    return _with_channels(_as_float(array, path), channels, path)


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


def read_mask(path: Path, max_megapixels: float = 200.0, colours: bool = False, lossy: bool = False) -> Array:
    """A mask as (H, W) of the numbers in the file: palette indices, 0/1 for 1-bit, ids of 8 or 16 bit.

    Args:
        path: of the file.
        max_megapixels: larger ones are refused before they are decoded.
        colours: what counts is the colour that a pixel shows: (H, W, 3) uint8.
        lossy: JPEG and WebP are taken; their values are near those that were saved.

    Raises:
        BadFileError: also for pictures in colour where numbers are expected.
    """
    _check_regular(path)
    if _is_tiff(path):
        array = _read_tiff(path, max_megapixels)
    else:
        with _open(path, max_megapixels) as image:
            if image.format in LOSSY and not lossy:
                raise BadFileError(
                    path,
                    f"masks in {image.format} are not exact",
                    mend="save them as PNG, or say where to cut: 'data.label_map={0-127:0,128-255:1}'",
                )
            array = np.asarray(image.convert("RGB") if colours else image)
    if colours and array.dtype != np.uint8:
        raise BadFileError(path, f"colours of {array.dtype}", "8 bit is expected")
    if colours:
        return _with_channels(array, 3, path)
    if array.ndim == 3 and (array[..., :1] == array[..., : max(1, array.shape[2] - (array.shape[2] in (2, 4)))]).all():
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


def _colour_map(array: Array) -> str:
    """The override for the colours of a picture, the most frequent one first, where they are few."""
    if array.dtype != np.uint8 or array.shape[2] not in (3, 4):
        return ""
    colours, counts = np.unique(array[..., :3].reshape(-1, 3), axis=0, return_counts=True)
    if len(colours) > MOST_COLOURS:
        return f"it has {len(colours)} colours: is it a photograph? data.masks names the folder of the masks"
    ordered = colours[np.argsort(-counts, kind="stable")]
    named = ",".join(f"{red}-{green}-{blue}:{label}" for label, (red, green, blue) in enumerate(ordered))
    return f"say which colour is which class, as in 'data.label_map={{{named}}}'"


def image_size(path: Path, exif: str | None = None) -> tuple[int, int]:
    """Height and width, from the header alone."""
    _check_regular(path)
    if _is_tiff(path):
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                return int(page.imagelength), int(page.imagewidth)  # type: ignore[union-attr]  # a frame has them too
        except Exception as error:
            raise BadFileError(path, f"cannot be read as TIFF ({_short(error)})") from None
    with _open(path, float("inf"), header_only=True) as image:
        width, height = image.size
        if exif == "apply" and _orientation(image, path) >= 5:  # quarter turns
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
        raise BadFileError(path, str(error.strerror)) from None
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise BadFileError(path, "not a regular file")


def _is_tiff(path: Path) -> bool:
    """Whether tifffile is to read it: TIFF by its first bytes, for names lie, unless its numbers are not what it shows."""
    try:
        with path.open("rb") as file:
            if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return False
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            return page.photometric not in AS_SHOWN and page.bitspersample != 1  # type: ignore[union-attr]  # a frame has them too
    except OSError as error:
        raise BadFileError(path, str(error.strerror)) from None
    except Exception as error:  # whatever tifffile meets
        raise BadFileError(path, f"cannot be read as TIFF ({_short(error)})") from None


def _orientation(image: Image.Image, path: Path) -> int:
    """Of the EXIF tag; 1 is upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # PNG may have it at its end, which may be missing
        raise BadFileError(path, f"damaged ({_short(error)})") from None


def _jpeg(path: Path, image: Image.Image) -> Array | None:
    """The pixels of a JPEG in RGB by OpenCV, in three quarters of the time; None for all else, and where OpenCV would fill a gap with grey."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    content = path.read_bytes()
    if not content.endswith(b"\xff\xd9"):
        return None
    decoded: Array | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return decoded


def _open(path: Path, max_megapixels: float, header_only: bool = False) -> Image.Image:
    if path.stat().st_size == 0:
        raise BadFileError(path, "an empty file")
    try:
        image = Image.open(path)
    except Exception as error:  # Pillow's plug-ins raise whatever they meet
        raise BadFileError(path, f"cannot be read as an image ({_short(error)})") from None
    megapixels = image.size[0] * image.size[1] / 1e6
    if megapixels > max_megapixels:
        image.close()
        raise BadFileError(path, f"{megapixels:.0f} megapixels", f"more than data.max_megapixels={max_megapixels:g}")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        pages = image.n_frames  # type: ignore[attr-defined]  # of formats that have several
        image.close()
        raise BadFileError(path, f"{pages} pages", "one picture is expected", "save each page as a file")
    if not header_only:
        _load(image, path)
    return image


def _load(image: Image.Image, path: Path, scale: float | None = None) -> None:
    try:
        if scale is not None:  # JPEG alone can: by halves, and no smaller than is asked for
            image.draft(None, scaled(image.size, scale))
        image.load()
    except Exception as error:  # truncated data is found here
        image.close()
        raise BadFileError(path, f"damaged ({_short(error)})") from None


def _pixels(image: Image.Image) -> Array:
    """Palette, 1-bit and CMYK pictures as the colours that they show."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _read_tiff(path: Path, max_megapixels: float, exif: str | None = "ignore") -> Array:
    height, width = image_size(path)
    if height * width / 1e6 > max_megapixels:
        raise BadFileError(path, f"{height * width / 1e6:.0f} megapixels", f"more than data.max_megapixels={max_megapixels:g}")
    try:
        with tifffile.TiffFile(path) as file:
            turned = file.pages[0].tags.get(int(ExifTags.Base.Orientation))  # type: ignore[union-attr]  # a frame has them too
            if exif != "ignore" and turned is not None and turned.value not in (0, 1):
                raise BadFileError(path, TURNED[0], mend="data.exif=ignore takes it as stored")
            array, axes = file.asarray(), file.series[0].axes
    except BadFileError:
        raise
    except Exception:  # compressed in a way that tifffile needs another package for: Pillow knows the common ones
        with _open(path, max_megapixels) as image:
            return np.asarray(image)
    array, axes = np.squeeze(array), "".join(axis for axis, size in zip(axes, array.shape, strict=True) if size > 1)
    if array.ndim == 3 and axes.find("Y") > 0:  # bands first
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and not set(axes) & set("SC"):
        raise BadFileError(
            path, f"{array.shape[int(np.argmin(array.shape))]} pages ({axes})", "one picture is expected", "save each page as a file"
        )
    if array.ndim not in (2, 3):
        raise BadFileError(path, f"{array.ndim} dimensions ({axes})", "height, width and bands are expected")
    return array


def _as_float(array: Array, path: Path) -> Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype in (np.uint16, np.int32):  # Pillow gives 16-bit grey as int32 in some files
        if array.min() < 0 or array.max() > HIGHEST:
            raise BadFileError(path, f"pixels from {array.min()} to {array.max()}", f"0 to {HIGHEST} is expected", "save them as floats")
        return (array / HIGHEST).astype(np.float32)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if not np.isfinite(single).all():
            raise BadFileError(path, "holds NaN, infinite or huge values", mend="replace them in the file")
        return single
    raise BadFileError(path, f"pixels of type {array.dtype}", "8-bit, 16-bit or float is expected")


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
    raise BadFileError(path, f"{found} channels", f"model.in_channels={channels} is expected", f"say model.in_channels={found}")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].split(" '")[0][:100] if str(error) else type(error).__name__  # the path is said already
