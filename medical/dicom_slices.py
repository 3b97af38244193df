"""One slice of a file: what it says of itself, and why a file has none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from medical.dicom_geometry import is_orientation
from medical.dicom_pixels import quiet
from operators.files import MAX_PIXELS

_TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "AcquisitionTime",
    "ContentTime",
    "EchoTime",
    "EchoNumbers",
    "ComplexImageComponent",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
SPLITTERS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionTime",
    "ContentTime",
)
"""What may tell slices at one place apart, tried in this order."""

_ENHANCED = frozenset(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "2.2", "4.1", "4.4", "128.1", "130"))
_NOT_PICTURES = frozenset(
    {"RTDOSE", "RTSTRUCT", "RTPLAN", "SEG", "SR", "PR", "KO", "REG", "RWV", "ANN", "ECG", "DOC", "SM"}
)


@dataclass(frozen=True, eq=False)
class Slice:
    """One image, or one frame of a multi-frame image: where it is and what it belongs to; `header` has no pixels."""

    path: Path = field(repr=False)
    frame: int | None
    header: Dataset = field(repr=False)
    key: tuple[Any, ...] = field(repr=False)
    orientation: NDArray[np.float64] | None
    position: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    marks: Mapping[str, Any] = field(repr=False)


def read_header(path: Path, bare: bool) -> Dataset | str:
    """What is said about an image, or why the file is none."""
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=bare, specific_tags=list(_TAGS))
            dataset.get("SeriesDescription")
            if "file_meta" in dataset.__dict__ and dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
                return "a DICOMDIR"
            for element in dataset.iterall():  # values are decoded on access: find the damage now
                element.value  # noqa: B018
    except InvalidDicomError:
        return "not DICOM"
    except Exception:  # a damaged file makes the reader raise anything
        return "damaged DICOM, or none"
    if bare and not dataset.get("SOPClassUID"):
        return "not DICOM"
    return dataset


_DICOMDIR = "1.2.840.10008.1.3.10"


def why_not(header: Dataset) -> str:
    """Why an object is not a grey image to restore; empty if it is."""
    if header.get("Modality") in _NOT_PICTURES or not (header.get("Rows") and header.get("Columns")):
        return "not a picture (report, structure, dose, segmentation or the like)"
    if header.Rows * header.Columns > MAX_PIXELS:
        return f"more than {MAX_PIXELS // 10**6} megapixels in a slice"
    if header.get("SamplesPerPixel", 1) != 1 or header.get("PhotometricInterpretation") not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        return "colour"
    if int(header.get("NumberOfFrames") or 1) > 1 and header.get("SOPClassUID") not in _ENHANCED:
        return "several frames without a place for each (cine); export single frames"
    if "TransferSyntaxUID" not in getattr(header, "file_meta", {}):
        return "no transfer syntax"
    return ""


def slices_of(path: Path, header: Dataset) -> Iterable[Slice]:
    """The slice of an image, or one for each frame of an enhanced multi-frame image."""
    if header.get("SOPClassUID") not in _ENHANCED:
        return [_slice(path, None, header, [header], ())]
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    return [_slice(path, k, header, *_frame_parts(frame, shared[0])) for k, frame in enumerate(frames)]


def functional(frame: Dataset, shared: Dataset, name: str) -> Dataset:
    """The only item of a functional group, of the frame or shared by all; empty where there is none."""
    items = frame.get(name) or shared.get(name)
    return items[0] if items else Dataset()


def _frame_parts(frame: Dataset, shared: Dataset) -> tuple[list[Dataset], tuple[Any, ...]]:
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "FrameContentSequence")
    parts = [functional(frame, shared, name) for name in (*names, "MREchoSequence", "MRDiffusionSequence")]
    kinds = [*frame.dir("FrameTypeSequence"), *shared.dir("FrameTypeSequence")]
    kind = functional(frame, shared, kinds[0]).get("FrameType") if kinds else None
    return parts, (parts[3].get("StackID"), parts[4].get("EffectiveEchoTime"), tuple(kind or ())[1:])


def _slice(path: Path, frame: int | None, header: Dataset, parts: list[Dataset], extra: tuple[Any, ...]) -> Slice:
    def first(*names: str) -> Any:
        return next((part[name].value for name in names for part in parts if part.get(name) not in (None, "")), None)

    orientation, position = numbers(first("ImageOrientationPatient"), 6), numbers(first("ImagePositionPatient"), 3)
    if orientation is None or position is None or not is_orientation(orientation):
        orientation = position = None
    spacing = numbers(first("PixelSpacing", "ImagerPixelSpacing"), 2)
    key = tuple(str(header.get(name, "") or "") for name in _KEY)
    lone = f"{path} {frame}" if position is None else ""
    where = str(path.parent) if not (key[0] and key[1]) else ""
    spaced = () if spacing is None else tuple(round(float(s), 4) for s in spacing)
    kind = tuple(str(v) for v in (header.get("ImageType") or ())[1:]) if frame is None else ()
    marks = {name: header.get(name) for name in SPLITTERS} | {
        "SliceThickness": first("SliceThickness"),
        "SpacingBetweenSlices": first("SpacingBetweenSlices"),
    }
    if frame is not None:
        marks |= {name: first(other) for name, other in _FRAME_MARKS.items()}
    pair = None if spacing is None or not (spacing > 0).all() else (float(spacing[0]), float(spacing[1]))
    full = (*key, kind, spaced, lone, where, *extra, str(path) if frame is not None else "")
    return Slice(path, frame, header, full, orientation, position, pair, marks)


_FRAME_MARKS = {
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "TemporalPositionIdentifier": "TemporalPositionIndex",
    "DiffusionBValue": "DiffusionBValue",
    "ContentTime": "FrameReferenceDateTime",
}


_KEY = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SOPClassUID",
    "Rows",
    "Columns",
    "FrameOfReferenceUID",
    "EchoTime",
    "EchoNumbers",
    "ComplexImageComponent",
    "PhotometricInterpretation",
)
"""What slices of one series have in common."""


def numbers(value: Any, count: int) -> NDArray[np.float64] | None:
    """So many finite numbers, or None for anything else."""
    try:
        found = np.array([float(v) for v in value], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return found if found.shape == (count,) and np.isfinite(found).all() else None
