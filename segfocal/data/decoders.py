"""Files as pixels: Pillow and tifffile, what they meet said in one line of ours, and nothing opened that is not a file.

Pillow reads everything but most TIFF (tifffile: any number of bands and any depth). It alone keeps palette indices and 1-bit
masks as they are.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image

from segfocal.data.faults import BadFileError, counted
from segfocal.data.source import Array

WHITE_IS_ZERO = 0
AS_SHOWN = (WHITE_IS_ZERO, 3, 5, 6, 8)  # photometric: white is 0, palette, CMYK, YCbCr, Lab: Pillow knows how they look
DEEP = ("RGB;16B", "LA;16B", "RGBA;16B")  # raw modes of PNG of which Pillow keeps the upper byte
ALPHA = (1, 2)  # what a sample beyond the colours is, by a TIFF's tag
JPEG_IN_TIFF = (6, 7, 34892)  # compression
SPREAD = {"2": 85, "4": 17}  # by which Pillow multiplies grey of that many bits
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
        with damage_of(path, "cannot be read as TIFF"), tifffile.TiffFile(path) as file:
            page = file.pages[0]
            return int(page.imagelength), int(page.imagewidth)  # type: ignore[union-attr]  # a frame has them too
    with open_picture(path, float("inf"), header_only=True) as image:
        width, height = image.size
        if exif == "apply" and orientation(image, path) >= 5:  # quarter turns
            return width, height
        return height, width


@contextmanager
def damage_of(path: Path, what: str = "damaged") -> Iterator[None]:
    """Whatever a decoder meets is said of the file, but for memory that runs out."""
    try:
        yield
    except (BadFileError, MemoryError):
        raise
    except Exception as error:
        raise BadFileError(path, f"{what} ({_short(error)})") from None


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


def begins_as_tiff(path: Path) -> bool:
    """By its first bytes, for names lie."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError as error:
        raise BadFileError(path, str(error.strerror)) from None


def is_tiff(path: Path, numbers: bool = False) -> bool:
    """Whether tifffile is to read it: a TIFF, unless its numbers are not what it shows.

    With `numbers`, what a picture shows is of no interest where white is 0; one that is turned stays with Pillow, to be refused.
    """
    if not begins_as_tiff(path):
        return False
    with damage_of(path, "cannot be read as TIFF"), tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if numbers and page.photometric == WHITE_IS_ZERO and _turned(page):  # type: ignore[union-attr,arg-type]
            return False
        shown = AS_SHOWN[1:] if numbers else AS_SHOWN
        return page.photometric not in shown and page.bitspersample != 1  # type: ignore[union-attr]  # a frame has them too


def orientation(image: Image.Image, path: Path) -> int:
    """Of the EXIF tag; 1 is upright."""
    with damage_of(path):  # PNG may have it at its end, which may be missing
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def jpeg(path: Path, image: Image.Image) -> Array | None:
    """The pixels of a JPEG in RGB by OpenCV, in three quarters of the time; None for all else, and where OpenCV would fill a gap with grey."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    content = path.read_bytes()
    if not content.endswith(b"\xff\xd9"):
        return None
    decoded: Array | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return decoded


def deep_png(path: Path, image: Image.Image) -> Array | None:
    """The pixels of a PNG of several channels of 16 bit, in RGB, by OpenCV: Pillow has the upper bytes only. None for all else."""
    if image.format != "PNG" or raw_mode(image) not in DEEP:
        return None
    bands = len(image.getbands())  # OpenCV makes alpha of a transparent colour
    load(image, path)  # finds damage, without a word on the console
    try:
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise BadFileError(path, "cannot be read as PNG of 16 bit", mend="save it again, or as TIFF")
    coloured: Array = cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return coloured[..., :bands]


def raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file, as Pillow says before it loads them; empty where it does not."""
    tiles = getattr(image, "tile", None)
    about = tiles[0][3] if tiles else ""
    return str(about[0] if isinstance(about, tuple) and about else about)


def stored_numbers(path: Path, image: Image.Image) -> Array:
    """Decode to the numbers in the file: Pillow spreads grey of 2 or 4 bits over 0..255, and turns it round where white is 0."""
    how = raw_mode(image).partition(";")[2] if image.mode == "L" else ""
    load(image, path)
    array = np.asarray(image)
    if "I" in how:
        array = 255 - array
    return array // np.uint8(SPREAD[how[0]]) if how[:1] in SPREAD else array


def upright(array: Array, turned: int) -> Array:
    """Pixels as an EXIF orientation asks for."""
    if turned in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if turned in (3, 4, 7, 8):
        array = array[::-1]
    if turned in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def open_picture(path: Path, max_megapixels: float, header_only: bool = False) -> Image.Image:
    if path.stat().st_size == 0:
        raise BadFileError(path, "an empty file")
    with damage_of(path, "cannot be read as an image"):
        image = Image.open(path)
    try:
        check_megapixels(path, image.size, max_megapixels)
        check_upright(image, path)
        check_bits(image, path)
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


def check_bits(image: Image.Image, path: Path) -> None:
    """Refuses a BMP of black and white that has more than a bit a pixel: Pillow takes each of its bits for a pixel."""
    if image.format == "BMP" and image.mode == "1":
        with path.open("rb") as file:
            bits = int.from_bytes(file.read(30)[28:], "little")
        if bits != 1:
            raise BadFileError(path, f"a BMP of {bits} bits that names two colours", "Pillow reads such files wrongly", "save it as PNG")


def load(image: Image.Image, path: Path, needed: tuple[int, int] | None = None) -> None:
    """Decode; raises BadFileError for what is damaged. JPEG no larger than needed: by halves, and no smaller than that width and height."""
    try:
        with damage_of(path):  # truncated data is found here
            if needed is not None:
                image.draft(None, needed)
            image.load()
    except BadFileError:
        image.close()
        raise


def read_tiff(path: Path, max_megapixels: float, exif: str | None = "ignore", numbers: bool = False) -> Array:
    """As it looks or, with `numbers`, as the numbers in the file; they differ where Pillow has to read it."""
    check_megapixels(path, image_size(path), max_megapixels)
    try:
        with tifffile.TiffFile(path) as file:
            if exif != "ignore" and _turned(file.pages[0]):  # type: ignore[arg-type]  # a frame has tags too
                raise BadFileError(path, "its TIFF tag asks for a rotation", mend="data.exif=ignore takes it as stored")
            array, axes = file.asarray(), file.series[0].axes
    except (BadFileError, MemoryError):
        raise
    except Exception:  # compressed in a way that tifffile needs another package for: Pillow knows the common ones
        return _by_pillow(path, max_megapixels, numbers)
    flat = tuple(at for at, axis in enumerate(axes) if array.shape[at] == 1 and axis not in "YX")  # a picture may be a line
    array, axes = np.squeeze(array, flat), "".join(axis for at, axis in enumerate(axes) if at not in flat)
    if array.ndim == 3 and axes.find("Y") > 0:  # bands first
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and not set(axes) & set("SC"):
        raise BadFileError(
            path, f"{array.shape[int(np.argmin(array.shape))]} pages ({axes})", "one picture is expected", "save each page as a file"
        )
    if array.ndim not in (2, 3):
        raise BadFileError(path, f"{array.ndim} dimensions ({axes})", "height, width and bands are expected")
    return array


def _by_pillow(path: Path, max_megapixels: float, numbers: bool) -> Array:
    """The pixels of a TIFF; raises BadFileError where Pillow would make others of them: it narrows, swaps and drops without a word."""
    with open_picture(path, max_megapixels, header_only=True) as image:
        if numbers:
            array = stored_numbers(path, image)
        else:
            load(image, path)
            array = np.asarray(image)
    with damage_of(path), tifffile.TiffFile(path) as file:
        page = file.pages[0]
        bands, order = int(page.samplesperpixel), file.byteorder  # type: ignore[union-attr]  # a frame has them too
        kept = array.dtype == page.dtype and (array.shape[2] if array.ndim == 3 else 1) == bands
        if not kept or (order == ">" and array.itemsize > 1):
            how = getattr(page.compression, "name", page.compression)
            raise BadFileError(
                path,
                f"{counted(bands, 'band', 'bands')} of {page.dtype}, compressed by {how}",
                "Pillow, which is all there is for that, changes the numbers",
                "pip install imagecodecs, or save it uncompressed, or by deflate",
            )
    return array


def alpha_of_tiff(path: Path) -> bool:
    """Whether the last band of a TIFF is said to be transparency."""
    with damage_of(path, "cannot be read as TIFF"), tifffile.TiffFile(path) as file:
        extra = file.pages[0].extrasamples  # type: ignore[union-attr]
        return bool(extra) and int(extra[-1]) in ALPHA


def holds_jpeg(path: Path) -> bool:
    """Whether it is a TIFF whose pixels are compressed as JPEG's are."""
    if not begins_as_tiff(path):
        return False
    with damage_of(path, "cannot be read as TIFF"), tifffile.TiffFile(path) as file:
        return int(file.pages[0].compression) in JPEG_IN_TIFF


def _turned(page: tifffile.TiffPage) -> bool:
    tag = page.tags.get(int(ExifTags.Base.Orientation))
    return tag is not None and tag.value not in (0, 1)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].split(" '")[0][:100] if str(error) else type(error).__name__  # the path is said already
