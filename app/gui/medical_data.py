"""Uploaded volumes: read as a batch would read them, described without identities, and packed for the viewer."""

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from app.inputs import Case, blamed, find_cases
from app.jobs import disk_refuses
from app.uploads import plain_name
from app.volume_views import volume_view
from app.work_volumes import read_volume
from medical.about import About, about_dicom, about_nifti
from medical.deidentify import clean_nifti, deidentify
from medical.intensity import Scale, planes, scale_of, through_axis
from medical.volume import Volume
from operators.errors import PreimageError, ReadError
from operators.noise_level import estimate_sigma

_RAW = (".npy", ".npz", ".h5", ".hdf5", ".cfl", ".mat")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A volume that was uploaded.

    Attributes:
        folder: of this upload, below Gradio's cache, under a name that nobody can guess.
        cases: the volumes that were found in it; `case` is the one that is shown.
        views: for the viewer, with their `url`.
        facts: what a person is told, names and values.
        hidden: names of the elements that hold identities; never their values.
        notes: sentences.
        scale: what black and white are to a method.
        slices: how many there are to restore, of `plane` (rows, columns), `pixel` mm a side.
        sigma: estimated noise, in the volume's unit; None where it cannot be.
    """

    folder: Path
    cases: tuple[Case, ...]
    case: Case
    views: tuple[dict[str, Any], ...]
    facts: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]
    notes: tuple[str, ...]
    unit: str
    scale: Scale
    slices: int
    plane: tuple[int, int]
    pixel: tuple[float, float]
    sigma: float | None
    modality: str

    @property
    def title(self) -> str:
        """One line."""
        return ", ".join(value for _, value in self.facts[:3])


@dataclass(frozen=True)
class Wishes:
    """What decides how an upload is read: the options of the same names, a segmentation, and which volume."""

    window: tuple[float, float] | None = None
    on_gap: Literal["refuse", "slicewise"] = "refuse"
    labels: Path | None = None
    chosen: int | None = None


def take_in(files: Sequence[Path], cache: Path, wishes: Wishes) -> Loaded:
    """Read the first volume of some files, or the one that is wished for.

    Raises:
        PreimageError: there is no volume in them, it cannot be read or is too large to be looked at.
    """
    folder = cache / secrets.token_hex(16)
    try:
        place = folder / "files"
        place.mkdir(parents=True, mode=0o700)
        for k, file in enumerate(files):
            name = plain_name(file.name)
            _link(file, place / (name if not (place / name).exists() else f"{k}-{name}"))
        cases = _volumes(place, folder)
        return _shown(folder, cases, wishes)
    except OSError as error:
        forget(folder)
        raise disk_refuses(error) from error
    except BaseException:
        forget(folder)
        raise


def again(loaded: Loaded, wishes: Wishes) -> Loaded:
    """The same upload, read with other wishes; what the viewer had of it before is gone."""
    earlier = list(loaded.folder.glob("shown-*"))
    taken = _shown(loaded.folder, loaded.cases, wishes)
    for folder in earlier:
        forget(folder)
    return taken


def forget(folder: Path | None) -> None:
    """Remove what was kept of an upload."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def sources(loaded: Loaded, *, nameless: bool, text_checked: bool) -> list[Path]:
    """The files of the volume for a job: as they are, or copies without identities.

    Raises:
        NeedError: dicom-anonymizer is not installed.
        WriteError: an identity would be left, or text may be burned in and nobody has looked.
    """
    files = [Path(name) for name in loaded.case.files]
    if not nameless:
        return files
    target = loaded.folder / f"nameless-{secrets.token_hex(4)}"
    if loaded.case.kind == "dicom":
        deidentify(files, target, text_checked=text_checked)
        return sorted(target.iterdir())
    target.mkdir(mode=0o700)
    ending = ".nii.gz" if files[0].name.lower().endswith(".gz") else ".nii"
    clean_nifti(files[0], target / f"volume{ending}")
    return [target / f"volume{ending}"]


def _volumes(place: Path, scratch: Path) -> tuple[Case, ...]:
    """The volumes among some files.

    Raises:
        ReadError: there are none; says what there is instead.
    """
    names = [path.name.lower() for path in place.iterdir()]
    try:
        cases = find_cases([place], scratch).cases
    except ReadError:
        cases = []
    volumes = tuple(case for case in cases if case.kind in ("dicom", "nifti"))
    if volumes:
        return volumes
    if any(name.endswith(_RAW) for name in names):
        raise ReadError(
            "Expected DICOM or NIfTI, got arrays: raw k-space and sinograms are not restored from this page; "
            "use medical.raw in Python."
        )
    broken = [case for case in cases if case.kind == "unreadable"]
    if broken:
        raise ReadError(blamed(ReadError(broken[0].problem), broken[0].files))
    if cases:
        raise ReadError("Expected DICOM or NIfTI, got pictures; the Restore tab takes them.")
    raise ReadError("Expected DICOM or NIfTI, found none in these files; choose others.")


def _shown(folder: Path, cases: tuple[Case, ...], wishes: Wishes) -> Loaded:
    largest = max(range(len(cases)), key=lambda n: len(cases[n].files))
    chosen = wishes.chosen
    case = cases[chosen if chosen is not None and 0 <= chosen < len(cases) else largest]
    try:
        volume = read_volume(case, wishes.on_gap)
    except PreimageError as error:
        raise ReadError(blamed(error, case.files)) from None
    scale = scale_of(_magnitude(volume), wishes.window)
    axis = through_axis(volume)
    pictures = planes(volume.array, axis)
    views = folder / f"shown-{secrets.token_hex(4)}"
    views.mkdir(mode=0o700)
    shown = [volume_view("before", "As loaded", volume.array, volume, views, packed=False)]
    notes = [str(note) for note in volume.notes]
    if volume.array.ndim == 4:
        notes.append(f"{volume.array.shape[3]} volumes in the file; the first is shown, all are restored")
    if wishes.labels is not None:
        shown.append(_labels(wishes.labels, volume, views))
    for view in shown:
        view["url"] = f"gradio_api/file={views / view['file']}"
    about = (about_dicom if case.kind == "dicom" else about_nifti)(Path(case.files[0]))
    steps = [step for a, step in enumerate(volume.spacing) if a != axis]
    return Loaded(
        folder=folder,
        cases=cases,
        case=case,
        views=tuple(shown),
        facts=tuple(_facts(case, volume, scale, axis, about)),
        hidden=about.hidden,
        notes=tuple(notes),
        unit=volume.unit,
        scale=scale,
        slices=len(pictures),
        plane=(pictures.shape[-2], pictures.shape[-1]),
        pixel=(steps[0], steps[1]),
        sigma=_noise(scale, pictures),
        modality=about.modality,
    )


def _magnitude(volume: Volume) -> Volume:
    return volume.with_array(np.abs(volume.array)) if np.iscomplexobj(volume.array) else volume


def _labels(file: Path, volume: Volume, folder: Path) -> dict[str, Any]:
    """A segmentation on the grid of the volume, turned to its order of axes."""
    case = Case(number=1, key="labels", kind="nifti", files=(str(file),), folder="")
    try:
        labels = read_volume(case).reoriented(volume.orientation)
    except PreimageError as error:
        raise ReadError(f"Segmentation: {blamed(error, case.files)}") from None
    same = labels.array.shape == volume.array.shape[:3] and np.abs(labels.affine - volume.affine).max() < 1e-2
    if not same:
        raise ReadError(
            f"Expected a segmentation on the volume's grid {volume.array.shape[:3]}, got {labels.array.shape} or "
            "another place; resample it to the volume."
        )
    return volume_view("labels", "Segmentation", labels.array, labels, folder, "overlay", packed=False)


def _noise(scale: Scale, pictures: NDArray[Any]) -> float | None:
    """The noise of three middle slices, in the volume's unit; a guess."""
    count = len(pictures)
    some = np.abs(pictures[sorted({count // 3, count // 2, 2 * count // 3})])
    try:
        found = float(estimate_sigma(torch.from_numpy(scale.to_unit(some))[:, None]).median())
    except PreimageError:
        return None
    return found * scale.span if np.isfinite(found) else None


# what is said


def _facts(case: Case, volume: Volume, scale: Scale, axis: int, about: About) -> Iterable[tuple[str, str]]:
    size = " × ".join(map(str, volume.array.shape))
    steps = " × ".join(f"{step:.4g}" for step in volume.spacing)
    yield "Size", f"{size} voxels"
    yield "Voxel", f"{steps} mm"
    unit = volume.unit
    if about.modality == "CT" and unit != "HU":
        unit = "a.u. (no HU calibration in the file)"
    elif case.kind != "dicom":
        unit = f"{unit} (NIfTI does not say)"
    array = np.abs(volume.array) if np.iscomplexobj(volume.array) else volume.array
    yield "Numbers", f"{float(array.min()):.5g} to {float(array.max()):.5g} {unit}"
    if np.iscomplexobj(volume.array):
        yield "Complex", "shown as magnitude; cannot be restored from this page, take the magnitude first"
    yield "Stored axes", f"{volume.orientation} (restored slice by slice across axis {axis + 1})"
    yield "Kind", case.about.split(", cannot")[0] if case.about else "NIfTI"
    yield "Black and white", f"{scale.low:.5g} to {scale.high:.5g} {volume.unit} for the method (Options)"
    if not volume.regular:
        yield "Slices", "uneven: each is restored by itself, places between them are not right in the viewer"
    yield from about.acquisition


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
