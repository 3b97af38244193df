"""One case from its files to its outputs: the unit of work of a batch, of plain values, so that it can run anywhere."""

import hashlib
import io
import json
import math
import os
import secrets
import shutil
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EPERM, EROFS
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.inputs import Case, blamed
from app.jobs import DiskRefuses, Job, disk_refuses, put, sync
from app.memory import enough_memory
from app.options import Options, Outcome, Output
from app.pictures import MIN_SIDE, encode_png, read_picture
from app.scores import sample_figures
from app.view import (
    Cell,
    data_picture,
    enlarged,
    fitted,
    heat_with_scale,
    montage,
    png,
    spread,
    spread_scale,
    to_colours,
)
from medical.dicom import read_series, series_in
from medical.dicom_pixels import quiet
from medical.dicom_write import Derivation, write_series
from medical.intensity import from_planes, planes, scale_of, through_axis
from medical.nifti import read_nifti, write_nifti
from medical.preview import NOTICE, preview_png
from operators.errors import NeedError, PreimageError, ReadError, ShapeError
from operators.spec import Need, Spec
from restoration.assets import AssetStore
from restoration.metrics import psnr, ssim
from restoration.pipeline import PIXELS_PER_CALL, Pipeline
from restoration.pipeline import Progress as Steps
from restoration.prior import Cost, Tiled
from restoration.recipe import Recipe
from restoration.result import Measurement
from restoration.together import run_together

FEWER = 256
"""Pixels a side of the tiles that a case is tried with again when memory ran out."""

PREVIEW = 192
"""Pixels a side of each picture in a preview."""

_BLIND = frozenset({Need.PARAMETERS, Need.KERNEL, Need.WIDTH})
_DISK = frozenset({ENOSPC, EDQUOT, EROFS, EIO, EFBIG, EACCES, EPERM})

Tick = Callable[[int, Steps], None]
"""Told of every step: the case's number and the step."""


class _Stopped(Exception):
    """Somebody asked to stop before the volume was whole."""


class Task(Spec):
    """What all cases of a run have in common.

    Attributes:
        folder: of the job.
        recipe: pinned, as JSON text.
        options: what the recipe does not say.
        created: when the run was asked for; the date in derived DICOM images.
        config: sha256 of recipe, options and version: what decides the bytes of the results.
        salt: of the digests that name cases.
        assets: folder of the assets, if not the package's own.
    """

    folder: str
    recipe: str
    options: Options
    created: str
    config: str
    salt: str
    assets: str = ""


@lru_cache(maxsize=2)
def pipeline_of(recipe: str, device: str, precision: Any, assets: str) -> Pipeline:
    """The pipeline of a recipe, loaded once in a process."""
    store = AssetStore(Path(assets) if assets else None)
    return Pipeline.load(Recipe.model_validate_json(recipe), store, device, precision)


def digest_of(case: Case, task: Task) -> str:
    """The name of a case in journal and reports: nobody who does not know the files and the salt learns them by it."""
    return hashlib.sha256(f"{task.salt}\0{case.key}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


def inputs_digest(files: Sequence[str]) -> str:
    """sha256 of a file, or of the checksums of several.

    Raises:
        ReadError: one cannot be read.
    """
    return _joined(_file_digest(Path(name)) for name in files)


def restore_cases(
    cases: Sequence[Case],
    task: Task,
    tick: Tick | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Outcome]:
    """Read, restore and write cases one after the other; an outcome for each, when its outputs are on the disk.

    What is wrong with a case is its outcome. After `stop` the case under way is `partial` and no other follows.

    Raises:
        DiskRefuses: nothing more can be written.
        PreimageError: the recipe cannot be loaded here.
    """
    pipeline = pipeline_of(task.recipe, task.options.device, task.options.precision, task.assets)
    size = task.options.batch or (1 if pipeline.device.type == "cpu" else 0)
    if pipeline.recipe.method.needs & _BLIND:
        size = 1  # what they find belongs to one measurement
    waiting: list[_Work] = []
    for case in cases:
        if stop is not None and stop():
            break
        opened = _open(case, task, pipeline)
        if isinstance(opened, Outcome):
            yield opened
            continue
        if size == 1 or isinstance(opened, _VolumeWork):
            yield _restored(opened, pipeline, size, tick, stop)
            continue
        if waiting and waiting[0].shape != opened.shape:
            yield from _all_restored(waiting, pipeline, size, tick, stop)
            waiting = []
        waiting.append(opened)
        if len(waiting) >= _places(size, opened.shape, pipeline):
            yield from _all_restored(waiting, pipeline, size, tick, stop)
            waiting = []
    if waiting and not (stop is not None and stop()):
        yield from _all_restored(waiting, pipeline, size, tick, stop)


# one image


@dataclass(frozen=True)
class Answer:
    """What became of one image: samples (n, C, H, W) in unit range, figures and notes."""

    samples: Tensor
    measurement: Measurement
    figures: dict[str, float]
    notes: tuple[str, ...]
    complete: bool = True
    found: dict[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """(C, H, W)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """(C, H, W); zero for a single sample."""
        return self.samples.std(0, correction=0)


def _alone(pipeline: Pipeline, measurement: Measurement, watch: Any, stop: Any) -> Answer:
    result = pipeline.run(measurement, watch, stop)
    report = result.report
    figures = {
        "residual_sigma": report.residual_sigma,
        "nfe": report.nfe,
        "vjps": report.vjps,
        "seconds": report.seconds,
        "network_seconds": report.network_seconds,
    }
    if measurement.truth is not None:
        figures |= _scores(measurement.truth, result.samples, report.residual_sigma_samples)
    return Answer(result.samples.cpu(), measurement, figures, report.notes, report.complete, result.found)


def _scores(truth: Tensor, samples: Tensor, residuals: Sequence[float]) -> dict[str, float]:
    mean = samples.mean(0)
    psnrs, ssims = [psnr(truth, s) for s in samples], [ssim(truth, s) for s in samples]
    return {
        "psnr": psnr(truth, mean),
        "ssim": ssim(truth, mean),
        "psnr_sample": float(np.mean(psnrs)),
        "ssim_sample": float(np.mean(ssims)),
        **sample_figures(truth, samples, psnrs, ssims, residuals),
    }


def _together(pipeline: Pipeline, measurements: list[Measurement], size: int, watch: Any, stop: Any) -> list[Answer]:
    """Answers for measurements of one shape, or none of them if stopped."""
    cost, began = Cost(), time.perf_counter()
    found = run_together(pipeline, measurements, size, cost, watch, stop)
    if found is None:
        raise _Stopped
    seconds, n = time.perf_counter() - began, len(pipeline.recipe.seeds)
    answers = []
    for measurement, samples in zip(measurements, found, strict=True):
        with torch.no_grad():
            residuals = [float(measurement.likelihood.residual_sigma(s[None])) for s in samples]
        figures = {
            "residual_sigma": float(np.mean(residuals)),
            "nfe": round(cost.denoised / (size * n), 2),
            "vjps": round(cost.pulled_back / (size * n), 2),
            "seconds": round(seconds / len(measurements), 4),
            "network_seconds": round(cost.seconds / len(measurements), 4),
        }
        if measurement.truth is not None:
            figures |= _scores(measurement.truth, samples, residuals)
        answers.append(Answer(samples.cpu(), measurement, figures, measurement.notes))
    return answers


def _places(size: int, shape: tuple[int, ...], pipeline: Pipeline) -> int:
    """How many images a call takes; a fixed number for a shape, on which the last bits of the results depend."""
    return size or max(1, 4 * PIXELS_PER_CALL // (shape[-2] * shape[-1] * len(pipeline.recipe.seeds)))


@contextmanager
def _smaller_tiles(pipeline: Pipeline) -> Iterator[None]:
    tiled = [part for part in pipeline.denoiser.modules() if isinstance(part, Tiled)] if pipeline.denoiser else []
    if not tiled:
        raise NeedError("Expected a prior that can work in tiles when memory runs out, got none; use smaller images.")
    before = [part.tile for part in tiled]
    for part in tiled:
        part.tile = FEWER
    try:
        yield
    finally:
        for part, tile in zip(tiled, before, strict=True):
            part.tile = tile


# a case at work


class _Work(ABC):
    """An opened case: its images, and how answers become files."""

    def __init__(self, case: Case, task: Task, inputs: str) -> None:
        self.case, self.task, self.inputs = case, task, inputs
        self.began = time.perf_counter()
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        self.shape: tuple[int, ...] = ()

    @abstractmethod
    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> Any:
        """Restore all images; raises _Stopped where a part would be worth nothing."""

    @abstractmethod
    def write(self, answer: Any, folder: Path) -> None:
        """Write the outputs into an empty folder, under the names that they will have."""

    @abstractmethod
    def figures(self, answer: Any) -> dict[str, float]:
        """Of the whole case."""

    @abstractmethod
    def preview(self, answer: Any) -> bytes:
        """Measurement and estimate beside each other (PNG)."""

    def sidecar(self, answer: Any, pipeline: Pipeline) -> bytes:
        """What the outputs are, without a clock in it: the same bytes whenever the case is repeated."""
        recipe, options = pipeline.recipe, self.task.options
        n = len(recipe.seeds)
        quick = {k: v for k, v in self.figures(answer).items() if "seconds" not in k}
        facts: dict[str, Any] = {
            "schema_version": 1,
            "intended_use": "research only; not for diagnosis",
            "restored": "the sample" if n == 1 else f"mean of {n} samples",
            "kind": self.case.kind,
            "input_sha256": self.inputs,
            "config_sha256": self.task.config,
            "recipe_digest": recipe.digest,
            "recipe": recipe.model_dump(mode="json"),
            "options": options.model_dump(mode="json"),
            "seeds": list(recipe.seeds),
            "asset_sha256": pipeline.asset_hashes,
            "precision": pipeline.precision,
            "device": pipeline.device.type,
            "versions": {"preimage": version("preimage"), "torch": torch.__version__},
            "figures": {k: v if math.isfinite(v) else str(v) for k, v in quick.items()},
            "facts": self.facts,
            "notes": list(self.notes),
        }
        if self.case.bids is not None:
            inside = self.case.folder.removeprefix("derivatives/preimage").lstrip("/")
            source = Path(self.case.files[0]).name
            facts["Sources"] = [f"bids:raw:{inside}/{source}".replace("raw:/", "raw:")]
            facts["SpatialReference"] = "orig"
        return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")

    def place(self, folder: Path, name: str) -> Path:
        return folder / self.case.output(name)


class _PictureWork(_Work):
    def __init__(self, case: Case, task: Task, pipeline: Pipeline) -> None:
        picture = read_picture(case.files[0])
        super().__init__(case, task, _joined([picture.sha256]))
        self.picture, self.wanted = picture, _fitting(task.options, ("png", "npz"))
        truth = task.options.truth
        self.measurement = pipeline.simulate(picture.pixels) if truth else pipeline.observe(picture.pixels)
        self.shape = tuple(self.measurement.likelihood.operator.in_shape)
        height, width = picture.pixels.shape[-2:]
        self.facts = {"bits": picture.bits, "channels": len(picture.pixels), "height": height, "width": width}

    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> Answer:
        answer = _alone(pipeline, self.measurement, watch, stop)
        self.notes += answer.notes
        return answer

    def write(self, answer: Answer, folder: Path) -> None:
        if "png" in self.wanted:
            bits: Literal[8, 16] = 8 if self.picture.bits == 8 else 16
            self.place(folder, "restored.png").write_bytes(encode_png(answer.mean, bits, icc=self.picture.icc))
            if len(answer.samples) > 1:
                values = spread(answer.std)
                self.place(folder, "std.png").write_bytes(png(heat_with_scale(values, spread_scale([values]))))
        if "npz" in self.wanted:
            np.savez_compressed(
                self.place(folder, "samples.npz"),
                samples=answer.samples.numpy(),
                y=answer.measurement.likelihood.y.cpu().numpy(),
                seeds=np.array(Recipe.model_validate_json(self.task.recipe).seeds[: len(answer.samples)], np.int64),
                **{f"found_{name}": values.cpu().numpy() for name, values in answer.found.items()},
            )

    def figures(self, answer: Answer) -> dict[str, float]:
        return answer.figures

    def preview(self, answer: Answer) -> bytes:
        shown = data_picture(answer.measurement.picture())
        return png(pair(shown, answer.mean))


@dataclass(frozen=True, eq=False)
class _VolumeAnswer:
    """Slices (n or 2, N, H, W) in unit range: mean and std, or all samples where they are wanted; and their figures."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    samples: NDArray[np.float32] | None
    figures: dict[str, float]


class _VolumeWork(_Work):
    def __init__(self, case: Case, task: Task, pipeline: Pipeline) -> None:
        options = task.options
        if case.kind == "dicom":
            wanted = _fitting(options, ("dicom", "nifti", "png", "npz"))
            with _blaming_the_file():
                series = series_in([Path(name) for name in case.files]).series
            if case.series >= len(series):
                raise ReadError("Expected the series as it was found, got other files; start the run again.")
            gap: Literal["error", "slicewise"] = "error" if options.on_gap == "refuse" else "slicewise"
            with _blaming_the_file():
                self.volume = read_series(series[case.series], on_gap=gap)
        else:
            wanted = _fitting(options, ("nifti", "png", "npz"))
            with _blaming_the_file():
                self.volume = read_nifti(Path(case.files[0]))
        assert self.volume.source is not None
        super().__init__(case, task, _joined(_file_digest(Path(name)) for name in case.files))
        self.wanted = wanted
        self.scale = scale_of(self.volume, options.window)
        self.axis = through_axis(self.volume)
        self.unit = planes(self.scale.to_unit(self.volume.array), self.axis)
        self.shape = self.unit.shape[-2:]
        if min(self.shape) < MIN_SIDE:
            raise ShapeError(f"Expected slices of at least {MIN_SIDE} pixels a side, got {self.shape}; leave it out.")
        self.notes = [str(note) for note in self.volume.notes]
        if pipeline.recipe.model.kind == "trained":
            self.notes.append("the prior was trained on photographs, not on medical images")
        clipped = int(((self.volume.array < self.scale.low) | (self.volume.array > self.scale.high)).sum())
        if clipped:
            self.notes.append(f"{clipped} voxels outside the window entered clipped to it and were moved, not clipped")
        self.facts = {
            "shape": list(self.volume.array.shape),
            "spacing_mm": [round(s, 6) for s in self.volume.spacing],
            "orientation": self.volume.orientation,
            "affine": self.volume.affine.round(6).tolist(),
            "unit": self.volume.unit,
            "window": [self.scale.low, self.scale.high],
            "noise_sigma_in_units": _sigma_in(pipeline.recipe, self.scale.span),
            "slice_axis": self.axis,
            "slices": len(self.unit),
            "padding_voxels": 0 if self.volume.valid is None else int((~self.volume.valid).sum()),
        }
        self.parts = parts_of(task, self.inputs)

    def _measured(self, k: int, pipeline: Pipeline) -> Measurement:
        picture = torch.from_numpy(np.ascontiguousarray(self.unit[k]))[None]
        found = pipeline.simulate(picture) if self.task.options.truth else pipeline.observe(picture)
        if tuple(found.likelihood.operator.in_shape[-2:]) != tuple(picture.shape[-2:]):
            size = tuple(found.likelihood.operator.in_shape[-2:])
            raise ShapeError(
                f"Expected a recipe that keeps the size of slices {tuple(picture.shape[-2:])}, got {size}; "
                "volumes keep their grid."
            )
        return found

    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> _VolumeAnswer:
        """Slice by slice; each that is done is kept under its own checksum, so that a crash does not undo it."""
        known = _kept_slices(self.parts)
        count = len(self.unit)
        done: dict[int, tuple[NDArray[np.float32], dict[str, float]]] = {}
        missing = []
        for k in range(count):
            found = _read_slice(known.get(k))
            if found is None:
                missing.append(k)
            else:
                done[k] = found
        places = 1 if size == 1 else _places(size, (*self.shape,), pipeline)
        for start in range(0, len(missing), places):
            group = missing[start : start + places]

            def shown(progress: Steps, ended: int = count - len(missing) + start) -> None:
                if watch is not None:
                    total = progress.total * math.ceil(count / places)
                    at = progress.total * (ended // places) + progress.done
                    watch(Steps(progress.step, min(at, total), total))

            measured = [self._measured(k, pipeline) for k in group]
            if places == 1:
                answers = [_alone(pipeline, measured[0], shown, stop)]
                if not answers[0].complete:
                    raise _Stopped
            else:
                answers = _together(pipeline, measured, places, shown, stop)
            for k, answer in zip(group, answers, strict=True):
                grey = answer.samples.mean(1).numpy()  # the channels were equal; their answers are averaged
                kept = grey if "npz" in self.wanted else np.stack([grey.mean(0), grey.std(0)])
                done[k] = kept, answer.figures
                for note in answer.notes:
                    if note not in self.notes:
                        self.notes.append(note)
                if count > 1:
                    _keep_slice(self.parts, k, kept, answer.figures)
            if stop is not None and stop() and start + places < len(missing):
                raise _Stopped
        stacked = np.stack([done[k][0] for k in range(count)], axis=1)
        each = [done[k][1] for k in range(count)]
        figures = {
            name: float(sum(f[name] for f in each) if "seconds" in name else np.mean([f[name] for f in each]))
            for name in each[0]
        }
        if "npz" in self.wanted:
            return _VolumeAnswer(stacked.mean(0), stacked.std(0), stacked, figures)
        return _VolumeAnswer(stacked[0], stacked[1], None, figures)

    def _whole(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return from_planes(pictures, self.volume.array.shape, self.axis)

    def _physical(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Numbers of the volume; what was not measured stays as it was."""
        unit = self._whole(pictures)
        truth = self.task.options.truth
        made = self.scale.to_physical(unit) if truth else self.scale.apply(self.volume.array, unit)
        return made if self.volume.valid is None else np.where(self.volume.valid, made, self.volume.array)

    def write(self, answer: _VolumeAnswer, folder: Path) -> None:
        recipe = Recipe.model_validate_json(self.task.recipe)
        restored = self.volume.with_array(self._physical(answer.mean))
        several = len(recipe.seeds) > 1
        std = self._whole(answer.std) * np.float32(self.scale.span)
        if "dicom" in self.wanted:
            with _blaming_the_file():  # the source is read once more, with everything that is copied from it
                written = write_series(restored, folder / "dicom", self._derivation(recipe))
            self.notes += [str(note) for note in written.notes]
        if "nifti" in self.wanted:
            self.notes += [str(note) for note in write_nifti(restored, self.place(folder, "restored.nii.gz"))]
        if several and ("nifti" in self.wanted or "dicom" in self.wanted):
            if self.volume.regular:
                write_nifti(self.volume.with_array(std), self.place(folder, "std.nii.gz"))
            else:
                self.notes.append("no map of the standard deviation: slices are uneven; ask for npz")
        if "png" in self.wanted:
            self.place(folder, "preview.png").write_bytes(preview_png(restored, (self.scale.low, self.scale.high)))
        if "npz" in self.wanted and answer.samples is not None:
            np.savez_compressed(
                self.place(folder, "samples.npz"),
                samples=np.stack([self._physical(sample) for sample in answer.samples]),
                affine=self.volume.affine,
                seeds=np.array(recipe.seeds, np.int64),
            )

    def _derivation(self, recipe: Recipe) -> Derivation:
        operator, method, n = recipe.operator.kind, recipe.method.kind, len(recipe.seeds)
        what = "mean of " + f"{n} samples" if n > 1 else "one sample"
        text = (
            f"Preimage {version('preimage')}: {what} of {method} for {operator}, seeds {list(recipe.seeds)[:8]}, "
            f"recipe {recipe.digest}, slices, window {self.scale.low:g} to {self.scale.high:g}; research use only"
        )
        when = datetime.fromisoformat(self.task.created).replace(tzinfo=None)
        return Derivation(f"{method} {operator}"[:30], text, self.task.config, when=when)

    def figures(self, answer: _VolumeAnswer) -> dict[str, float]:
        return answer.figures

    def preview(self, answer: _VolumeAnswer) -> bytes:
        k = len(self.unit) // 2
        before, after = (torch.from_numpy(np.ascontiguousarray(p[k]))[None] for p in (self.unit, answer.mean))
        return png(pair(before, after, NOTICE))


def pair(before: Tensor, after: Tensor, note: str = "") -> NDArray[np.uint8]:
    """Measurement and estimate (C, h, w) beside each other, each at most PREVIEW pixels a side."""
    cells = [Cell(fitted(to_colours(image), PREVIEW)) for image in (enlarged(before, *after.shape[-2:]), after)]
    return montage([cells], note=note)


def _open(case: Case, task: Task, pipeline: Pipeline) -> "_Work | Outcome":
    began = time.perf_counter()
    if case.kind == "unreadable":
        return _failed(case, task, case.problem, began)
    with _faults(case, task, began) as fault, quiet(), enough_memory(task.options.device):
        return (_PictureWork if case.kind == "picture" else _VolumeWork)(case, task, pipeline)
    return fault[0]


def _all_restored(
    works: list[_Work], pipeline: Pipeline, size: int, tick: Tick | None, stop: Callable[[], bool] | None
) -> Iterator[Outcome]:
    """Outcomes of pictures of one shape that share calls."""
    answers: list[Answer] | None = None
    places = _places(size, works[0].shape, pipeline)
    numbers = [work.case.number for work in works]
    if places > 1:
        try:
            with enough_memory(works[0].task.options.device):
                measured = [work.measurement for work in works if isinstance(work, _PictureWork)]
                answers = _together(
                    pipeline, measured, places, None if tick is None else lambda p: tick(numbers[0], p), stop
                )
        except _Stopped:
            return
        except PreimageError:
            answers = None  # each alone finds out whose fault it is
    for i, work in enumerate(works):
        if answers is None:
            yield _restored(work, pipeline, 1, tick, stop)
        else:
            work.notes += answers[i].notes
            yield _finished(work, answers[i], pipeline)


def _restored(
    work: _Work, pipeline: Pipeline, size: int, tick: Tick | None, stop: Callable[[], bool] | None
) -> Outcome:
    case, task = work.case, work.task
    watch = None if tick is None else lambda progress: tick(case.number, progress)
    with _faults(case, task, work.began, work.inputs) as fault:
        try:
            with enough_memory(task.options.device):
                answer = work.answer(pipeline, size, watch, stop)
        except NeedError as error:
            if not isinstance(error.__cause__, (MemoryError, RuntimeError)):
                raise
            work.notes.append(f"memory ran out; done with tiles of {FEWER} pixels")
            with _smaller_tiles(pipeline), enough_memory(task.options.device):
                answer = work.answer(pipeline, 1, watch, stop)
        return _finished(work, answer, pipeline, partial=isinstance(answer, Answer) and not answer.complete)
    return fault[0]


def _finished(work: _Work, answer: Any, pipeline: Pipeline, *, partial: bool = False) -> Outcome:
    """Everything written, checked into its place, and hashed."""
    case, task = work.case, work.task
    job = Job(Path(task.folder))
    with _faults(case, task, work.began, work.inputs) as fault, quiet():
        scratch = job.scratch / f"case-{case.number}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            scratch.mkdir(parents=True)
            work.write(answer, scratch)
            work.place(scratch, "restored.json").write_bytes(work.sidecar(answer, pipeline))
            place = job.folder / case.folder
            outputs = _commit(scratch, place / "partial" if partial else place)
            if not partial and case.bids is None:
                shutil.rmtree(place / "partial", ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        digest = digest_of(case, task)
        previews = job.private / "previews"
        previews.mkdir(exist_ok=True)
        put(previews / f"{digest}.png", work.preview(answer), durable=False)
        return Outcome(
            number=case.number,
            case=digest,
            kind=case.kind,
            state="partial" if partial else "done",
            message="Stopped on the way; the estimate so far is in the folder 'partial'." if partial else "",
            inputs=work.inputs,
            outputs=() if partial else outputs,
            figures=work.figures(answer),
            notes=tuple(dict.fromkeys(work.notes)),
            facts=work.facts,
            seconds=round(time.perf_counter() - work.began, 4),
        )
    return fault[0]


def _commit(scratch: Path, place: Path) -> tuple[Output, ...]:
    """Move finished files, on the disk and hashed, to where they belong; a file is there whole or not at all."""
    outputs = []
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    for path in files:
        sync(path)
        relative = path.relative_to(scratch).as_posix()
        outputs.append(Output(name=relative, sha256=_file_digest(path), bytes=path.stat().st_size))
    place.mkdir(parents=True, exist_ok=True)
    for folder in (path for path in scratch.iterdir() if path.is_dir()):
        shutil.rmtree(place / folder.name, ignore_errors=True)
        os.replace(folder, place / folder.name)
    for path in files:
        if path.parent == scratch:
            os.replace(path, place / path.name)
    sync(place)
    sync(place.parent)
    return tuple(outputs)


@contextmanager
def _blaming_the_file() -> Iterator[None]:
    """What readers raise on a stranger's bytes, and what they say, is no contract: it becomes a sentence."""
    try:
        yield
    except (PreimageError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ReadError(
            f"Expected a whole file of its kind, got one that makes no sense to its reader ({type(error).__name__}); "
            "get it again."
        ) from None


@contextmanager
def _faults(case: Case, task: Task, began: float, inputs: str = "") -> Iterator[list[Outcome]]:
    """Whatever goes wrong in the block becomes the outcome of the case; only a disk that refuses is everybody's."""
    fault: list[Outcome] = []
    try:
        yield fault
    except _Stopped:
        outcome = _failed(case, task, "Stopped on the way; slices that are done are kept for resuming.", began, inputs)
        fault.append(outcome.model_copy(update={"state": "partial"}))
    except DiskRefuses:
        raise
    except (PreimageError, OSError) as error:
        if not isinstance(error, ReadError) and (refused := _of_disk(error)) is not None:
            raise disk_refuses(refused) from error
        text = blamed(error, case.files) if isinstance(error, PreimageError) else _unforeseen(error)
        fault.append(_failed(case, task, text, began, inputs))
    except Exception as error:  # a defect of ours, or a file that finds one: the other cases go on
        Job(Path(task.folder)).log(f"case {case.number}: {type(error).__name__} at {_where(error)}")
        fault.append(_failed(case, task, _unforeseen(error), began, inputs))


def _failed(case: Case, task: Task, message: str, began: float, inputs: str = "") -> Outcome:
    return Outcome(
        number=case.number,
        case=digest_of(case, task),
        kind=case.kind,
        state="failed",
        message=message,
        inputs=inputs,
        seconds=round(time.perf_counter() - began, 4),
    )


def _unforeseen(error: Exception) -> str:
    return f"Expected to restore the case, got an unforeseen {type(error).__name__}; job/log.txt says where, report it."


def _where(error: Exception) -> str:
    """The calls that led to an error, without what it says, which may hold names."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def _of_disk(error: BaseException) -> OSError | None:
    """The refusal of a disk behind an error; writers of the other rooms turn it into sentences."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


# checkpoints of volumes


def parts_of(task: Task, inputs: str) -> Path:
    """Where the finished slices of an unfinished volume are kept."""
    return Job(Path(task.folder)).private / "parts" / f"{inputs[:24]}-{task.config[:16]}"


def _kept_slices(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {int(path.name.split("-")[0]): path for path in folder.glob("*-*.npz")}


def _keep_slice(folder: Path, k: int, values: NDArray[np.float32], figures: dict[str, float]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, values=values, names=np.array(list(figures)), figures=np.array(list(figures.values())))
    content = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / f"{k}-{hashlib.sha256(content).hexdigest()[:32]}.npz", content, durable=False)  # proven by its name


def _read_slice(path: Path | None) -> tuple[NDArray[np.float32], dict[str, float]] | None:
    """A slice that was kept, if its bytes are those that its name promises."""
    if path is None:
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:32] != path.stem.split("-")[1]:
        path.unlink(missing_ok=True)
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        return kept["values"], dict(zip(kept["names"].tolist(), kept["figures"].tolist(), strict=True))


# small things


def _fitting(options: Options, able: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted types of outputs that an input of this kind can have; the first of `able` if none was named.

    Raises:
        NeedError: types were named, and none of them fits.
    """
    wanted = tuple(kind for kind in able if kind in options.output_types) if options.output_types else able[:1]
    if not wanted:
        raise NeedError(
            f"Expected an output type out of {', '.join(able)} for this kind of input, "
            f"got {', '.join(options.output_types)}; add one of them."
        )
    return wanted


def _sigma_in(recipe: Recipe, span: float) -> float | None:
    sigma = recipe.noise.model_dump().get("sigma")
    return round(sigma * span, 6) if isinstance(sigma, float) else None


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReadError(f"Expected a file that can be read, got: {error.strerror}; look at the folder.") from error


def _joined(digests: Iterable[str]) -> str:
    """A digest for some checksums; one alone stands for itself."""
    several = list(digests)
    return several[0] if len(several) == 1 else hashlib.sha256("".join(several).encode()).hexdigest()
