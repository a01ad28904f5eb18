"""One decoder: what each kind of file becomes, and what is refused with the file's name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from segfocal.data.decoders import image_size, is_tiff
from segfocal.data.faults import BadFileError
from segfocal.data.formats import read_image, read_mask, read_scaled
from segfocal.data.source import Array

IDS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_masks_keep_the_numbers_that_were_saved(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "grey.png")
    Image.fromarray((IDS > 0).astype(bool)).save(tmp_path / "bits.png")
    palette = Image.fromarray(IDS).convert("L")
    palette = Image.frombytes("P", palette.size, palette.tobytes())
    palette.putpalette([200, 10, 10] * 256)  # every colour alike: only the indices tell
    palette.save(tmp_path / "palette.png")
    Image.fromarray(IDS.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(np.repeat(IDS[..., None], 3, axis=2)).save(tmp_path / "grey_as_rgb.png")
    tifffile.imwrite(tmp_path / "ids.tif", IDS)
    assert np.array_equal(read_mask(tmp_path / "grey.png"), IDS)
    assert np.array_equal(read_mask(tmp_path / "bits.png"), IDS > 0)
    assert np.array_equal(read_mask(tmp_path / "palette.png"), IDS)
    assert np.array_equal(read_mask(tmp_path / "deep.png"), IDS.astype(int) * 200)
    assert np.array_equal(read_mask(tmp_path / "grey_as_rgb.png"), IDS)
    assert np.array_equal(read_mask(tmp_path / "ids.tif"), IDS)


def test_images_become_the_channels_that_the_model_takes(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([RGB, RGB[..., :1]])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgb.png", 3), RGB)
    assert np.array_equal(read_image(tmp_path / "rgba.png", 3), RGB)
    assert np.array_equal(read_image(tmp_path / "grey.png", 3), np.repeat(RGB[..., :1], 3, axis=2))
    luminance = np.rint(RGB @ [0.299, 0.587, 0.114]).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "rgb.png", 1)[..., 0], luminance)
    with pytest.raises(BadFileError, match=r"rgb.png: 3 channels; model.in_channels=5 is expected; say model.in_channels=3"):
        read_image(tmp_path / "rgb.png", 5)


def test_deep_images_are_scaled_and_never_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 1000], [40000, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    for name in ("deep.png", "deep.tif"):
        image = read_image(tmp_path / name, 1)
        assert image.dtype == np.float32
        assert np.allclose(image[..., 0], deep / 65535, atol=1e-6)


@pytest.mark.parametrize("bands_first", [True, False])
def test_tiff_of_any_number_of_bands(tmp_path: Path, bands_first: bool) -> None:
    bands = np.random.default_rng(0).random((6, 16, 24)).astype(np.float32)
    array = bands if bands_first else np.moveaxis(bands, 0, -1)
    tifffile.imwrite(tmp_path / "bands.tif", array, planarconfig="separate" if bands_first else "contig", photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "bands.tif", 6), np.moveaxis(bands, 0, -1))
    assert image_size(tmp_path / "bands.tif") == (16, 24)


def test_a_photograph_that_is_to_be_turned_is_turned_or_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "phone.png", exif=exif)
    with pytest.raises(BadFileError, match="data.exif=apply"):
        read_image(tmp_path / "phone.png", 3)
    assert np.array_equal(read_image(tmp_path / "phone.png", 3, exif="ignore"), RGB)
    assert np.array_equal(read_image(tmp_path / "phone.png", 3, exif="apply"), np.rot90(RGB, -1))
    assert image_size(tmp_path / "phone.png", "apply") == (7, 5)


def _truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD_IMAGES = {
    "missing.png": (lambda path: None, "No such file"),
    "empty.png": (lambda path: path.touch(), "an empty file$"),
    "text.png": (lambda path: path.write_text("no picture"), "cannot be read as an image"),
    "truncated.png": (_truncated, "damaged"),
    "pipe.png": (os.mkfifo, "not a regular file"),
    "folder.png": (Path.mkdir, "not a regular file"),
    "text.tif": (lambda path: path.write_bytes(b"II*\0no picture"), "cannot be read as TIFF"),
    "nan.tif": (lambda path: tifffile.imwrite(path, np.full((4, 4), np.nan, np.float32)), "holds NaN, infinite or huge values"),
    "signed.tif": (lambda path: tifffile.imwrite(path, np.zeros((4, 4), np.int8)), "pixels of type int8"),
    "bomb.png": (lambda path: Image.new("1", (30000, 30000)).save(path), "900 megapixels; more than data.max_megapixels=200"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    make, reason = BAD_IMAGES[name]
    make(tmp_path / name)
    with pytest.raises(BadFileError, match=reason) as error:
        read_image(tmp_path / name, 1)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_masks_that_are_not_exact_or_not_ids_are_refused(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "mask.jpg")
    Image.fromarray(RGB).save(tmp_path / "colours.png")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(
        BadFileError, match=r"masks in JPEG are not exact; save them as PNG, or say .*'data.label_map=\{0-127:0,128-255:1\}'"
    ):
        read_mask(tmp_path / "mask.jpg")
    with pytest.raises(BadFileError, match="a colour picture of 3 channels"):
        read_mask(tmp_path / "colours.png")
    with pytest.raises(BadFileError, match="mask of float32"):
        read_mask(tmp_path / "float.tif")


def test_cmyk_is_shown_as_colour(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    picture.save(tmp_path / "print.jpg")
    red = read_image(tmp_path / "print.jpg", 3)[0, 0]
    assert red[0] > 200
    assert red[1:].max() < 60


def test_a_file_is_what_its_content_is_whatever_its_name(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", 3), RGB)
    tifffile.imwrite(tmp_path / "b.tif", RGB)
    (tmp_path / "b.tif").rename(tmp_path / "b.jpg")
    assert np.array_equal(read_image(tmp_path / "b.jpg", 3), RGB)


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("sampling", [0, 2])
def test_jpeg_is_decoded_as_pillow_does(tmp_path: Path, quality: int, sampling: int) -> None:
    rows, columns = np.mgrid[:61, :83]
    image = np.stack([rows * 4, columns * 3, (rows * columns) % 256], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=quality, subsampling=sampling)
    assert np.array_equal(read_image(tmp_path / "a.jpg", 3), np.asarray(Image.open(tmp_path / "a.jpg")))


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
def test_a_jpeg_that_ends_too_early_is_refused(tmp_path: Path, left: float) -> None:
    """OpenCV would fill what is missing with grey."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: int(left * len(content))])
    with pytest.raises(BadFileError, match=r"a.jpg: damaged \(image file is truncated"):
        read_image(tmp_path / "a.jpg", 3)


def palette_tiff(path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    picture.save(path)


def test_tiff_is_read_as_it_looks_where_its_numbers_are_not_what_it_shows(tmp_path: Path) -> None:
    palette_tiff(tmp_path / "palette.tif")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.tif")
    tifffile.imwrite(tmp_path / "white.tif", np.array([[0, 255]], np.uint8), photometric="miniswhite")
    for name in ("palette.tif", "cmyk.tif", "bits.tif", "white.tif"):
        with Image.open(tmp_path / name) as picture:
            assert np.array_equal(read_image(tmp_path / name, 3), np.asarray(picture.convert("RGB"))), name
    assert read_mask(tmp_path / "palette.tif").tolist() == [[0, 1], [2, 1]]
    assert read_mask(tmp_path / "palette.tif", colours=True)[0, 1].tolist() == [200, 0, 0]
    assert read_mask(tmp_path / "bits.tif").tolist() == np.eye(4).tolist()


BY_PILLOW = {"palette": "P", "cmyk": "CMYK", "bits": "1", "ycbcr": "YCbCr"}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def tiff_by_pillow(path: Path, kind: str, tags: dict[int, int | bytes]) -> Path:
    if kind == "white":
        extra = [(tag, 3, 1, value, True) for tag, value in tags.items()]
        tifffile.imwrite(path, RGB[..., 0], photometric="miniswhite", extratags=extra)
    else:
        Image.fromarray(RGB).convert(BY_PILLOW[kind]).save(path, tiffinfo=tags)
    assert not is_tiff(path)
    return path


@pytest.mark.parametrize("kind", [*BY_PILLOW, "white"])
@pytest.mark.parametrize("turned", [3, 6])
def test_a_tiff_that_pillow_would_turn_by_itself_is_refused(tmp_path: Path, kind: str, turned: int) -> None:
    path = tiff_by_pillow(tmp_path / "a.tif", kind, {0x0112: turned})
    readers = [read_mask, *(lambda path, exif=exif: read_image(path, 3, exif) for exif in (None, "apply", "ignore")), image_size]
    for read in readers:
        with pytest.raises(BadFileError, match=r"a.tif: its TIFF tag asks for a rotation; save it upright, without the tag$"):
            read(path)


def test_a_tiff_that_pillow_would_turn_for_its_xmp_is_refused(tmp_path: Path) -> None:
    path = tiff_by_pillow(tmp_path / "a.tif", "palette", {700: XMP})
    with pytest.raises(BadFileError, match="its TIFF tag asks for a rotation"):
        read_mask(path)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_that_pillow_would_turn_is_refused_compressed_as_well(tmp_path: Path, compression: str) -> None:
    Image.fromarray(RGB).quantize(16).save(tmp_path / "a.tif", tiffinfo={0x0112: 8}, compression=compression)
    with pytest.raises(BadFileError, match="its TIFF tag asks for a rotation"):
        read_image(tmp_path / "a.tif", 3, exif="ignore")


@pytest.mark.parametrize("kind", [*BY_PILLOW, "white"])
@pytest.mark.parametrize("upright", [0, 1])
def test_a_tiff_whose_tag_says_upright_is_as_good_as_one_without(tmp_path: Path, kind: str, upright: int) -> None:
    plain, tagged = tiff_by_pillow(tmp_path / "a.tif", kind, {}), tiff_by_pillow(tmp_path / "b.tif", kind, {0x0112: upright})
    assert image_size(tagged, "apply") == (5, 7)
    for exif in (None, "apply", "ignore"):
        assert np.array_equal(read_image(tagged, 3, exif), read_image(plain, 3))


def test_where_tifffile_cannot_decode_a_tiff_pillow_does_not_turn_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_another_package(*_: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    tifffile.imwrite(tmp_path / "turned.tif", RGB, extratags=[(274, 3, 1, 6, True)])
    tifffile.imwrite(tmp_path / "upright.tif", RGB)
    assert np.array_equal(read_image(tmp_path / "turned.tif", 3, exif="ignore"), RGB)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", needs_another_package)
    assert np.array_equal(read_image(tmp_path / "upright.tif", 3), RGB)
    with pytest.raises(BadFileError, match="its TIFF tag asks for a rotation"):
        read_image(tmp_path / "turned.tif", 3, exif="ignore")
    with pytest.raises(BadFileError, match="its TIFF tag asks for a rotation"):
        read_mask(tmp_path / "turned.tif", colours=True, exif="ignore")


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (RGB.astype(np.uint16) * 16, {"photometric": "rgb"}, "3 bands of uint16, compressed by"),
        (RGB[..., 0].astype(np.float32), {"byteorder": ">"}, "1 band of float32"),
        (IDS.astype(np.uint16), {"byteorder": ">"}, "1 band of uint16"),
        (IDS.astype(np.int8) - 1, {}, "1 band of int8"),
    ],
)
def test_what_pillow_would_change_in_a_tiff_that_tifffile_cannot_decode_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Array, options: dict[str, Any], said: str
) -> None:
    """As all of these are by LZW, where imagecodecs is not installed; the same pixels by Pillow's own reading."""

    def needs_another_package(*_: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    tifffile.imwrite(tmp_path / "fine.tif", IDS.astype(np.uint16))
    monkeypatch.setattr(tifffile.TiffFile, "asarray", needs_another_package)
    for read in (lambda path: read_image(path, 3), read_mask):
        with pytest.raises(
            BadFileError, match=f"{said}.*; Pillow, which is all there is for that, changes the numbers; pip install imagecodecs"
        ):
            read(tmp_path / "a.tif")
    assert np.array_equal(read_mask(tmp_path / "fine.tif"), IDS)


def test_a_band_of_a_tiff_is_transparency_only_where_it_is_said_to_be(tmp_path: Path) -> None:
    two, four = np.stack([IDS > 0, IDS > 1], 2).astype(np.uint8), np.concatenate([RGB, RGB[..., :1]], axis=2)
    contiguous: Any = {"planarconfig": "contig", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "two.tif", two, **contiguous)
    tifffile.imwrite(tmp_path / "four.tif", four, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "rgba.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "la.tif", two, extrasamples=["unassalpha"], **contiguous)
    with pytest.raises(BadFileError, match="a colour picture of 2 channels"):
        read_mask(tmp_path / "two.tif")
    for name, bands in (("two.tif", 2), ("four.tif", 4)):
        assert read_image(tmp_path / name, bands).shape[2] == bands
        with pytest.raises(BadFileError, match=f"{bands} channels; model.in_channels=3 is expected; say model.in_channels={bands}"):
            read_image(tmp_path / name, 3)
    assert np.array_equal(read_image(tmp_path / "rgba.tif", 3), RGB)
    assert np.array_equal(read_mask(tmp_path / "la.tif"), IDS > 0)


def test_a_mask_turns_with_its_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(IDS).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "m.png", exif="ignore"), IDS)
    assert np.array_equal(read_mask(tmp_path / "m.png", exif="apply"), np.rot90(IDS, -1))
    with pytest.raises(BadFileError, match="its EXIF tag asks for a rotation; data.exif=apply rotates"):
        read_mask(tmp_path / "m.png")


def test_jpeg_is_not_exact_inside_of_a_tiff_either(tmp_path: Path) -> None:
    for name, picture in (("grey", IDS), ("colour", np.repeat(IDS[..., None] * 20, 3, axis=2))):
        Image.fromarray(picture).save(tmp_path / f"{name}.tif", compression="jpeg")
        with pytest.raises(BadFileError, match="masks in JPEG are not exact; save them as PNG"):
            read_mask(tmp_path / f"{name}.tif", colours=name == "colour")
        read_mask(tmp_path / f"{name}.tif", lossy=True)


def test_a_bmp_of_black_and_white_with_more_than_a_bit_a_pixel_is_refused(tmp_path: Path) -> None:
    """Pillow reads it as one of a bit a pixel."""
    Image.new("P", (16, 8)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[46:50] = (2).to_bytes(4, "little")  # colours that are used
    content[54:62] = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    (tmp_path / "a.bmp").write_bytes(content)
    Image.new("1", (16, 8), 1).save(tmp_path / "bits.bmp")
    for read in (lambda path: read_image(path, 3), read_mask):
        with pytest.raises(BadFileError, match="a BMP of 8 bits that names two colours"):
            read(tmp_path / "a.bmp")
    assert (read_mask(tmp_path / "bits.bmp") == 1).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_image_that_would_be_enlarged_beyond_the_limit_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (600, 500)).save(path)
    image, stored = read_scaled(path, 3, None, 1.2, 2.0)
    assert (image.shape, stored) == ((1000, 1200, 3), (500, 600))
    monkeypatch.setattr("segfocal.data.formats.read_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadFileError, match=r"1.2 megapixels at data.scale=2; more than data.max_megapixels=1.1$"):
        read_scaled(path, 3, None, 1.1, 2.0)


BAD_TIFF = {
    "pages": (lambda path: tifffile.imwrite(path, np.zeros((2, 9, 8), np.uint8), photometric="minisblack"), "2 pages"),
    "turned": (
        lambda path: tifffile.imwrite(path, RGB, extratags=[(274, 3, 1, 6, True)]),
        "its TIFF tag asks for a rotation",
    ),
    "negative": (lambda path: tifffile.imwrite(path, np.full((4, 4), -1, np.int32)), "pixels from -1 to -1; 0 to 65535 is expected"),
    "huge": (lambda path: tifffile.imwrite(path, np.full((4, 4), 1e300)), "NaN, infinite or huge values"),
}


@pytest.mark.parametrize("name", BAD_TIFF)
def test_a_tiff_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    make, said = BAD_TIFF[name]
    make(tmp_path / "a.tif")
    with pytest.raises(BadFileError, match=said):
        read_image(tmp_path / "a.tif", 3 if name == "turned" else 1)


def test_masks_of_several_pages_or_deep_colours_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadFileError, match="2 pages; one picture is expected"):
        read_mask(tmp_path / "a.gif")
    tifffile.imwrite(tmp_path / "deep.tif", np.full((4, 4, 3), 256, np.uint16), photometric="rgb")
    with pytest.raises(BadFileError, match="colours of uint16; 8 bit is expected"):
        read_mask(tmp_path / "deep.tif", colours=True)


DEEP = np.random.default_rng(1).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # of so many channels, as PNG numbers them


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(path: Path, rows: list[bytes], width: int, bits: int, channels: int, extra: bytes = b"") -> Path:
    """Of kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, PNG_COLOURS[channels], 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def deep_png(path: Path, array: np.ndarray, extra: bytes = b"") -> Path:
    return png(path, [row.astype(">u2").tobytes() for row in array], array.shape[1], 16, array.shape[2], extra)


def test_deep_colours_in_png_are_read_in_full(tmp_path: Path) -> None:
    clear = chunk(b"tRNS", struct.pack(">HHH", *DEEP[0, 0, :3].tolist()))
    for extra in (b"", clear):
        rgb = read_image(deep_png(tmp_path / "rgb.png", DEEP[..., :3], extra), 3)
        assert rgb.dtype == np.float32
        assert np.allclose(rgb, DEEP[..., :3] / 65535, atol=1e-7)
    rgba = deep_png(tmp_path / "rgba.png", DEEP)
    assert np.allclose(read_image(rgba, 4), DEEP / 65535, atol=1e-7)
    assert np.allclose(read_image(rgba, 3), DEEP[..., :3] / 65535, atol=1e-7)
    grey = deep_png(tmp_path / "la.png", DEEP[..., :2])
    assert np.allclose(read_image(grey, 1), DEEP[..., :1] / 65535, atol=1e-6)
    assert read_scaled(rgba, 3, None, 1, 2.0)[0].dtype == np.float32


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_ids_saved_as_deep_colour_are_kept(tmp_path: Path, channels: int) -> None:
    ids = np.array([[0, 1, 3], [300, 1, 0]], np.uint16)
    colour = np.dstack([ids] * channels)
    if channels in (2, 4):
        colour[..., -1] = 65535
    assert np.array_equal(read_mask(deep_png(tmp_path / "a.png", colour)), ids)
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack([ids] * 3))
    assert np.array_equal(read_mask(tmp_path / "b.png"), ids)


def test_deep_png_that_is_colour_too_large_or_damaged_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = deep_png(tmp_path / "a.png", DEEP[..., :3])
    with pytest.raises(BadFileError, match="a colour picture of 3 channels"):
        read_mask(path)
    with pytest.raises(BadFileError, match="colours of uint16; 8 bit is expected; save it with 8 bit a channel"):
        read_mask(path, colours=True)
    with pytest.raises(BadFileError, match="more than data.max_megapixels=1e-06"):
        read_image(path, 3, max_megapixels=1e-6)
    path.write_bytes(path.read_bytes()[:-60])
    for read in (lambda path: read_image(path, 3), read_mask):
        with pytest.raises(BadFileError, match=r"a.png: damaged"):
            read(path)
    assert capfd.readouterr().err == ""


def test_a_deep_png_that_opencv_cannot_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deep_png(tmp_path / "a.png", DEEP[..., :3])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(BadFileError, match=r"a.png: cannot be read as PNG of 16 bit; save it again, or as TIFF"):
        read_image(path, 3)


@pytest.mark.parametrize("turned", range(1, 10))
def test_pictures_are_turned_as_pillow_turns_them(tmp_path: Path, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    image = read_image(tmp_path / "a.png", 3, exif="apply")
    assert np.array_equal(image, expected)
    assert image.flags.c_contiguous
    deep = deep_png(tmp_path / "b.png", RGB.astype(np.uint16) * 257, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert np.allclose(read_image(deep, 3, exif="apply"), expected / 255, atol=1e-7)


def packed(ids: np.ndarray, bits: int) -> list[bytes]:
    """Rows of so many bits a pixel."""
    return [np.packbits((row[:, None] >> np.arange(bits)[::-1]) & 1).tobytes() for row in ids]


@pytest.mark.parametrize("bits", [2, 4])
def test_masks_of_few_bits_keep_their_ids(tmp_path: Path, bits: int) -> None:
    ids = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    path = png(tmp_path / "a.png", packed(ids, bits), ids.shape[1], bits, 1)
    shown = ids * (255 // (2**bits - 1))
    assert np.array_equal(read_mask(path), ids)
    assert np.array_equal(read_image(path, 1)[..., 0], shown)
    assert np.array_equal(read_mask(path, colours=True)[..., 0], shown)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4])
def test_tiff_masks_of_few_bits_keep_their_ids(tmp_path: Path, bits: int, photometric: int) -> None:
    ids = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    rows = b"".join(packed(ids, bits))
    tags = {256: ids.shape[1], 257: 2, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 2, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + rows)
    assert np.array_equal(read_mask(tmp_path / "a.tif"), ids)
    shown = ids * (255 // (2**bits - 1))
    if photometric == 0:
        assert np.array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], 255 - shown)


def test_colours_of_deep_grey_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadFileError, match=r"a.png: grey of 16 bit; colours of 8 bit are expected; name its numbers: 'data.label_map="):
        read_mask(tmp_path / "a.png", colours=True)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 300]]


@pytest.mark.parametrize("size", [(1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("bands_first", [True, False])
def test_tiff_of_a_single_line(tmp_path: Path, size: tuple[int, int], bands_first: bool) -> None:
    colours = DEEP.astype(np.uint8).reshape(-1)[: size[0] * size[1] * 3].reshape(*size, 3)
    array = np.moveaxis(colours, -1, 0) if bands_first else colours
    planes = "separate" if bands_first else "contig"
    tifffile.imwrite(tmp_path / "rgb.tif", array, photometric="rgb", planarconfig=planes)
    tifffile.imwrite(tmp_path / "grey.tif", colours[..., 0])
    assert np.array_equal(read_image(tmp_path / "rgb.tif", 3), colours)
    assert np.array_equal(read_image(tmp_path / "grey.tif", 1), colours[..., :1])
    assert np.array_equal(read_mask(tmp_path / "grey.tif"), colours[..., 0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_mask_where_white_is_0_keeps_its_numbers(tmp_path: Path, dtype: str, compression: str | None) -> None:
    ids = np.array([[0, 1, 3]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", ids, photometric="miniswhite", compression=compression)
    assert read_mask(tmp_path / "a.tif").tolist() == [[0, 1, 3]]


def test_a_mask_where_white_is_0_keeps_its_numbers_where_pillow_has_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1, 3]], np.uint8), photometric="miniswhite")
    monkeypatch.delattr(tifffile.TiffFile, "asarray")  # as for LZW without another package
    assert read_mask(tmp_path / "a.tif").tolist() == [[0, 1, 3]]
    assert read_mask(tmp_path / "a.tif", colours=True)[0, :, 0].tolist() == [255, 254, 252]
