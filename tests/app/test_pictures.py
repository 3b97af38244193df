"""Real files of several libraries in, exact numbers or one sentence out."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.io
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from app.picture_files import FLOAT_RANGE, MIN_SIDE
from app.pictures import MAX_PIXELS, Picture, encode_png, read_picture, write_picture
from operators.errors import ReadError, ShapeError, WriteError

ORIENTATION = 274
Array = np.ndarray


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return generator.random(shape).astype(dtype)
    return generator.integers(0, int(np.iinfo(dtype).max) + 1, shape, dtype=dtype)


def smooth(height: int = 40, width: int = 52) -> Array:
    """A picture that survives JPEG."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * y, 4 * x, 2 * (x + y)], -1).astype(np.uint8)


def as_stored(picture: Picture) -> Array:
    """Back to (H, W) or (H, W, 3) in the file's own numbers."""
    array = picture.pixels.numpy()
    if picture.bits < 32:
        exact = array.astype(np.float64) * (2**picture.bits - 1)
        assert np.abs(exact - exact.round()).max() < 0.01
        array = exact.round().astype(np.uint8 if picture.bits == 8 else np.uint16)
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def check(picture: Picture, stored: Array, bits: int) -> None:
    assert picture.bits == bits
    assert picture.pixels.dtype == torch.float32
    assert picture.pixels.is_contiguous()
    np.testing.assert_array_equal(as_stored(picture), stored)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(path: Path, name: bytes, body: bytes, behind: int = 33) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:behind] + png_chunk(name, body) + data[behind:])


# Exact reading


COLOUR, GREY_SHAPE = (40, 52, 3), (40, 52)


@pytest.mark.parametrize(
    ("ending", "shape"),
    [(ending, shape) for ending in ("png", "bmp", "tif") for shape in (GREY_SHAPE, COLOUR)] + [("webp", COLOUR)],
)
def test_8_bits_are_exact_as_written_by_pillow(tmp_path: Path, ending: str, shape: tuple[int, ...]) -> None:
    stored, path = noise(*shape), tmp_path / f"a.{ending}"
    Image.fromarray(stored).save(path, **({"lossless": True} if ending == "webp" else {}))
    check(read_picture(path), stored, 8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(40, 52), (40, 52, 3)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_opencv_files_are_exact(tmp_path: Path, ending: str, shape: tuple[int, ...], dtype: type) -> None:
    stored, path = noise(*shape, dtype=dtype), tmp_path / f"a.{ending}"  # its TIFF is LZW with a predictor
    assert cv2.imwrite(str(path), stored[..., ::-1] if len(shape) == 3 else stored)
    check(read_picture(path), stored, 8 * stored.itemsize)


def test_skimage_and_pillow_16_bit_grey_are_exact(tmp_path: Path) -> None:
    stored = noise(40, 52, dtype=np.uint16)
    skimage.io.imsave(tmp_path / "a.png", stored, check_contrast=False)
    check(read_picture(tmp_path / "a.png"), stored, 16)
    Image.fromarray(stored).save(tmp_path / "a.tif", compression="tiff_lzw")
    check(read_picture(tmp_path / "a.tif"), stored, 16)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(40, 52), (40, 52, 3)])
def test_tiff_layouts_are_exact(tmp_path, shape, dtype, tile, compression, byteorder) -> None:
    stored, path = noise(*shape, dtype=dtype), tmp_path / "a.tif"
    strips = None if tile else 7
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(
        path, stored, photometric=kind, tile=tile, compression=compression, byteorder=byteorder, rowsperstrip=strips
    )
    check(read_picture(path), stored, 8 * stored.itemsize)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_uncompressed_colour_planes_and_big_tiff_are_exact(tmp_path: Path, dtype: type) -> None:
    stored, path = noise(40, 52, 3, dtype=dtype), tmp_path / "a.tif"
    planes = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", bigtiff=True)
    check(read_picture(path), stored, 8 * stored.itemsize)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
def test_pillow_tiff_compressions_are_exact(tmp_path: Path, compression: str) -> None:
    stored = noise(40, 52, 3)
    Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression)
    check(read_picture(tmp_path / "a.tif"), stored, 8)


def test_white_at_zero_is_turned_around(tmp_path: Path) -> None:
    stored = noise(40, 52)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    check(read_picture(tmp_path / "a.tif"), 255 - stored, 8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_palette_becomes_rgb_and_one_bit_becomes_grey(tmp_path: Path, ending: str) -> None:
    palette = Image.fromarray(smooth()).quantize(17)
    palette.save(tmp_path / f"p.{ending}")
    check(read_picture(tmp_path / f"p.{ending}"), np.asarray(palette.convert("RGB")), 8)
    bits = Image.fromarray(noise(40, 52) > 99)
    bits.save(tmp_path / f"b.{ending}")
    check(read_picture(tmp_path / f"b.{ending}"), np.asarray(bits.convert("L")), 8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_agrees_with_opencv_to_rounding(tmp_path: Path, mode: str) -> None:
    Image.fromarray(smooth()).convert(mode).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    other = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_UNCHANGED)
    assert other is not None
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.pixels.shape == (len(mode), 40, 52)
    other = other if mode == "L" else other[..., ::-1]
    assert np.abs(as_stored(picture).astype(int) - other.astype(int)).max() <= 3


def test_the_first_of_several_jpegs_in_one_file_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    difference = as_stored(read_picture(tmp_path / "phone.jpg")).astype(int) - smooth().astype(int)
    assert np.abs(difference).mean() < 4


def test_the_type_is_told_from_the_bytes(tmp_path: Path) -> None:
    stored = noise(40, 52, 3)
    Image.fromarray(stored).save(tmp_path / "a.jpg", format="PNG")
    check(read_picture(str(tmp_path / "a.jpg")), stored, 8)


def test_full_scale_is_exactly_one(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        top = np.full((20, 20), np.iinfo(dtype).max, dtype)
        top[0, 0] = 0
        cv2.imwrite(str(tmp_path / "a.png"), top)
        pixels = read_picture(tmp_path / "a.png").pixels
        assert (pixels.min(), pixels.max()) == (0.0, 1.0)


def test_checksum_and_profile_are_those_of_the_file(tmp_path: Path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for ending in ("png", "jpg", "tif", "webp"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(smooth()).save(path, icc_profile=icc)
        picture = read_picture(path)
        assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert picture.path == path
        assert picture.icc == icc
    tifffile.imwrite(tmp_path / "deep.tif", noise(40, 52, 3, dtype=np.uint16), photometric="rgb", iccprofile=icc)
    assert read_picture(tmp_path / "deep.tif").icc == icc


def test_a_float_file_may_overshoot_a_little(tmp_path: Path) -> None:
    stored = noise(40, 52, dtype=np.float32)
    stored[0, 0], stored[0, 1] = FLOAT_RANGE
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    check(read_picture(tmp_path / "a.tif"), stored, 32)


# Orientation, against Pillow's own turning


def turned(stored: Array, orientation: int) -> Array:
    image = Image.fromarray(stored)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "tif"])
def test_8_bit_pictures_come_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    stored, path = smooth(), tmp_path / f"a.{ending}"
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(ending, {})
    image.save(path, exif=exif, **options)
    found = as_stored(read_picture(path))
    expected = turned(stored, orientation)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= (4 if ending == "jpg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_comes_upright(tmp_path: Path, byteorder: str, compression: str | None, orientation: int) -> None:
    stored, path = noise(40, 52, 3, dtype=np.uint16), tmp_path / "a.tif"
    tags = [(ORIENTATION, 3, 1, orientation, True)]
    tifffile.imwrite(path, stored, photometric="rgb", compression=compression, byteorder=byteorder, extratags=tags)
    channels = [turned(stored[..., c].astype(np.int32), orientation) for c in range(3)]
    check(read_picture(path), np.stack(channels, -1), 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("behind_the_pixels", [False, True])
def test_16_bit_png_comes_upright(tmp_path: Path, behind_the_pixels: bool, orientation: int) -> None:
    stored, path = noise(40, 52, dtype=np.uint16), tmp_path / "a.png"
    cv2.imwrite(str(path), stored)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    place = len(path.read_bytes()) - 12 if behind_the_pixels else 33
    png_with(path, b"eXIf", exif.tobytes()[6:], place)
    check(read_picture(path), turned(stored.astype(np.int32), orientation), 16)


def test_an_orientation_that_means_nothing_is_read_as_upright(tmp_path: Path) -> None:
    stored = noise(40, 52, 3, dtype=np.uint16)
    tags = [(ORIENTATION, 3, 1, 9, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=tags)
    check(read_picture(tmp_path / "a.tif"), stored, 16)


# Refusals: (name, maker, words that say what came, words that say what to do)


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is not a picture, whatever its name says\n")


def pillow(array: Array, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array).save(path, **options)


def tiff(array: Array, **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, array, **options)


def cut(make: Callable[[Path], None], keep: float) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])

    return made


def opencv(array: Array) -> Callable[[Path], None]:
    return lambda path: cv2.imwrite(str(path), array)


def cmyk(path: Path) -> None:
    Image.fromarray(smooth()).convert("CMYK").save(path)


def animated(path: Path) -> None:
    frames = [Image.fromarray(noise(40, 52, 3, seed=k)) for k in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def see_through_palette(path: Path) -> None:
    Image.fromarray(smooth()).quantize(8).save(path, transparency=3)


def see_through_colour(path: Path) -> None:
    opencv(noise(40, 52, 3, dtype=np.uint16))(path)
    png_with(path, b"tRNS", bytes(6))


def odd_tag(path: Path) -> None:
    """The width as a fraction: tifffile hands on what it finds."""
    tifffile.imwrite(path, rgb16, photometric="rgb")
    with tifffile.TiffFile(path) as opened:
        entry = opened.pages.first.tags["ImageWidth"].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<HII", data, entry + 2, tifffile.DATATYPE.RATIONAL, 1, 8)
    path.write_bytes(data)


def spoilt_float(value: float) -> Callable[[Path], None]:
    array = noise(40, 52, dtype=np.float32)
    array[3, 4] = value
    return tiff(array, photometric="minisblack")


def broken_checksum(path: Path) -> None:
    opencv(noise(40, 52, 3, dtype=np.uint16))(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def broken_deflate(dtype: type) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        array = noise(40, 52, 3, dtype=dtype)
        tifffile.imwrite(path, array, photometric="rgb", compression="zlib", rowsperstrip=7)
        with tifffile.TiffFile(path) as opened:
            start = opened.pages.first.dataoffsets[2]
        data = bytearray(path.read_bytes())
        data[start + 20 : start + 200] = bytes(180)
        path.write_bytes(data)

    return made


def vast_png(path: Path) -> None:
    """A header of 20000 x 20000 with no pixels behind it: decoding it would end in another sentence."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""))


def vast_tiff(path: Path) -> None:
    """A header alone, which tifffile writes first."""
    tifffile.memmap(path, shape=(20_000, 20_000), dtype=np.uint8, photometric="minisblack").flush()
    os.truncate(path, 1000)


def vast_webp(path: Path) -> None:
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_382).to_bytes(3, "little") * 2
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def vast_bmp(path: Path) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)


def vast_jpeg(path: Path) -> None:
    Image.fromarray(smooth()).save(path, format="JPEG")
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    path.write_bytes(data)


def short_png(bits: int, interlaced: bool) -> Callable[[Path], None]:
    """A PNG whose chunks are all sound, with one row fewer than its header says."""

    def made(path: Path) -> None:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, bits, 2, 0, 0, int(interlaced)))
        step = 2 if interlaced else 1  # the last pass holds every other row, whole
        rows = bytes((40 // step - 1) * (1 + 40 * 3 * bits // 8))
        before = bytes(
            sum(h * (1 + w * 3 * bits // 8) for w, h in [(5, 5), (5, 5), (10, 5), (10, 10), (20, 10), (20, 20)])
        )
        data = zlib.compress(before + rows if interlaced else rows)
        body = png_chunk(b"IDAT", data[:10]) + png_chunk(b"IDAT", data[10:]) + png_chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)

    return made


rgba, rgb16 = noise(40, 52, 4), noise(40, 52, 3, dtype=np.uint16)
REFUSED = [
    ("missing.png", missing, "nothing of this name", "check its spelling"),
    ("empty.png", empty, "an empty file", "export the picture again"),
    ("text.png", text, "first bytes are none of these", "export the picture as PNG"),
    ("moving.gif", pillow(smooth()), "first bytes are none of these", "export the picture as PNG"),
    ("cut.jpg", cut(pillow(smooth(200, 300)), 0.6), "cut-off", "export it again"),
    ("cut.png", cut(pillow(noise(40, 52, 3)), 0.6), "cut-off", "export it again"),
    ("stub.png", cut(pillow(noise(40, 52, 3)), 0.002), "cut-off", "export it again"),
    ("cut16.png", cut(opencv(rgb16), 0.6), "cut-off", "export it again"),
    ("end16.png", cut(opencv(rgb16), 0.9999), "cut-off", "export it again"),
    ("cut.bmp", cut(pillow(noise(40, 52, 3)), 0.6), "cut-off", "export it again"),
    ("cut.webp", cut(pillow(noise(40, 52, 3)), 0.6), "cut-off", "export it again"),
    ("stub.webp", cut(pillow(noise(40, 52, 3), lossless=True), 0.004), "cut-off", "export it again"),
    ("cut.tif", cut(tiff(noise(40, 52, 3), photometric="rgb"), 0.6), "cut-off", "export it again"),
    ("cut16.tif", cut(tiff(rgb16, photometric="rgb"), 0.6), "cut-off", "export it again"),
    ("cutz.tif", cut(tiff(rgb16, photometric="rgb", compression="zlib"), 0.6), "cut-off", "export it again"),
    ("stub.tif", cut(tiff(rgb16, photometric="rgb"), 0.001), "cut-off", "export it again"),
    ("short.png", short_png(8, False), "cut-off", "export it again"),
    ("short16.png", short_png(16, False), "cut-off", "export it again"),
    ("interlaced.png", short_png(8, True), "cut-off", "export it again"),
    ("interlaced16.png", short_png(16, True), "cut-off", "export it again"),
    ("checksum16.png", broken_checksum, "damaged", "export it again"),
    ("deflate8.tif", broken_deflate(np.uint8), "damaged", "export it again"),
    ("deflate16.tif", broken_deflate(np.uint16), "damaged", "export it again"),
    ("tag.tif", odd_tag, "damaged", "export it again"),
    ("alpha.png", pillow(rgba), "transparency", "flatten"),
    ("alpha.webp", pillow(rgba), "transparency", "flatten"),
    ("alpha16.png", opencv(noise(40, 52, 4, dtype=np.uint16)), "transparency", "flatten"),
    ("alpha.tif", pillow(rgba), "transparency", "flatten"),
    ("alpha16.tif", tiff(rgba.astype(np.uint16), photometric="rgb", extrasamples=[2]), "transparency", "flatten"),
    ("greyalpha.png", pillow(noise(40, 52, 2)), "transparency", "flatten"),
    ("palette.png", see_through_palette, "transparency", "flatten"),
    ("colour16.png", see_through_colour, "transparency", "flatten"),
    ("cmyk.jpg", cmyk, "CMYK", "convert the picture to RGB"),
    ("cmyk.tif", cmyk, "CMYK", "convert the picture to RGB"),
    ("moving.png", animated, "2 frames", "save the frame you want"),
    ("moving.webp", animated, "2 frames", "save the frame you want"),
    ("pages.tif", animated, "2 pages", "save the page you want"),
    ("nan.tif", spoilt_float(float("nan")), "NaN or infinity", "mask these pixels"),
    ("inf.tif", spoilt_float(float("inf")), "NaN or infinity", "mask these pixels"),
    ("bytes.tif", spoilt_float(255.0), "255", "rescale the picture to [0, 1]"),
    ("signed.tif", spoilt_float(-1.0), "-1", "rescale the picture to [0, 1]"),
    ("double.tif", tiff(noise(40, 52, dtype=np.float64), photometric="minisblack"), "float64", "export"),
    ("int16.tif", tiff(noise(40, 52, dtype=np.int16), photometric="minisblack"), "int16", "export"),
    ("int8.tif", tiff(noise(40, 52, dtype=np.int8), photometric="minisblack"), "int8", "export"),
    ("white16.tif", tiff(rgb16[..., 0].copy(), photometric="miniswhite"), "photometric", "export"),
    ("two.tif", tiff(noise(40, 52, 2), photometric="minisblack", planarconfig="contig"), "transparency", "flatten"),
    (
        "planes.tif",
        tiff(np.moveaxis(rgb16, -1, 0).copy(), photometric="rgb", planarconfig="separate", compression="zlib"),
        "planes",
        "without compression",
    ),
    (
        "volume.tif",
        tiff(noise(4, 48, 64), photometric="minisblack", volumetric=True, tile=(4, 16, 16)),
        "volume",
        "slice",
    ),
    ("tiny.png", pillow(noise(MIN_SIDE - 1, 600)), "600 x 15", "larger"),
    ("vast.png", vast_png, "20000 x 20000 = 400", "smaller"),
    ("vast.tif", vast_tiff, "20000 x 20000 = 400", "smaller"),
    ("vast.webp", vast_webp, "16383 x 16383 = 268", "smaller"),
    ("vast.bmp", vast_bmp, "20000 x 20000 = 400", "smaller"),
    ("vast.jpg", vast_jpeg, "20000 x 20000 = 400", "smaller"),
]


@pytest.mark.parametrize(("name", "make", "got", "do"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_bad_file_gets_one_sentence(tmp_path: Path, name: str, make: Callable, got: str, do: str) -> None:
    path = tmp_path / name
    make(path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ReadError) as caught:
        read_picture(path)
    sentence = str(caught.value)
    assert name in sentence
    assert "expected " in sentence
    assert got in sentence
    assert do in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_a_pipe_and_an_impossible_name_get_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    cases = [(tmp_path, "a folder"), (tmp_path / "pipe.png", "a pipe"), (tmp_path / ("x" * 300), "too long")]
    for path, got in [*cases, (Path("a\0b.png"), "null"), (tmp_path / "pipe.png" / "a.png", "directory")]:
        with pytest.raises(ReadError, match=got):
            read_picture(path)


def test_a_file_that_may_not_be_read_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow(smooth())(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadError, match=r"a\.png.*Permission denied.*permissions"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("make", [vast_png, vast_tiff, vast_webp, vast_bmp, vast_jpeg])
def test_a_vast_picture_is_refused_before_it_is_decoded(tmp_path: Path, make: Callable[[Path], None]) -> None:
    resource = pytest.importorskip("resource")
    make(tmp_path / "vast")
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(ReadError):
        read_picture(tmp_path / "vast")
    assert time.perf_counter() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; the pixels would take 400 000


def test_a_vast_picture_leaves_stderr_to_the_sentence(tmp_path: Path) -> None:
    """Pillow's own guard would print a warning here, or raise past us."""
    for name, side in (("warns.png", 10_000), ("raises.png", 20_000)):
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        body = header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        code = (
            "import sys\nfrom app.pictures import read_picture\nfrom operators.errors import ReadError\n"
            "try:\n    read_picture(sys.argv[1])\nexcept ReadError as error:\n    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        assert "megapixels" in done.stdout
        assert done.stderr == ""


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    pillow(smooth())(tmp_path / "a.png")
    read_picture(tmp_path / "a.png", max_pixels=40 * 52)
    with pytest.raises(ReadError, match="at most"):
        read_picture(tmp_path / "a.png", max_pixels=40 * 52 - 1)
    assert MAX_PIXELS == 64_000_000


def test_the_smallest_side_is_still_read(tmp_path: Path) -> None:
    stored = noise(MIN_SIDE, MIN_SIDE)
    pillow(stored)(tmp_path / "a.png")
    check(read_picture(tmp_path / "a.png"), stored, 8)


def sample_files() -> list[tuple[str, bytes]]:
    """One small file per decoder, to be damaged at random."""
    found = []
    for ending, options in (("PNG", {}), ("JPEG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        memory = io.BytesIO()
        Image.fromarray(smooth(20, 24)).save(memory, ending, **options)
        found.append((ending, memory.getvalue()))
    for compression in (None, "zlib"):
        memory = io.BytesIO()
        tifffile.imwrite(memory, noise(20, 24, 3, dtype=np.uint16), photometric="rgb", compression=compression)
        found.append((f"16-bit TIFF {compression}", memory.getvalue()))
    found.append(("16-bit PNG", cv2.imencode(".png", noise(20, 24, 3, dtype=np.uint16))[1].tobytes()))
    return found


@pytest.mark.parametrize("sample", sample_files(), ids=lambda sample: sample[0])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_ends_in_a_picture_or_a_sentence(tmp_path: Path, sample: tuple[str, bytes], data) -> None:
    spoilt = bytearray(sample[1])
    # Headers are where parsers break, so half of the hits go there.
    place = st.one_of(st.integers(0, min(200, len(spoilt) - 1)), st.integers(0, len(spoilt) - 1))
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=6)):
        spoilt[at] = value
    path = tmp_path / "spoilt"
    path.write_bytes(spoilt[: data.draw(st.integers(1, len(spoilt)))] if data.draw(st.booleans()) else spoilt)
    try:
        picture = read_picture(path, max_pixels=1_000_000)
    except ReadError as error:
        sentence = str(error)
    else:
        sentence = "spoilt: expected nothing less, got a picture."
        assert bool(torch.isfinite(picture.pixels).all())
        assert picture.pixels.shape[0] in (1, 3)
    assert "spoilt: expected " in sentence


# Writing


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(MIN_SIDE, 40),
    width=st.integers(MIN_SIDE, 40),
    bits=st.sampled_from([8, 16]),
    ending=st.sampled_from(["png", "tif", "tiff", "PNG"]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, channels, height, width, bits, ending, seed) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    levels = noise(channels, height, width, dtype=dtype, seed=seed)
    pixels = torch.from_numpy(levels.astype(np.float32) / np.float32(2**bits - 1))
    path = tmp_path / f"a.{ending}"
    write_picture(path, pixels, bits)
    picture = read_picture(path)
    assert picture.bits == bits
    assert torch.equal(picture.pixels, pixels)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    path.unlink()


@pytest.mark.parametrize("bits", [8, 16])
def test_encoded_and_written_pictures_are_the_same_bytes(tmp_path: Path, bits: int) -> None:
    pixels = torch.from_numpy(noise(3, 40, 52, dtype=np.float32))
    write_picture(tmp_path / "a.png", pixels, bits, icc=b"profile")
    assert encode_png(pixels, bits, icc=b"profile") == (tmp_path / "a.png").read_bytes()


def test_every_16_bit_level_survives_in_any_float(tmp_path: Path) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    for dtype in (torch.float32, torch.float64):
        pixels = torch.from_numpy(levels.astype(np.float64) / 65535).to(dtype)
        write_picture(tmp_path / "a.png", pixels, 16)
        check(read_picture(tmp_path / "a.png"), levels[0], 16)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_other_libraries_read_what_is_written(tmp_path: Path, ending: str, bits: int) -> None:
    pixels = torch.from_numpy(noise(3, 40, 52, dtype=np.float32))
    write_picture(tmp_path / f"a.{ending}", pixels, bits)
    expected = np.moveaxis((pixels.numpy() * (2**bits - 1)).round(), 0, -1)
    other = cv2.imread(str(tmp_path / f"a.{ending}"), cv2.IMREAD_UNCHANGED)
    assert other is not None
    np.testing.assert_array_equal(other[..., ::-1], expected)
    with Image.open(tmp_path / f"a.{ending}") as image:
        image.load()
        assert image.size == (52, 40)


def test_the_written_picture_is_clipped_and_rounded(tmp_path: Path) -> None:
    pixels = torch.zeros(1, 16, 16)
    pixels[0, 0, :5] = torch.tensor([-0.3, 1.7, 0.5 / 255 + 1e-4, 1.4 / 255, 254.6 / 255])
    write_picture(tmp_path / "a.png", pixels)
    assert as_stored(read_picture(tmp_path / "a.png"))[0, :5].tolist() == [0, 255, 1, 1, 255]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_profile_is_embedded(tmp_path: Path, ending: str, bits: int) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / f"a.{ending}"
    write_picture(path, torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0)), bits, icc=icc)
    assert read_picture(path).icc == icc
    with Image.open(path) as image:
        assert image.info["icc_profile"] == icc


GREY = torch.zeros(1, 20, 20)


@pytest.mark.parametrize(
    ("name", "pixels", "bits", "kind", "words"),
    [
        ("a.jpg", GREY, 8, WriteError, "'.jpg'; change the ending"),
        ("a", GREY, 8, WriteError, "''; change the ending"),
        ("a.png", GREY, 32, WriteError, "got 32"),
        ("a.png", GREY * float("nan"), 8, WriteError, "NaN or infinity"),
        ("a.png", GREY.to(torch.uint8), 8, ShapeError, "uint8"),
        ("a.png", GREY[0], 8, ShapeError, "(20, 20)"),
        ("a.png", GREY.expand(2, 20, 20), 8, ShapeError, "(2, 20, 20)"),
        ("a.png", GREY[:, :0], 8, ShapeError, "(1, 0, 20)"),
        ("nowhere/a.png", GREY, 8, WriteError, "choose a folder you may write to"),
    ],
)
def test_what_cannot_be_written_gets_a_sentence_and_leaves_nothing(tmp_path, name, pixels, bits, kind, words) -> None:
    with pytest.raises(kind) as caught:
        write_picture(tmp_path / name, pixels, bits)
    assert name in str(caught.value)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(WriteError, match=r"a\.png.*directory"):
        write_picture(tmp_path / "a.png", GREY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "a.png", GREY)
    old = (tmp_path / "a.png").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        write_picture(tmp_path / "a.png", GREY + 1)
    assert (tmp_path / "a.png").read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_the_written_file_has_the_users_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_picture(tmp_path / "a.png", GREY)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
