"""The Medical tab without a browser: what it takes in, what it says, and derived series out of the jobs it begins."""

import gzip
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import nibabel
import numpy as np
import pydicom
import pytest

from app.batch import DONE, run_job
from app.desk import Desk
from app.gui.medical_data import Loaded, Wishes, again, sources, take_in
from app.gui.medical_handlers import FIELDS, PHANTOMS, Handlers, _told
from app.gui.medical_recipe import Asked, best_prior, prior_sentence, priors, recipe_of, seconds
from app.jobs import JobStore
from app.uploads import LIMITS
from app.views import views_of
from app.volume_views import volume_view
from app.worker import Dispatcher
from medical.dicom_check import unlike_source
from medical.phantoms import head, torso, write_head, write_torso
from medical.volume import Volume
from operators.errors import PreimageError, ReadError
from restoration.assets import AssetStore
from tests.medical.dicoms import NAME, PATIENT, bundled, even, write_series

STORE = AssetStore()
SECRETS = ("Mustermann", "Erika", NAME, PATIENT, "ACC-99", "Doctor")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = JobStore(tmp_path / "store")
    store.root.mkdir()
    return Desk(Dispatcher(store), STORE, LIMITS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    place = tmp_path / "cache"
    place.mkdir()
    return place


@pytest.fixture
def handlers(desk: Desk, cache: Path) -> Handlers:
    return Handlers(desk, cache)


@pytest.fixture
def uploads(cache: Path) -> Path:
    """Where Gradio puts what the browser sends."""
    (cache / "uploads").mkdir()
    return cache / "uploads"


def series(folder: Path, count: int = 3, side: int = 40) -> list[Path]:
    return sorted(write_series(folder, even(count), shape=(side, side), names=lambda k: f"{k:03d}.dcm").iterdir())


def nifti(path: Path, array: np.ndarray[Any, Any] | None = None) -> Path:
    voxels = np.random.default_rng(1).integers(0, 900, (34, 36, 3)).astype(np.int16) if array is None else array
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 3, 1.0])), path)
    return path


def voxels(loaded: Loaded, name: str = "before") -> np.ndarray[Any, Any]:
    """What a browser would see."""
    view = next(view for view in loaded.views if view["name"] == name)
    path = Path(view["url"].removeprefix("gradio_api/file="))
    stored = np.frombuffer(path.read_bytes(), "<i2").reshape(view["shape"], order="F")
    return stored * np.float64(view["slope"]) + view["intercept"]


def form(**changes: Any) -> list[Any]:
    """The fields of the form in their order, `study` first."""
    values = Asked(method="tv").model_dump() | {"sigma": 50.0} | changes
    return [values[name] for name in FIELDS]


# taking in


def test_a_nifti_file_is_shown_as_it_is(tmp_path: Path, cache: Path) -> None:
    loaded = take_in([nifti(tmp_path / "v.nii.gz")], cache, Wishes())
    np.testing.assert_array_equal(voxels(loaded), np.asarray(nibabel.load(tmp_path / "v.nii.gz").dataobj))
    assert (loaded.unit, loaded.slices, loaded.plane) == ("a.u.", 3, (36, 34))
    assert cache in Path(loaded.views[0]["url"].removeprefix("gradio_api/file=")).parents
    assert len(loaded.folder.name) == 32


def test_a_zip_of_dicom_is_a_volume_without_names(tmp_path: Path, cache: Path) -> None:
    files = series(tmp_path / "in" / "Mustermann")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, f"Mustermann/{file.name}")
    loaded = take_in([tmp_path / "all.zip"], cache, Wishes())
    several = take_in(files, cache, Wishes())
    np.testing.assert_array_equal(voxels(loaded), voxels(several))
    assert loaded.views[0]["shape"] == [40, 40, 3]
    assert loaded.unit == "HU"
    told = _told(loaded)
    assert not any(secret in told for secret in SECRETS)
    assert {"PatientName", "PatientID", "PatientBirthDate", "SeriesDescription"} <= set(loaded.hidden)
    assert "Tube voltage (kV)" in dict(loaded.facts)


def test_a_few_files_of_one_series_are_one_volume_and_two_series_are_chosen_from(tmp_path: Path, cache: Path) -> None:
    def other(_: int, image: pydicom.Dataset) -> None:
        image.SeriesInstanceUID = "1.2.3.99"

    files = series(tmp_path / "a", 4)
    more = sorted(write_series(tmp_path / "b", even(2), other, (40, 40), lambda k: f"x{k}.dcm").iterdir())
    loaded = take_in([*files, *more], cache, Wishes())
    assert [len(case.files) for case in loaded.cases] == [4, 2]
    assert loaded.slices == 4
    assert again(loaded, Wishes(chosen=1)).slices == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", b"hello", "Expected DICOM or NIfTI, found none"),
        ("scan.dcm", b"no DICOM at all", "Expected a DICOM image"),
        ("short.nii.gz", b"\x1f\x8b", "Expected"),
        ("kspace.npy", b"\x93NUMPY", "raw k-space"),
        ("broken.zip", b"PK\x03\x04broken", "Expected a whole zip"),
    ],
)
def test_wrong_files_are_refused_with_a_sentence(
    tmp_path: Path, cache: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match=sentence) as caught:
        take_in([tmp_path / name], cache, Wishes())
    assert str(tmp_path) not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_missing_slices_are_refused_or_read_one_by_one(tmp_path: Path, cache: Path) -> None:
    files = series(tmp_path / "in", 5)
    with pytest.raises(ReadError, match="even grid"):
        take_in([*files[:2], *files[3:]], cache, Wishes())
    assert take_in([*files[:2], *files[3:]], cache, Wishes(on_gap="slicewise")).slices == 4


def test_a_segmentation_must_lie_on_the_grid(tmp_path: Path, cache: Path) -> None:
    labels = np.zeros((34, 36, 3), np.uint8)
    labels[3:9, 4, 1] = 2
    wishes = Wishes(labels=nifti(tmp_path / "labels.nii.gz", labels))
    loaded = take_in([nifti(tmp_path / "v.nii")], cache, wishes)
    np.testing.assert_array_equal(voxels(loaded, "labels"), labels)
    with pytest.raises(ReadError, match="resample it to the volume"):
        take_in(
            [nifti(tmp_path / "w.nii", np.zeros((34, 36, 4), np.int16) + np.arange(4, dtype=np.int16))], cache, wishes
        )


def test_numbers_that_are_not_whole_are_kept_to_a_step(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(0, 500, (9, 8, 20)).astype(np.float32)
    for packed in (False, True):
        view = volume_view("mean", "Mean", numbers, Volume(numbers, np.eye(4)), tmp_path, packed=packed)
        assert np.ptp(numbers) / 65534 == pytest.approx(view["slope"], rel=1e-6)
    stored = np.frombuffer((tmp_path / "mean.raw").read_bytes(), "<i2").reshape((9, 8, 20), order="F")
    np.testing.assert_allclose(stored * view["slope"] + view["intercept"], numbers, atol=0.501 * view["slope"])


# phantoms


def test_phantoms_are_bodies_of_nobody(tmp_path: Path, cache: Path) -> None:
    ct = take_in(write_torso(tmp_path / "ct"), cache, Wishes())
    np.testing.assert_array_equal(voxels(ct), torso().array)
    np.testing.assert_allclose(ct.views[0]["affine"], torso().affine, atol=1e-3)
    assert ct.unit == "HU"
    assert ct.modality == "CT"
    assert {-1000, -860, 45} <= set(np.unique(torso().array).tolist())
    mri = take_in(write_head(tmp_path / "mri"), cache, Wishes())
    np.testing.assert_allclose(voxels(mri), head().array, atol=0.02)


@pytest.mark.parametrize(("name", "problem"), [("ct", "ct"), ("mri", "mri")])
def test_a_phantom_button_sets_a_study(handlers: Handlers, name: str, problem: str) -> None:
    loaded, told, _, viewer, level, _, *rest = handlers.phantom(name, None, None, None, "refuse")
    assert "voxels" in told
    assert viewer.props["source"]["views"][0]["name"] == "before"
    assert rest == [None, True, problem, "quick"]
    assert level.value == PHANTOMS[name][2]["sigma"]
    assert Path(loaded.views[0]["url"].split("=", 1)[1]).is_file()


# what is asked for


def test_every_problem_makes_a_recipe_that_can_be_carried_out(tmp_path: Path, cache: Path) -> None:
    loaded = take_in(write_torso(tmp_path / "ct"), cache, Wishes())
    for problem in ("noise", "blur", "missing", "low", "ct", "mri"):
        for method in ("tv", *priors(STORE)):
            asked = Asked(study=True, problem=problem, sigma=0.02 if problem == "ct" else 50.0, method=method)
            recipe = recipe_of(asked, loaded, STORE)
            assert recipe.problems(STORE) == []
            assert len(recipe.seeds) == (1 if method == "tv" else 4)
    noise = recipe_of(Asked(problem="noise", sigma=50.0), loaded, STORE).model_dump()["noise"]["sigma"]
    assert noise == pytest.approx(50 / 2000)


def test_what_cannot_be_asked_is_said(tmp_path: Path, cache: Path, handlers: Handlers) -> None:
    loaded = take_in([nifti(tmp_path / "v.nii")], cache, Wishes())
    button, said, *_ = handlers.check(loaded, *form(problem="mri"))
    assert not button.interactive
    assert "degrade it first" in said
    button, said, *_ = handlers.check(loaded, *form(problem="ct", study=True))
    assert "Hounsfield" in said
    button, said, *_ = handlers.check(loaded, *form(sigma=-1))
    assert not button.interactive
    assert "Noise level" in said
    button, said, *_ = handlers.check(None, *form())
    assert "Step 1 first" in said
    button, said, *_ = handlers.check(loaded, *form())
    assert button.interactive


def test_the_photo_prior_is_called_what_it_is_and_another_is_found_by_its_card() -> None:
    assert "not on medical images" in prior_sentence(STORE, "photo")
    assert best_prior(STORE, "CT") == "photo"
    other = AssetStore()
    other.cards = dict(STORE.cards)
    other.cards["chest"] = STORE.cards["photo"].model_copy(update={"name": "chest", "title": "Chest CT, grey"})
    assert best_prior(other, "CT") == "chest"
    assert best_prior(other, "MR") == "photo"
    assert "scanner" in prior_sentence(other, "chest")


def test_time_is_estimated_from_the_measured_speed(tmp_path: Path, cache: Path) -> None:
    loaded = take_in(write_torso(tmp_path / "ct"), cache, Wishes())
    asked = Asked(method="photo", quality="balanced", samples=3)
    assert seconds(asked, loaded, 2.0) == pytest.approx(20 * 3 * 12 * 2.0 * 96 * 96 / 1e6)
    assert seconds(asked, loaded, None) is None


# through the page


def _begun(handlers: Handlers, desk: Desk, loaded: Loaded, *, hide: bool = False, **asked: Any) -> Any:
    shown = handlers.run(loaded, hide, False, ["dicom", "nifti"], None, None, None, "refuse", *form(**asked))
    return desk.dispatcher.store.get(shown.props["job"])


def test_a_dicom_series_comes_back_as_a_derived_series(uploads: Path, desk: Desk, handlers: Handlers) -> None:
    files = series(uploads / "in")
    loaded = handlers.take([str(file) for file in files], None, None, None, None, "refuse")[0]
    job = _begun(handlers, desk, loaded, quality="quick")
    assert run_job(job).code == DONE
    derived = sorted(job.folder.rglob("slice-*.dcm"))
    assert len(derived) == 3
    for path, source in zip(derived, files, strict=True):
        written, original = pydicom.dcmread(path), pydicom.dcmread(source)
        assert unlike_source(written, original) == []
        assert written.PatientName == NAME  # results carry the identity of their source
        assert written.PixelData != original.PixelData
    (case,) = views_of(job)
    assert [view["name"] for view in case.views] == ["before", "mean", "imagined"]
    assert case.views[0]["unit"] == "HU"
    assert case.figures["imagined"] < 1e-2  # everything was measured
    assert "RESTORED tv noise - not for diagnosis" in str(pydicom.dcmread(derived[0]).SeriesDescription)
    place = job.private / "views" / case.case
    stored = np.frombuffer(gzip.decompress((place / case.views[0]["file"]).read_bytes()), "<i2")
    np.testing.assert_array_equal(stored.reshape((40, 40, 3), order="F"), voxels(loaded))
    mean = case.views[1]
    stored = np.frombuffer(gzip.decompress((place / mean["file"]).read_bytes()), "<i2").reshape(
        mean["shape"], order="F"
    )
    restored = np.asarray(nibabel.load(next(job.folder.rglob("restored.nii.gz"))).dataobj)
    np.testing.assert_allclose(stored * mean["slope"] + mean["intercept"], restored, atol=0.6 * mean["slope"])


def test_identities_can_be_taken_out_before_a_run(tmp_path: Path, desk: Desk, cache: Path, handlers: Handlers) -> None:
    pytest.importorskip("dicomanonymizer")
    loaded = take_in(series(tmp_path / "in"), cache, Wishes())
    job = _begun(handlers, desk, loaded, hide=True, quality="quick")
    assert run_job(job).code == DONE
    assert not list(loaded.folder.glob("nameless-*"))  # the job has its own
    for path in (*job.folder.rglob("slice-*.dcm"), *(job.folder / "inputs").rglob("*.dcm")):
        text = str(pydicom.dcmread(path))
        assert not any(secret in text for secret in SECRETS)


def test_a_nifti_without_its_free_text(tmp_path: Path, cache: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(34 * 36 * 3, dtype=np.int16).reshape(34, 36, 3), np.eye(4))
    image.header["descrip"] = b"Mustermann"
    nibabel.save(image, tmp_path / "Mustermann.nii.gz")
    loaded = take_in([tmp_path / "Mustermann.nii.gz"], cache, Wishes())
    assert loaded.hidden == ("descrip", "the file's name")
    (file,) = sources(loaded, nameless=True, text_checked=False)
    assert file.name == "volume.nii.gz"
    assert bytes(nibabel.load(file).header["descrip"].tobytes()).strip(b"\0") == b""


def test_a_study_has_measurement_and_reference(desk: Desk, handlers: Handlers, uploads: Path) -> None:
    loaded = handlers.take([str(nifti(uploads / "v.nii.gz"))], None, None, None, None, "refuse")[0]
    job = _begun(handlers, desk, loaded, study=True, problem="mri", sigma=9.0, quality="quick", acceleration=2)
    assert run_job(job).code == DONE
    (case,) = views_of(job)
    assert [view["name"] for view in case.views] == ["before", "mean", "truth", "imagined"]
    assert "simulated" in case.views[0]["title"]
    assert case.figures["psnr"] > 10


def test_a_damaged_form_is_refused_and_nothing_is_queued(
    tmp_path: Path, desk: Desk, cache: Path, handlers: Handlers
) -> None:
    loaded = take_in([nifti(tmp_path / "v.nii.gz")], cache, Wishes())
    for wrong in ({"problem": "../../etc"}, {"method": "/etc/passwd"}, {"sigma": 0}, {"seed": -1}):
        with pytest.raises(gr.Error) as caught:
            _begun(handlers, desk, loaded, **wrong)
        assert str(tmp_path) not in str(caught.value)
    assert desk.dispatcher.waiting == 0


def test_a_new_upload_takes_the_old_one_off_the_disk(uploads: Path, cache: Path, handlers: Handlers) -> None:
    path = str(nifti(uploads / "v.nii.gz"))
    first = handlers.take([path], None, None, None, None, "refuse")[0]
    second = handlers.take([path], first, None, None, None, "refuse")[0]
    assert not first.folder.exists()
    assert second.folder.exists()
    handlers.take(None, second, None, None, None, "refuse")
    assert list(cache.iterdir()) == [uploads]


def test_a_wish_that_is_refused_leaves_the_volume(tmp_path: Path, uploads: Path, handlers: Handlers) -> None:
    path = str(nifti(uploads / "v.nii.gz"))
    loaded = handlers.take([path], None, None, None, None, "refuse")[0]
    for wishes, sentence in (
        ((None, "-5", "", "refuse"), "fill in the other"),
        ((None, "-5", "many", "refuse"), "Expected numbers"),
        ((None, "0", "0", "refuse"), "white the larger"),
        ((None, "nan", "inf", "refuse"), "Expected numbers"),
        ((path + "x", None, None, "refuse"), "uploaded here"),
    ):
        kept, told, *_ = handlers.reread([path], loaded, None, *wishes)
        assert kept is loaded
        assert sentence in told
    assert voxels(loaded).shape == (34, 36, 3)
    again_read = handlers.reread([path], loaded, None, None, "-5", " 500 ", "refuse")[0]
    assert (again_read.scale.low, again_read.scale.high) == (-5, 500)
    assert voxels(again_read).shape == (34, 36, 3)
    assert len(list(loaded.folder.glob("shown-*"))) == 1  # what was shown before is gone


def test_files_that_were_refused_are_read_with_other_wishes(uploads: Path, handlers: Handlers) -> None:
    files = series(uploads / "in", 5)
    paths = [str(file) for file in (*files[:2], *files[3:])]
    assert handlers.take(paths, None, None, None, None, "refuse")[0] is None
    assert handlers.reread(paths, None, None, None, None, None, "slicewise")[0].slices == 4


def test_a_name_that_is_no_upload_is_refused_in_a_sentence(cache: Path, handlers: Handlers) -> None:
    for name in ("../" + "a" * 300, f"{cache}/{'b' * 300}", "\0", "/etc/passwd", str(cache)):
        with pytest.raises(ReadError, match="Expected a file that was uploaded here") as caught:
            handlers.inside(name)
        assert str(cache) not in str(caught.value)


def test_files_from_elsewhere_are_not_opened(tmp_path: Path, handlers: Handlers) -> None:
    path = str(nifti(tmp_path / "v.nii.gz"))
    loaded, told, *_ = handlers.take([path], None, None, None, None, "refuse")
    assert loaded is None
    assert "Expected a file that was uploaded here" in told
    assert str(tmp_path) not in told


def test_the_real_ct_slice_of_pydicom_is_read(cache: Path) -> None:
    loaded = take_in([bundled("CT_small.dcm")], cache, Wishes())
    assert loaded.views[0]["shape"] == [128, 128, 1]
    with pytest.raises(PreimageError, match="Segmentation"):
        again(loaded, Wishes(labels=bundled("CT_small.dcm")))
