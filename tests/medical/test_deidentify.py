"""No identity is left in copies, in sequences neither; identifiers stay consistent; pixels stay."""

import nibabel
import numpy as np
import pydicom
import pytest

from medical.deidentify import burned_in, clean_nifti, deidentify
from medical.dicom import find_series, read_series
from medical.dicom_write import Derivation
from medical.dicom_write import write_series as write_derived
from operators.errors import WriteError
from tests.medical.dicoms import NAME, PATIENT, even, write_series

pytest.importorskip("dicomanonymizer")


def deep(k, image):
    """Names where the library does not look."""
    person = pydicom.Dataset()
    person.PatientName, person.PatientID, person.StudyDate = NAME, PATIENT, "20200102"
    outer = pydicom.Dataset()
    outer.ReferencedSOPInstanceUID = "1.2.3.4.1"
    outer.ReferencedPatientSequence = [person]
    image.ReferencedImageSequence = [outer]
    image.ImageComments = f"looks like {NAME}"
    image.add_new((0x0009, 0x0010), "LO", "PRIVATE")
    image.add_new((0x0009, 0x1001), "LO", NAME)
    image.add_new((0x6000, 0x0022), "LO", "Erika")


def test_nothing_identifying_is_left_and_pixels_and_places_stay(tmp_path):
    folder = write_series(tmp_path / "in", even(4), deep)
    before = read_series(find_series(folder).series[0])
    assert deidentify(sorted(folder.iterdir()), tmp_path / "out") == 4
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        for secret in ("Mustermann", "Erika", PATIENT, "ACC-99", "19500607", "20200102", "101112", "Doctor", "1.2.3."):
            assert secret.encode() not in content, secret
        image = pydicom.dcmread(path)
        assert image.PatientIdentityRemoved == "YES"
        assert image.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID
    after = read_series(find_series(tmp_path / "out").series[0])
    np.testing.assert_array_equal(after.array, before.array)
    np.testing.assert_array_equal(after.affine, before.affine)


def test_identifiers_are_replaced_alike_in_all_files_and_by_another_salt_otherwise(tmp_path):
    paths = sorted(write_series(tmp_path / "in", even(3), deep).iterdir())
    for name, salt in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        deidentify(paths, tmp_path / name, salt=salt)
    a, b, c = ([pydicom.dcmread(p) for p in sorted((tmp_path / name).iterdir())] for name in "abc")
    assert len({image.SeriesInstanceUID for image in a}) == 1
    assert len({image.SOPInstanceUID for image in a}) == 3
    assert [i.SOPInstanceUID for i in a] == [i.SOPInstanceUID for i in b] != [i.SOPInstanceUID for i in c]
    assert a[1].ReferencedImageSequence[0].ReferencedSOPInstanceUID == a[0].SOPInstanceUID
    assert a[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"


def test_the_notice_on_restored_series_stays(tmp_path):
    volume = read_series(find_series(write_series(tmp_path / "in", even(3))).series[0])
    written = write_derived(volume, tmp_path / "derived", Derivation("denoising", "test", "d"))
    deidentify(written.files, tmp_path / "out")
    image = pydicom.dcmread(tmp_path / "out" / "image-0001.dcm")
    assert image.SeriesDescription == "RESTORED - not for diagnosis"
    assert image.ImageType[0] == "DERIVED"


@pytest.mark.parametrize(
    ("name", "value"),
    [("BurnedInAnnotation", "YES"), ("Modality", "US"), ("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"])],
)
def test_text_in_pixels_must_have_been_looked_for(tmp_path, name, value):
    paths = list(write_series(tmp_path / "in", even(1), lambda k, image: setattr(image, name, value)).iterdir())
    assert burned_in(pydicom.dcmread(paths[0]))
    with pytest.raises(WriteError, match="then say that it was checked"):
        deidentify(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert deidentify(paths, tmp_path / "out", text_checked=True) == 1


def test_a_name_that_would_be_left_stops_everything(tmp_path):
    def hidden(k, image):
        image.ConvolutionKernel = PATIENT  # the profile keeps it

    paths = list(write_series(tmp_path / "in", even(2), hidden).iterdir())
    with pytest.raises(WriteError, match="left, got one in ConvolutionKernel") as caught:
        deidentify(paths, tmp_path / "out")
    assert PATIENT not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nifti_loses_its_text_and_keeps_its_voxels(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2.0, 2, 2, 1]))
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = b"Erika", b"M.txt", b"Muster"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Mustermann"))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, tmp_path / "Mustermann.nii")
    clean_nifti(tmp_path / "Mustermann.nii", tmp_path / "case.nii")
    content = (tmp_path / "case.nii").read_bytes()
    assert not any(word in content for word in (b"Erika", b"M.txt", b"Muster"))
    before, after = nibabel.load(tmp_path / "Mustermann.nii"), nibabel.load(tmp_path / "case.nii")
    np.testing.assert_array_equal(after.dataobj.get_unscaled(), before.dataobj.get_unscaled())
    assert (after.dataobj.slope, after.dataobj.inter) == (0.5, 1)
    np.testing.assert_array_equal(after.affine, before.affine)
