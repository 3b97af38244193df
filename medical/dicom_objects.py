"""Segmentations and maps of uncertainty as DICOM objects that refer to the images they belong to."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code as ConceptCode
from pydicom.uid import UID

from medical.dicom import parse
from medical.dicom_pixels import quiet
from medical.dicom_write import Derivation
from medical.files import check_apart, read_again, whole_file
from medical.volume import Volume
from operators.errors import NeedError, ShapeError, WriteError

TISSUE = ConceptCode("85756007", "SCT", "Tissue")
"""A category, and a type where nothing narrower is known."""

_MAKER: dict[str, Any] = {
    "manufacturer": "Preimage",
    "manufacturer_model_name": "Preimage",
    "device_serial_number": "0",
}


@dataclass(frozen=True)
class Segment:
    """What a label stands for: a name, and codes of its category and type such as those of SNOMED CT."""

    label: str
    category: ConceptCode = TISSUE
    type: ConceptCode = TISSUE


def write_segmentation(
    labels: NDArray[np.integer], segments: Sequence[Segment], volume: Volume, path: Path, derivation: Derivation
) -> None:
    """Write a label map as a DICOM SEG of type BINARY, the one that every viewer knows; whole or not at all.

    All frames are written, empty ones too, so that an empty segmentation is a file that viewers can open. The file is
    read back and compared before it takes its name.

    Args:
        labels: (I, J, K) on the grid of the volume; 0 is background, n is `segments[n - 1]`.
        segments: at least one.
        volume: from `read_series`.
        path: the file.
        derivation: what was done; its operation names the algorithm.

    Raises:
        ShapeError: labels of another shape, or without a segment.
        WriteError: the volume is not an even stack of single-frame DICOM images with identifiers.
        NeedError: highdicom is not installed.
    """
    if labels.shape != volume.array.shape or labels.min() < 0 or labels.max() > len(segments) or not segments:
        raise ShapeError(
            f"Expected labels {volume.array.shape} from 0 to {len(segments)}, got {labels.shape} from {labels.min()} "
            f"to {labels.max()}; describe every label."
        )
    hd = _highdicom()
    sources = _sources(volume, path)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=derivation.operation,
        family=ConceptCode("123110", "DCM", "Artificial Intelligence"),
        version=importlib.metadata.version("preimage"),
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=segment.label,
            segmented_property_category=segment.category,
            segmented_property_type=segment.type,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for n, segment in enumerate(segments, 1)
    ]
    frames = np.ascontiguousarray(labels.transpose(2, 1, 0), dtype=np.uint8 if len(segments) < 256 else np.uint16)
    planes = np.stack([frames == n for n in range(1, len(segments) + 1)], axis=-1).astype(np.uint8)
    with quiet(), whole_file(path, ".dcm") as part:
        made = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=planes,
            segmentation_type="BINARY",
            segment_descriptions=descriptions,
            omit_empty_frames=False,
            series_instance_uid=derivation.uid("segmentation series", volume.source.case if volume.source else ""),
            sop_instance_uid=derivation.uid("segmentation", volume.source.case if volume.source else ""),
            series_number=9100 + int(sources[0].get("SeriesNumber") or 0),
            instance_number=1,
            software_versions=importlib.metadata.version("preimage"),
            content_description="Research use only, not for diagnosis",
            **_MAKER,
        )
        made.SeriesDescription = f"SEG {derivation.operation} - not for diagnosis"
        made.save_as(part, enforce_file_format=True)
        again = hd.seg.segread(part).get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in sources], assert_missing_frames_are_empty=True
        )
        if not np.array_equal(again, planes):
            raise WriteError("Expected the written segmentation to read back as meant, got other pixels; report this.")


def write_map(values: NDArray[np.float32], meaning: str, volume: Volume, path: Path, derivation: Derivation) -> None:
    """Write numbers such as a standard deviation as a DICOM parametric map in float32; whole or not at all.

    Args:
        values: (I, J, K) on the grid and in the unit of the volume.
        meaning: what the numbers are, such as "posterior standard deviation of 8 samples, DAPS, seed 0".
        volume: from `read_series`.
        path: the file.
        derivation: what was done.

    Raises:
        ShapeError: another shape, or numbers that are not finite.
        WriteError: the volume is not an even stack of single-frame DICOM images with identifiers.
        NeedError: highdicom is not installed.
    """
    if values.shape != volume.array.shape or not np.isfinite(values).all():
        raise ShapeError(f"Expected finite numbers {volume.array.shape}, got {values.shape}; keep the volume's grid.")
    hd = _highdicom()
    sources = _sources(volume, path)
    hounsfield = ConceptCode("[hnsf'U]", "UCUM", "Hounsfield unit")
    unit = hounsfield if volume.unit == "HU" else ConceptCode("1", "UCUM", "no units")
    frames = np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="STD",
        lut_explanation=meaning[:64],
        unit=unit,
        value_range=(float(frames.min()), float(frames.max())),
        slope=1,
        intercept=0,
    )
    with quiet(), whole_file(path, ".dcm") as part:
        made = hd.pm.ParametricMap(
            source_images=sources,
            pixel_array=frames,
            series_instance_uid=derivation.uid("map series", meaning, volume.source.case if volume.source else ""),
            sop_instance_uid=derivation.uid("map", meaning, volume.source.case if volume.source else ""),
            series_number=9200 + int(sources[0].get("SeriesNumber") or 0),
            instance_number=1,
            software_versions=importlib.metadata.version("preimage"),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=float(frames.max()) / 2,
            window_width=max(float(frames.max()), 1e-6),
            content_description=meaning[:64],
            **_MAKER,
        )
        made.SeriesDescription = f"MAP {derivation.operation} - not for diagnosis"
        made.save_as(part, enforce_file_format=True)
        again = pydicom.dcmread(part)
        if not np.array_equal(_in_order(again, sources), frames):
            raise WriteError("Expected the written map to read back as meant, got other numbers; report this.")


def _in_order(made: Dataset, sources: list[Dataset]) -> NDArray[np.float32]:
    """The frames of a map by the position of the source images."""
    frames = np.frombuffer(made.FloatPixelData, dtype="<f4").reshape(-1, made.Rows, made.Columns)
    places = [item.PlanePositionSequence[0].ImagePositionPatient for item in made.PerFrameFunctionalGroupsSequence]
    known = np.array([[float(v) for v in place] for place in places])
    order = [np.abs(known - [float(v) for v in s.ImagePositionPatient]).sum(1).argmin() for s in sources]
    return frames[order]


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.pm
        import highdicom.seg
    except ImportError as error:
        raise NeedError(
            "Expected highdicom for segmentations and maps, got an installation without it; "
            "install preimage[dicom] or write NIfTI."
        ) from error
    return highdicom


def _sources(volume: Volume, path: Path) -> list[Dataset]:
    """The images that a volume was read from, in the order of its slices, without what highdicom stumbles over."""
    source = volume.source
    if source is None or source.format != "dicom" or source.frames or not volume.regular or volume.array.ndim != 3:
        raise WriteError("Expected an even series of single-frame DICOM images, got another volume; write NIfTI.")
    check_apart(path, source)
    images = [parse(read_again(file)) for file in source.files]
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    with quiet():
        known = all(UID(str(image.get(name) or "")).is_valid for image in images for name in uids)
    if not known:
        raise WriteError(
            "Expected source images with identifiers, got empty or malformed ones; "
            "write the derived series first, read it, and refer to that."
        )
    if not all(image.get("FrameOfReferenceUID") for image in images) and len(images) > 1:
        raise WriteError("Expected a frame of reference, got none; write NIfTI instead.")
    for image in images:  # an element that is present but empty makes highdicom fail
        for name in ("SpecificCharacterSet", "Laterality"):
            if name in image and not image[name].value:
                del image[name]
    return images
