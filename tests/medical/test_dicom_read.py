"""Series are found by what they are; numbers are those of the standard; what cannot be read says why."""

import io
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1

from medical.dicom import find_series, read_series
from medical.dicom_write import Derivation
from medical.dicom_write import write_series as write_derived
from medical.nifti import write_nifti
from operators.errors import ReadError, WriteError
from tests.medical.dicoms import NAME, PATIENT, bundled, elsewhere, even, write_series


def only(folder: Path):
    (series,) = find_series(folder).series
    return series


def only_bare(path: Path):
    (series,) = find_series(path, bare=True).series
    return series


def codes(series) -> list[str]:
    return [note.code for note in series.notes]


def test_slices_are_sorted_by_place_not_by_name_or_number(tmp_path):
    plain = read_series(only(write_series(tmp_path / "a", even(7))))

    def renumber(k, image):
        image.InstanceNumber = 100 - k

    names = [f"x{n}" for n in (3, 1, 6, 0, 5, 2, 4)]
    mixed = read_series(only(write_series(tmp_path / "b", even(7), renumber, names=lambda k: names[k])))
    np.testing.assert_array_equal(mixed.array, plain.array)
    np.testing.assert_array_equal(mixed.affine, plain.affine)
    assert plain.spacing == pytest.approx((0.8, 0.7, 2.5))
    assert plain.orientation == "LPS"
    assert plain.unit == "HU"


def test_array_is_column_row_slice_in_physical_units(tmp_path):
    folder = write_series(tmp_path, even(3), lambda k, image: setattr(image, "RescaleSlope", 2))
    volume = read_series(only(folder))
    image = pydicom.dcmread(folder / "001")
    assert volume.array[4, 2, 1] == image.pixel_array[2, 4] * 2.0 - 1024


def test_true_spacing_is_used_and_wrong_tags_are_named(tmp_path):
    series = only(write_series(tmp_path, even(4, step=7)))
    assert "W-SPACING-TAG" in codes(series)
    assert "7 mm apart; SliceThickness says 3" in str(series.notes[0])
    assert read_series(series).spacing[2] == pytest.approx(7)


def test_a_gap_is_refused_with_its_place_or_read_slice_by_slice(tmp_path):
    places = even(8)
    del places[4]
    series = only(write_series(tmp_path, places))
    assert "W-GAP" in codes(series)
    with pytest.raises(ReadError, match=r"between slices 4 and 5, 1 missing where 2\.50 mm is usual"):
        read_series(series)
    volume = read_series(series, on_gap="slicewise")
    assert not volume.regular
    assert volume.array.shape[2] == 7


def test_a_copied_slice_is_dropped_and_another_at_its_place_is_refused(tmp_path):
    folder = write_series(tmp_path, even(5))
    shutil.copy(folder / "002", folder / "again")
    found = find_series(folder)
    assert codes(found.series[0])[0] == "W-DUP"
    assert found.left_out == {"a copy of another slice": 1}
    assert read_series(found.series[0]).array.shape[2] == 5
    image = pydicom.dcmread(folder / "again")
    image.PixelData = bytes(len(image.PixelData))
    image.save_as(folder / "again")
    with pytest.raises(ReadError, match="2 different slices at places of others"):
        read_series(only(folder), on_gap="slicewise")


@pytest.mark.parametrize("mark", ["AcquisitionNumber", "TemporalPositionIdentifier", "AcquisitionTime"])
def test_repetitions_are_separated_by_what_tells_them_apart(tmp_path, mark):
    def change(k, image):
        setattr(image, mark, f"{1 + k % 2:06d}")

    places = [place for place in even(4) for _ in range(2)]
    series = find_series(write_series(tmp_path, places, change)).series
    assert [len(s.slices) for s in series] == [4, 4]
    assert all(len({s.slices[k].marks[mark] for k in range(4)}) == 1 for s in series)


def test_directions_and_sizes_and_echoes_are_never_mixed(tmp_path):
    def coronal(k, image):
        if k == 5:
            image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    assert [len(s.slices) for s in find_series(write_series(tmp_path / "a", even(6), coronal)).series] == [5, 1]

    def echo(k, image):
        image.EchoTime = 10 if k < 3 else 20

    assert [len(s.slices) for s in find_series(write_series(tmp_path / "b", even(6), echo)).series] == [3, 3]
    write_series(tmp_path / "c" / "small", even(3), shape=(4, 4))
    write_series(tmp_path / "c" / "large", even(4), shape=(6, 6))
    assert [len(s.slices) for s in find_series(tmp_path / "c").series] == [4, 3]

    def nearly(k, image):
        image.ImageOrientationPatient = [1, 0, 0, 0, 1 - 1e-6 * k, 1e-5 * k]

    assert len(only(write_series(tmp_path / "d", even(6), nearly)).slices) == 6


def test_empty_identifiers_are_replaced_by_folder_and_geometry(tmp_path):
    def empty(k, image):
        image.StudyInstanceUID = image.SeriesInstanceUID = image.SOPInstanceUID = ""

    for name in "ab":
        write_series(tmp_path / name, even(4), empty)
    series = find_series(tmp_path).series
    assert [len(s.slices) for s in series] == [4, 4]
    assert all("W-EMPTY-UID" in codes(s) for s in series)


def test_monochrome1_is_turned_round_but_physical_units_are_not(tmp_path):
    def inverse(k, image):
        image.PhotometricInterpretation, image.Modality = "MONOCHROME1", "CR"
        del image.RescaleType
        image.RescaleIntercept = 0

    plain = read_series(only(write_series(tmp_path / "a", even(1), lambda k, i: setattr(i, "RescaleIntercept", 0))))
    volume = read_series(only(write_series(tmp_path / "b", even(1), inverse)))
    np.testing.assert_array_equal(volume.array, 4095 - plain.array)

    def units(k, image):
        image.PhotometricInterpretation, image.RescaleIntercept = "MONOCHROME1", 0

    np.testing.assert_array_equal(read_series(only(write_series(tmp_path / "c", even(1), units))).array, plain.array)


def test_signed_numbers_in_part_of_the_bits_are_extended(tmp_path):
    def signed(k, image):
        image.PixelRepresentation, image.RescaleIntercept = 1, 0
        image.PixelData = (np.arange(30, dtype="<u2") * 130 % 4096).tobytes()

    volume = read_series(only(write_series(tmp_path, even(1), signed)))
    expected = np.arange(30) * 130 % 4096
    np.testing.assert_array_equal(volume.array[:, :, 0].T.ravel(), np.where(expected > 2047, expected - 4096, expected))


def test_padding_is_masked_before_rescaling_and_filled_with_the_smallest_number(tmp_path):
    def pad(k, image):
        image.PixelPaddingValue, image.PixelPaddingRangeLimit = 0, 10
        stored = np.full((6, 5), 500, dtype="<u2")
        stored[0, :3] = (0, 7, 11)
        image.PixelData = stored.tobytes()

    volume = read_series(only(write_series(tmp_path, even(2), pad)))
    assert [str(note)[:9] for note in volume.notes][-1] == "W-PADDING"
    assert volume.valid is not None
    assert (~volume.valid).sum() == 4
    assert volume.array.min() == 11 - 1024


def test_every_slice_has_its_own_slope(tmp_path):
    series = only(write_series(tmp_path, even(3), lambda k, image: setattr(image, "RescaleSlope", 1 + k)))
    volume = read_series(series)
    assert [note.code for note in volume.notes] == ["W-SPACING-TAG", "W-MIXED-SLOPE"]
    image = pydicom.dcmread(tmp_path / "002")
    np.testing.assert_array_equal(volume.array[:, :, 2].T, image.pixel_array * 3.0 - 1024)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SC_rgb_rle.dcm", "colour"),
        ("examples_palette.dcm", "colour"),
        ("examples_ybr_color.dcm", "colour"),
        ("rtplan.dcm", "not a picture (report, structure, dose, segmentation or the like)"),
        ("rtdose.dcm", "not a picture (report, structure, dose, segmentation or the like)"),
        ("liver_1frame.dcm", "not a picture (report, structure, dose, segmentation or the like)"),
        ("no_meta.dcm", "not DICOM"),
        ("README.txt", "not DICOM"),
    ],
)
def test_what_is_no_grey_image_is_counted_by_reason(name, reason):
    found = find_series(bundled(name))
    assert not found.series
    assert found.left_out == {reason: 1}


def test_empty_files_text_and_broken_headers_are_left_out(tmp_path):
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("not an image")
    (tmp_path / "half.dcm").write_bytes(bundled("CT_small.dcm").read_bytes()[:300])
    (tmp_path / "link.dcm").symlink_to(bundled("CT_small.dcm"))
    found = find_series(tmp_path)
    assert not found.series
    assert sum(found.left_out.values()) == 4
    assert found.left_out["a link that leads out of the folder"] == 1


def test_files_without_a_preamble_are_read_on_request(tmp_path):
    path = tmp_path / "bare"
    path.write_bytes(bundled("CT_small.dcm").read_bytes()[132:])
    assert find_series(path).left_out == {"not DICOM": 1}
    assert read_series(only_bare(path)).unit == "HU"


@pytest.mark.parametrize("name", ["MR_truncated.dcm", "JPEG-lossy.dcm"])
def test_damaged_pixels_and_missing_decoders_are_one_sentence(name):
    with pytest.raises(ReadError, match=r"^Expected whole pixel data, got .* while decoding .*\.$"):
        read_series(only(bundled(name)))


def test_a_decoder_that_is_missing_is_named(tmp_path, monkeypatch):
    def compressed(k, image):
        image.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        image.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        image["PixelData"].is_undefined_length = True

    class Missing:
        is_available = False

    folder = write_series(tmp_path, even(1), compressed)
    monkeypatch.setattr("medical.dicom_pixels.get_decoder", lambda uid: Missing)
    with pytest.raises(ReadError, match=r"JPEG Extended.*; decode it first with dcmdjpeg"):
        read_series(only(folder))


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_expb.dcm", "MR_small.dcm"),
    ],
)
def test_transfer_syntaxes_of_one_image_give_the_same_numbers(compressed, plain):
    one, other = (read_series(only(bundled(name))) for name in (compressed, plain))
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_array_equal(one.affine, other.affine)


def test_baseline_jpeg_of_a_grey_image_is_decoded(tmp_path):
    def compressed(k, image):
        buffer = io.BytesIO()
        Image.fromarray(np.full((16, 24), 77, dtype=np.uint8)).save(buffer, "JPEG")
        image.Rows, image.Columns, image.BitsAllocated, image.BitsStored, image.HighBit = 16, 24, 8, 8, 7
        image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        image.PixelData = encapsulate([buffer.getvalue()])
        image["PixelData"].is_undefined_length = True

    series = only(write_series(tmp_path, even(2), compressed))
    assert "W-LOSSY-SOURCE" in codes(series)
    assert (read_series(series).array == 77 - 1024).all()


def test_lossless_jpeg_is_decoded_with_its_extra(tmp_path):
    pytest.importorskip("gdcm")
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg (Debian: dcmtk) is not on this machine")
    subprocess.run(["dcmcjpeg", bundled("CT_small.dcm"), tmp_path / "a.dcm"], check=True, capture_output=True)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == JPEGLosslessSV1
    one, other = read_series(only(tmp_path)), read_series(only(bundled("CT_small.dcm")))
    np.testing.assert_array_equal(one.array, other.array)


def test_lossy_sources_are_marked():
    assert "W-LOSSY-SOURCE" in codes(only(bundled("JPEG2000.dcm")))


def test_nothing_printed_or_logged_names_the_patient(tmp_path, caplog, recwarn):
    def odd(k, image):
        image.PatientName = NAME

    folder = write_series(tmp_path / NAME, even(4), odd)
    series = only(folder)
    volume = read_series(series)
    words = [repr(x) + str(x) for x in (series, volume, volume.source, series.slices[0], find_series(folder))]
    places = even(5)
    del places[2]
    with pytest.raises(ReadError) as caught:
        read_series(only(write_series(tmp_path / f"{PATIENT}", places)))
    text = " ".join([*words, str(caught.value), caplog.text, *(str(w.message) for w in recwarn)])
    for secret in (NAME, "Mustermann", PATIENT, "ACC-99", "1.2.3.", "19500607"):
        assert secret not in text


def test_an_enhanced_image_is_a_volume_by_its_frames_not_by_their_order(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    folder = write_series(tmp_path / "in", even(5))
    sources = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for source in sources:
        source.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    shuffled = [sources[k] for k in (3, 0, 4, 2, 1)]
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(shuffled, "1.2.3.9", 9, "1.2.3.10", 1)
    (tmp_path / "out").mkdir()
    made.save_as(tmp_path / "out" / "enhanced.dcm")
    classic, enhanced = read_series(only(folder)), read_series(only(tmp_path / "out"))
    np.testing.assert_array_equal(enhanced.array, classic.array)
    np.testing.assert_allclose(enhanced.affine, classic.affine)
    assert enhanced.source.frames
    with pytest.raises(WriteError, match="write NIfTI instead"):
        write_derived(enhanced, tmp_path / "no", Derivation("x", "", ""))
    write_nifti(enhanced, tmp_path / "a.nii")


def test_the_real_ct_series_with_empty_identifiers_has_all_its_slices():
    series = only(elsewhere("dicom/ct_series/example_ct_dicom"))
    assert len(series.slices) == 20
    assert "W-EMPTY-UID" in codes(series)


def test_the_real_mr_series_is_seven_millimetres_apart():
    series = only(elsewhere("dicom/mr_series/dicom"))
    assert read_series(series).spacing[2] == pytest.approx(7.0, abs=0.01)
    assert {"W-SPACING-TAG", "W-STEP"} <= set(codes(series))


@pytest.mark.parametrize("name", ["dicom/ct_series/example_ct_dicom", "dicom/mr_series/dicom"])
def test_dcm2niix_finds_the_same_voxels_at_the_same_place(tmp_path, name):
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not on this machine")
    folder = elsewhere(name)
    volume = read_series(only(folder)).reoriented("RAS")
    subprocess.run(["dcm2niix", "-z", "n", "-f", "x", "-o", tmp_path, folder], check=True, capture_output=True)
    (path,) = tmp_path.glob("*.nii")
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    valid = volume.valid if volume.valid is not None else np.ones(volume.array.shape, dtype=bool)
    np.testing.assert_array_equal(volume.array[valid], theirs.get_fdata()[valid])
    # of the MR series they take the first step, 7.07 mm, and this is the mean of all, 7.001 mm
    np.testing.assert_allclose(volume.affine, theirs.affine, atol=0.13)
