"""Derived images: bit-identical where nothing was done, and saying of themselves what they must."""

import datetime
import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medical.dicom import find_series, parse, read_series
from medical.dicom_check import unlike_source
from medical.dicom_pixels import stored_pixels
from medical.dicom_write import Derivation, write_series
from operators.errors import ReadError, ShapeError, WriteError
from tests.medical.dicoms import bundled, elsewhere, even, new_errors
from tests.medical.dicoms import write_series as source_series

RUN = Derivation("denoising", "DAPS, 20 steps, seed 0", "digest", "smoothing", datetime.datetime(2024, 5, 6, 7, 8, 9))


def read(folder: Path):
    return read_series(find_series(folder).series[0])


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def pairs(volume, written):
    for file, path in zip(volume.source.files, written.files, strict=True):
        yield parse(file.path.read_bytes()), parse(path.read_bytes())


IMAGES = sorted(bundled("CT_small.dcm").parent.glob("*.dcm"))  # not get_testdata_files, which downloads

DAMAGED = ("MR_truncated.dcm", "JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm")
"""Or of 12 bits in lossy JPEG, which no decoder that may be shipped can read."""


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.name)
def test_every_bundled_image_is_identical_without_a_method_or_refused(tmp_path, path):
    found = find_series(path)
    if not found.series:
        assert sum(found.left_out.values()) == 1
        return
    if path.name in DAMAGED:
        with pytest.raises(ReadError, match=r"^Expected whole pixel data"):
            read_series(found.series[0])
        return
    volume = read_series(found.series[0])
    written = write_series(volume, tmp_path / "out", RUN)
    for source, derived in pairs(volume, written):
        np.testing.assert_array_equal(stored_pixels(derived), stored_pixels(source))
        assert unlike_source(derived, source) == []
        syntax = source.file_meta.TransferSyntaxUID
        if not syntax.is_compressed and syntax.is_little_endian:
            size = source.Rows * source.Columns * source.BitsAllocated // 8
            assert derived.PixelData[:size] == source.PixelData[:size]
    again = read(tmp_path / "out")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_array_equal(again.affine, volume.affine)


def test_what_a_derived_image_says(tmp_path):
    def change(k, image):
        image.SmallestImagePixelValue = 0
        image.add_new((0x0009, 0x0010), "LO", "PRIVATE")
        image.add_new((0x0009, 0x1001), "LO", "secret")

    volume = read(source_series(tmp_path / "in", even(4), change))
    written = write_series(volume, tmp_path / "out", RUN)
    series = set()
    for source, derived in pairs(volume, written):
        assert derived.SOPInstanceUID == derived.file_meta.MediaStorageSOPInstanceUID != source.SOPInstanceUID
        assert derived.SOPInstanceUID.is_valid
        assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert derived.SeriesNumber == 9003
        assert derived.SeriesDescription == "RESTORED denoising - not for diagnosis"
        assert derived.DerivationDescription == "DAPS, 20 steps, seed 0"
        assert derived.DerivationCodeSequence[0].CodeValue == "113087"
        (reference,) = derived.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert reference.SpatialLocationsPreserved == "YES"
        assert derived.ContributingEquipmentSequence[-1].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert derived.InstanceCreationDate == derived.SeriesDate == "20240506"
        assert (derived.StudyDate, derived.PatientName) == (source.StudyDate, source.PatientName)
        assert derived.StudyInstanceUID == source.StudyInstanceUID
        assert derived.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert "SmallestImagePixelValue" not in derived
        assert (0x0009, 0x1001) not in derived
        series.add(derived.SeriesInstanceUID)
    assert len(series) == 1
    kept = write_series(volume, tmp_path / "private", RUN, keep_private=True)
    assert parse(kept.files[0].read_bytes())[0x0009, 0x1001].value == "secret"


def test_the_same_run_gives_the_same_files_and_another_other_identifiers(tmp_path):
    volume = read(source_series(tmp_path / "in", even(3)))
    write_series(volume, tmp_path / "a", RUN)
    write_series(volume, tmp_path / "b", RUN)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    other = Derivation("denoising", "the same", "another digest", when=RUN.when)
    uids = {
        parse(path.read_bytes()).SOPInstanceUID
        for run, name in ((RUN, "a"), (other, "c"))
        for path in write_series(volume, tmp_path / name, run).files
    }
    assert len(uids) == 6


def test_changed_numbers_are_rounded_and_padding_stays(tmp_path):
    def pad(k, image):
        image.RescaleSlope, image.PixelPaddingValue = 0.5 + 0.25 * k, 0
        stored = np.full((6, 5), 1000, dtype="<u2")
        stored[2, 3] = 0
        image.PixelData = stored.tobytes()

    volume = read(source_series(tmp_path / "in", even(3), pad))
    write_series(volume.with_array(volume.array + 10.1), tmp_path / "out", RUN)
    for k, path in enumerate(sorted((tmp_path / "out").iterdir())):
        stored = stored_pixels(parse(path.read_bytes()))
        assert stored[2, 3] == 0
        assert (np.delete(stored.ravel(), 13) == 1000 + round(10.1 / (0.5 + 0.25 * k))).all()


def test_more_bits_are_used_where_numbers_need_them_and_clipping_is_counted(tmp_path):
    volume = read(source_series(tmp_path / "in", even(2)))
    numbers = volume.array.copy()
    numbers[0, 0, 0] = 5000.0  # 6024 stored, above 4095
    written = write_series(volume.with_array(numbers), tmp_path / "out", RUN)
    images = [parse(path.read_bytes()) for path in written.files]
    assert [(i.BitsStored, i.HighBit) for i in images] == [(16, 15)] * 2
    np.testing.assert_array_equal(read(tmp_path / "out").array, numbers)
    assert not written.notes
    numbers[:, 0, 0] = (-2000, 1e6, -1e9, 0, 0)
    written = write_series(volume.with_array(numbers), tmp_path / "clipped", RUN)
    assert [note.code for note in written.notes] == ["W-CLIP"]
    assert written.notes[0].text.startswith("3 pixels")
    again = read(tmp_path / "clipped").array[:, 0, 0]
    np.testing.assert_array_equal(again, [-1024, 65535 - 1024, -1024, 0, 0])


def test_an_overlay_inside_the_pixels_survives(tmp_path):
    def overlay(k, image):
        image.add_new((0x6000, 0x0100), "US", 16)
        image.add_new((0x6000, 0x0102), "US", 12)
        stored = np.arange(30, dtype="<u2") + 100
        stored[::3] |= 1 << 12
        image.PixelData = stored.tobytes()

    folder = source_series(tmp_path / "in", even(1), overlay)
    volume = read(folder)
    assert volume.array.max() < 1000
    written = write_series(volume.with_array(volume.array + 1), tmp_path / "out", RUN)
    stored = np.frombuffer(parse(written.files[0].read_bytes()).PixelData, "<u2")
    np.testing.assert_array_equal(stored & 0xFFF, np.arange(30) + 101)
    np.testing.assert_array_equal(stored >> 12, np.arange(30) % 3 == 0)


def test_monochrome1_goes_back_as_it_came(tmp_path):
    def inverse(k, image):
        image.PhotometricInterpretation, image.Modality = "MONOCHROME1", "CR"
        del image.RescaleType
        image.RescaleIntercept = 0

    volume = read(source_series(tmp_path / "in", even(1), inverse))
    before = stored_pixels(parse((tmp_path / "in" / "000").read_bytes())).astype(int)
    written = write_series(volume.with_array(volume.array - 7), tmp_path / "out", RUN)
    derived = parse(written.files[0].read_bytes())
    assert derived.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(stored_pixels(derived), np.minimum(before + 7, 4095))


def test_empty_identifiers_are_made_up_and_not_referred_to(tmp_path):
    def empty(k, image):
        image.StudyInstanceUID = image.SeriesInstanceUID = image.SOPInstanceUID = ""

    volume = read(source_series(tmp_path / "in", even(4), empty))
    written = write_series(volume, tmp_path / "out", RUN)
    images = [parse(path.read_bytes()) for path in written.files]
    assert len({i.SOPInstanceUID for i in images}) == 4
    assert len({(i.StudyInstanceUID, i.SeriesInstanceUID) for i in images}) == 1
    assert not any("SourceImageSequence" in i for i in images)
    assert "W-EMPTY-UID" not in [note.code for note in read(tmp_path / "out").notes]


def test_nothing_is_written_into_the_source_over_other_files_or_from_changed_sources(tmp_path):
    folder = source_series(tmp_path / "in", even(3))
    volume = read(folder)
    before = hashes(folder)
    for place in (folder, folder / "out"):
        with pytest.raises(WriteError, match="apart from the source"):
            write_series(volume, place, RUN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(WriteError, match="thesis"):
        write_series(volume, tmp_path / "mine", RUN)
    assert hashes(folder) == before
    with (folder / "001").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(ReadError, match="changed one"):
        write_series(volume, tmp_path / "out", RUN)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".preimage-*"))


def test_a_file_that_does_not_read_back_is_never_given_its_name(tmp_path, monkeypatch):
    volume = read(source_series(tmp_path / "in", even(3)))

    def torn(path, image, **options):
        image.PixelData = image.PixelData[:-2] + b"\xff\x01"
        pydicom.dcmwrite(path, image, **options)

    monkeypatch.setattr("medical.dicom_write.dcmwrite", torn)
    with pytest.raises(WriteError, match="other pixels"):
        write_series(volume, tmp_path / "out", RUN)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused(tmp_path):
    volume = read(source_series(tmp_path / "in", even(3)))
    with pytest.raises(ShapeError, match="finite"):
        write_series(volume.with_array(volume.array * np.nan), tmp_path / "out", RUN)
    with pytest.raises(ShapeError, match="keep the grid"):
        volume.with_array(volume.array[1:])
    with pytest.raises(ShapeError, match="shorten"):
        Derivation("x" * 31, "", "")

    def table(k, image):
        lut = pydicom.Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [4096, 0, 16], "US"
        lut.add_new("LUTData", "OW", np.arange(0, 8192, 2, dtype="<u2").tobytes())
        image.ModalityLUTSequence = [lut]
        del image.RescaleSlope, image.RescaleIntercept, image.RescaleType

    volume = read(source_series(tmp_path / "table", even(2), table))
    image = parse((tmp_path / "table" / "000").read_bytes())
    np.testing.assert_array_equal(volume.array[:, :, 0].T, stored_pixels(image) * 2)
    with pytest.raises(WriteError, match="look-up table"):
        write_series(volume, tmp_path / "out", RUN)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_jp2klossless.dcm"])
def test_dciodvfy_finds_no_new_errors(tmp_path, name):
    volume = read(bundled(name))
    written = write_series(volume.with_array(volume.array * 0.9), tmp_path / "out", RUN)
    assert new_errors(written.files[0], bundled(name)) == set()


def test_dcmtk_and_dcentvfy_accept_a_series(tmp_path):
    if shutil.which("dcmftest") is None or shutil.which("dcentvfy") is None:
        pytest.skip("dcmftest or dcentvfy (Debian: dcmtk, dicom3tools) is not on this machine")
    folder = source_series(tmp_path / "in", even(4))
    written = write_series(read(folder), tmp_path / "out", RUN)
    run = subprocess.run(["dcmftest", *written.files], capture_output=True, text=True, check=True)
    assert run.stdout.count("yes:") == 4
    run = subprocess.run(["dcentvfy", *written.files, *folder.iterdir()], capture_output=True, text=True, check=False)
    assert "Error" not in run.stdout + run.stderr


def test_an_archive_takes_the_series(tmp_path):
    if shutil.which("storescp") is None:
        pytest.skip("storescp (Debian: dcmtk) is not on this machine")
    written = write_series(read(source_series(tmp_path / "in", even(3))), tmp_path / "out", RUN)
    (tmp_path / "archive").mkdir()
    port = "11113"
    server = subprocess.Popen(["storescp", "-od", str(tmp_path / "archive"), port], stderr=subprocess.DEVNULL)
    try:
        for _ in range(50):
            if subprocess.run(["echoscu", "localhost", port], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        subprocess.run(["storescu", "localhost", port, *written.files], check=True, capture_output=True)
    finally:
        server.terminate()
        server.wait()
    np.testing.assert_array_equal(read(tmp_path / "archive").array, read(tmp_path / "out").array)


def test_the_real_ct_series_can_be_read_by_dcm2niix_after_writing(tmp_path):
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not on this machine")
    nibabel = pytest.importorskip("nibabel")
    volume = read(elsewhere("dicom/ct_series/example_ct_dicom"))
    write_series(volume, tmp_path / "out", RUN)
    command = ["dcm2niix", "-z", "n", "-f", "x", "-o", str(tmp_path), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.nii")
    theirs = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    np.testing.assert_array_equal(volume.reoriented("RAS").array, theirs)
