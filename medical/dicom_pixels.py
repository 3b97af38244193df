"""Stored integers of a slice ↔ physical numbers, exactly invertible. Display settings (windows) are never applied."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from operators.errors import PreimageError, ReadError

_HINTS = {
    "1.2.840.10008.1.2.4.51": "decode it first with dcmdjpeg of dcmtk",
    "1.2.840.10008.1.2.4.57": "install preimage[dicom] for its decoder",
    "1.2.840.10008.1.2.4.70": "install preimage[dicom] for its decoder",
}

_PLUGINS = {"4.80": "pyjpegls", "4.81": "pyjpegls"} | {f"4.{syntax}": "pylibjpeg" for syntax in (90, 91, 201, 202, 203)}
"""One decoder where there are several, so that a file reads the same on every machine."""

LOSSY = frozenset({"4.50", "4.51", "4.81", "4.91", "4.93", "4.203"})
"""Ends of the transfer syntaxes that lose information, or may."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences pydicom, whose warnings and log lines quote values and so names of patients."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


@dataclass(frozen=True, eq=False)
class Encoding:
    """How the numbers of a slice are stored: value = slope · stored + intercept, after inversion where `inverted`.

    Attributes:
        low: smallest stored integer that fits.
        high: largest one.
        inverted: MONOCHROME1: small numbers are bright. They are turned round so that an X-ray looks as usual; not
            where the numbers are physical units.
        padding: stored integers from the first to the second mean "nothing was measured here".
        table: whether a look-up table takes the place of slope and intercept; such numbers cannot be written.
    """

    slope: float
    intercept: float
    low: int
    high: int
    inverted: bool
    padding: tuple[int, int] | None
    table: bool

    def padded(self, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Where nothing was measured."""
        if self.padding is None:
            return np.zeros(stored.shape, dtype=bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])

    def values(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        """Physical numbers of stored integers."""
        numbers = stored.astype(np.float64)
        if self.inverted:
            numbers = self.high + self.low - numbers
        return (numbers * self.slope + self.intercept).astype(np.float32)

    def quantised(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Stored integers nearest to physical numbers, not yet limited to those that fit."""
        numbers = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        return self.high + self.low - numbers if self.inverted else numbers


def unit_of(dataset: Dataset) -> str:
    """The unit of the numbers after slope and intercept: "HU", that of a PET, or "a.u."."""
    kind = str(dataset.get("RescaleType", "") or "")
    if kind in ("HU", "US", "MGML", "OD"):
        return "a.u." if kind == "US" else kind  # US: unspecified
    if dataset.get("Modality") == "CT" and "RescaleIntercept" in dataset:
        return "HU"
    return str(dataset.get("Units", "") or "a.u.") if dataset.get("Modality") == "PT" else "a.u."


def encoding_of(dataset: Dataset, transform: Dataset | None = None) -> Encoding:
    """How the numbers of an image, or of the frame whose value transformation is given, are stored.

    Raises:
        ReadError: bits are placed in a way that is not read.
    """
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if not 1 < bits <= allocated or allocated not in (8, 16, 32) or int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise ReadError(f"Expected pixels in the low bits of 8, 16 or 32, got {bits} of {allocated}; convert the file.")
    signed = int(dataset.PixelRepresentation) == 1
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    rescale = dataset if transform is None else transform
    slope, intercept = _number(rescale, "RescaleSlope", 1.0), _number(rescale, "RescaleIntercept", 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ReadError("Expected a rescale slope other than 0, got 0 or no number; correct the file.")
    return Encoding(
        slope=slope,
        intercept=intercept,
        low=low,
        high=high,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1" and unit_of(dataset) == "a.u.",
        padding=_padding(dataset, allocated if signed else 0),
        table="ModalityLUTSequence" in dataset,
    )


def stored_pixels(dataset: Dataset, frame: int | None = None) -> NDArray[np.integer]:
    """Decoded integers (rows, columns) of an image or of one frame, sign extended, with nothing applied.

    Raises:
        ReadError: the pixels are damaged or incomplete, or no decoder for their compression is installed.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_compressed and not syntax.is_deflated and not get_decoder(syntax).is_available:
        hint = _HINTS.get(syntax, "decompress the file first")
        raise ReadError(f"Expected pixels that can be decoded, got {syntax.name}; {hint}.")
    try:
        with quiet():
            plugin = _PLUGINS.get(syntax.removeprefix("1.2.840.10008.1.2."), "")
            pixels = pixel_array(dataset, index=frame, raw=True, decoding_plugin=plugin)
    except PreimageError:
        raise
    except Exception as error:  # decoders raise what they like on damaged data
        hint = _HINTS.get(syntax, "get the file again")
        raise ReadError(
            f"Expected whole pixel data, got a {type(error).__name__} while decoding {syntax.name}; {hint}."
        ) from None
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise ReadError(f"Expected pixels {(dataset.Rows, dataset.Columns)}, got {pixels.shape}; get the file again.")
    return pixels


def physical(dataset: Dataset, stored: NDArray[np.integer], encoding: Encoding) -> NDArray[np.float32]:
    """Physical numbers of an image's stored integers, through its look-up table where it has one."""
    if encoding.table:
        with quiet():
            return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    return encoding.values(stored)


def _number(dataset: Dataset, name: str, usual: float) -> float:
    value = dataset.get(name)
    return usual if value is None or value == "" else float(value)


def _padding(dataset: Dataset, signed_bits: int) -> tuple[int, int] | None:
    """The range of stored integers that is padding; a negative one may have been written as unsigned."""
    ends = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    numbers = [int(end) for end in ends if isinstance(end, int)]
    if not isinstance(ends[0], int):
        return None
    if signed_bits:
        numbers = [n - (1 << signed_bits) if n >= 1 << (signed_bits - 1) else n for n in numbers]
    return min(numbers), max(numbers)
