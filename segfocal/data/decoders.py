"""Files as pixels: Pillow and tifffile, what they meet said in one line of ours, and nothing opened that is not a file.

Pillow reads everything but most TIFF (tifffile: any number of bands and any depth). It alone keeps palette indices and 1-bit
masks as they are.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image

from segfocal.data.faults import BadFileError
from segfocal.data.source import Array

AS_SHOWN = (0, 3, 5, 6, 8)  # photometric: white is 0, palette, CMYK, YCbCr, Lab: Pillow knows how they look
TURNED = (
    "its EXIF tag asks for a rotation, which the mask does not have",
    "",
    "data.exif=apply rotates the image, data.exif=ignore takes it as stored",
)

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it meets is said in our line
Image.MAX_IMAGE_PIXELS = None  # the cap is `max_megapixels`, checked before decoding and said in one line


def image_size(path: Path, exif: str | None = None) -> tuple[int, int]:
    """Height and width, from the header alone."""
    check_regular(path)
    if is_tiff(path):
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                return int(page.imagelength), int(page.imagewidth)  # type: ignore[union-attr]  # a frame has them too
        except Exception as error:
            raise BadFileError(path, f"cannot be read as TIFF ({_short(error)})") from None
    with open_picture(path, float("inf"), header_only=True) as image:
        width, height = image.size
        if exif == "apply" and orientation(image, path) >= 5:  # quarter turns
            return width, height
        return height, width


def file_identity(path: Path) -> str:
    """Where a file is, how long, and when it was last written; a file that cannot be looked at is like no other."""
    try:
        about = path.stat()
    except OSError as error:
        return f"{path.absolute()} {error.errno}"
    return f"{path.absolute()} {about.st_size} {about.st_mtime_ns}"


def check_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadFileError(path, str(error.strerror)) from None
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise BadFileError(path, "not a regular file")


def is_tiff(path: Path) -> bool:
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


def orientation(image: Image.Image, path: Path) -> int:
    """Of the EXIF tag; 1 is upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception as error:  # PNG may have it at its end, which may be missing
        raise BadFileError(path, f"damaged ({_short(error)})") from None


def jpeg(path: Path, image: Image.Image) -> Array | None:
    """The pixels of a JPEG in RGB by OpenCV, in three quarters of the time; None for all else, and where OpenCV would fill a gap with grey."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    content = path.read_bytes()
    if not content.endswith(b"\xff\xd9"):
        return None
    decoded: Array | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return decoded


def open_picture(path: Path, max_megapixels: float, header_only: bool = False) -> Image.Image:
    if path.stat().st_size == 0:
        raise BadFileError(path, "an empty file")
    try:
        image = Image.open(path)
    except Exception as error:  # Pillow's plug-ins raise whatever they meet
        raise BadFileError(path, f"cannot be read as an image ({_short(error)})") from None
    try:
        check_megapixels(path, image.size, max_megapixels)
        check_upright(image, path)
    except BadFileError:
        image.close()
        raise
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        pages = image.n_frames  # type: ignore[attr-defined]  # of formats that have several
        image.close()
        raise BadFileError(path, f"{pages} pages", "one picture is expected", "save each page as a file")
    if not header_only:
        load(image, path)
    return image


def check_megapixels(path: Path, size: tuple[int, int], most: float, scale: float = 1) -> None:
    """Before anything is decoded; the size is that at the scale."""
    megapixels = size[0] * size[1] / 1e6
    if megapixels > most:
        at = "" if scale == 1 else f" at data.scale={scale:g}"
        raise BadFileError(path, f"{round(megapixels, 2):g} megapixels{at}", f"more than data.max_megapixels={most:g}")


def check_upright(image: Image.Image, path: Path) -> None:
    """Refuses a TIFF that Pillow would turn by itself while it loads: in some files wrongly, in masks silently."""
    if image.format == "TIFF" and orientation(image, path) not in (0, 1):
        raise BadFileError(path, "its TIFF tag asks for a rotation", mend="save it upright, without the tag")


def load(image: Image.Image, path: Path, needed: tuple[int, int] | None = None) -> None:
    """Decode; raises BadFileError for what is damaged. JPEG no larger than needed: by halves, and no smaller than that width and height."""
    try:
        if needed is not None:
            image.draft(None, needed)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # truncated data is found here
        image.close()
        raise BadFileError(path, f"damaged ({_short(error)})") from None


def read_tiff(path: Path, max_megapixels: float, exif: str | None = "ignore") -> Array:
    check_megapixels(path, image_size(path), max_megapixels)
    try:
        with tifffile.TiffFile(path) as file:
            turned = file.pages[0].tags.get(int(ExifTags.Base.Orientation))  # type: ignore[union-attr]  # a frame has them too
            if exif != "ignore" and turned is not None and turned.value not in (0, 1):
                raise BadFileError(path, TURNED[0], mend="data.exif=ignore takes it as stored")
            array, axes = file.asarray(), file.series[0].axes
    except (BadFileError, MemoryError):
        raise
    except Exception:  # compressed in a way that tifffile needs another package for: Pillow knows the common ones
        with open_picture(path, max_megapixels) as image:
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


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].split(" '")[0][:100] if str(error) else type(error).__name__  # the path is said already
