"""Whether an image says of itself what a derived image must, next to its source. Needs no validator."""

from pydicom import Dataset
from pydicom.uid import UID

_COPIED = (
    "SOPClassUID",
    "Modality",
    "StudyInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "InstanceNumber",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "BitsAllocated",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""What a derived image shares with its source."""


def unlike_source(derived: Dataset, source: Dataset) -> list[str]:
    """What is wrong with a derived image, in words that hold no value of the patient's; empty when all is right."""
    wrong = []
    for name in _COPIED:
        if name in ("StudyInstanceUID", "SOPClassUID") and not source.get(name):  # then it had to be made up
            continue
        before, after = source.get(name), derived.get(name)
        if (before or None) != (after or None) and str(before) != str(after):
            wrong.append(f"another {name}")
    uid = derived.get("SOPInstanceUID")
    if not uid or uid == source.get("SOPInstanceUID") or uid != derived.file_meta.get("MediaStorageSOPInstanceUID"):
        wrong.append("an identifier of the image that is not new, or not that of the file")
    if not derived.get("SeriesInstanceUID") or derived.SeriesInstanceUID == source.get("SeriesInstanceUID"):
        wrong.append("the series of the source")
    if not derived.get("StudyInstanceUID"):
        wrong.append("no study")
    if list(derived.get("ImageType") or ())[:1] != ["DERIVED"]:
        wrong.append("an image type that is not DERIVED")
    if not derived.get("DerivationDescription"):
        wrong.append("no description of the derivation")
    references = derived.get("SourceImageSequence") or []
    known = UID(str(source.get("SOPInstanceUID") or "")).is_valid and source.get("SOPClassUID")
    if known and [r.ReferencedSOPInstanceUID for r in references] != [source.SOPInstanceUID]:
        wrong.append("no reference to its source")
    if any(not UID(r.ReferencedSOPInstanceUID).is_valid for r in references):
        wrong.append("a reference to an identifier that is none")
    equipment = derived.get("ContributingEquipmentSequence") or []
    if len(equipment) != len(source.get("ContributingEquipmentSequence") or []) + 1:
        wrong.append("no contributing equipment, or less than before")
    if "not for diagnosis" not in str(derived.get("SeriesDescription", "")):
        wrong.append("no notice of research use")
    if any(name in derived for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence")):
        wrong.append("facts about the old pixels")
    return wrong
