"""What the header of an image says that may be shown, and the names of what it says of a person."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
from pydicom import Dataset
from pydicom.multival import MultiValue

from medical.deidentify import burned_in
from medical.dicom import parse
from medical.files import read_whole

_ACQUISITION = {
    "KVP": "Tube voltage (kV)",
    "XRayTubeCurrent": "Tube current (mA)",
    "ConvolutionKernel": "Kernel",
    "SliceThickness": "Slice thickness (mm)",
    "MagneticFieldStrength": "Field (T)",
    "EchoTime": "Echo time (ms)",
    "RepetitionTime": "Repetition time (ms)",
    "InversionTime": "Inversion time (ms)",
    "FlipAngle": "Flip angle (°)",
    "ScanningSequence": "Sequence",
}
"""Numbers and codes of the acquisition; no free text, which may hold a name."""

_IDENTIFYING = (
    "PatientID PatientSex PatientAge PatientSize PatientWeight OtherPatientIDs PatientAddress PatientTelephoneNumbers "
    "PatientComments EthnicGroup Occupation AdditionalPatientHistory AccessionNumber StudyID InstitutionName "
    "InstitutionAddress InstitutionalDepartmentName StationName DeviceSerialNumber StudyDescription SeriesDescription "
    "ProtocolName RequestedProcedureDescription PerformedProcedureStepDescription ImageComments StudyInstanceUID "
    "SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID"
)
_BY_NATURE = frozenset({"PN", "DA", "DT", "TM"})


@dataclass(frozen=True)
class About:
    """Of an image, without identities.

    Attributes:
        modality: DICOM's code, or empty.
        acquisition: name and value of numbers and codes.
        hidden: names of the elements that say who, where and when; never their values.
    """

    modality: str = ""
    acquisition: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()


def about_dicom(path: Path) -> About:
    """Of a DICOM image.

    Raises:
        ReadError: it cannot be read.
    """
    dataset = parse(read_whole(path)[0])
    found = [(name, dataset.get(keyword)) for keyword, name in _ACQUISITION.items()]
    shown = tuple((name, _text(value)) for name, value in found if value not in (None, ""))
    return About(str(dataset.get("Modality", "")), shown, tuple(_hidden(dataset)))


def about_nifti(path: Path) -> About:
    """Of a NIfTI file that was read before; nothing where its header is odd."""
    try:
        header: Any = nibabel.load(path).header
    except Exception:  # what is odd about it was said when it was read
        return About()
    texts = [name for name in ("descrip", "aux_file", "intent_name", "db_name") if name in header]
    found = [name for name in texts if bytes(header[name].tobytes()).strip(b"\0 ")]
    extensions = len(getattr(header, "extensions", ()))
    return About(hidden=(*found, *([f"{extensions} extensions"] if extensions else []), "the file's name"))


def _text(value: Any) -> str:
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)[:40]


def _hidden(dataset: Dataset) -> list[str]:
    """Names of the elements of an image that say who, where and when."""
    found = {
        element.keyword
        for element in dataset.iterall()
        if element.keyword and element.value and (element.VR in _BY_NATURE or element.keyword in _IDENTIFYING.split())
    }
    private = sum(element.tag.is_private for element in dataset.iterall())
    text = ["possibly text in the pixels"] if burned_in(dataset) else []
    return [*sorted(found), *([f"{private} private elements"] if private else []), *text]
