"""Raw data as scanners and archives store them: k-space and projections, with named axes and nothing executed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medical.files import read_whole
from medical.volume import SourceFile
from operators.errors import NeedError, PreimageError, ReadError

_KSPACE_AXES = ("slice", "coil", "row", "column")
_SINOGRAM_AXES = ("view", "row", "column")
_LARGEST = 1 << 32
"""Numbers in one file above which a header is not believed."""


@dataclass(frozen=True, eq=False)
class KSpace:
    """Measured k-space of a Cartesian scan, zero where nothing was measured and not shifted: as in the file.

    Attributes:
        data: (slices, coils, rows, columns) complex64; rows are read out, columns are phase-encoded.
        mask: (columns,) the columns that were measured, where the file says so.
        reference: (slices, height, width) float32 magnitudes of the full scan, where the file has them.
        source: the file.
    """

    data: NDArray[np.complex64]
    mask: NDArray[np.bool_] | None = None
    reference: NDArray[np.float32] | None = None
    source: SourceFile | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        slices, coils, rows, columns = self.data.shape
        measured = "" if self.mask is None else f", {int(self.mask.sum())} columns measured"
        return f"KSpace({slices} slices, {coils} coils, {rows}x{columns}{measured})"


@dataclass(frozen=True, eq=False)
class Projections:
    """Readings of a detector, or line integrals where there are no flat and dark fields.

    Attributes:
        readings: (views, rows, columns) float32.
        angles: (views,) radians.
        flats: (any number, rows, columns) without the object, or None.
        darks: (any number, rows, columns) without the beam, or None.
        source: the file.
    """

    readings: NDArray[np.float32]
    angles: NDArray[np.float64]
    flats: NDArray[np.float32] | None = None
    darks: NDArray[np.float32] | None = None
    source: SourceFile | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        views, rows, columns = self.readings.shape
        turn = np.degrees(self.angles.max() - self.angles.min())
        return f"Projections({views} views over {turn:.1f} degrees, {rows}x{columns})"


def read_fastmri(path: Path) -> KSpace:
    """A file of the fastMRI collection: `kspace` (slices, [coils,] rows, columns), and its mask and reference if there.

    Raises:
        ReadError: the file is damaged or lacks `kspace`.
        NeedError: h5py is not installed.
    """
    arrays = _hdf5(path, ("kspace", "mask", "reconstruction_rss", "reconstruction_esc"))
    if "kspace" not in arrays:
        raise ReadError("Expected k-space named 'kspace', got a file without; name the layout or convert it to .npy.")
    data = arrays["kspace"]
    if data.ndim not in (3, 4) or not np.iscomplexobj(data):
        raise ReadError(f"Expected complex k-space (slices, [coils,] rows, columns), got {data.dtype} {data.shape}.")
    if data.ndim == 3:
        data = data[:, None]
    mask = arrays.get("mask")
    if mask is not None and mask.shape != data.shape[-1:]:
        raise ReadError(f"Expected a mask of {data.shape[-1]} columns, got {mask.shape}; the file is damaged.")
    reference = arrays.get("reconstruction_rss", arrays.get("reconstruction_esc"))
    return KSpace(
        data=_complex(data),
        mask=None if mask is None else mask.astype(bool),
        reference=None if reference is None else reference.astype(np.float32),
        source=_source(path),
    )


def read_kspace(path: Path, axes: Sequence[str]) -> KSpace:
    """K-space in an .npy file whose axes the caller names, in their order: of slice, coil, row and column.

    Raises:
        ReadError: the file is damaged or not complex, or the names do not fit.
    """
    array = _npy(path)
    if not np.iscomplexobj(array):
        raise ReadError(f"Expected complex k-space, got {array.dtype}; save real and imaginary part as one number.")
    return KSpace(_complex(_arranged(array, axes, _KSPACE_AXES)), source=_source(path))


def read_bart(path: Path) -> KSpace:
    """K-space in a .cfl and .hdr pair of BART: read-out, phase, (one partition), coil, ..., slice.

    Args:
        path: the name of either file, or without an ending.

    Raises:
        ReadError: the pair is incomplete, or has axes beyond these four.
    """
    array = read_cfl(path)
    sizes = (*array.shape, *(1,) * (16 - array.ndim))
    used = (sizes[13], sizes[3], sizes[0], sizes[1])
    if prod(sizes) != prod(used):
        raise ReadError(
            f"Expected read-out, phase, coils and slices, got sizes {array.shape}; take one part of the rest."
        )
    ordered = array.reshape(sizes, order="F").transpose(13, 3, 0, 1, *(k for k in range(16) if k not in (0, 1, 3, 13)))
    cfl = path.with_suffix(".cfl")
    return KSpace(np.ascontiguousarray(ordered.reshape(used)), source=_source(cfl))


def read_cfl(path: Path) -> NDArray[np.complex64]:
    """The array in a .cfl and .hdr pair of BART, in its order of axes.

    Raises:
        ReadError: the pair is incomplete, or the sizes do not fit.
    """
    words = read_whole(path.with_suffix(".hdr"))[0].decode("ascii", errors="replace").splitlines()
    lines = [line.split() for title, line in pairwise(words) if title.strip() == "# Dimensions"]
    if not lines or not all(word.isdecimal() and int(word) > 0 for word in lines[0]):
        raise ReadError("Expected a .hdr file with a line of sizes after '# Dimensions', got another; write it again.")
    sizes = tuple(int(word) for word in lines[0])
    content = read_whole(path.with_suffix(".cfl"))[0]
    if prod(sizes) * 8 != len(content):
        raise ReadError(
            f"Expected {prod(sizes)} complex numbers in the .cfl file, got {len(content) / 8:g}; copy it again."
        )
    return np.frombuffer(content, dtype="<c8").reshape(sizes, order="F").astype(np.complex64)


def read_ismrmrd(path: Path) -> KSpace:
    """Two-dimensional Cartesian k-space in an ISMRMRD file: no noise or calibration scans, repeated lines averaged.

    Raises:
        ReadError: the scan is not Cartesian, three-dimensional, or has several contrasts, phases, repetitions or sets.
        NeedError: ismrmrd is not installed.
    """
    try:
        import ismrmrd
    except ImportError as error:
        raise NeedError(
            "Expected ismrmrd to read the file, got an installation without; install preimage[raw]."
        ) from error
    try:
        with ismrmrd.File(str(path), mode="r") as file:
            scan = next(file[name] for name in file if file[name].has_acquisitions())
            header, lines = scan.header, list(scan.acquisitions[:])
    except Exception as error:  # a damaged file makes the reader raise anything
        raise ReadError(
            f"Expected an ISMRMRD file, got a {type(error).__name__} while reading it; get it again."
        ) from None
    space = header.encoding[0]
    if len(header.encoding) != 1 or space.trajectory.value != "cartesian" or space.encodedSpace.matrixSize.z != 1:
        raise ReadError("Expected one two-dimensional Cartesian encoding, got another; reconstruct it elsewhere.")
    aside = (ismrmrd.ACQ_IS_NOISE_MEASUREMENT, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PHASECORR_DATA,
             ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_RTFEEDBACK_DATA)  # fmt: skip
    lines = [line for line in lines if not any(line.is_flag_set(flag) for flag in aside)]
    if not lines:
        raise ReadError("Expected image lines, got none; look at the flags of the file.")
    for name in ("contrast", "phase", "repetition", "set"):
        if len({getattr(line.idx, name) for line in lines}) > 1:
            raise ReadError(f"Expected one {name}, got several; take one of them out first.")
    coils, rows = lines[0].data.shape
    columns = space.encodedSpace.matrixSize.y
    limits = space.encodingLimits.kspace_encoding_step_1
    shift = columns // 2 - (limits.center if limits is not None else columns // 2)
    data = np.zeros((1 + max(line.idx.slice for line in lines), coils, rows, columns), dtype=np.complex64)
    counts = np.zeros((len(data), columns))
    for line in lines:
        column = line.idx.kspace_encode_step_1 + shift
        if line.data.shape != (coils, rows) or not 0 <= column < columns:
            raise ReadError("Expected lines of one length within the encoded matrix, got others; the file is damaged.")
        numbers = line.data[:, ::-1] if line.is_flag_set(ismrmrd.ACQ_IS_REVERSE) else line.data
        data[line.idx.slice, :, :, column] += numbers
        counts[line.idx.slice, column] += 1
    data /= np.maximum(counts, 1)[:, None, None]
    return KSpace(data, mask=counts.min(0) > 0, source=_source(path))


def read_exchange(path: Path) -> Projections:
    """Projections in the Data Exchange layout of synchrotrons: exchange/data, data_white, data_dark, theta in degrees.

    Raises:
        ReadError: the file is damaged or lacks the data or the angles.
        NeedError: h5py is not installed.
    """
    arrays = _hdf5(path, tuple(f"exchange/{name}" for name in ("data", "data_white", "data_dark", "theta")))
    data, theta = arrays.get("exchange/data"), arrays.get("exchange/theta")
    if data is None or theta is None or data.ndim != 3:
        raise ReadError("Expected exchange/data (views, rows, columns) and exchange/theta, got a file without.")
    fields = []
    for name in ("exchange/data_white", "exchange/data_dark"):
        values = arrays.get(name)
        if values is not None and values.shape[1:] != data.shape[1:]:
            raise ReadError(f"Expected fields of {data.shape[1:]}, got {values.shape[1:]}; the file is damaged.")
        fields.append(None if values is None else values.astype(np.float32))
    angles = _angles(np.radians(theta.astype(np.float64).ravel()), len(data))
    return Projections(data.astype(np.float32), angles, fields[0], fields[1], _source(path))


def read_sinogram(path: Path, axes: Sequence[str], angles: NDArray[np.float64]) -> Projections:
    """Projections in an .npy or TIFF file whose axes the caller names, in their order: of view, row and column.

    Args:
        path: the file.
        axes: such as ("view", "column").
        angles: (views,) radians.

    Raises:
        ReadError: the file is damaged or holds no finite real numbers, or names or angles do not fit.
    """
    array = _npy(path) if path.suffix.lower() == ".npy" else _tiff(path)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ReadError(f"Expected finite real numbers, got {array.dtype}; clean the file.")
    readings = _arranged(array, axes, _SINOGRAM_AXES).astype(np.float32)
    return Projections(readings, _angles(angles, len(readings)), source=_source(path))


def _arranged(array: NDArray[Any], axes: Sequence[str], known: tuple[str, ...]) -> NDArray[Any]:
    """The array with its named axes in the known order, and length 1 where an axis is not named."""
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not set(axes) <= set(known):
        raise ReadError(f"Expected {array.ndim} different names of {', '.join(known)}, got {', '.join(axes)}.")
    present = [axes.index(name) for name in known if name in axes]
    missing = tuple(place for place, name in enumerate(known) if name not in axes)
    return np.expand_dims(array.transpose(present), missing)


def _angles(angles: NDArray[np.float64], views: int) -> NDArray[np.float64]:
    if angles.shape != (views,) or not np.isfinite(angles).all():
        raise ReadError(
            f"Expected {views} finite angles, one a view, got {angles.shape}; look at the order of the axes."
        )
    return angles.astype(np.float64)


def _complex(array: NDArray[Any]) -> NDArray[np.complex64]:
    numbers = np.ascontiguousarray(array, dtype=np.complex64)
    if not numbers.size or not np.isfinite(numbers).all():
        raise ReadError("Expected finite k-space, got NaN, infinity or nothing; clean the file.")
    return numbers


def _npy(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise ReadError(
            f"Expected an .npy file of numbers, got a {type(error).__name__}; save the array again."
        ) from None


def _tiff(path: Path) -> NDArray[Any]:
    try:
        with tifffile.TiffFile(path) as file:
            array = np.asarray(file.asarray())
    except Exception as error:  # a damaged file makes the reader raise anything
        raise ReadError(f"Expected an .npy or TIFF file, got a {type(error).__name__}; convert it.") from None
    if not array.size:
        raise ReadError("Expected an .npy or TIFF file, got one without a picture; convert it.")
    return array


def _hdf5(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that are in a file; links to other files are not followed."""
    try:
        import h5py
    except ImportError as error:
        raise NeedError(
            "Expected h5py to read the file, got an installation without; install preimage[raw]."
        ) from error
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for name in names:
                if isinstance(file.get(name, getlink=True), h5py.ExternalLink) or not isinstance(
                    file.get(name), h5py.Dataset
                ):
                    continue
                if file[name].size > _LARGEST or file[name].dtype.kind not in "biufc" or file[name].external:
                    raise ReadError(
                        f"Expected numbers in {name}, got {file[name].dtype} {file[name].shape}; convert it."
                    )
                arrays[name] = np.asarray(file[name])
    except PreimageError:
        raise
    except Exception as error:  # a damaged file makes the reader raise anything
        raise ReadError(
            f"Expected an HDF5 file, got a {type(error).__name__} while reading it; get it again."
        ) from None
    return arrays


def _source(path: Path) -> SourceFile:
    return SourceFile(path, read_whole(path)[1])
