"""Segmentations and maps refer to their images, read back as they were, and pass a validator."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from medical.dicom import find_series, read_series
from medical.dicom_objects import Segment, write_map, write_segmentation
from medical.dicom_write import Derivation
from medical.dicom_write import write_series as write_derived
from operators.errors import ShapeError, WriteError
from tests.medical.dicoms import bundled, errors, even, new_errors, write_series

highdicom = pytest.importorskip("highdicom")

RUN = Derivation("segmenting", "test", "digest")
SEGMENTS = [Segment(name) for name in ("Liver", "Spleen", "Nothing")]


@pytest.fixture
def volume(tmp_path):
    return read_series(find_series(write_series(tmp_path / "in", even(4)[::-1])).series[0])


def test_a_label_map_goes_round_with_three_segments_one_of_them_empty(tmp_path, volume):
    labels = np.zeros(volume.array.shape, dtype=np.int64)
    labels[1:3, 2, 1], labels[4, 5, 3] = 1, 2
    path = tmp_path / "out" / "seg.dcm"
    write_segmentation(labels, SEGMENTS, volume, path, RUN)
    seg = highdicom.seg.segread(path)
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == ["Liver", "Spleen", "Nothing"]
    # by place, through another reader than the one that verified it
    found = np.zeros(labels.shape, dtype=np.int64)
    for pixels, frame in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        k = round((np.linalg.inv(volume.affine) @ [-place[0], -place[1], place[2], 1])[2])
        found[:, :, k][pixels.T > 0] = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    np.testing.assert_array_equal(found, labels)
    assert "not for diagnosis" in seg.SeriesDescription
    assert seg.StudyInstanceUID == "1.2.3.1"


def test_an_empty_label_map_is_a_file_with_all_frames(tmp_path, volume):
    write_segmentation(np.zeros(volume.array.shape, np.uint8), SEGMENTS[:1], volume, tmp_path / "seg.dcm", RUN)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 4
    assert not seg.pixel_array.any()


def test_a_map_keeps_every_float(tmp_path, volume):
    values = np.abs(volume.array) / np.float32(7)
    write_map(values, "posterior standard deviation, 8 samples", volume, tmp_path / "map.dcm", RUN)
    made = pydicom.dcmread(tmp_path / "map.dcm")
    frames = np.frombuffer(made.FloatPixelData, "<f4").reshape(4, 6, 5)
    places = [float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in made.PerFrameFunctionalGroupsSequence]
    np.testing.assert_array_equal(frames[np.argsort(places)], values.transpose(2, 1, 0))
    mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"


def test_bad_input_is_one_sentence(tmp_path, volume):
    labels = np.zeros(volume.array.shape, dtype=np.uint8)
    with pytest.raises(ShapeError, match="from 0 to 1"):
        write_segmentation(labels + 2, SEGMENTS[:1], volume, tmp_path / "a.dcm", RUN)
    with pytest.raises(ShapeError, match="keep the volume's grid"):
        write_map(volume.array[1:], "", volume, tmp_path / "a.dcm", RUN)
    with pytest.raises(WriteError, match="even series"):
        write_segmentation(labels, SEGMENTS, replace(volume, regular=False), tmp_path / "a.dcm", RUN)
    with pytest.raises(WriteError, match="apart from the source"):
        write_segmentation(labels, SEGMENTS, volume, tmp_path / "in" / "a.dcm", RUN)
    assert not (tmp_path / "a.dcm").exists()


def test_images_without_identifiers_need_the_derived_series_first(tmp_path):
    def empty(k, image):
        image.StudyInstanceUID = image.SeriesInstanceUID = image.SOPInstanceUID = image.SpecificCharacterSet = ""

    volume = read_series(find_series(write_series(tmp_path / "in", even(3), empty)).series[0])
    labels = np.ones(volume.array.shape, dtype=np.uint8)
    with pytest.raises(WriteError, match="write the derived series first"):
        write_segmentation(labels, SEGMENTS, volume, tmp_path / "a.dcm", RUN)
    write_derived(volume, tmp_path / "derived", RUN)
    volume = read_series(find_series(tmp_path / "derived").series[0])
    write_segmentation(labels, SEGMENTS, volume, tmp_path / "a.dcm", RUN)


def test_dciodvfy_accepts_both(tmp_path):
    volume = read_series(find_series(bundled("CT_small.dcm")).series[0])
    labels = (volume.array > 0).astype(np.uint8)
    write_segmentation(labels, SEGMENTS[:1], volume, tmp_path / "seg.dcm", RUN)
    assert errors(tmp_path / "seg.dcm") == set()
    write_map(np.abs(volume.array), "posterior standard deviation", volume, tmp_path / "map.dcm", RUN)
    inherited = {line for line in new_errors(tmp_path / "map.dcm", bundled("CT_small.dcm")) if "Laterality" in line}
    assert new_errors(tmp_path / "map.dcm", bundled("CT_small.dcm")) == inherited
