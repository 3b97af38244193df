import contextlib
import errno
import json
import os
import signal
import subprocess
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import app.restore
from app.batch import BROKEN_OFF, DONE, INTERRUPTED, SOME_FAILED, Options, new_job, run_batch, run_job
from app.cli import main
from app.jobs import DiskRefuses, Job, Request
from app.pictures import read_picture
from operators.errors import AssetCorrupt, ReadError, RecipeError
from operators.spec import DataRef
from restoration.method import Step
from restoration.methods.tv import TV
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe
from tests.app.inputs_of_all_kinds import BAD, GOOD, RECIPE, drawn, hashes, make_inputs, nifti, picture, remains
from tests.medical.dicoms import NAME, PATIENT, even, write_series

EPOCH = "1700000000"


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("tree") / "in")


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, restored without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        outcome = run_batch(RECIPE, [tree], out)
    assert outcome.code == SOME_FAILED
    return out


def changed(**fields: Any) -> Recipe:
    return Recipe.model_validate(RECIPE.model_dump() | fields)


# survival


def test_all_good_cases_are_restored_and_bad_ones_get_a_sentence(tree: Path, whole: Path) -> None:
    events = [event["outcome"] for event in Job.open(whole).journal() if event["event"] == "case"]
    assert len(events) == GOOD + BAD
    failed = [event for event in events if event["state"] == "failed"]
    assert len(failed) == BAD
    assert all(event["message"].startswith("Expected ") and event["message"].endswith(".") for event in failed)
    assert Job.open(whole).status().state == "done"
    assert remains(whole) == []
    assert not Path("leaked").exists()
    names = {name for name in hashes(whole) if name.startswith("results/two/")}
    assert {"results/two/a00.png/restored.png", "results/two/a00.tif/restored.png"} <= names


def _child(tree: Path, out: Path) -> int:
    """A process that works on the run until somebody ends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks where threads are; this child starts none
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            run_batch(RECIPE, [tree], out, resume=True)
        os._exit(0)
    return pid


def _ended(out: Path) -> int:
    with contextlib.suppress(ReadError):
        return sum(event["event"] == "case" for event in Job.open(out).journal())
    return 0


def test_three_kills_change_nothing(tree: Path, whole: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / "out", drawn(20261121)
    for target in sorted(moments.choice(np.arange(3, 60), 3, replace=False).tolist()):
        pid = _child(tree, out)
        while _ended(out) < target and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert Job.open(out).status().state == "interrupted"
    before = {event["outcome"]["case"] for event in Job.open(out).journal() if event["event"] == "case"}
    outcome = run_batch(RECIPE, [tree], out, resume=True)
    assert outcome.code == SOME_FAILED
    assert len(outcome.cases) == GOOD + BAD
    assert sum(case.proven for case in outcome.cases) >= len(before) - BAD - 3
    assert hashes(out) == hashes(whole)
    assert remains(out) == []
    done = [
        event["outcome"]["number"]
        for event in Job.open(out).journal()
        if event["event"] == "case" and event["outcome"]["state"] == "done"
    ]
    assert len(done) == len(set(done)) == GOOD
    assert (out / "summary.csv").read_text().count("\n") == GOOD + BAD + 1


def test_only_what_is_not_proven_is_done_again(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / "in" / f"{k}.png", k)
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out")
    before = hashes(tmp_path / "out")
    touched = tmp_path / "out/results/1.png/restored.png"
    touched.write_bytes(touched.read_bytes()[:-1] + b"x")
    (tmp_path / "out/results/2.png/std.png").unlink()
    picture(tmp_path / "in" / "3.png", 77)
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", resume=True)
    assert [case.proven for case in outcome.cases] == [True, False, False, False]
    after = hashes(tmp_path / "out")
    same = [name for name in before if after[name] == before[name]]
    assert {name for name in before if not name.startswith("results/3.png")} <= set(same)
    assert after["results/3.png/restored.png"] != before["results/3.png/restored.png"]


def test_slices_of_an_unfinished_volume_are_kept(tmp_path: Path) -> None:
    path = nifti(tmp_path / "v.nii.gz", 1, (17, 18, 6))
    steps: list[int] = []
    out = tmp_path / "out"
    outcome = run_batch(RECIPE, [path], out, watch=lambda p: steps.append(p.step), stop=lambda: len(steps) >= 10)
    assert outcome.code == INTERRUPTED
    assert outcome.cases[0].state == "partial"
    kept = list((out / "job" / "parts").rglob("*.npz"))
    assert len(kept) == 3
    kept[0].write_bytes(b"damaged")
    steps.clear()
    assert run_batch(RECIPE, [path], out, resume=True, watch=lambda p: steps.append(p.step)).code == DONE
    assert len([step for step in steps if step]) == 4 * 3  # three steps for each of four slices
    assert run_batch(RECIPE, [path], tmp_path / "other").code == DONE
    assert hashes(out) == hashes(tmp_path / "other")
    assert remains(out) == []


def test_stopping_keeps_the_estimate_so_far(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    picture(tmp_path / "in" / "b.png", 2)
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", stop=lambda: True)
    assert (outcome.code, outcome.cases) == (INTERRUPTED, ())
    steps: list[int] = []
    outcome = run_batch(
        RECIPE,
        [tmp_path / "in"],
        tmp_path / "out",
        resume=True,
        watch=lambda p: steps.append(1),
        stop=lambda: bool(steps),
    )
    assert [case.state for case in outcome.cases] == ["partial"]
    assert (tmp_path / "out/results/a.png/partial/restored.png").is_file()
    assert Job.open(tmp_path / "out").status().state == "interrupted"
    assert run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", resume=True).code == DONE
    assert remains(tmp_path / "out") == []


def test_the_stop_flag_of_the_job_ends_it(tmp_path: Path) -> None:
    for k in range(3):
        picture(tmp_path / "in" / f"{k}.png", k)
    job = new_job(RECIPE, [tmp_path / "in"], tmp_path / "out")
    outcome = run_job(job, watch=lambda p: job.request_stop() if p.outcome else None)
    assert outcome.code == INTERRUPTED
    assert len(outcome.cases) == 1
    assert run_job(job).code == DONE


def test_failing_fast_ends_after_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    picture(tmp_path / "in" / "b.png", 2)
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", fail_fast=True)
    assert outcome.code == SOME_FAILED
    assert len(outcome.cases) == 1
    assert Job.open(tmp_path / "out").status().state == "failed"


# disks


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-R", place], check=True)


def test_a_full_disk_ends_in_a_sentence_and_can_be_resumed(tmp_path: Path) -> None:
    for k in range(12):
        picture(tmp_path / "in" / f"{k:02d}.png", k, 60, 60)
    with mounted(tmp_path / "disk", "size=220k"):
        out = tmp_path / "disk" / "out"
        outcome = run_batch(RECIPE, [tmp_path / "in"], out)
        assert outcome.code == BROKEN_OFF
        assert outcome.message.startswith("Expected a disk that can be written to, got: No space left on device;")
        assert 0 < len(outcome.cases) < 12
        assert Job.open(out).status().state == "interrupted"
        subprocess.run(["mount", "-o", "remount,size=20m", tmp_path / "disk"], check=True)
        again = run_batch(RECIPE, [tmp_path / "in"], out, resume=True)
        assert again.code == DONE
        assert sum(case.proven for case in again.cases) >= len(outcome.cases) - 1
        assert remains(out) == []


def test_a_read_only_disk_ends_in_a_sentence_and_can_be_resumed(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / "in" / f"{k}.png", k)
    with mounted(tmp_path / "disk", "size=20m"):
        out = tmp_path / "disk" / "out"

        def freeze(progress: Any) -> None:
            if progress.outcome is not None and progress.outcome.number == 2:
                # not the disk itself: files that are open for writing, such as the lock, would keep it from that
                subprocess.run(["mount", "--bind", out, out], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", out], check=True)

        outcome = run_batch(RECIPE, [tmp_path / "in"], out, watch=freeze)
        assert outcome.code == BROKEN_OFF
        assert "Read-only file system" in outcome.message
        assert Job.open(out).status().state == "interrupted"
        with pytest.raises(DiskRefuses, match="Read-only"):
            run_batch(RECIPE, [tmp_path / "in"], out / "other")
        subprocess.run(["umount", out], check=True)
        assert run_batch(RECIPE, [tmp_path / "in"], out, resume=True).code == DONE


def test_a_disk_that_fills_in_the_middle_of_a_case_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nifti(tmp_path / "in" / "0.nii.gz", 1)
    picture(tmp_path / "in" / "a.png", 1)
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "whole")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(app.restore, "_commit", full)
    assert run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out").code == BROKEN_OFF
    monkeypatch.undo()
    steps: list[int] = []
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", resume=True, watch=lambda p: steps.append(p.steps))
    assert outcome.code == DONE
    assert sum(count > 0 for count in steps) == 3  # of the picture alone: all slices of the volume were kept
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")  # with what each slice had noted


# strangers' files


def _pack(path: Path, names: list[str], content: bytes = b"x", attributes: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                member = zipfile.ZipInfo(name)
                member.external_attr, member.compress_type = attributes, zipfile.ZIP_DEFLATED
                archive.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("names", "content", "attributes", "sentence"),
    [
        (["../evil.png"], b"x", 0, "leads out of it"),
        (["/etc/evil.png"], b"x", 0, "leads out of it"),
        (["a/../../evil.png"], b"x", 0, "leads out of it"),
        (["c:\\evil.png"], b"x", 0, "leads out of it"),
        (["a\nb.png"], b"x", 0, "odd signs"),
        (["a.png", "A.PNG"], b"x", 0, "the same but for their case"),
        (["a", "a/b.png"], b"x", 0, "also a folder"),
        (["link.png"], b"/etc/hostname", 0o120777 << 16, "a link or a device"),
        (["bomb.png"], bytes(60 << 20), 0, "times its size"),
    ],
)
def test_hostile_zips_are_refused(
    tmp_path: Path, names: list[str], content: bytes, attributes: int, sentence: str
) -> None:
    packed = _pack(tmp_path / "in" / "x.zip", names, content, attributes)
    outcome = run_batch(RECIPE, [packed], tmp_path / "out")
    assert [case.state for case in outcome.cases] == ["failed"]
    assert sentence in outcome.cases[0].message
    assert hashes(tmp_path / "out") == {}
    assert remains(tmp_path / "out") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_zip_in_a_zip_is_left_out_and_a_damaged_one_refused(tmp_path: Path) -> None:
    inner = _pack(tmp_path / "inner.zip", ["a.png"])
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "inner.zip")
        archive.write(picture(tmp_path / "p.png", 1), "p.png")
    outcome = run_batch(RECIPE, [tmp_path / "outer.zip"], tmp_path / "out")
    assert outcome.code == DONE
    assert outcome.left_out == {"a zip inside a zip": 1}
    assert list(hashes(tmp_path / "out")) != []


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "secret" / "s.png", 1)
    picture(tmp_path / "in" / "a.png", 2)
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "secret" / "s.png")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "secret")
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out")
    assert [case.state for case in outcome.cases] == ["done", "failed"]
    assert "a link that leads out" in outcome.cases[1].message
    assert outcome.left_out == {"a link to a folder": 1}


def test_promises_of_headers_are_not_believed(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float32)
    header["vox_offset"] = 352
    (tmp_path / "in").mkdir()
    header["magic"] = b"n+1"
    (tmp_path / "in" / "huge.nii").write_bytes(header.binaryblock + bytes(4 + 1000))
    huge = tmp_path / "in" / "huge.png"
    picture(huge, 1)
    content = bytearray(huge.read_bytes())
    content[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    huge.write_bytes(bytes(content))
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out")
    assert [case.state for case in outcome.cases] == ["failed", "failed"]
    assert all(case.message.startswith("Expected") for case in outcome.cases)


def _mutated(content: bytes, changes: list[tuple[int, int]], cut: float) -> bytes:
    body = bytearray(content[: max(1, round(len(content) * cut))])
    for place, value in changes:
        body[place % len(body)] = value
    return bytes(body)


FUZZED = 60
"""Files by default, 15 of each kind; `-m slow` has 900. Not made smaller on a failure: that takes minutes."""


def _fuzz(kind: str, folder: Path, seeds: dict[str, bytes], changes: list[tuple[int, int]], cut: float) -> None:
    ending, content = kind, seeds[kind]
    place = folder / "in"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    (place / f"x.{ending}").write_bytes(_mutated(content, changes, cut))
    try:
        outcome = run_batch(FAST, [place / f"x.{ending}"], folder / "out", overwrite=True)
    except ReadError as error:
        if "found none" not in str(error):  # nothing in it to restore at all
            raise
        return
    assert len(outcome.cases) >= 1
    for case in outcome.cases:
        assert case.state == "done" or case.message.startswith(("Expected", "case")), case
        assert "unforeseen" not in case.message, (case.message, (folder / "out/job/log.txt").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out"]


FAST = changed(method={"kind": "direct"}, seeds=[0])

edits = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=12)
cuts = st.one_of(st.just(1.0), st.floats(0, 1))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("seeds")
    series = write_series(place / "d", even(1), shape=(17, 16))
    packed = place / "p.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(picture(place / "a.png", 1), "a.png")
    return {
        "png": (place / "a.png").read_bytes(),
        "tif": picture(place / "a.tif", 1).read_bytes(),
        "dcm": next(series.iterdir()).read_bytes(),
        "nii.gz": nifti(place / "v.nii.gz", 1).read_bytes(),
        "nii": nifti(place / "v.nii", 1).read_bytes(),
        "zip": packed.read_bytes(),
    }


@pytest.mark.parametrize("kind", ["png", "dcm", "nii", "zip"])
@settings(max_examples=FUZZED // 4, phases=(Phase.explicit, Phase.generate))
@given(changes=edits, cut=cuts)
def test_damage_gives_a_sentence(
    kind: str,
    seeds: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    cut: float,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{kind}"
    folder.mkdir(exist_ok=True)
    _fuzz(kind, folder, seeds, changes, cut)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "tif", "dcm", "nii", "nii.gz", "zip"])
@settings(max_examples=150, phases=(Phase.explicit, Phase.generate))
@given(changes=edits, cut=cuts)
def test_much_damage_gives_a_sentence(
    kind: str,
    seeds: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    cut: float,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"much-{kind}"
    folder.mkdir(exist_ok=True)
    _fuzz(kind, folder, seeds, changes, cut)


# patients


def test_reports_and_logs_hold_no_names(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "Mustermann_Erika", even(2), shape=(17, 16))
    (tmp_path / "in" / "Mustermann_Erika" / "Mustermann.png").write_bytes(b"broken")
    nifti(tmp_path / "in" / "Mustermann.nii.gz", 1)
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out")
    for name in ("job/journal.jsonl", "job/log.txt", "job/state.json", "summary.csv", "summary.html", "manifest.json"):
        text = (tmp_path / "out" / name).read_text()
        for secret in ("Mustermann", "Erika", NAME, PATIENT, "ACC-99", "1.2.3.4", str(tmp_path)):
            assert secret not in text, (name, secret)
    assert (tmp_path / "out/job/plan.json").stat().st_mode & 0o077 == 0


# volumes


def test_a_method_that_changes_nothing_gives_the_same_voxels_back(tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", even(3), shape=(17, 16))
    assert run_batch(FAST, [source], tmp_path / "out", Options(output_types=("dicom", "nifti"))).code == DONE
    for k, path in enumerate(sorted((tmp_path / "out").rglob("slice-*.dcm"))):
        derived, original = pydicom.dcmread(path), pydicom.dcmread(source / f"{k:03d}")
        assert derived.PixelData == original.PixelData
        assert derived.SeriesDescription.endswith("not for diagnosis")
        assert derived.InstanceCreationDate == "20231114"


def test_a_volume_has_one_scale_and_keeps_what_is_outside(tmp_path: Path) -> None:
    path = nifti(tmp_path / "v.nii.gz", 3, (17, 18, 3))
    recipe = changed(method={"kind": "tv", "iterations": 30, "weight": 20})
    outcome = run_batch(recipe, [path], tmp_path / "out", Options(window=(100, 500)))
    before = np.asarray(nibabel.load(path).dataobj, np.float64)
    after = np.asarray(nibabel.load(tmp_path / "out/results/v.nii.gz/restored.nii.gz").dataobj, np.float64)
    unit = np.clip((before - 100) / 400, 0, 1).astype(np.float32)
    pipeline = Pipeline.load(recipe)
    for k in range(3):
        slice_ = torch.from_numpy(np.ascontiguousarray(unit[:, :, k].T))[None]
        restored = pipeline.run(pipeline.observe(slice_)).mean.mean(0).numpy().T
        expected = before[:, :, k] + 400 * (restored.astype(np.float64) - unit[:, :, k])
        np.testing.assert_allclose(after[:, :, k], expected, atol=1e-3)
    assert outcome.cases[0].facts["window"] == [100, 500]
    assert (after > 500).any()


def test_maps_are_in_physical_units(tmp_path: Path) -> None:
    path = nifti(tmp_path / "v.nii.gz", 3, (17, 18, 2))
    recipe = changed(
        model={"kind": "power-law"}, method={"kind": "diffpir", "schedule": {"kind": "karras", "steps": 3}}
    )
    outcome = run_batch(recipe, [path], tmp_path / "out", Options(output_types=("nifti", "npz"), window=(100, 500)))
    place = tmp_path / "out/results/v.nii.gz"
    with np.load(place / "samples.npz") as arrays:
        samples, kept = arrays["samples"], arrays["imagined"]
    std = np.asarray(nibabel.load(place / "std.nii.gz").dataobj)
    mean = np.asarray(nibabel.load(place / "restored.nii.gz").dataobj)
    np.testing.assert_allclose(std, samples.std(0), atol=1e-2)
    np.testing.assert_allclose(mean, samples.mean(0), atol=1e-2)
    assert std.mean() > 1
    imagined = np.asarray(nibabel.load(place / "imagined.nii.gz").dataobj)
    np.testing.assert_allclose(imagined, kept, atol=1e-2)
    unit = np.clip((np.asarray(nibabel.load(path).dataobj, np.float64) - 100) / 400, 0, 1).astype(np.float32)
    pipeline, shares = Pipeline.load(recipe), []
    for k in range(2):
        alone = pipeline.run(pipeline.observe(torch.from_numpy(np.ascontiguousarray(unit[:, :, k].T))[None]))
        assert alone.imagined is not None
        expected = 400 * alone.imagined.square().mean(0).sqrt().numpy().T
        np.testing.assert_allclose(imagined[:, :, k], expected, atol=1e-2)
        shares += alone.report.imagined_samples or ()
    assert outcome.cases[0].figures["imagined"] == pytest.approx(np.mean(shares))
    assert 0 < np.mean(shares) < 1


def test_a_recipe_that_changes_the_grid_is_refused_for_volumes(tmp_path: Path) -> None:
    path = nifti(tmp_path / "v.nii.gz", 3, (17, 18, 2))
    recipe = changed(operator={"kind": "downsample", "factor": 2}, method={"kind": "direct"})
    outcome = run_batch(recipe, [path], tmp_path / "out")
    assert "keeps the size of slices" in outcome.cases[0].message


def test_bids_is_mirrored_as_derivatives(tmp_path: Path) -> None:
    data = tmp_path / "data"
    nifti(data / "sub-01" / "anat" / "sub-01_T1w.nii.gz", 1)
    nifti(data / "sub-01" / "anat" / "sub-01_mask.nii.gz", 2)
    nifti(data / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz", 3)
    nifti(data / "derivatives" / "x" / "sub-01_T1w.nii.gz", 4)
    (data / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    outcome = run_batch(RECIPE, [data], tmp_path / "out")
    assert outcome.code == DONE
    assert sorted(hashes(tmp_path / "out")) == [
        "derivatives/preimage/dataset_description.json",
        "derivatives/preimage/sub-01/anat/sub-01_desc-imagined_T1w.nii.gz",
        "derivatives/preimage/sub-01/anat/sub-01_desc-restored_T1w.json",
        "derivatives/preimage/sub-01/anat/sub-01_desc-restored_T1w.nii.gz",
        "derivatives/preimage/sub-01/anat/sub-01_desc-std_T1w.nii.gz",
        "derivatives/preimage/sub-02/ses-a/anat/sub-02_ses-a_desc-imagined_T1w.nii.gz",
        "derivatives/preimage/sub-02/ses-a/anat/sub-02_ses-a_desc-restored_T1w.json",
        "derivatives/preimage/sub-02/ses-a/anat/sub-02_ses-a_desc-restored_T1w.nii.gz",
        "derivatives/preimage/sub-02/ses-a/anat/sub-02_ses-a_desc-std_T1w.nii.gz",
    ]
    described = json.loads((tmp_path / "out/derivatives/preimage/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    beside = json.loads((tmp_path / "out/derivatives/preimage/sub-01/anat/sub-01_desc-restored_T1w.json").read_text())
    assert beside["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert outcome.left_out == {"a label map": 1, "not a picture or a volume": 1}


def test_rules_choose_series(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", even(2), shape=(17, 16))
    write_series(
        tmp_path / "in" / "b", even(3), lambda k, image: setattr(image, "SeriesInstanceUID", "1.9"), shape=(17, 16)
    )
    outcome = run_batch(
        FAST, [tmp_path / "in"], tmp_path / "out", Options(series="modality=ct, slices>=3 | plane=coronal")
    )
    assert [case.facts["slices"] for case in outcome.cases] == [3]
    with pytest.raises(RecipeError, match="Expected a rule for series"):
        run_batch(FAST, [tmp_path / "in"], tmp_path / "out2", Options(series="slices~3"))


# equality


def test_batch_run_and_python_agree_byte_for_byte(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    recipe = tmp_path / "r.json"
    recipe.write_text(RECIPE.model_dump_json())
    assert main(["run", str(recipe), str(path), "-o", str(tmp_path / "run")]) == 0
    assert (
        main(
            [
                "batch",
                "-i",
                str(path),
                "-o",
                str(tmp_path / "batch"),
                "--recipe",
                str(recipe),
                "--output-type",
                "png,npz",
            ]
        )
        == 0
    )
    place = tmp_path / "batch" / "results" / "a.png"
    for ours, theirs in (("restored", "mean"), ("std", "std"), ("imagined", "imagined")):
        assert (place / f"{ours}.png").read_bytes() == (tmp_path / "run" / f"{theirs}.png").read_bytes()
    assert (place / "samples.npz").read_bytes() == (tmp_path / "run" / "samples.npz").read_bytes()
    pipeline = Pipeline.load(RECIPE)
    samples = pipeline.run(pipeline.observe(read_picture(path).pixels)).samples.numpy()
    with np.load(place / "samples.npz") as arrays:
        assert arrays["samples"].tobytes() == samples.tobytes()


def test_shared_calls_do_not_depend_on_company(tmp_path: Path) -> None:
    recipe = changed(
        model={"kind": "power-law"}, method={"kind": "diffpir", "schedule": {"kind": "karras", "steps": 3}}
    )
    for k in range(5):
        picture(tmp_path / "in" / f"{k}.png", k)
    options = Options(batch=2, output_types=("npz",))
    run_batch(recipe, [tmp_path / "in"], tmp_path / "all", options)
    run_batch(recipe, [tmp_path / "in" / "3.png"], tmp_path / "one", options)
    with (
        np.load(tmp_path / "all/results/3.png/samples.npz") as company,
        np.load(tmp_path / "one/results/3.png/samples.npz") as alone,
    ):
        assert company["samples"].tobytes() == alone["samples"].tobytes()
    run_batch(recipe, [tmp_path / "in"], tmp_path / "single", Options(output_types=("npz",)))
    for k in range(5):
        with (
            np.load(tmp_path / f"all/results/{k}.png/samples.npz") as company,
            np.load(tmp_path / f"single/results/{k}.png/samples.npz") as alone,
        ):
            np.testing.assert_allclose(company["samples"], alone["samples"], atol=1e-5)
            np.testing.assert_allclose(company["imagined"], alone["imagined"], atol=1e-5)
    table = [(tmp_path / name / "summary.csv").read_text().splitlines() for name in ("all", "single")]
    column = table[0][0].split(",").index("imagined")
    shares = [[float(row.split(",")[column]) for row in rows[1:]] for rows in table]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)


def test_what_is_not_linear_has_no_imagined_share(tmp_path: Path) -> None:
    recipe = changed(operator={"kind": "jpeg"}, method={"kind": "direct"})
    picture(tmp_path / "in" / "a.png", 1, 32, 32)
    nifti(tmp_path / "in" / "v.nii.gz", 1, (32, 32, 2))
    outcome = run_batch(recipe, [tmp_path / "in"], tmp_path / "out")
    assert outcome.code == DONE
    assert not any("imagined" in case.figures for case in outcome.cases)
    assert not any("imagined" in name for name in hashes(tmp_path / "out"))


def test_files_of_a_recipe_may_lie_in_the_job(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    for name in ("one", "two"):
        picture(tmp_path / name / "inputs" / "mask.png", 5, channels=1)
        file = {"path": "inputs/mask.png", "sha256": DataRef(path="inputs/mask.png").digest(tmp_path / name)}
        operator = {"kind": "inpainting", "mask": {"kind": "file", "file": file}}
        job = Job.create(
            tmp_path / f"{name}-job", Request.new((str(path),), changed(operator=operator).model_dump(mode="json"), {})
        )
        os.rename(tmp_path / name / "inputs", job.folder / "inputs")
        assert run_job(job).code == DONE
        text = (job.folder / "results/a.png/restored.json").read_text()
        assert '"inputs/mask.png"' in text
        assert str(tmp_path) not in text
        assert str(tmp_path) not in (job.folder / "manifest.json").read_text()
    assert hashes(tmp_path / "one-job") == hashes(tmp_path / "two-job")
    picture(tmp_path / "two-job" / "inputs" / "mask.png", 6, channels=1)
    with pytest.raises(AssetCorrupt):
        run_job(job)


def test_clean_pictures_are_scored(tmp_path: Path) -> None:
    outcome = run_batch(RECIPE, [picture(tmp_path / "a.png", 1)], tmp_path / "out", Options(truth=True))
    assert {"psnr", "ssim", "psnr_sample", "ssim_sample", "residual_sigma"} <= outcome.cases[0].figures.keys()


def test_a_case_that_runs_out_of_memory_is_tried_with_smaller_tiles_then_given_up(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restoration.assets import AssetStore
    from restoration.prior import Tiled

    recipe = changed(
        model={"kind": "trained", "name": "tiny"},
        method={"kind": "diffpir", "schedule": {"kind": "karras", "steps": 2}},
    )
    for k in range(2):
        picture(tmp_path / "in" / f"{k}.png", k)
    forward, tiles = Tiled.forward, []

    def greedy(self: Tiled, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        tiles.append(self.tile)
        if self.tile > 256 or len(tiles) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, sigma)

    monkeypatch.setattr(Tiled, "forward", greedy)
    outcome = run_batch(recipe, [tmp_path / "in"], tmp_path / "out", store=AssetStore(assets))
    assert [case.state for case in outcome.cases] == ["done", "failed"]
    assert "memory ran out; done with tiles of 256 pixels" in outcome.cases[0].notes
    assert "Expected enough memory" in outcome.cases[1].message
    assert tiles == [768, 256, 256, 768, 256, 768][: len(tiles)] or tiles[:3] == [768, 256, 256]


def test_our_own_defects_do_not_end_the_batch_and_tell_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        picture(tmp_path / "in" / f"Mustermann{k}.png", k)
    run, calls = TV.run, []

    def buggy(self: TV, *arguments: Any) -> Iterator[Step]:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("Mustermann")
        return run(self, *arguments)

    monkeypatch.setattr(TV, "run", buggy)
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out")
    assert [case.state for case in outcome.cases] == ["failed", "done"]
    assert "unforeseen KeyError" in outcome.cases[0].message
    log = (tmp_path / "out/job/log.txt").read_text()
    assert "KeyError at test_batch.py" in log
    assert "Mustermann" not in log


# before the start


def test_what_cannot_start_is_said_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.json"
    recipe.write_text(RECIPE.model_dump_json())
    picture(tmp_path / "in" / "a.png", 1)
    (tmp_path / "empty").mkdir()
    place, out = str(tmp_path / "in"), str(tmp_path / "out")

    def batch(*arguments: str) -> int:
        return main(["batch", "--recipe", str(recipe), *arguments])

    assert batch("-i", str(tmp_path / "nothing"), "-o", out) == 2
    assert batch("-i", str(tmp_path / "empty"), "-o", out) == 2
    assert batch("-i", place, "-o", str(tmp_path / "in" / "out")) == 2
    assert batch("-i", place, "-o", out, "--series", "x") == 2
    assert batch("-i", place, "-o", out, "--window", "5", "5") == 2
    with pytest.raises(SystemExit, match="2"):
        batch("-i", place, "-o", out, "--output-type", "seg")
    assert "no segmentation model yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert batch("-i", place, "-o", out, "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    assert batch("-i", place, "-o", out, "--report", str(tmp_path / "report.json")) == 0
    assert json.loads((tmp_path / "report.json").read_text())["intended_use"] == "research only; not for diagnosis"
    assert batch("-i", place, "-o", out) == 2
    assert batch("-i", place, "-o", out, "--resume", "--samples", "3") == 2
    assert batch("-i", place, "-o", out, "--resume") == 0
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert batch("-i", place, "-o", out, "--overwrite") == 2
    (tmp_path / "out" / "mine.txt").unlink()
    assert batch("-i", place, "-o", out, "--overwrite", "--samples", "3") == 0


def test_unfit_outputs_fail_the_case_alone(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    nifti(tmp_path / "in" / "v.nii", 1)
    outcome = run_batch(FAST, [tmp_path / "in"], tmp_path / "out", Options(output_types=("nifti",)))
    assert [case.state for case in outcome.cases] == ["failed", "done"]
    assert "Expected an output type out of png, tiff, npz" in outcome.cases[0].message


def test_several_inputs_keep_apart(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "one" / "a.png", 1), picture(tmp_path / "two" / "a.png", 2)
    run_batch(FAST, [one, two, tmp_path / "one"], tmp_path / "out")
    names = {name for name in hashes(tmp_path / "out") if name.endswith(".png")}
    assert {name for name in names if "imagined" not in name} == {
        "results/a.png/restored.png",
        "results/a.png-2/restored.png",
        "results/one/a.png/restored.png",
    }


def test_names_with_harmful_signs_are_replaced(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    os.rename(tmp_path / "in" / "a.png", os.fsencode(tmp_path / "in") + b"/\x1b[31m\xff.png")
    assert run_batch(FAST, [tmp_path / "in"], tmp_path / "out").code == DONE
    names = [name for name in hashes(tmp_path / "out") if name.endswith("restored.png")]
    assert len(names) == 1
    assert names[0].isprintable()
