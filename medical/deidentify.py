"""Taking identities out of DICOM and NIfTI files: a separate step, never done in passing.

Source: DICOM PS3.15 Annex E, basic profile. Deviations: what is said under `deidentify`.
"""

import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from medical.dicom import parse
from medical.dicom_pixels import quiet
from medical.files import read_whole, sync, whole_file
from operators.errors import NeedError, WriteError
from restoration.folders import FolderKind, write_folder

FILES = FolderKind("de-identified files", frozenset({"image-0001.dcm"}), r"image-[0-9]{4,}\.dcm")

_TEXT_LIKELY = frozenset({"US", "SC", "XC", "ES", "OT", "DOC"})
_KEPT_UIDS = ("1.2.840.10008.",)  # of the standard itself: classes, syntaxes, well-known frames of reference


_IDENTITY = ("PatientName", "PatientID", "AccessionNumber", "PatientBirthDate")


def deidentify(paths: Iterable[Path], folder: Path, *, text_checked: bool = False, salt: bytes | None = None) -> int:
    """Write copies of DICOM files without identities: the basic profile, in sequences too, and nothing private.

    Names become "ANONYMIZED" or empty, identifiers are replaced consistently over all the files, dates and times are
    emptied, free text is emptied or removed. Pixels are not touched: burned-in text and the face of a head scan stay.

    Args:
        paths: the files.
        folder: where `image-0001.dcm` and so on are written, in the order of the paths, whole or not at all.
        text_checked: a person has looked and found no burned-in text.
        salt: the same salt gives the same new identifiers; random if not given.

    Returns:
        How many files were written.

    Raises:
        WriteError: a file may have text burned in and `text_checked` is false, or an identity would be left.
        ReadError: a file cannot be read.
        NeedError: dicom-anonymizer is not installed.
    """
    secret = salt if salt is not None else secrets.token_bytes(16)
    count = 0
    with write_folder(folder, FILES) as part:
        for count, path in enumerate(paths, 1):
            dataset = parse(read_whole(path)[0])
            if not text_checked and (reason := burned_in(dataset)):
                raise WriteError(
                    f"Expected pixels without text, got {reason}; look at file {count}, then say that it was checked."
                )
            with quiet():
                clean(dataset, secret)
                target = part / f"image-{count:04d}.dcm"
                dataset.save_as(target, enforce_file_format=True)
            sync(target)
        if not count:
            raise WriteError("Expected files to de-identify, got none; look at the folder.")
    return count


def burned_in(dataset: Dataset) -> str:
    """Why text may be part of the pixels; empty if nothing hints at it, which proves little."""
    if dataset.get("BurnedInAnnotation") == "YES":
        return "an image that says it has text burned in"
    if dataset.get("Modality") in _TEXT_LIKELY:
        return f"modality {dataset.Modality}, which often has text burned in"
    kinds = {str(kind).upper() for kind in dataset.get("ImageType") or ()}
    if kinds & {"SCREEN SAVE", "SCREENSHOT", "DOSE", "DOSE_INFO", "REPORT"}:
        return "a screen shot or a report"
    if str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008.5.1.4.1.1.7"):
        return "a secondary capture"
    return ""


def clean(dataset: Dataset, salt: bytes) -> None:
    """Take the identity out of a dataset, in place.

    The library does not go into sequences, does not say that it was there, keeps dates that are to be removed, and
    makes identifiers that another run cannot repeat: these four are done here.

    Raises:
        NeedError: dicom-anonymizer is not installed.
        WriteError: a value that named the patient is still there.
    """
    try:
        from dicomanonymizer import simpledicomanonymizer as library
    except ImportError as error:
        raise NeedError(
            "Expected dicom-anonymizer to take out identities, got an installation without it; install preimage[dicom]."
        ) from error
    names = {str(dataset.get(keyword) or "").strip() for keyword in _IDENTITY}
    restored = str(dataset.get("SeriesDescription", "")).endswith("- not for diagnosis")
    renaming = (library.replace_UID, library.delete_or_empty_or_replace_UID)
    actions = library.initialize_actions_2024b()
    rules = {tag: library.keep for tag, action in actions.items() if action in renaming}
    for level in _levels(dataset):
        library.anonymize_dataset(level, rules, True, library.initialize_actions_2024b)
        level.remove_private_tags()
    for level in _levels(dataset):
        for element in level:
            if element.VR == "UI":
                element.value = _renamed(element.value, salt)
            elif element.VR == "PN" and element.value:
                element.value = "ANONYMIZED"
            elif element.VR in ("DA", "DT", "TM") and element.value:
                element.value = ""  # the library's 00010101 is no date to some readers
    for tag in [e.tag for e in dataset if e.tag.group in range(0x6000, 0x6020) and e.tag.element in (0x0022, 0x1500)]:
        del dataset[tag]  # the words of an overlay
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Preimage: PS3.15 basic profile; pixels unchanged"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    if restored:
        dataset.SeriesDescription = "RESTORED - not for diagnosis"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "ReceivingApplicationEntityTitle",
                 "PrivateInformationCreatorUID", "PrivateInformation"):  # fmt: skip
        if name in dataset.file_meta:
            del dataset.file_meta[name]
    dataset.preamble = b"\0" * 128
    left = _left(dataset, {n for n in names if len(n) > 2})
    if left:
        raise WriteError(f"Expected no identity to be left, got one in {', '.join(left)}; remove that element first.")


def clean_nifti(path: Path, target: Path) -> None:
    """Write a copy of a NIfTI file without free text and extensions, which may hold a whole DICOM header.

    Voxels, their type, scale and place stay as they are; the file name is the caller's choice, and often holds a name.

    Raises:
        WriteError: the target exists or cannot be written, or the source is not NIfTI.
    """
    image: Any = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):
        raise WriteError("Expected a NIfTI file, got another format; convert it first.")
    header = image.header.copy()
    header.extensions.clear()
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        if name in header:
            header[name] = b""
    stored: Any = image.dataobj
    copy = type(image)(np.asanyarray(stored.get_unscaled()), image.affine, header)
    copy.header.set_slope_inter(stored.slope, stored.inter)
    with whole_file(target, ".nii.gz" if target.name.endswith(".gz") else ".nii") as part:
        nibabel.save(copy, part)


def _levels(dataset: Dataset) -> list[Dataset]:
    """The dataset and the items of all its sequences, outermost first."""
    levels = [dataset]
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                levels += _levels(item)
    return levels


def _renamed(value: object, salt: bytes) -> object:
    if not isinstance(value, str):
        return [_renamed(part, salt) for part in value] if isinstance(value, Iterable) else value
    if not value or value.startswith(_KEPT_UIDS):
        return value
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{salt.hex()} {value}")
    return UID(f"2.25.{name.int}")


def _left(dataset: Dataset, words: set[str]) -> list[str]:
    """Keywords of text elements that still hold one of the words."""
    left = []
    for element in dataset.iterall():
        if element.VR in ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS", "DA", "DT", "UR"):
            text = str(element.value)
            if any(word in text for word in words):
                left.append(element.keyword or str(element.tag))
    return left
