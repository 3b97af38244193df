"""Reading and writing photographs, exactly, or with one sentence that says why not.

Nothing is repaired in passing: transparency, CMYK, animation and broken data are refused rather than guessed at,
because a measurement model is only right for the numbers that were really recorded.
"""

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.picture_files import cannot_open, check_file, decode, png_bytes, tiff_bytes, to_unit, upright
from operators.errors import ShapeError, WriteError
from operators.files import MAX_PIXELS


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph as it was recorded, upright.

    Attributes:
        pixels: (C, H, W) float32 with C = 1 or 3, unit range: [0, 1] for integer files, `FLOAT_RANGE` for float files.
        bits: bits per channel in the file: 8, 16 or 32 (float).
        path: where it was read.
        sha256: checksum of the file, in hexadecimal.
        icc: colour profile of the file as it stands, or None; carried along, never applied.
    """

    pixels: Tensor
    bits: int
    path: Path
    sha256: str
    icc: bytes | None


def read_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, TIFF, BMP or WebP picture of 8 or 16 bits, or a float32 TIFF.

    The type is told from the first bytes, not from the name. Of a JPEG that holds several pictures (a phone's gain or
    depth map) the first, the photograph, is read.

    Raises:
        ReadError: the file is missing, damaged, of another kind, too small or too large. Sizes are checked on the
            header, before any pixel is decoded.
    """
    path = Path(path)
    check_file(path)
    try:
        with path.open("rb") as file:
            stored = decode(path, file, max_pixels)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_open(path, error) from error
    pixels = torch.from_numpy(to_unit(path, upright(stored.pixels, stored.orientation)))
    return Picture(pixels, 8 * stored.pixels.dtype.itemsize, path, digest, stored.icc)


def write_picture(
    path: str | os.PathLike[str], pixels: Tensor, bits: Literal[8, 16] = 8, *, icc: bytes | None = None
) -> None:
    """Write a picture as PNG or TIFF, by the name's ending; the file appears whole or not at all.

    The written picture is clipped to [0, 1] and rounded; a result's exact values are in its `samples.npz`.

    Args:
        path: file to write, ending in .png, .tif or .tiff; an existing file is replaced.
        pixels: (C, H, W) with C = 1 or 3, any float dtype, unit range.
        bits: 8 or 16 bits per channel.
        icc: colour profile to embed, normally the one of the picture that was read.

    Raises:
        ShapeError: `pixels` is not a picture.
        WriteError: another ending, another depth, numbers that are not finite, or a disk that refuses.
    """
    path = Path(path)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0 or not pixels.is_floating_point():
        raise ShapeError(
            f"{path}: expected float pixels (C, H, W) with 1 or 3 channels, "
            f"got {pixels.dtype} {tuple(pixels.shape)}; write one picture at a time."
        )
    if bits not in (8, 16):
        raise _unwritable(path, "8 or 16 bits per channel", f"{bits}", "choose one of the two")
    ending = path.suffix.lower()
    if ending not in (".png", ".tif", ".tiff"):
        raise _unwritable(path, "a name ending in .png, .tif or .tiff", f"'{path.suffix}'", "change the ending")
    if not bool(torch.isfinite(pixels).all()):
        raise _unwritable(path, "finite numbers", "NaN or infinity", "look for the step that produced them")
    array = _to_integers(pixels, bits)
    _write_whole(path, png_bytes(array, icc) if ending == ".png" else tiff_bytes(array, icc))


def encode_png(pixels: Tensor, bits: Literal[8, 16] = 8, *, icc: bytes | None = None) -> bytes:
    """The bytes of the PNG file that `write_picture` would write; pixels (C, H, W) with C = 1 or 3, finite."""
    return png_bytes(_to_integers(pixels, bits), icc)


def encode_tiff(pixels: Tensor, bits: Literal[8, 16, 32] = 8, *, icc: bytes | None = None) -> bytes:
    """The bytes of a TIFF file; with 32 bits as float, neither rounded nor clipped. Pixels as for `encode_png`."""
    if bits == 32:
        array = pixels.detach().to("cpu", torch.float32).numpy()
        return tiff_bytes(array[0] if len(array) == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1)), icc)
    return tiff_bytes(_to_integers(pixels, bits), icc)


# Writing


def _to_integers(pixels: Tensor, bits: Literal[8, 16]) -> NDArray[Any]:
    scaled = pixels.detach().to("cpu", torch.float32).clamp(0, 1).mul(2**bits - 1).round()
    array = scaled.numpy().astype(np.uint8 if bits == 8 else np.uint16)
    return array[0] if array.shape[0] == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1))


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f".preimage-{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on empty blocks
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise _unwritable(path, "a place to write to", f"'{reason}'", "choose a folder you may write to") from error


def _unwritable(path: Path, expected: str, got: str, do: str) -> WriteError:
    return WriteError(f"{path}: expected {expected}, got {got}; {do}.")
