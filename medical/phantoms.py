"""Drawn bodies to try things on: made of ellipsoids, of nobody, and with a known truth."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medical.nifti import write_nifti
from medical.volume import Volume

_Ellipsoid = tuple[float, tuple[float, float, float], tuple[float, float, float], float]
"""Value, middle and half axes (right, front, head; the body is about 1 in each direction), turn in degrees."""

_TORSO: tuple[_Ellipsoid, ...] = (
    (-90, (0, 0, 0), (0.95, 0.72, 9), 0),  # fat
    (45, (0, 0, 0), (0.89, 0.66, 9), 0),  # muscle
    (-860, (0.44, 0.05, 0.1), (0.34, 0.5, 1.15), 8),  # lungs
    (-850, (-0.44, 0.05, 0.1), (0.35, 0.5, 1.2), -8),
    (50, (-0.14, 0.2, -0.35), (0.33, 0.27, 0.6), -30),  # heart
    (60, (0.42, 0.05, -1.05), (0.42, 0.5, 0.55), 0),  # liver's dome
    (55, (-0.1, -0.24, 0), (0.075, 0.075, 9), 0),  # aorta
    (-990, (0, -0.06, 0.9), (0.07, 0.055, 0.75), 0),  # windpipe
    (350, (0, -0.42, 0), (0.16, 0.12, 9), 0),  # vertebrae
    (220, (0, -0.42, 0), (0.12, 0.085, 9), 0),
    (20, (0, -0.52, 0), (0.055, 0.045, 9), 0),  # spinal canal
    (500, (0, 0.6, 0.1), (0.09, 0.035, 1.1), 0),  # breastbone
    (600, (0.8, 0.02, 0.55), (0.035, 0.2, 0.13), 10),  # ribs
    (600, (-0.8, 0.02, 0.55), (0.035, 0.2, 0.13), -10),
    (600, (0.79, -0.05, -0.1), (0.035, 0.22, 0.13), 14),
    (600, (-0.79, -0.05, -0.1), (0.035, 0.22, 0.13), -14),
    (600, (0.78, 0.05, -0.75), (0.035, 0.2, 0.13), 10),
    (600, (-0.78, 0.05, -0.75), (0.035, 0.2, 0.13), -10),
    (40, (0.5, 0.2, 0.3), (0.05, 0.05, 0.12), 0),  # nodules and vessels in the lungs
    (30, (0.36, -0.16, -0.1), (0.028, 0.028, 0.07), 0),
    (20, (-0.5, -0.1, 0.45), (0.035, 0.06, 0.09), 40),
    (45, (-0.42, 0.22, 0.55), (0.02, 0.02, 0.05), 0),
    (30, (0.3, 0.02, 0.05), (0.022, 0.12, 0.05), 50),
    (30, (-0.34, 0.0, 0.1), (0.022, 0.13, 0.05), -50),
)

_HEAD: tuple[_Ellipsoid, ...] = (
    (0.85, (0, 0, 0), (0.76, 0.94, 0.98), 0),  # scalp
    (0.08, (0, 0, 0), (0.72, 0.9, 0.94), 0),  # skull
    (0.55, (0, -0.01, 0), (0.66, 0.84, 0.88), 0),  # brain
    (0.68, (0.3, 0.05, 0.08), (0.27, 0.58, 0.55), -8),  # white matter
    (0.68, (-0.3, 0.05, 0.08), (0.27, 0.58, 0.55), 8),
    (0.15, (0.14, 0.05, 0.1), (0.07, 0.3, 0.22), -14),  # ventricles
    (0.15, (-0.14, 0.05, 0.1), (0.07, 0.3, 0.22), 14),
    (0.5, (0.22, 0.1, -0.05), (0.09, 0.15, 0.14), 0),  # deep grey matter
    (0.5, (-0.22, 0.1, -0.05), (0.09, 0.15, 0.14), 0),
    (0.6, (0, -0.58, -0.5), (0.42, 0.22, 0.25), 0),  # cerebellum
    (0.64, (0, -0.25, -0.6), (0.12, 0.14, 0.4), 0),  # brain stem
    (0.4, (0, 0.02, 0.42), (0.012, 0.8, 0.5), 0),  # fissure
    (0.95, (0.36, -0.3, 0.2), (0.07, 0.06, 0.09), 20),  # lesions
    (0.9, (-0.33, 0.42, 0.3), (0.035, 0.03, 0.05), 0),
    (0.85, (-0.4, -0.12, -0.2), (0.025, 0.025, 0.03), 0),
    (0.1, (0.3, 0.72, -0.45), (0.14, 0.12, 0.12), 0),  # eyes
    (0.1, (-0.3, 0.72, -0.45), (0.14, 0.12, 0.12), 0),
)


def torso(side: int = 96, slices: int = 12) -> Volume:
    """A chest in Hounsfield units, 4 mm pixels at 96 to the side, slices of 8 mm, stored as LPS.

    Shapes: (side, side, slices).
    """
    spacing = 384 / side
    array = np.rint(_drawn(_TORSO, side, slices, -1000.0, 0.72)).astype(np.float32)
    affine = np.diag([-spacing, -spacing, 8.0, 1.0])
    affine[:3, 3] = spacing * (side - 1) / 2, spacing * (side - 1) / 2, -8 * (slices - 1) / 2
    return Volume(array[::-1, ::-1], affine, "HU")


def head(side: int = 112, slices: int = 12) -> Volume:
    """A head as a T1-weighted magnitude image, 2 mm pixels at 112 to the side, slices of 7 mm, stored as RAS.

    Shapes: (side, side, slices).
    """
    spacing = 224 / side
    affine = np.diag([spacing, spacing, 7.0, 1.0])
    affine[:3, 3] = -spacing * (side - 1) / 2, -spacing * (side - 1) / 2, -7 * (slices - 1) / 2
    return Volume(_drawn(_HEAD, side, slices, 0.0, 0.75) * np.float32(1000), affine)


def _drawn(body: tuple[_Ellipsoid, ...], side: int, slices: int, outside: float, half: float) -> NDArray[np.float32]:
    """Voxels stored from left to right, back to front, feet to head; each the mean of four points in its slice.

    `half` is the height of the volume, from its middle, where the body is 1 tall.
    """
    fine = (np.arange(2 * side) + 0.5) / side - 1
    heights = ((np.arange(slices) + 0.5) / slices * 2 - 1) * half
    # 0.92 leaves air around the body
    right, front, up = np.meshgrid(fine / 0.92, fine / 0.92, heights, indexing="ij", sparse=True)
    voxels = np.full((2 * side, 2 * side, slices), outside, np.float32)
    for value, (x, y, z), (a, b, c), degrees in body:
        turn = np.deg2rad(degrees)
        across = (right - x) * np.cos(turn) + (front - y) * np.sin(turn)
        along = (front - y) * np.cos(turn) - (right - x) * np.sin(turn)
        voxels[(across / a) ** 2 + (along / b) ** 2 + ((up - z) / c) ** 2 <= 1] = value
    mean: NDArray[np.float32] = voxels.reshape(side, 2, side, 2, slices).mean((1, 3))
    return mean


def write_head(folder: Path) -> list[Path]:
    """The head as a NIfTI file in a new folder."""
    folder.mkdir(parents=True)
    write_nifti(head(), folder / "phantom-mri.nii.gz")
    return [folder / "phantom-mri.nii.gz"]


def write_torso(folder: Path) -> list[Path]:
    """The chest as a series of CT images of nobody in a new folder."""
    folder.mkdir(parents=True)
    volume = torso()
    spacing, (columns, rows, slices) = volume.spacing, volume.array.shape
    uids = {name: generate_uid(entropy_srcs=["preimage phantom", name]) for name in ("study", "series", "frame")}
    files = []
    for k in range(slices):
        # places are given in LPS
        position = (volume.affine @ (0, 0, k, 1))[:3] * (-1, -1, 1)
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
        uid = generate_uid(entropy_srcs=["preimage phantom", str(k)])
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
        image.SpecificCharacterSet, image.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = "", "", "", "1"
        image.Modality, image.Manufacturer, image.ReferringPhysicianName = "CT", "Preimage", ""
        image.SeriesDescription = "phantom"
        image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "PHANTOM", "PHANTOM", "", ""
        image.StudyInstanceUID, image.SeriesInstanceUID = uids["study"], uids["series"]
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = uids["frame"], ""
        image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = 1, 1, k + 1
        image.KVP, image.SliceThickness, image.PixelSpacing = 120, spacing[2], [spacing[1], spacing[0]]
        image.ImagePositionPatient = [round(float(p), 4) for p in position]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = rows, columns
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
        image.PixelData = (volume.array[:, :, k].T + 1024).astype("<u2").tobytes()
        files.append(folder / f"phantom-ct-{k + 1:03d}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files
