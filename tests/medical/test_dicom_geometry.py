"""Grids from positions of slices: any order, any direction; gaps and tilts are seen."""

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical.dicom_geometry import is_orientation, normal_of, plane_of, stack

angles = st.floats(-np.pi, np.pi)


def turned(a: float, b: float, c: float) -> np.ndarray:
    """Row and column directions of a plane turned by three angles."""
    return nibabel.eulerangles.euler2mat(a, b, c)[:, :2].T.ravel()


@given(angles, angles, angles, st.integers(2, 12), st.floats(0.3, 9), st.randoms(use_true_random=False))
def test_places_of_voxels_are_those_of_the_headers_whatever_the_order(a, b, c, count, step, shuffler):
    orientation = turned(a, b, c)
    first = np.array([12.0, -40.0, 7.0])
    positions = first + np.arange(count)[:, None] * step * normal_of(orientation)
    order = list(range(count))
    shuffler.shuffle(order)
    grid = stack(orientation, positions[order], (0.7, 0.9), 1.0)
    assert not grid.problem
    assert not grid.notes
    assert [order[k] for k in grid.order] == list(range(count))
    i, j, k = 3, 5, count - 1  # C.7.6.2.1.1 of PS3.3: spacing of columns goes with the direction of rows
    expected = positions[k] + orientation[:3] * 0.9 * i + orientation[3:] * 0.7 * j
    lps = (grid.affine @ [i, j, k, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(lps, expected, atol=1e-9)
    assert np.linalg.det(grid.affine[:3, :3]) > 0


def places(depths: list[float]) -> np.ndarray:
    return np.array([[0, 0, z] for z in depths], dtype=float)


AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def test_a_missing_slice_is_named_by_its_place():
    grid = stack(AXIAL, places([0, 7, 14, 28, 35]), (1, 1), 1)
    assert grid.problem == "14.00 mm between slices 3 and 4, 1 missing where 7.00 mm is usual"


def test_only_rounding_in_headers_is_forgiven():
    assert stack(AXIAL, places([0, 7, 14.1, 21, 28]), (1, 1), 1).notes[0].code == "W-STEP"
    assert "between slices 2 and 3" in stack(AXIAL, places([0, 7, 14.5, 21.5, 28.5]), (1, 1), 1).problem


def test_a_tilted_gantry_is_told_from_slices_that_are_out_of_place():
    tilted = np.array([[0, 0.5 * k, 2.0 * k] for k in range(6)])
    grid = stack(AXIAL, tilted, (1, 1), 1)
    assert [note.code for note in grid.notes] == ["W-TILT"]
    assert "14.0 degrees" in grid.notes[0].text
    np.testing.assert_allclose((grid.affine @ [0, 0, 5, 1])[:3], [0, -2.5, 10])
    tilted[3, 0] += 1
    assert "sideways" in stack(AXIAL, tilted, (1, 1), 1).problem


def test_directions_must_be_a_right_angle_of_unit_vectors():
    assert is_orientation(AXIAL)
    assert not is_orientation(np.array([1.0, 0, 0, 1, 0, 0]))
    assert not is_orientation(np.array([1.0, 0, 0, 0, 2, 0]))
    assert not is_orientation(np.zeros(6))


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        (turned(0, 0.6, 0), "oblique"),
    ],
)
def test_planes_have_their_usual_names(orientation, plane):
    assert plane_of(np.array(orientation, dtype=float)) == plane
