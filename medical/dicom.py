"""Reading DICOM series as volumes."""

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from medical.dicom_pixels import Encoding, encoding_of, physical, quiet, stored_pixels, unit_of
from medical.dicom_series import Found as Found
from medical.dicom_series import Series as Series
from medical.dicom_series import find_series, series_in
from medical.dicom_slices import Slice, functional
from medical.files import read_whole
from medical.volume import Note, Source, SourceFile, Volume, with_filled
from operators.errors import ReadError

__all__ = ["Found", "Series", "find_series", "read_series", "series_in"]


def read_series(series: Series, *, on_gap: Literal["error", "slicewise"] = "error") -> Volume:
    """The volume of a series: (column, row, slice), in physical numbers.

    Args:
        series: from `find_series`.
        on_gap: what to do where slices are missing or uneven: refuse, or read a volume that is not `regular`, whose
            slices may be restored one by one.

    Raises:
        ReadError: places are ambiguous or uneven, pixels are damaged or cannot be decoded.
    """
    if series.conflict or (series.problem and on_gap == "error"):
        advice = "separate them" if series.conflict else "complete the series, or read it slice by slice"
        raise ReadError(f"Expected one slice at each place of an even grid, got {series.problem}; {advice}.")
    files: dict[Any, tuple[Dataset, SourceFile]] = {}
    planes, masks, encodings, units = [], [], [], set()
    sources = []
    for piece in series.slices:
        if piece.path not in files:
            files = {piece.path: _load(piece)}
        dataset, file = files[piece.path]
        encoding = encoding_of(dataset, _transform(dataset, piece))
        stored = stored_pixels(dataset, piece.frame)
        planes.append(physical(dataset, stored, encoding).T)
        masks.append(~encoding.padded(stored).T)
        encodings.append(encoding)
        units.add(unit_of(dataset))
        sources.append(file)
    if len(units) > 1:
        raise ReadError(f"Expected one unit in a series, got {' and '.join(sorted(units))}; separate the files.")
    frames = tuple(piece.frame for piece in series.slices if piece.frame is not None)
    source = Source("dicom", tuple(sources[:1] if frames else sources), frames)
    array, valid = np.stack(planes, axis=2), np.stack(masks, axis=2)
    if not np.isfinite(array).all():
        raise ReadError("Expected finite numbers after rescaling, got infinite ones; correct the rescale slope.")
    notes = (*series.notes, *_pixel_notes(encodings, valid))
    return Volume(
        array=with_filled(array, valid),
        affine=_flat(series) if series.stack is None else series.stack.affine,
        unit=units.pop(),
        source=source,
        valid=None if valid.all() else valid,
        regular=not series.problem,
        notes=notes,
    )


def parse(content: bytes) -> Dataset:
    """The dataset in the bytes of a file, every value of it decoded.

    Raises:
        ReadError: it cannot be decoded.
    """
    try:
        with quiet():  # pydicom warns of odd values and quotes them; later accesses do not decode again
            dataset = read_partial(io.BytesIO(content), stop_when=_beyond, force=True)
            for _ in dataset.iterall():
                pass
    except Exception as error:  # a damaged file makes the reader raise anything
        raise ReadError(f"Expected a DICOM file, got a damaged one ({type(error).__name__}); get it again.") from None
    return dataset


def _beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Whether what follows is no data: some writers fill up the last block of a file with zeros."""
    return bool(tag == 0)


def _load(piece: Slice) -> tuple[Dataset, SourceFile]:
    content, digest = read_whole(piece.path)
    return parse(content), SourceFile(piece.path, digest)


def _transform(dataset: Dataset, piece: Slice) -> Dataset | None:
    """The slope and intercept of a frame of an enhanced image."""
    if piece.frame is None:
        return None
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return functional(dataset.PerFrameFunctionalGroupsSequence[piece.frame], shared, "PixelValueTransformationSequence")


def _flat(series: Series) -> NDArray[np.float64]:
    """An affine for a picture without a place: rows downwards, columns to the right, as it is looked at."""
    rows, columns = series.slices[0].spacing or (1.0, 1.0)
    return np.diag([-columns, -rows, 1.0, 1.0])


def _pixel_notes(encodings: list[Encoding], valid: NDArray[np.bool_]) -> list[Note]:
    notes = []
    if len({(e.slope, e.intercept) for e in encodings}) > 1:
        notes.append(Note("W-MIXED-SLOPE", "slices have different slopes or intercepts; each keeps its own"))
    if count := int((~valid).sum()):
        notes.append(Note("W-PADDING", f"{count} padding pixels hold no measurement; they are kept as they are"))
    return notes
