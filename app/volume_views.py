"""Volumes for a page to look at: int16 voxels in a file, and a description of them (`docs/api.md`, views)."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medical.volume import Volume
from operators.errors import ShapeError

MAX_VOXELS = 1 << 28
"""Most voxels that a browser is given: half a gigabyte an image."""

_LEVELS = 65534
_LIMITS = np.iinfo(np.int16)


class _Out(Protocol):
    def write(self, content: bytes, /) -> Any: ...


Role = Literal["image", "overlay"]


def volume_view(
    name: str, title: str, numbers: NDArray[Any], volume: Volume, folder: Path, role: Role = "image", *, packed: bool
) -> dict[str, Any]:
    """Write numbers on the grid of a volume as `{name}.raw` or `{name}.raw.gz`, and describe them.

    Whole numbers that fit are kept; others are rounded to one of 65535 steps from the smallest to the largest. Of
    several volumes (I, J, K, T) the first is shown, of complex numbers the magnitude.

    Args:
        name: of the file.
        title: for people.
        numbers: (I, J, K) or (I, J, K, T).
        volume: says where they are and what unit they have.
        folder: where the file is written.
        role: what they are to a viewer; an overlay has the mean of each axial slice as well.
        packed: with gzip.

    Raises:
        ShapeError: more voxels than a browser can be given.
    """
    first = numbers[..., 0] if numbers.ndim == 4 else numbers
    first = np.abs(first) if np.iscomplexobj(first) else first
    if first.size > MAX_VOXELS:
        raise ShapeError(f"Expected at most {MAX_VOXELS} voxels to look at, got {first.size}; crop the volume.")
    slope, intercept = _scale(first)
    file = folder / (f"{name}.raw.gz" if packed else f"{name}.raw")
    with file.open("wb") as plain:
        if packed:  # level 1: higher ones take much longer for a few percent
            with gzip.GzipFile(fileobj=plain, mode="wb", compresslevel=1, mtime=0) as out:
                _write(first, slope, intercept, out)
        else:
            _write(first, slope, intercept, plain)
    return {
        "name": name,
        "title": title,
        "alt": f"{title}: {'x'.join(map(str, first.shape))} voxels",
        "file": file.name,
        "shape": list(first.shape),
        "affine": volume.affine.tolist(),
        "dtype": "int16",
        "slope": slope,
        "intercept": intercept,
        "unit": volume.unit,
        "window": None,
        "role": role,
        "per_slice": _per_slice(first, volume) if role == "overlay" else None,
    }


def _scale(numbers: NDArray[Any]) -> tuple[float, float]:
    low, high = float(numbers.min()), float(numbers.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ShapeError("Expected finite numbers to look at, got NaN or infinity; look at the file.")
    whole = low >= _LIMITS.min and high <= _LIMITS.max
    if whole and all(np.array_equal(part, np.rint(part)) for part in _blocks(numbers)):
        return 1.0, 0.0
    slope = (high - low) / _LEVELS
    return (slope, low + slope * _LEVELS / 2) if slope > 0 else (1.0, low)


def _write(numbers: NDArray[Any], slope: float, intercept: float, out: _Out) -> None:
    """The first axis fastest."""
    for block in _blocks(numbers):
        stored = block if (slope, intercept) == (1.0, 0.0) else np.rint((block - np.float64(intercept)) / slope)
        out.write(np.clip(stored, _LIMITS.min, _LIMITS.max).astype("<i2").tobytes())


def _blocks(numbers: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some slices at a time, (K, J, I): no second copy of a large volume, and whole lines of memory at once."""
    for k in range(0, numbers.shape[2], 16):
        yield np.ascontiguousarray(numbers[:, :, k : k + 16].transpose(2, 1, 0))


def _per_slice(numbers: NDArray[Any], volume: Volume) -> list[float]:
    """The mean of each slice across the stored axis that leads most nearly from feet to head."""
    axis = next(a for a, letter in enumerate(volume.orientation) if letter in "IS")
    others = tuple(a for a in range(3) if a != axis)
    return [round(float(v), 6) for v in numbers.mean(others, dtype=np.float64)]
