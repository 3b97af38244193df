"""A tree of small inputs of every kind, six of them bad, and what a finished run of it looks like."""

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import torch

from app.pictures import write_picture
from restoration.recipe import Recipe
from tests.medical.dicoms import even, write_series

GOOD, BAD = 60, 6

RECIPE = Recipe.model_validate(
    {
        "operator": {"kind": "identity"},
        "noise": {"kind": "gaussian", "sigma": 0.05},
        "model": {"kind": "none"},
        "method": {"kind": "tv", "iterations": 3},
        "seeds": [0, 1],
    }
)


def drawn(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64DXSM(seed))


def picture(path: Path, seed: int, height: int = 20, width: int = 24, channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, torch.from_numpy(drawn(seed).random((channels, height, width), np.float32)))
    return path


def nifti(path: Path, seed: int, shape: tuple[int, ...] = (17, 18, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = drawn(seed).integers(0, 900, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 3, 1.0])), path)
    return path


def make_inputs(root: Path) -> Path:
    """66 cases: 46 pictures (4 of them in a zip), 8 NIfTI files, 6 DICOM series, and 6 that cannot be read."""
    for k in range(14):
        picture(root / "one" / f"a{k:02d}.png", k, 16 + k % 3, 24)
        picture(root / "two" / f"a{k:02d}.png", 50 + k, channels=1)
        picture(root / "two" / f"a{k:02d}.tif", 100 + k)
    for k in range(8):
        nifti(root / "nifti" / f"v{k}{'.nii.gz' if k % 2 else '.nii'}", 200 + k)
    for k in range(6):

        def own_series(_: int, image: object, k: int = k) -> None:
            image.SeriesInstanceUID = f"1.2.3.{k + 1}0"  # type: ignore[attr-defined]
            image.SeriesDescription = "../../evil"  # type: ignore[attr-defined]

        write_series(root / "dicom" / f"Mustermann{k}", even(1 + k % 3), own_series, shape=(17, 16))
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        for k in range(4):
            archive.write(picture(root.parent / "packed" / f"{k}.png", 300 + k), f"in/{k}.png")
    bad = root / "bad"
    bad.mkdir()
    (bad / "empty.png").write_bytes(b"")
    (bad / "short.png").write_bytes((root / "one" / "a00.png").read_bytes()[:300])
    (bad / "short.nii.gz").write_bytes((root / "nifti" / "v1.nii.gz").read_bytes()[:150])
    (bad / "text.dcm").write_text("no DICOM at all")
    (bad / "objects.npy").write_bytes(pickle_in_npy())
    (bad / "broken.zip").write_bytes((root / "more.zip").read_bytes()[:-30])
    (root / "notes.txt").write_text("left out")
    return root


def pickle_in_npy() -> bytes:
    """An .npy file of objects whose pickle would make a file called "leaked" where it is opened."""

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("leaked",)

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return buffer.getvalue() + pickle.dumps([Harm()])


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every result by its name."""
    files = [path for part in ("results", "derivatives") for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def remains(folder: Path) -> list[str]:
    """What a run should not leave behind, anywhere."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    marks = (".part", ".preimage-", ".job-", ".deleted", "scratch", "job/lock", "job/stop", "job/parts", "partial")
    return [name for name in names if any(mark in name for mark in marks)]
