"""Previews show what is where, and that they are for research only."""

import io

import numpy as np
import pytest
from PIL import Image

from medical.preview import preview_png
from medical.volume import Volume
from operators.errors import ShapeError


def picture(*args, **options) -> np.ndarray:
    image = Image.open(io.BytesIO(preview_png(*args, **options)))
    assert not image.info
    return np.asarray(image).astype(int)


def test_three_planes_with_right_on_the_left_and_head_at_the_top():
    array = np.zeros((8, 8, 8), dtype=np.float32)
    array[6:, 3:5, 3:5] = 1  # to the patient's right
    array[3:5, 3:5, 6:] = 1  # to the head
    volume = Volume(array, np.diag([1.0, 1, 1, 1]))  # RAS: i leads to the right, k to the head
    sheet = picture(volume, window=(0, 1), side=96)[:96, :, 0]
    axial, coronal, sagittal = sheet[:, :96], sheet[:, 96:192], sheet[:, 192:]
    for plane in (axial, coronal):
        assert plane[44:52, :18].mean() > 200
        assert plane[44:52, 78:].mean() < 50
    for plane in (coronal, sagittal):
        assert plane[:18, 44:52].mean() > 200
        assert plane[78:, 44:52].mean() < 50


def test_the_notice_is_drawn_below_and_hides_nothing():
    volume = Volume(np.ones((8, 8, 8), dtype=np.float32), np.eye(4))
    sheet = picture(volume, window=(0, 1), side=96)
    assert (sheet[:96] == 255).all()
    assert (sheet[96:] > 150).any()


def test_spacing_shapes_planes_and_labels_have_colour():
    volume = Volume(np.ones((10, 10, 1), dtype=np.float32), np.diag([1.0, 2, 5, 1]))
    labels = np.zeros((10, 10, 1), dtype=np.uint8)
    labels[5:] = 1
    sheet = picture(volume, window=(0, 1), labels=labels, side=100)[:100]
    lit = sheet.sum(-1) > 0
    assert lit.any(0).sum() == 50
    assert lit.any(1).sum() == 100
    coloured = sheet[..., 0] > sheet[..., 2] + 20
    assert coloured.sum() == pytest.approx(lit.sum() / 2, rel=0.1)


def test_complex_and_time_are_shown_and_bad_labels_refused():
    volume = Volume(np.full((4, 4, 4, 3), 1 + 1j, dtype=np.complex64), np.eye(4))
    assert picture(volume, side=32).any()
    with pytest.raises(ShapeError, match="keep the volume's grid"):
        preview_png(volume, labels=np.zeros((4, 4, 3), dtype=int))
