"""Volumes and archives as training pictures, split by subject."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medical.training_slices import archive, main, unit_scale


def _volume(path: Path, spacing: float) -> None:
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.random((9, 10, 8)).astype(np.float32) * 700, np.diag([1, 1, spacing, 1]))
    nibabel.save(image, path)


def test_volumes_become_slices_named_by_subject(tmp_path: Path) -> None:
    _volume(tmp_path / "in/longitudinal/patient01/study1_T1W.nii.gz", 3.0)
    _volume(tmp_path / "in/cross_sectional/patient07/FLAIR_reg.nii.gz", 1.0)
    _volume(tmp_path / "in/cross_sectional/patient08/gt.nii.gz", 1.0)
    assert main(["brain", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    names = sorted(p.stem for p in (tmp_path / "out").iterdir())
    # thick slices are cut along their own plane only; label volumes are no pictures
    assert [n for n in names if "patient01" in n] == [f"held_patient01_longitudinal_t1_axial_{k:03d}" for k in range(8)]
    assert sum("train_patient07_cross_sectional_flair" in n for n in names) == 9 + 10 + 8
    assert not [n for n in names if "patient08" in n]
    with Image.open(tmp_path / "out" / f"{names[0]}.png") as picture:
        assert picture.mode == "L"
        assert np.asarray(picture).max() > 200


def test_the_end_of_each_class_is_kept_back(tmp_path: Path) -> None:
    pictures = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
    paths = np.array([f"a/case ({k}).jpg" for k in (5, 4, 3, 2, 1)] + [f"b/case ({k}).jpg" for k in range(5)])
    np.savez(tmp_path / "x.npz", x=pictures, label=np.array(["A case"] * 5 + ["B"] * 5), path=paths)
    found = {name: int(picture[0, 0] * 255 + 0.5) for name, picture in archive(tmp_path / "x.npz", 0.2)}
    assert found["train_a-case_0000"] == 4
    assert found["held_a-case_0004"] == 0
    assert found["held_b_0004"] == 9
    assert sum(name.startswith("held") for name in found) == 2


def test_an_empty_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="positive voxels"):
        unit_scale(np.zeros((2, 2, 2)))
