"""Raw data keep their numbers and their axes; what does not fit is refused."""

import numpy as np
import pytest
import tifffile

from medical.raw import read_bart, read_cfl, read_exchange, read_fastmri, read_ismrmrd, read_kspace, read_sinogram
from operators.errors import ReadError
from tests.medical.dicoms import elsewhere

RNG = np.random.Generator(np.random.PCG64DXSM(2))


def noise(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


def hdf5(path, **arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def test_fastmri_with_and_without_coils(tmp_path):
    kspace, mask = noise(2, 3, 6, 5), np.array([1, 0, 1, 1, 0], dtype=np.float32)
    many = read_fastmri(hdf5(tmp_path / "a.h5", kspace=kspace, mask=mask, reconstruction_rss=np.ones((2, 4, 4))))
    np.testing.assert_array_equal(many.data, kspace)
    np.testing.assert_array_equal(many.mask, mask > 0)
    assert many.reference.shape == (2, 4, 4)
    single = read_fastmri(hdf5(tmp_path / "b.h5", kspace=kspace[:, 0]))
    np.testing.assert_array_equal(single.data, kspace[:, :1])
    with pytest.raises(ReadError, match="named 'kspace'"):
        read_fastmri(hdf5(tmp_path / "c.h5", other=kspace))
    with pytest.raises(ReadError, match="mask of 5 columns"):
        read_fastmri(hdf5(tmp_path / "d.h5", kspace=kspace, mask=mask[1:]))
    with pytest.raises(ReadError, match="Expected an HDF5 file"):
        read_fastmri(tmp_path / "missing.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    hdf5(tmp_path / "secret.h5", kspace=noise(1, 1, 4, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kspace")
    with pytest.raises(ReadError, match="named 'kspace'"):
        read_fastmri(tmp_path / "a.h5")


def test_npy_has_the_axes_that_its_reader_names(tmp_path):
    kspace = noise(6, 5, 3)
    np.save(tmp_path / "a.npy", kspace)
    read = read_kspace(tmp_path / "a.npy", ("row", "column", "coil"))
    np.testing.assert_array_equal(read.data[0], kspace.transpose(2, 0, 1))
    for axes in (("row", "column"), ("row", "row", "coil"), ("row", "column", "time")):
        with pytest.raises(ReadError, match="3 different names"):
            read_kspace(tmp_path / "a.npy", axes)
    np.save(tmp_path / "real.npy", kspace.real)
    with pytest.raises(ReadError, match="complex k-space, got float32"):
        read_kspace(tmp_path / "real.npy", ("row", "column", "coil"))
    kspace[0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", kspace)
    with pytest.raises(ReadError, match="finite"):
        read_kspace(tmp_path / "nan.npy", ("row", "column", "coil"))


def test_a_pickle_is_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ReadError, match=r"\.npy file of numbers"):
        read_kspace(tmp_path / "a.npy", ("row",))


def cfl(path, array):
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
    sizes = " ".join(map(str, array.shape))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes} \n# Command\nnone\n")
    return path


def test_bart_pairs_are_column_major(tmp_path):
    kspace = noise(6, 5, 1, 3)
    np.testing.assert_array_equal(read_cfl(cfl(tmp_path / "a", kspace)), kspace)
    np.testing.assert_array_equal(read_bart(tmp_path / "a.cfl").data[0], kspace[:, :, 0].transpose(2, 0, 1))
    slices = noise(6, 5, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4)
    read = read_bart(cfl(tmp_path / "b", slices))
    np.testing.assert_array_equal(read.data[2, 1], slices.squeeze()[:, :, 1, 2])
    with pytest.raises(ReadError, match="take one part"):
        read_bart(cfl(tmp_path / "c", noise(6, 5, 2, 3)))
    (tmp_path / "a.cfl").write_bytes(b"12345678")
    with pytest.raises(ReadError, match="got 1; copy"):
        read_cfl(tmp_path / "a")
    (tmp_path / "a.hdr").write_text("# Dimensions\n-1 2\n")
    with pytest.raises(ReadError, match="line of sizes"):
        read_cfl(tmp_path / "a")


def test_exchange_projections(tmp_path):
    data = RNG.random((4, 2, 6)).astype(np.float32)
    theta = np.array([0.0, 60, 120, 180])
    path = hdf5(
        tmp_path / "a.h5",
        exchange__data=data,
        exchange__data_white=data[:2] + 1,
        exchange__data_dark=data[:3] * 0,
        exchange__theta=theta,
    )
    scan = read_exchange(path)
    np.testing.assert_array_equal(scan.readings, data)
    np.testing.assert_allclose(scan.angles, np.radians(theta))
    assert scan.flats.shape == (2, 2, 6)
    assert scan.darks.shape == (3, 2, 6)
    with pytest.raises(ReadError, match="4 finite angles"):
        read_exchange(hdf5(tmp_path / "b.h5", exchange__data=data, exchange__theta=theta[1:]))


def test_sinograms_in_npy_and_tiff(tmp_path):
    sinogram = RNG.random((6, 4)).astype(np.float32)
    angles = np.linspace(0, np.pi, 4, endpoint=False)
    np.save(tmp_path / "a.npy", sinogram)
    tifffile.imwrite(tmp_path / "a.tif", sinogram)
    for name in ("a.npy", "a.tif"):
        scan = read_sinogram(tmp_path / name, ("column", "view"), angles)
        np.testing.assert_array_equal(scan.readings[:, 0], sinogram.T)
    with pytest.raises(ReadError, match="6 finite angles"):
        read_sinogram(tmp_path / "a.npy", ("view", "column"), angles)
    (tmp_path / "b.tif").write_bytes(b"II*\0 no picture")
    with pytest.raises(ReadError, match="npy or TIFF"):
        read_sinogram(tmp_path / "b.tif", ("view", "column"), angles)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ismrmrd_lines_find_their_places(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    pytest.importorskip("h5py")
    xsd = ismrmrd.xsd
    size = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=6, y=5, z=1), fieldOfView_mm=xsd.fieldOfViewMm(x=10, y=10, z=5)
    )
    limits = xsd.encodingLimitsType(kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=4, center=2))
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123456789),
        encoding=[
            xsd.encodingType(
                encodedSpace=size, reconSpace=size, encodingLimits=limits, trajectory=xsd.trajectoryType.CARTESIAN
            )
        ],
    )
    kspace = noise(2, 3, 6, 5)
    kspace[..., 3] = 0

    def lines():
        yield ismrmrd.Acquisition.from_array(noise(3, 6)), 0, 0, ismrmrd.ACQ_IS_NOISE_MEASUREMENT
        for k, column in [(k, column) for k in (1, 0) for column in (4, 0, 2, 1, 0)]:  # column 0 twice
            yield ismrmrd.Acquisition.from_array(kspace[k, :, :, column]), k, column, None

    with ismrmrd.Dataset(str(tmp_path / "a.h5"), "dataset") as file:
        file.write_xml_header(header.toXML())
        for line, k, column, flag in lines():
            line.idx.slice, line.idx.kspace_encode_step_1 = k, column
            if flag is not None:
                line.set_flag(flag)
            file.append_acquisition(line)
    read = read_ismrmrd(tmp_path / "a.h5")
    np.testing.assert_allclose(read.data, kspace, rtol=1e-6)
    np.testing.assert_array_equal(read.mask, [True, True, True, False, True])


def test_the_real_tooth_and_brain():
    pytest.importorskip("h5py")
    scan = read_exchange(elsewhere("sinogram/tomopy/source/tomopy/data/tooth.h5"))
    assert scan.readings.shape == (181, 2, 640)
    assert np.degrees(scan.angles[-1]) == pytest.approx(180, abs=1.1)
    kspace = read_kspace(elsewhere("kspace/sigpy_tutorial/data/cartesian_ksp.npy"), ("coil", "row", "column"))
    assert kspace.data.shape[1] == 8
