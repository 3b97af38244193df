"""Reading a user's mask or kernel: one plane of numbers from a picture or a numpy file, never executing anything."""

import io
import warnings
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from operators.errors import ReadError
from operators.spec import DataRef

MAX_PIXELS = 64_000_000
"""Largest picture or array read unless the caller says otherwise: 768 MB as three float32 channels."""

_LARGEST_BYTES = 1 << 30


def read_plane(ref: DataRef, base: Path = Path()) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The plane of numbers in a PNG, JPEG, TIFF or other picture, or in an .npy file or a one-array .npz file.

    Pictures are read as grey values from 0 (black) to 1 (white), colour channels averaged and opacity ignored; numpy
    arrays keep their numbers. Axes of length 1 are dropped. Sizes are checked before anything is decoded.

    Returns:
        (H, W) finite numbers.

    Raises:
        ReadError: the file cannot be read, holds more than `MAX_PIXELS` numbers or anything but one plane of finite
            numbers.
        AssetCorrupt: the contents do not have the recorded checksum.
    """
    path = ref.resolve(base)
    if path.is_file() and path.stat().st_size > _LARGEST_BYTES:
        raise ReadError(f"Expected a file below 1 GiB at {ref.path}, got a larger one; use a smaller mask or kernel.")
    content = ref.read_bytes(base)
    if content[:6] == b"\x93NUMPY":
        plane = _load_numpy(ref, io.BytesIO(content))
    elif content[:2] == b"PK":
        plane = _load_archive(ref, content)
    else:
        plane = _load_picture(ref, content)
    while plane.ndim > 2 and 1 in plane.shape:
        plane = plane.squeeze(plane.shape.index(1))
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "biuf":
        raise ReadError(f"Expected one plane of numbers in {ref.path}, got {plane.dtype} {plane.shape}; convert it.")
    plane = plane.astype(np.float64, copy=False)
    if not np.isfinite(plane).all():
        raise ReadError(f"Expected finite numbers in {ref.path}, got NaN or infinity; clean the file.")
    return plane


def read_array(ref: DataRef, base: Path = Path()) -> np.ndarray[Any, Any]:
    """The finite numbers, real or complex and of any shape, in an .npy file or a one-array .npz file.

    Raises:
        ReadError: the file cannot be read, holds more than `MAX_PIXELS` numbers or anything but finite numbers.
        AssetCorrupt: the contents do not have the recorded checksum.
    """
    path = ref.resolve(base)
    if path.is_file() and path.stat().st_size > _LARGEST_BYTES:
        raise ReadError(f"Expected a file below 1 GiB at {ref.path}, got a larger one; save a part of it.")
    content = ref.read_bytes(base)
    array = _load_archive(ref, content) if content[:2] == b"PK" else _load_numpy(ref, io.BytesIO(content))
    if array.size == 0 or array.dtype.kind not in "biufc" or not np.isfinite(array).all():
        raise ReadError(f"Expected finite numbers in {ref.path}, got {array.dtype} {array.shape}; clean the file.")
    return array


def _load_picture(ref: DataRef, content: bytes) -> np.ndarray[Any, Any]:
    width, height = _picture_size(ref, content)
    _check_count(ref, (height, width))
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ReadError(f"Expected a picture in {ref.path}, got one too large to decode; use a smaller one.") from error
    if picture is None:
        raise _no_picture(ref)
    white = 256.0**picture.dtype.itemsize - 1 if picture.dtype.kind in "iu" else 1.0
    if picture.ndim == 3:
        # an even number of channels ends in opacity (grey + alpha, or BGR + alpha)
        colours = picture[..., : picture.shape[-1] - (picture.shape[-1] + 1) % 2]
        picture = colours.mean(-1, dtype=np.float64)
    return picture / white


def _picture_size(ref: DataRef, content: bytes) -> tuple[int, int]:
    """Width and height from the header."""
    try:
        if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # Pillow does not know all its number types
            with tifffile.TiffFile(io.BytesIO(content)) as tiff:
                page = tiff.pages.first
                return int(page.imagewidth), int(page.imagelength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            with Image.open(io.BytesIO(content)) as image:
                return image.size
    except Image.DecompressionBombError as error:
        raise _too_large(ref, "far more") from error
    except Exception as error:  # what decoders raise on a stranger's bytes is no contract
        raise _no_picture(ref) from error


def _load_numpy(ref: DataRef, file: IO[bytes]) -> np.ndarray[Any, Any]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _check_count(ref, read(file)[0])
        file.seek(0)
        loaded: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ReadError(f"Expected plain numbers in {ref.path}, got an unreadable array; save it again.") from error
    return loaded


def _load_archive(ref: DataRef, content: bytes) -> np.ndarray[Any, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # checked before reading: a small archive can unpack to more than the machine holds
            if len(members) != 1 or members[0].file_size > _LARGEST_BYTES:
                raise ReadError(f"Expected one array below 1 GiB in {ref.path}, got others; save that array alone.")
            with archive.open(members[0]) as file:
                return _load_numpy(ref, file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ReadError(f"Expected an .npz file in {ref.path}, got a damaged archive; save it again.") from error


def _check_count(ref: DataRef, shape: tuple[int, ...]) -> None:
    if prod(shape) > MAX_PIXELS:
        raise _too_large(ref, f"{prod(shape) / 1e6:g}")


def _too_large(ref: DataRef, millions: str) -> ReadError:
    return ReadError(
        f"Expected at most {MAX_PIXELS / 1e6:g} megapixels in {ref.path}, got {millions}; use a smaller mask or kernel."
    )


def _no_picture(ref: DataRef) -> ReadError:
    return ReadError(f"Expected a picture or a numpy file in {ref.path}, got neither; save it as PNG or .npy.")
