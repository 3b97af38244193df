"""Reading a user's mask or kernel: one plane of numbers from a picture or a numpy file, never executing anything."""

import io
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from operators.errors import ReadError
from operators.spec import DataRef

_LARGEST_BYTES = 1 << 30


def read_plane(ref: DataRef, base: Path = Path()) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The plane of numbers in a PNG, JPEG, TIFF or other picture, or in an .npy file or a one-array .npz file.

    Pictures are read as grey values from 0 (black) to 1 (white), colour channels averaged and opacity ignored; numpy
    arrays keep their numbers. Axes of length 1 are dropped.

    Returns:
        (H, W) finite numbers.

    Raises:
        ReadError: the file cannot be read, or holds anything but one plane of finite numbers.
        AssetCorrupt: the contents do not have the recorded checksum.
    """
    content = ref.read_bytes(base)
    if content[:6] == b"\x93NUMPY":
        plane = _load_numpy(ref, content)
    elif content[:2] == b"PK":
        plane = _load_archive(ref, content)
    else:
        plane = _load_picture(ref, content)
    plane = np.squeeze(plane)
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "biuf":
        raise ReadError(f"Expected one plane of numbers in {ref.path}, got {plane.dtype} {plane.shape}; convert it.")
    plane = plane.astype(np.float64)
    if not np.isfinite(plane).all():
        raise ReadError(f"Expected finite numbers in {ref.path}, got NaN or infinity; clean the file.")
    return plane


def _load_picture(ref: DataRef, content: bytes) -> np.ndarray[Any, Any]:
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error as error:
        raise ReadError(f"Expected a picture in {ref.path}, got one too large to decode; use a smaller one.") from error
    if picture is None:
        raise ReadError(f"Expected a picture or a numpy file in {ref.path}, got neither; save it as PNG or .npy.")
    white = 256.0**picture.dtype.itemsize - 1 if picture.dtype.kind in "iu" else 1.0
    grey = picture.astype(np.float64) / white
    # an even number of channels ends in opacity (grey + alpha, or BGR + alpha)
    return grey if grey.ndim == 2 else grey[..., : grey.shape[-1] - (grey.shape[-1] + 1) % 2].mean(-1)


def _load_numpy(ref: DataRef, content: bytes) -> np.ndarray[Any, Any]:
    try:
        loaded: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ReadError(f"Expected plain numbers in {ref.path}, got an unreadable array; save it again.") from error
    return loaded


def _load_archive(ref: DataRef, content: bytes) -> np.ndarray[Any, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # checked before reading: a small archive can unpack to more than the machine holds
            if len(members) != 1 or members[0].file_size > _LARGEST_BYTES:
                raise ReadError(f"Expected one array below 1 GiB in {ref.path}, got others; save that array alone.")
            return _load_numpy(ref, archive.read(members[0]))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ReadError(f"Expected an .npz file in {ref.path}, got a damaged archive; save it again.") from error
