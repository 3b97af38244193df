"""NIfTI: numbers, place and header survive; what cannot be said in the format is refused."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical.dicom import find_series, read_series
from medical.nifti import read_nifti, write_labels, write_nifti
from medical.volume import Volume
from operators.errors import ReadError, ShapeError, WriteError
from tests.medical.dicoms import elsewhere, even
from tests.medical.dicoms import write_series as source_series

RNG = np.random.Generator(np.random.PCG64DXSM(1))
ORIENTATIONS = [
    "".join(axes[k][bit >> k & 1] for k in range(3))
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for axes in [[("LR", "PA", "IS")[n] for n in order]]
    for bit in range(8)
]
BUNDLED = Path(nibabel.__file__).parent / "tests" / "data"


def save(path: Path, array, affine=None, **header) -> Path:
    image = nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def ints(shape=(4, 5, 6)):
    return RNG.integers(-3000, 3000, shape).astype(np.int16)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_48_orders_of_axes_are_one_volume_and_go_back(tmp_path, orientation):
    plain = Volume(RNG.random((3, 4, 5)).astype(np.float32), np.diag([1.0, 2, 3, 1]))
    turned = plain.reoriented(orientation)
    assert turned.orientation == orientation
    write_nifti(turned, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    canonical = volume.reoriented("RAS")
    np.testing.assert_array_equal(canonical.array, plain.array)
    np.testing.assert_allclose(canonical.affine, plain.affine, atol=1e-5)
    back = canonical.reoriented(orientation)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-6)
    write_nifti(back, tmp_path / "b.nii")  # refused if the grid were another than the source's


@given(
    st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    st.tuples(*[st.floats(0.1, 10)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.sampled_from(ORIENTATIONS),
)
def test_reorienting_keeps_every_voxel_at_its_place(angles, spacing, origin, orientation):
    affine = np.eye(4)
    affine[:3, :3] = nibabel.eulerangles.euler2mat(*angles) * spacing
    affine[:3, 3] = origin
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume = Volume(array, affine)
    turned = volume.reoriented(orientation)
    for number in (0, 7, 23):
        before = affine @ [*np.argwhere(array == number)[0], 1]
        after = turned.affine @ [*np.argwhere(turned.array == number)[0], 1]
        np.testing.assert_allclose(after, before, atol=1e-9)
    back = turned.reoriented(volume.orientation)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)


def test_integers_with_slope_are_scaled_and_can_go_back_bit_by_bit(tmp_path):
    image = nibabel.Nifti1Image(ints(), np.eye(4))
    image.header.set_slope_inter(0.013, -7)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii").dataobj
    np.testing.assert_allclose(volume.array, stored.get_unscaled() * stored.slope + stored.inter, rtol=1e-6)
    write_nifti(volume, tmp_path / "float.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "float.nii").get_fdata(dtype=np.float32), volume.array)
    write_nifti(volume, tmp_path / "kept.nii", keep_dtype=True)
    kept = nibabel.load(tmp_path / "kept.nii").dataobj
    np.testing.assert_array_equal(kept.get_unscaled(), stored.get_unscaled())
    assert (kept.slope, kept.inter, kept.dtype) == (stored.slope, stored.inter, np.int16)
    (note,) = write_nifti(volume.with_array(volume.array * 100), tmp_path / "clip.nii", keep_dtype=True)
    assert note.code == "W-CLIP"


def test_the_header_stays_with_restored_numbers_and_with_maps_of_them(tmp_path):
    image = nibabel.Nifti1Image(ints(), np.diag([-2.0, 3, 4, 1]))
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    write_nifti(volume.with_array(np.abs(volume.array) * 0.1), tmp_path / "a_std.nii.gz")
    header = nibabel.load(tmp_path / "a_std.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header.get_data_dtype() == np.float32
    assert [e.get_content() for e in header.extensions] == ["kept"] or header.extensions[0].text == "kept"
    assert b"research use only" in bytes(header["descrip"])
    np.testing.assert_allclose(header.get_best_affine(), image.affine)


def test_two_writings_are_the_same_bytes(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii.gz", ints()))
    for name in "bc":
        write_nifti(volume, tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_time_complex_numbers_and_planes(tmp_path):
    four = read_nifti(save(tmp_path / "4d.nii", ints((3, 4, 5, 6)), pixdim=[1, 2, 3, 4, 2.5, 0, 0, 0]))
    assert four.array.shape == (3, 4, 5, 6)
    write_nifti(four, tmp_path / "4d_b.nii")
    assert nibabel.load(tmp_path / "4d_b.nii").header["pixdim"][4] == 2.5
    numbers = (RNG.random((3, 4, 5)) + 1j * RNG.random((3, 4, 5))).astype(np.complex64)
    volume = read_nifti(save(tmp_path / "c.nii", numbers))
    write_nifti(volume, tmp_path / "c_b.nii")
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "c_b.nii").dataobj), numbers)
    plane = read_nifti(save(tmp_path / "2d.nii", ints((7, 8))))
    assert plane.array.shape == (7, 8, 1)
    write_nifti(plane, tmp_path / "2d_b.nii")
    assert nibabel.load(tmp_path / "2d_b.nii").shape == (7, 8)


def test_nan_is_masked_and_put_back(tmp_path):
    numbers = RNG.random((3, 4, 5)).astype(np.float32)
    numbers[1, 2, 3], numbers[0, 0, 0] = np.nan, np.inf
    volume = read_nifti(save(tmp_path / "a.nii", numbers))
    assert [note.code for note in volume.notes] == ["W-NOT-FINITE"]
    assert np.isfinite(volume.array).all()
    assert volume.array[1, 2, 3] == numbers[np.isfinite(numbers)].min()
    write_nifti(volume.with_array(volume.array + 1), tmp_path / "b.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").get_fdata(dtype=np.float32), numbers + 1)


def test_units_of_length_become_millimetres_and_go_back(tmp_path):
    image = nibabel.Nifti1Image(ints(), np.diag([200.0, 300, 400, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.spacing == pytest.approx((0.2, 0.3, 0.4))
    write_nifti(volume, tmp_path / "b.nii")
    assert nibabel.load(tmp_path / "b.nii").header.get_zooms() == pytest.approx((200, 300, 400))


def test_forms_that_disagree_and_unknown_orientations_are_noted(tmp_path):
    image = nibabel.Nifti1Image(ints(), np.eye(4))
    image.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    image.set_qform(np.eye(4), 1)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert [note.code for note in volume.notes] == ["W-FORMS"]
    assert volume.spacing == (2, 2, 2)
    image.set_sform(np.eye(4), 0)
    image.set_qform(np.eye(4), 0)
    nibabel.save(image, tmp_path / "b.nii")
    assert [note.code for note in read_nifti(tmp_path / "b.nii").notes] == ["W-ORIENTATION"]


def test_an_analyze_pair_becomes_one_nifti_file(tmp_path):
    nibabel.save(nibabel.Spm99AnalyzeImage(ints(), np.diag([-2.0, 2, 2, 1])), tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    volumes = [read_nifti(tmp_path / name) for name in ("a.img", "a.hdr")]
    np.testing.assert_array_equal(volumes[0].array, volumes[1].array)
    assert "W-ORIENTATION" in [note.code for note in volumes[0].notes]
    write_nifti(volumes[0], tmp_path / "b.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii").array, volumes[0].array)


def test_a_dicom_series_becomes_nifti_at_the_same_place(tmp_path):
    volume = read_series(find_series(source_series(tmp_path / "in", even(5))).series[0])
    write_nifti(volume, tmp_path / "out" / "a.nii.gz")
    again = read_nifti(tmp_path / "out" / "a.nii.gz", unit="HU")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)
    with pytest.raises(WriteError, match="gaps"):
        write_nifti(replace(volume, regular=False), tmp_path / "b.nii")
    sheared = volume.affine.copy()
    sheared[0, 2] += 0.5
    with pytest.raises(WriteError, match="gantry tilt"):
        write_nifti(replace(volume, affine=sheared), tmp_path / "b.nii")


def test_labels_are_small_integers(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii", ints()))
    labels = np.zeros((4, 5, 6), dtype=np.int64)
    labels[1, 2, 3] = 2
    write_labels(labels, volume, tmp_path / "seg.nii.gz")
    image = nibabel.load(tmp_path / "seg.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels)
    labels[0, 0, 0] = 300
    write_labels(labels, volume, tmp_path / "many.nii")
    assert nibabel.load(tmp_path / "many.nii").get_data_dtype() == np.uint16
    with pytest.raises(ShapeError, match="labels from 0"):
        write_labels(labels - 1, volume, tmp_path / "bad.nii")


def test_what_cannot_be_read_or_written_is_one_sentence(tmp_path):
    colour = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ReadError, match="got colour"):
        read_nifti(save(tmp_path / "rgb.nii", colour))
    with pytest.raises(ReadError, match=r"got '\.nrrd'"):
        read_nifti(tmp_path / "a.nrrd")
    (tmp_path / "bad.nii").write_bytes(b"no header")
    with pytest.raises(ReadError, match=r"^Expected a whole NIfTI"):
        read_nifti(tmp_path / "bad.nii")
    whole = save(tmp_path / "a.nii", ints()).read_bytes()
    (tmp_path / "half.nii").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError):
        read_nifti(tmp_path / "half.nii")
    with pytest.raises(ReadError, match="at most one axis beyond space"):
        read_nifti(save(tmp_path / "5d.nii", ints((2, 2, 2, 3, 3))))
    volume = read_nifti(tmp_path / "a.nii")
    with pytest.raises(WriteError, match=r"ending in \.nii"):
        write_nifti(volume, tmp_path / "b.mgz")
    with pytest.raises(WriteError, match="apart from the source"):
        write_nifti(volume, tmp_path / "a.nii", replace_existing=True)
    write_nifti(volume, tmp_path / "b.nii")
    with pytest.raises(WriteError, match="one that exists"):
        write_nifti(volume, tmp_path / "b.nii")
    with pytest.raises(WriteError, match="turn the volume back"):
        write_nifti(volume.reoriented("LPS"), tmp_path / "c.nii")
    save(tmp_path / "a.nii", ints())
    with pytest.raises(ReadError, match="changed one"):
        write_nifti(volume, tmp_path / "d.nii")
    assert not list(tmp_path.glob(".preimage-*"))


@pytest.mark.parametrize("name", ["functional.nii", "minc1_4d.mnc", "example4d.nii.gz", "anatomical.nii"])
def test_files_that_come_with_nibabel(tmp_path, name):
    if not (BUNDLED / name).exists():
        pytest.skip("this nibabel came without its test data")
    if name.endswith(".mnc"):
        with pytest.raises(ReadError, match="convert"):
            read_nifti(BUNDLED / name)
        return
    volume = read_nifti(BUNDLED / name)
    write_nifti(volume, tmp_path / "a.nii", keep_dtype=True)
    one, other = (nibabel.load(path).dataobj.get_unscaled() for path in (BUNDLED / name, tmp_path / "a.nii"))
    np.testing.assert_array_equal(one, other)


def test_nifti_tool_finds_the_header_good(tmp_path):
    if shutil.which("nifti_tool") is None:
        pytest.skip("nifti_tool (Debian: nifti-bin) is not on this machine")
    volume = read_series(find_series(source_series(tmp_path / "in", even(5))).series[0])
    write_nifti(volume, tmp_path / "out" / "a.nii.gz")
    command = ["nifti_tool", "-check_hdr", "-check_nim", "-infiles", str(tmp_path / "out" / "a.nii.gz")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout + run.stderr).count("IS GOOD") == 2


def test_the_real_set_of_48_orientations_is_one_head():
    heads = [read_nifti(path).reoriented("RAS") for path in sorted(elsewhere("nifti/orientations").iterdir())]
    assert len(heads) == 48
    for head in heads[1:]:
        np.testing.assert_array_equal(head.array, heads[0].array)
        np.testing.assert_allclose(head.affine, heads[0].affine, atol=1e-3)
