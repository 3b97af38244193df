"""NIfTI and Analyze files as volumes, and back with the header they came with."""

import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medical.files import check_apart, read_again, read_whole, whole_file
from medical.volume import Note, Source, SourceFile, Volume, with_filled
from operators.errors import PreimageError, ReadError, ShapeError, WriteError

ENDINGS = (".nii", ".nii.gz")
"""Of the files that are written."""

MAX_VOXELS = 1 << 29
"""Most voxels read; a header can promise more than any machine holds."""

_MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_RIGHT_ANGLE = 1e-4
"""Skew up to which ITK, and what is built on it, takes an affine for orthogonal."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences nibabel, whose log lines repeat what is in headers."""
    log = logging.getLogger("nibabel.global")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def read_nifti(path: Path, *, unit: str = "a.u.") -> Volume:
    """The volume of a NIfTI-1, NIfTI-2 or Analyze file (the name of either of a pair), in the file's order of axes.

    A plane becomes a volume of one slice, axes of length 1 beyond the third are dropped.

    Args:
        path: .nii, .nii.gz, or .hdr or .img of a pair.
        unit: what the numbers are; the format does not say.

    Raises:
        ReadError: the file is damaged, of another format, in colour, or has more than one axis beyond space.
    """
    image, files = _load(path)
    numbers = _numbers(image)
    if numbers.size == 0:
        raise ReadError("Expected voxels, got none; look at the header.")
    notes = _notes(image)
    array = numbers.reshape(_volume_shape(numbers.shape))
    valid = np.isfinite(array)
    if not valid.all():
        notes.append(Note("W-NOT-FINITE", f"{int((~valid).sum())} voxels are not finite; they are kept as they are"))
    affine = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3] *= _scale(image)
    return Volume(
        array=with_filled(array, valid),
        affine=affine,
        unit=unit,
        source=Source("nifti", files),
        valid=None if valid.all() else valid,
        notes=tuple(notes),
    )


def write_nifti(
    volume: Volume, path: Path, *, keep_dtype: bool = False, replace_existing: bool = False
) -> tuple[Note, ...]:
    """Write a volume as NIfTI, whole or not at all; it is read back and compared before the file takes its name.

    A volume that was read from NIfTI keeps its header: codes and matrices of both forms, units, times, extensions.

    Args:
        volume: numbers in float32 or complex64.
        path: a name ending in .nii or .nii.gz.
        keep_dtype: store the integers of the source file with its slope and intercept instead of float32: a voxel whose
            number is what was read keeps its integer, others are rounded and clipped.
        replace_existing: whether an existing file may be replaced.

    Returns:
        What a person should know: W-CLIP, W-NONORTHO.

    Raises:
        WriteError: uneven or sheared slices of a DICOM series, another ending, or the disk refuses.
        ReadError: the source file has changed.
    """
    if not path.name.endswith(ENDINGS):
        raise WriteError(f"Expected a name ending in .nii or .nii.gz, got '{path.suffix}'; change the ending.")
    source = volume.source
    if not volume.regular:
        raise WriteError("Expected evenly spaced slices, got gaps, which NIfTI cannot say; write DICOM slices instead.")
    check_apart(path, source)
    notes: list[Note] = []
    affine = volume.affine
    if source is not None and source.format == "nifti":
        image, _ = _load(source.files[0].path, source.files)
        if _volume_shape(image.shape) != volume.array.shape or not np.allclose(_scaled_affine(image), affine):
            raise WriteError("Expected the grid of the source file, got another; turn the volume back first.")
        made = _like(image, volume, keep_dtype, notes)
        if volume.skew > _RIGHT_ANGLE:
            notes.append(
                Note(
                    "W-NONORTHO",
                    "axes are not at right angles, nor were the source's; viewers built on ITK refuse them",
                )
            )
    elif keep_dtype:
        raise WriteError("Expected a volume read from NIfTI to keep its type, got another; write float32.")
    else:
        made = _new(volume, notes)
    made.header["descrip"] = f"Preimage {importlib.metadata.version('preimage')}; research use only".encode()
    ending = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    with whole_file(path, ending, replace=replace_existing) as part, _quiet():
        nibabel.save(made, part)
        _verify(part, made)
    return tuple(notes)


def write_labels(labels: NDArray[np.integer] | NDArray[np.bool_], volume: Volume, path: Path) -> None:
    """Write a label map (I, J, K) on the grid of a volume as uint8, or uint16 above 255 labels.

    Raises:
        ShapeError: another shape, or negative labels.
        WriteError: see `write_nifti`.
    """
    if labels.shape != volume.array.shape[:3] or labels.min() < 0 or labels.max() > 65535:
        raise ShapeError(f"Expected labels from 0 to 65535 {volume.array.shape[:3]}, got {labels.shape}; check it.")
    if not path.name.endswith(ENDINGS) or not volume.regular:
        raise WriteError("Expected a name ending in .nii or .nii.gz and evenly spaced slices; write DICOM instead.")
    check_apart(path, volume.source)
    small = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
    made = _placed(small, _orthogonal(volume, []), volume)
    with whole_file(path, ".nii.gz" if path.name.endswith(".gz") else ".nii") as part, _quiet():
        nibabel.save(made, part)
        _verify(part, made)


def _load(path: Path, known: tuple[SourceFile, ...] = ()) -> tuple[Any, tuple[SourceFile, ...]]:
    """The image of a file, read into memory, and its checksums; or of files that were read before."""
    if not path.name.endswith((*ENDINGS, ".hdr", ".img", ".hdr.gz", ".img.gz")):
        raise ReadError(f"Expected .nii, .nii.gz or a pair of .hdr and .img, got '{path.suffix}'; convert the file.")
    try:
        with _quiet():
            image = nibabel.load(path)
            if not isinstance(image, nibabel.analyze.AnalyzeImage):
                raise ReadError(f"Expected NIfTI or Analyze, got {type(image).__name__}; convert the file.")
            paths = dict.fromkeys(Path(holder.filename) for holder in image.file_map.values() if holder.filename)
            files = tuple(SourceFile(name, read_whole(name)[1]) for name in paths if name.exists())
            for file in known:
                read_again(file)
            np.asanyarray(image.dataobj[(0,) * len(image.shape)])
    except PreimageError:
        raise
    except Exception as error:  # a damaged header makes the reader raise anything
        raise ReadError(
            f"Expected a whole NIfTI or Analyze file, got a {type(error).__name__} while reading it; get it again."
        ) from None
    return image, files


def _numbers(image: Any) -> NDArray[Any]:
    """Scaled numbers in single precision."""
    kind = image.get_data_dtype()
    if kind.names is not None or kind.kind not in "biufc":
        raise ReadError("Expected one number a voxel, got colour; split the channels first.")
    if math.prod(image.shape) > MAX_VOXELS:
        raise ReadError(
            f"Expected at most {MAX_VOXELS} voxels, got a header with {math.prod(image.shape)}; split the file."
        )
    try:
        if kind.kind == "c":
            return np.asarray(image.dataobj, dtype=np.complex64)
        return np.asarray(image.get_fdata(dtype=np.float64, caching="unchanged")).astype(np.float32)
    except Exception as error:
        raise ReadError(f"Expected whole voxel data, got a {type(error).__name__}; get the file again.") from None


def _volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(I, J, K) or (I, J, K, T) for the shape in a file."""
    full = (*shape, 1, 1, 1)[: max(len(shape), 3)]
    rest = tuple(n for n in full[3:] if n != 1)
    if len(rest) > 1:
        raise ReadError(f"Expected at most one axis beyond space, got {shape}; split the file.")
    return (*full[:3], *rest)


def _scale(image: Any) -> float:
    """Millimetres in the file's unit of length."""
    if not isinstance(image, nibabel.Nifti1Pair):
        return 1.0
    return _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)


def _scaled_affine(image: Any) -> NDArray[np.float64]:
    affine = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3] *= _scale(image)
    return affine


def _notes(image: Any) -> list[Note]:
    notes = []
    if not isinstance(image, nibabel.Nifti1Pair):
        notes.append(Note("W-ORIENTATION", "Analyze does not say where left is; the usual order is assumed"))
        return notes
    (sform, scode), (qform, qcode) = image.get_sform(coded=True), image.get_qform(coded=True)
    if scode == 0 and qcode == 0:
        notes.append(Note("W-ORIENTATION", "the header does not say where left is; the usual order is assumed"))
    elif scode > 0 and qcode > 0 and np.abs(sform - qform).max() > 1e-3:
        off = np.abs(sform - qform).max()
        notes.append(Note("W-FORMS", f"sform and qform differ by up to {off:.3g}; the sform is used"))
    return notes


def _placed(array: NDArray[Any], affine: NDArray[np.float64], volume: Volume) -> Any:
    """A new image that says where it is in both forms: scanner coordinates."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def _orthogonal(volume: Volume, notes: list[Note]) -> NDArray[np.float64]:
    """The affine with its axes at right angles, where only rounding had moved them.

    Raises:
        WriteError: the axes are sheared, as those of a tilted gantry are.
    """
    if volume.skew > 1e-3:
        raise WriteError("Expected axes at right angles, got sheared ones (gantry tilt); write DICOM slices instead.")
    spacing = np.array(volume.spacing)
    left, _, right = np.linalg.svd(volume.affine[:3, :3] / spacing)
    affine = volume.affine.copy()
    affine[:3, :3] = left @ right * spacing
    if volume.skew > _RIGHT_ANGLE:
        notes.append(Note("W-NONORTHO", f"axes were turned by {volume.skew:.1g} to be at right angles"))
    return affine


def _new(volume: Volume, notes: list[Note]) -> Any:
    if not np.isfinite(volume.array).all():
        raise ShapeError("Expected finite numbers, got NaN or infinity; look for the step that produced them.")
    return _placed(volume.array, _orthogonal(volume, notes), volume)


def _like(image: Any, volume: Volume, keep_dtype: bool, notes: list[Note]) -> Any:
    """An image with the header of `image` and the numbers of `volume`; what was not measured is put back."""
    header = image.header
    if not isinstance(image, nibabel.Nifti1Pair):
        made = nibabel.Nifti1Image(volume.array.reshape(image.shape), image.affine)
        made.header.set_xyzt_units("mm", "unknown")
        return made
    kind: Any = nibabel.Nifti2Image if isinstance(image, nibabel.Nifti2Pair) else nibabel.Nifti1Image
    new = header.copy()
    slope, inter = 1.0, 0.0
    if keep_dtype:
        if image.get_data_dtype().kind not in "iu":
            raise WriteError("Expected a source of integers to keep its type, got another; write float32.")
        proxy: Any = image.dataobj
        slope, inter = proxy.slope, proxy.inter
        array = _integers(image, volume, notes)
    else:
        array = volume.array.reshape(image.shape)
        if volume.valid is not None:
            array = np.where(volume.valid.reshape(image.shape), array, _numbers(image))
        new.set_data_dtype(array.dtype)
    made = kind(array, image.affine, new)  # the same affine, so both forms and their codes stay
    made.header.set_slope_inter(slope, inter)
    return made


def _integers(image: Any, volume: Volume, notes: list[Note]) -> NDArray[Any]:
    raw = np.asanyarray(image.dataobj.get_unscaled())
    limits = np.iinfo(raw.dtype)
    numbers = volume.array.reshape(image.shape)
    kept = _numbers(image) == numbers
    if volume.valid is not None:
        kept |= ~volume.valid.reshape(image.shape)
    wanted = np.rint((numbers.astype(np.float64) - image.dataobj.inter) / image.dataobj.slope)
    if lost := int(((wanted < limits.min) | (wanted > limits.max))[~kept].sum()):
        notes.append(Note("W-CLIP", f"{lost} voxels were beyond what the source's type can hold and were clipped"))
    fitting = np.clip(wanted, limits.min, limits.max).astype(raw.dtype)
    return np.asarray(np.where(kept, raw, fitting))


def _verify(path: Path, made: Any) -> None:
    """Refuses a file that does not read back as it was meant."""
    again: Any = nibabel.load(path)
    raw = np.asanyarray(again.dataobj.get_unscaled())
    same = np.array_equal(raw, np.asanyarray(made.dataobj), equal_nan=raw.dtype.kind in "fc")
    if (
        not same
        or raw.dtype.newbyteorder("=") != made.dataobj.dtype.newbyteorder("=")
        or not np.allclose(again.affine, made.affine, rtol=1e-6, atol=1e-4)
    ):
        raise WriteError("Expected the written file to read back as meant, got another; report this.")
