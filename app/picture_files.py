"""Picture files: what kind a file is, its stored numbers, exactly or not at all, and the bytes of a new file.

The type is told from the first bytes, sizes are checked on the header before any pixel is decoded, and whatever a
decoder raises becomes one sentence about the file.
"""

import contextlib
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from operators.errors import PreimageError, ReadError

MIN_SIDE = 16
"""Smallest usable side in pixels; below this a network sees little but its own padding."""

MAX_BYTES = 1 << 30
"""Largest file opened; an uncompressed float picture of `MAX_PIXELS` still fits."""

FLOAT_RANGE = (-0.25, 1.25)
"""What passes for unit range in a float file: overshoot of an earlier restoration, but neither [-1,1] nor [0,255]."""

ORIENTATION = 274
"""EXIF tag: which way up the camera was."""

_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_ACCEPTED_MODES = frozenset({"1", "L", "P", "RGB"})
_KINDS = "a PNG, JPEG, TIFF, BMP or WebP picture"

_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""Passes of an interlaced PNG: x and y of the first pixel, and the steps in x and y to the next."""

# The format classes are called directly, not through Image.open: that one measures the picture against a limit of its
# own, a global, and warns on stderr. Here the limit is the caller's and is checked on the header alone.
_Opener = Callable[[BinaryIO], ImageFile]
OPENERS: dict[str, _Opener] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "WebP": WebPImageFile,
}


# Reading


def check_file(path: Path) -> None:
    """A regular file that is not empty and not too large, or a ReadError."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise unreadable(path, "a picture file", "nothing of this name", "check its spelling") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise cannot_open(path, error) from error
    if stat.S_ISDIR(facts.st_mode):
        raise unreadable(path, "a picture file", "a folder", "name one file inside it")
    if not stat.S_ISREG(facts.st_mode):
        raise unreadable(path, "a picture file", "a device or a pipe", "save the picture to disk first")
    if facts.st_size == 0:
        raise unreadable(path, _KINDS, "an empty file", "copy or export the picture again")
    if facts.st_size > MAX_BYTES:
        got = f"{facts.st_size / 2**20:.0f} MiB"
        raise unreadable(path, f"a file of at most {MAX_BYTES >> 20} MiB", got, "crop the picture or make it smaller")


def kind_of_picture(path: Path, file: BinaryIO) -> str:
    """One of "PNG", "JPEG", "TIFF", "BMP", "WebP", by the first bytes; the file is at its start before and after."""
    head = file.read(12)
    file.seek(0)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return "WebP"
    raise unreadable(path, _KINDS, "a file whose first bytes are none of these", "export the picture as PNG")


_Decoded = tuple[NDArray[Any], int, bytes | None]
"""Stored pixels (H, W) or (H, W, 3), EXIF orientation, colour profile."""


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        pixels: (H, W) or (H, W, 3) uint8, uint16 or float32, as they are stored, not yet `upright`.
        orientation: EXIF's, 1 to 8; other numbers mean nothing.
        icc: colour profile as it stands, or None.
        kind: "PNG", "JPEG", "TIFF", "BMP" or "WebP".
    """

    pixels: NDArray[Any]
    orientation: int
    icc: bytes | None
    kind: str


def decode(path: Path, file: BinaryIO, max_pixels: int) -> Stored:
    """Everything of an open picture file; `path` is for sentences.

    Raises:
        ReadError: the file is damaged, of another kind, too small or too large, animated or transparent.
    """
    kind = kind_of_picture(path, file)
    decoder = _decode_tiff if kind == "TIFF" else _decode_common
    return Stored(*decoder(path, file, kind, max_pixels), kind)


def _decode_common(path: Path, file: BinaryIO, kind: str, max_pixels: int) -> _Decoded:
    """Everything Pillow decodes without loss; 16-bit PNG goes on to OpenCV, because Pillow would cut it to 8."""
    head = file.read(30)
    file.seek(0)
    if kind == "WebP":  # libwebp reserves the whole canvas on opening, so this header is read by hand
        check_size(path, _webp_size(path, head), max_pixels)
    with blaming_the_file(path):
        image = OPENERS[kind](file)
        frames = getattr(image, "n_frames", 1)  # Pillow gives it only to the kinds that can have several
    check_size(path, image.size, max_pixels)
    if frames > 1:
        raise unreadable(path, "one picture", f"{frames} frames", "save the frame you want as a file of its own")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        raise _transparent(path)
    deep = kind == "PNG" and head[24] == 16
    if not deep and image.mode not in _ACCEPTED_MODES:
        raise unreadable(path, "RGB or grey pixels", f"colour mode {image.mode}", "convert the picture to RGB")
    with blaming_the_file(path):
        if kind == "PNG":
            behind_header = file.tell()  # where Pillow goes on reading
            _check_rows(file)
            file.seek(behind_header)
        if deep:
            image.verify()  # checksums every chunk up to the end mark, which OpenCV does not insist on
            file.seek(0)
            stored = decode_opencv(file.read())
            file.seek(0)
            image = OPENERS[kind](file)
        else:
            image.load()
            target = {"P": "RGB", "1": "L"}.get(image.mode, image.mode)
            stored = np.asarray(image.convert(target))
        # Asked after decoding: a PNG may carry it behind the pixels, and Pillow turns a TIFF upright by itself.
        orientation = int(image.getexif().get(ORIENTATION, 1))
        if stored.shape[:2] != (image.height, image.width):
            raise ValueError("the decoder returned another size than the header announced")
    return stored, orientation, image.info.get("icc_profile")


def _decode_tiff(path: Path, file: BinaryIO, kind: str, max_pixels: int) -> _Decoded:
    """Facts by tifffile, pixels by whichever decoder is exact for them.

    Pillow is strict and complete at up to 8 bits but cuts 16-bit colour; tifffile reads plain 16-bit and float data of
    every layout; OpenCV adds the compressed ones. tifffile's own inflation is not used: it has no bound on what a
    small file may grow to.
    """
    with blaming_the_file(path), tifffile.TiffFile(file) as tiff:
        page, pages, byteorder = tiff.pages.first, len(tiff.pages), tiff.byteorder
        size = page.imagewidth, page.imagelength
        if not all(
            isinstance(fact, int) for fact in (*size, page.imagedepth, page.samplesperpixel, page.bitspersample)
        ):
            raise ValueError("a tag that must hold one whole number holds something else")
    check_size(path, size, max_pixels)
    _check_layout(path, page, pages)
    if page.bitspersample <= 8:
        file.seek(0)
        return _decode_common(path, file, kind, max_pixels)
    with blaming_the_file(path):
        _check_segments(page, os.fstat(file.fileno()).st_size)
        tag = page.tags.get(ORIENTATION)
        orientation = 1 if tag is None else int(tag.value)
        if page.compression == tifffile.COMPRESSION.NONE:
            stored = np.moveaxis(page.asarray(), 0, -1) if _in_planes(page) else page.asarray()
        else:
            file.seek(0)
            data = bytearray(file.read())
            if tag is not None:
                if tag.dtype != tifffile.DATATYPE.SHORT:
                    raise ValueError("the orientation is not stored as the standard says")
                # Some versions of OpenCV turn a TIFF upright, some do not; a copy marked upright is left alone by all.
                struct.pack_into(byteorder + "H", data, tag.valueoffset, 1)
            stored = decode_opencv(data)
        if stored.shape[:2] != size[::-1] or stored.dtype.itemsize * 8 != page.bitspersample:
            raise ValueError("the decoder returned another picture than the header announced")
    return stored, orientation, page.iccprofile


def _check_layout(path: Path, page: tifffile.TiffPage, pages: int) -> None:
    if pages > 1:
        raise unreadable(path, "one picture", f"{pages} pages", "save the page you want as a file of its own")
    if page.imagedepth > 1:
        raise unreadable(path, "a flat picture", f"a volume of {page.imagedepth} slices", "save one slice of it")
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise unreadable(path, "RGB or grey pixels", "colour mode CMYK", "convert the picture to RGB")
    colour = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if page.extrasamples or (colour and page.samplesperpixel == 4):
        raise _transparent(path)
    if page.samplesperpixel != (3 if colour else 1):
        got = f"{page.samplesperpixel} channels of photometric kind {page.photometric}"
        raise unreadable(path, "3 channels of RGB or 1 of grey", got, "export the picture again as RGB or grey")
    number = "?" if page.dtype is None else page.dtype.kind
    if number in "ub" and page.bitspersample <= 8:
        return
    if (number, page.bitspersample) not in (("u", 16), ("f", 32)):
        expected, got = "unsigned pixels of 8 or 16 bits or float of 32", f"{page.dtype} of {page.bitspersample} bits"
        raise unreadable(path, expected, got, "export the picture again as one of these")
    if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
        got = f"photometric kind {page.photometric} at {page.bitspersample} bits"
        raise unreadable(path, "RGB, or grey with black at 0", got, "export the picture again as RGB or grey")
    if _in_planes(page) and page.compression != tifffile.COMPRESSION.NONE:
        got = f"compressed colour planes of {page.bitspersample} bits"
        raise unreadable(path, "colours stored pixel by pixel", got, "save the TIFF without compression")


def _in_planes(page: tifffile.TiffPage) -> bool:
    return page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE


def decode_opencv(data: bytes | bytearray) -> NDArray[Any]:
    """(H, W) or (H, W, channels) as stored, with OpenCV's channels turned about: RGB, or opacity and RGB."""
    decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("OpenCV could not decode the pixels")
    return decoded[..., ::-1] if decoded.ndim == 3 else decoded


def _check_segments(page: tifffile.TiffPage, file_size: int) -> None:
    """A strip that is missing would be read as zeros, a black band that looks like a measurement."""
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(segments) != math.prod(page.chunked) or any(n <= 0 or start + n > file_size for start, n in segments):
        raise ValueError("strips or tiles are missing")


def _check_rows(file: BinaryIO) -> None:
    """Rows that a PNG lacks would be read as zeros, a black band that looks like a measurement.

    Source: PNG, third edition (W3C 2025), sections 5.3 (chunks), 7.2 (scanlines) and 8 (interlacing).
    """
    file.seek(8)
    inflate, found = zlib.decompressobj(), 0
    needed = None
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        if name not in (b"IHDR", b"IDAT"):
            file.seek(size + 4, os.SEEK_CUR)
            continue
        body = file.read(size)
        file.seek(4, os.SEEK_CUR)
        if name == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
            passes = [(0, 0, 1, 1)] if not interlaced else _ADAM7
            extents = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
            needed = sum(h * (1 + -(-w * pixel // 8)) for w, h in extents if w > 0)
            continue
        while body and not inflate.eof:  # in pieces: nothing bounds what a small file may grow to
            found += len(inflate.decompress(body, 1 << 20))
            body = inflate.unconsumed_tail
            if needed is not None and found >= needed:
                return
    if needed is None or found + len(inflate.flush()) < needed:
        raise ValueError("rows are missing")


def _webp_size(path: Path, head: bytes) -> tuple[int, int]:
    """Width and height from the first chunk.

    Source: RFC 9649, sections 2.5 to 2.7 (container), RFC 6386, section 9.1 (lossy key frame).
    """
    with blaming_the_file(path):
        if head[12:16] == b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        if head[12:16] == b"VP8L":
            packed = struct.unpack_from("<I", head, 21)[0]
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        if head[12:16] == b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        raise ValueError("unknown first chunk")


def check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    """Width and height within `MIN_SIDE` and `max_pixels`, or a ReadError."""
    width, height = size
    got = f"{width} x {height}"
    if min(size) < MIN_SIDE:
        raise unreadable(path, f"at least {MIN_SIDE} pixels on each side", got, "use a larger picture")
    if width * height > max_pixels:
        expected = f"at most {max_pixels / 1e6:g} megapixels"
        raise unreadable(path, expected, f"{got} = {width * height / 1e6:g}", "crop the picture or make it smaller")


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the camera's turn; values outside 1 to 8 mean nothing and are read as upright, as viewers do.

    Source: CIPA DC-008 (Exif 2.32), tag 274: the value names the visual sides of stored row 0 and column 0.
    """
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return stored


def to_unit(path: Path, stored: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W[, C]) as stored to (C, H, W) in unit range; float values off `FLOAT_RANGE` or not finite are refused."""
    channels_first = stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)
    pixels = np.array(channels_first, np.float32, order="C")
    if stored.dtype.kind == "u":
        pixels /= np.float32(np.iinfo(stored.dtype).max)
        return pixels
    low, high = float(pixels.min()), float(pixels.max())  # NaN is passed on by both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise unreadable(path, "finite float pixels", "NaN or infinity", "repair or mask these pixels first")
    if low < FLOAT_RANGE[0] or high > FLOAT_RANGE[1]:
        got = f"values from {low:g} to {high:g}"
        raise unreadable(path, "float pixels in [0, 1]", got, "rescale the picture to [0, 1] first")
    return pixels


# Writing


def png_bytes(array: NDArray[Any], icc: bytes | None) -> bytes:
    """A PNG file of (H, W) or (H, W, 3) uint8 or uint16."""
    done, encoded = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {array.dtype} {array.shape} as PNG")
    data = encoded.tobytes()
    if icc is None:
        return data
    # OpenCV has no call for the profile. Its chunk belongs right behind the header, which is always 33 bytes long.
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(icc)
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def tiff_bytes(array: NDArray[Any], icc: bytes | None) -> bytes:
    """A TIFF file of (H, W) or (H, W, 3) uint8, uint16 or float32."""
    memory = io.BytesIO()
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(memory, array, photometric=photometric, iccprofile=icc, metadata=None, software=False)
    return memory.getvalue()


# Sentences


@contextlib.contextmanager
def blaming_the_file(path: Path) -> Iterator[None]:
    """Whatever a decoder raises on a stranger's bytes is the file's fault: their exception types are not a contract."""
    try:
        yield
    except (PreimageError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(path, "a complete picture", "damaged or cut-off data", "copy or export it again") from error


def unreadable(path: Path, expected: str, got: str, do: str) -> ReadError:
    """The sentence: what was expected, what the file is, what to do."""
    return ReadError(f"{path}: expected {expected}, got {got}; {do}.")


def cannot_open(path: Path, error: OSError | ValueError) -> ReadError:
    """The sentence for a file that the system does not open."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return unreadable(path, "a file that can be opened", f"'{reason}'", "check its name and its permissions")


def _transparent(path: Path) -> ReadError:
    return unreadable(path, "RGB or grey pixels", "a transparency (alpha) channel", "flatten the picture first")
