"""Derived DICOM images: new numbers in the frame of the images they were made from, nothing else changed silently."""

import datetime
import importlib.metadata
import uuid
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from medical.dicom import parse
from medical.dicom_check import unlike_source
from medical.dicom_pixels import Encoding, encoding_of, physical, quiet, stored_pixels
from medical.files import check_apart, read_again, sync
from medical.volume import Note, Volume
from operators.errors import ShapeError, WriteError
from restoration.folders import FolderKind, write_folder

SERIES = FolderKind("DICOM series", frozenset({"slice-0001.dcm"}), r"slice-[0-9]{4,}\.dcm")
"""What a written series looks like; only a folder of such files is ever replaced."""

Purpose = Literal["smoothing", "edge enhancement", "spatial resampling", "pixel mask", "other"]
_PURPOSES: dict[Purpose, tuple[str, str]] = {
    "smoothing": ("113087", "Smoothing"),
    "edge enhancement": ("113086", "Edge enhancement"),
    "spatial resampling": ("113085", "Spatial resampling"),
    "pixel mask": ("113047", "Pixel by pixel mask"),
}
"""CID 7203. There is no code for a learned restoration: "other" writes none rather than a wrong one."""

_NAMESPACE = uuid.UUID("6f6b0c5e-6d5b-5d43-9a53-7a2f0f1b7c11")

_STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "ReferencedPerformedProcedureStepSequence",
    "PixelDataProviderURL",
)
"""True of the old pixels or the old file only."""


@dataclass(frozen=True)
class Derivation:
    """What was done to a series.

    Attributes:
        operation: a word or two for lists of series: at most 30 characters.
        description: method, version, operator, steps and seed in plain words.
        digest: names the run, such as the digest of the recipe: the same source and digest give the same identifiers.
        purpose: the coded kind of derivation.
        when: date and time to record.
    """

    operation: str
    description: str
    digest: str
    purpose: Purpose = "other"
    when: datetime.datetime = field(default_factory=datetime.datetime.now)

    def __post_init__(self) -> None:
        if not 0 < len(self.operation) <= 30 or not self.operation.isascii() or "\\" in self.operation:
            raise ShapeError("Expected a name of the operation of 1 to 30 ASCII characters; shorten it.")

    @property
    def series_description(self) -> str:
        """At most 64 characters, in every character set."""
        return f"RESTORED {self.operation} - not for diagnosis"

    def uid(self, *seeds: str) -> UID:
        """An identifier that depends on the run and the seeds alone."""
        return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join((self.digest, *seeds))).int}")


@dataclass(frozen=True)
class Written:
    """Files that were written, in the order of the slices, and what a person should know."""

    files: tuple[Path, ...] = field(repr=False)
    notes: tuple[Note, ...] = ()


def write_series(volume: Volume, folder: Path, derivation: Derivation, *, keep_private: bool = False) -> Written:
    """Write the numbers of a volume as derived images of the series it was read from, whole or not at all.

    The source files are read again and must be unchanged. A pixel whose number is what was read keeps its stored bits,
    padding always does, and bits beside the numbers (embedded overlays) stay. Every written file is read back and
    compared with what was meant before the folder takes its name.

    Args:
        volume: from `read_series`, with other numbers (`Volume.with_array`).
        folder: where; an earlier series of this program is replaced, anything else is refused.
        derivation: what was done.
        keep_private: keep private elements, which may no longer be true of the new pixels.

    Raises:
        ReadError: a source file has changed.
        WriteError: the volume is not from single-frame DICOM, or the disk refuses.
        ShapeError: the numbers are not finite.
    """
    source = volume.source
    if source is None or source.format != "dicom":
        raise WriteError("Expected a volume that was read from DICOM, got another; write it as NIfTI.")
    if source.frames:
        raise WriteError("Expected slices of one frame each, got an enhanced multi-frame image; write NIfTI instead.")
    if not np.isfinite(volume.array).all():
        raise ShapeError("Expected finite numbers, got NaN or infinity; look for the step that produced them.")
    check_apart(folder, source)
    grow = _room(volume)
    notes: list[Note] = []
    identity = "".join(file.sha256 for file in source.files)
    series = str(derivation.uid("series", identity))
    clipped = 0
    names = [f"slice-{k + 1:04d}.dcm" for k in range(len(source.files))]
    with write_folder(folder, SERIES) as part:
        for k, (name, original) in enumerate(zip(names, _datasets(volume), strict=True)):
            stored, lost = _stored(volume, k, original, grow)
            clipped += lost
            path = part / name
            with quiet():  # an odd value of the source is copied, not judged
                derived = _derived(original, derivation, series, source.files[k].sha256, identity, keep_private)
                _put_pixels(derived, original, stored, grow)
                # not save_as, which refuses to turn big-endian values round
                dcmwrite(path, derived, implicit_vr=False, little_endian=True, enforce_file_format=True)
            sync(path)
            _verify(path, original, stored)
        sync(part)
    sync(folder.resolve().parent)
    if clipped:
        notes.append(Note("W-CLIP", f"{clipped} pixels were beyond what the source's format can hold and were clipped"))
    return Written(tuple(folder / name for name in names), tuple(notes))


def _datasets(volume: Volume) -> Iterator[Dataset]:
    assert volume.source is not None
    for file in volume.source.files:
        yield parse(read_again(file))


def _plan(volume: Volume, k: int, dataset: Dataset) -> tuple[Encoding, NDArray[np.integer], NDArray[np.bool_]]:
    """Encoding of a slice, its stored integers, and where they are kept: padding, and numbers as they were read."""
    encoding = encoding_of(dataset)
    if encoding.table:
        raise WriteError("Expected numbers with slope and intercept, got a look-up table; write NIfTI instead.")
    stored = stored_pixels(dataset)
    if stored.shape != volume.array.shape[1::-1]:
        raise ShapeError(f"Expected slices {stored.shape}, got {volume.array.shape[1::-1]}; keep the source's grid.")
    kept = encoding.padded(stored) | (physical(dataset, stored, encoding) == volume.array[:, :, k].T)
    return encoding, stored, kept


def _room(volume: Volume) -> bool:
    """Whether numbers go beyond the bits in use and the other allocated bits are free for them, in every slice."""
    beyond = False
    for k, dataset in enumerate(_datasets(volume)):
        if dataset.BitsStored == dataset.BitsAllocated or _overlay_bits(dataset):
            return False
        encoding = encoding_of(dataset)
        if encoding.inverted:
            return False
        numbers = volume.array[:, :, k]
        wanted = encoding.quantised(numbers if volume.valid is None else numbers[volume.valid[:, :, k]])
        beyond = beyond or bool(((wanted < encoding.low) | (wanted > encoding.high)).any())
    return beyond


def _overlay_bits(dataset: Dataset) -> bool:
    """Whether an overlay lives in unused bits of the pixels: OverlayBitPosition of one of sixteen overlays."""
    places = [dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2)]
    return any(place is not None and place.value for place in places)


def _stored(volume: Volume, k: int, dataset: Dataset, grow: bool) -> tuple[NDArray[np.integer], int]:
    """The integers to write for a slice, and how many had to be clipped."""
    encoding, stored, kept = _plan(volume, k, dataset)
    low, high = encoding.low, encoding.high
    if grow:
        free = int(dataset.BitsAllocated) - int(dataset.BitsStored)
        low, high = low << free, ((high + 1) << free) - 1
    wanted = encoding.quantised(volume.array[:, :, k].T)
    lost = int(((wanted < low) | (wanted > high))[~kept].sum())
    return np.where(kept, stored, np.clip(wanted, low, high).astype(np.int64)).astype(stored.dtype), lost


def _put_pixels(derived: Dataset, original: Dataset, stored: NDArray[np.integer], grow: bool) -> None:
    """Uncompressed little-endian pixels; unused bits of an uncompressed source are carried over."""
    allocated, bits = int(original.BitsAllocated), int(original.BitsStored)
    word = np.dtype(f"<u{allocated // 8}")
    words = stored.astype(np.dtype(f"<i{allocated // 8}") if original.PixelRepresentation else word).view(word)
    if grow:
        derived.BitsStored, derived.HighBit = allocated, allocated - 1
    elif bits < allocated and not original.file_meta.TransferSyntaxUID.is_compressed:
        swapped = word if original.file_meta.TransferSyntaxUID.is_little_endian else word.newbyteorder(">")
        before = np.frombuffer(original.PixelData, dtype=swapped, count=stored.size).reshape(stored.shape)
        used = word.type((1 << bits) - 1)
        words = (words & used) | (before.astype(word) & ~used)
    content = words.tobytes()
    derived.PixelData = content + b"\0" * (len(content) % 2)
    derived["PixelData"].VR = "OW" if allocated > 8 else "OB"
    for name in ("PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in derived:
            del derived[name]


def _derived(
    original: Dataset, derivation: Derivation, series: str, checksum: str, identity: str, keep_private: bool
) -> Dataset:
    """A copy of an image with everything changed that a derived image must say, but for the pixels.

    Source: DICOM PS3.3 C.7.6.1.1.2 (image type), C.12.4 (source images and derivation), C.12.1 (equipment, dates).
    """
    derived = deepcopy(original)
    if not original.file_meta.TransferSyntaxUID.is_little_endian:
        for element in derived.iterall():
            if element.VR == "OW" and element.keyword != "PixelData":  # words that are still bytes of the file
                element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()
    if not keep_private:
        derived.remove_private_tags()
    for name in _STALE:
        if name in derived:
            del derived[name]
    when = derivation.when
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    source_uid = str(original.get("SOPInstanceUID", "") or "")
    derived.SOPClassUID = _class_of(original)
    derived.SOPInstanceUID = derivation.uid("image", source_uid or checksum)
    derived.SeriesInstanceUID = series
    if not derived.get("StudyInstanceUID"):
        derived.StudyInstanceUID = derivation.uid("study", identity)
    kinds = [str(v) for v in original.get("ImageType") or ()]
    derived.ImageType = ["DERIVED", "SECONDARY", *kinds[2:]]
    derived.SeriesNumber = int(original.get("SeriesNumber") or 0) + 9000
    derived.SeriesDescription = derivation.series_description
    derived.ImageComments = "Research use only, not for diagnosis."
    derived.InstanceCreationDate = derived.ContentDate = derived.SeriesDate = date
    derived.InstanceCreationTime = derived.ContentTime = derived.SeriesTime = time
    derived.DerivationDescription = derivation.description[:1024]
    if derivation.purpose in _PURPOSES:
        derived.DerivationCodeSequence = [_code(*_PURPOSES[derivation.purpose])]
    elif "DerivationCodeSequence" in derived:
        del derived.DerivationCodeSequence
    if UID(source_uid).is_valid and original.get("SOPClassUID"):
        reference = Dataset()
        reference.ReferencedSOPClassUID = original.SOPClassUID
        reference.ReferencedSOPInstanceUID = source_uid
        reference.SpatialLocationsPreserved = "YES"
        reference.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
        derived.SourceImageSequence = [reference]
    elif "SourceImageSequence" in derived:
        del derived.SourceImageSequence
    derived.ContributingEquipmentSequence = [*(original.get("ContributingEquipmentSequence") or ()), _equipment(when)]
    derived.file_meta = FileMetaDataset()
    derived.file_meta.MediaStorageSOPClassUID = derived.SOPClassUID
    derived.file_meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    derived.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return derived


def _class_of(original: Dataset) -> UID:
    """What kind of image it is, from its modality where it does not say."""
    if original.get("SOPClassUID"):
        return UID(original.SOPClassUID)
    known = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
    if original.get("Modality") not in known:
        raise WriteError("Expected an image that says what class it is of, got none; write NIfTI instead.")
    return known[original.Modality]


def _equipment(when: datetime.datetime) -> Dataset:
    equipment = Dataset()
    equipment.Manufacturer = "Preimage"
    equipment.ManufacturerModelName = "Preimage"
    equipment.SoftwareVersions = importlib.metadata.version("preimage")
    equipment.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")
    equipment.ContributionDescription = "Restored by posterior sampling; research use only"
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    return equipment


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _verify(path: Path, original: Dataset, stored: NDArray[np.integer]) -> None:
    """Refuses a file that does not read back as it was meant."""
    again = parse(path.read_bytes())
    wrong = unlike_source(again, original)
    if not np.array_equal(stored_pixels(again), stored):
        wrong.append("other pixels")
    if wrong:
        raise WriteError(f"Expected the written image to read back as meant, got {'; '.join(wrong)}; report this.")
