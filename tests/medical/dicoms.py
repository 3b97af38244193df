"""Small DICOM series made on the spot, and the places of real ones that are only on some machines."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

ELSEWHERE = Path(os.environ.get("PREIMAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
"""Real data that are not part of the project."""

NAME, PATIENT = "Mustermann^Erika", "ID-4711-XY"

Change = Callable[[int, Dataset], None]


def elsewhere(name: str) -> Path:
    """Real data, or the test is skipped."""
    path = ELSEWHERE / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path


def bundled(name: str) -> Path:
    """A file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def ct_slice(stored: NDArray[Any], position: tuple[float, float, float], number: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{number}")
    image.StudyDate, image.StudyTime, image.AccessionNumber = "20200102", "101112", "ACC-99"
    image.Modality, image.Manufacturer = "CT", "Nobody"
    image.ReferringPhysicianName = "Doctor^Who"
    image.SeriesDescription = "chest of Mustermann"
    image.PatientName, image.PatientID = NAME, PATIENT
    image.PatientBirthDate, image.PatientSex = "19500607", "F"
    image.StudyID, image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = "1", 3, 1, number
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    image.PositionReferenceIndicator = ""
    image.KVP, image.SliceThickness = 120, 3
    image.ImagePositionPatient, image.ImageOrientationPatient = list(position), [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [0.7, 0.8]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = stored.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
    image.PixelData = stored.astype("<u2").tobytes()
    return image


def write_series(
    folder: Path,
    positions: list[tuple[float, float, float]],
    change: Change = lambda k, image: None,
    shape: tuple[int, int] = (6, 5),
    names: Callable[[int], str] = lambda k: f"{k:03d}",
) -> Path:
    """CT slices with random numbers at the given places; `change` may alter each before it is written."""
    rng = np.random.Generator(np.random.PCG64DXSM(0))
    folder.mkdir(parents=True, exist_ok=True)
    for k, position in enumerate(positions):
        image = ct_slice(rng.integers(0, 4096, shape), position, k + 1)
        change(k, image)
        image.save_as(folder / names(k), enforce_file_format=True)
    return folder


def even(count: int, step: float = 2.5) -> list[tuple[float, float, float]]:
    return [(-10.0, -20.0, 30.0 + step * k) for k in range(count)]


def new_errors(derived: Path, source: Path) -> set[str]:
    """Errors that dciodvfy finds in the first file and not in the second; the test is skipped without dciodvfy."""
    return errors(derived) - errors(source)


def errors(path: Path) -> set[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not on this machine")
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    return {line for line in (run.stderr + run.stdout).splitlines() if line.startswith("Error")}
