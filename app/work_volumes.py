"""A volume as a case of a batch: slice by slice, each kept when it is done."""

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from app.inputs import Case
from app.jobs import Job, put
from app.picture_files import MIN_SIDE
from app.view import png, spread
from app.volume_views import volume_view
from app.work import Answer, Stopped, Task, Work, alone, file_digest, fitting, joined, pair, places_for, together
from medical.dicom import read_series, series_in
from medical.dicom_write import Derivation, write_series
from medical.intensity import from_planes, planes, scale_of, through_axis
from medical.nifti import read_nifti, write_nifti
from medical.preview import NOTICE, preview_png
from medical.volume import Volume
from operators.composition import ComposedSpec
from operators.errors import PreimageError, ReadError, ShapeError
from restoration.pipeline import Pipeline
from restoration.pipeline import Progress as Steps
from restoration.recipe import Recipe
from restoration.result import Measurement


@dataclass(frozen=True, eq=False)
class _Slice:
    """What is kept of a slice, in unit range.

    `values` are all samples (n, H, W) where they are wanted, else mean and standard deviation (2, H, W). `imagined`
    (1, H, W) is the root mean square over samples and channels, and empty (0, H, W) where there is none.
    """

    values: NDArray[np.float32]
    imagined: NDArray[np.float32]
    figures: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _VolumeAnswer:
    """All slices (N, H, W) in unit range, samples (n, N, H, W) where they are wanted, and figures."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    imagined: NDArray[np.float32] | None
    samples: NDArray[np.float32] | None
    figures: dict[str, float]


class VolumeWork(Work):
    """A series or a NIfTI file that was read and brought to unit range.

    Raises:
        PreimageError: it cannot be read, or the recipe does not take it.
    """

    def __init__(self, case: Case, task: Task, pipeline: Pipeline) -> None:
        options = task.options
        if case.kind == "dicom":
            wanted = fitting(options, ("dicom", "nifti", "png", "npz"))
        else:
            wanted = fitting(options, ("nifti", "png", "npz"))
        self.volume = read_volume(case, on_gap=options.on_gap)
        assert self.volume.source is not None
        super().__init__(case, task, joined(file_digest(Path(name)) for name in case.files))
        self.wanted = wanted
        self.scale = scale_of(self.volume, options.window)
        self.axis = through_axis(self.volume)
        self.unit = planes(self.scale.to_unit(self.volume.array), self.axis)
        self.shape = self.unit.shape[-2:]
        if min(self.shape) < MIN_SIDE:
            raise ShapeError(f"Expected slices of at least {MIN_SIDE} pixels a side, got {self.shape}; leave it out.")
        self.notes = [str(note) for note in self.volume.notes]
        if pipeline.recipe.model.kind == "trained" and pipeline.recipe.model.name == "photo":
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
        self._seen: dict[int, NDArray[np.float32]] = {}  # data of simulated slices as pictures, for `views`

    def _measured(self, k: int, pipeline: Pipeline) -> Measurement:
        picture = torch.from_numpy(np.ascontiguousarray(self.unit[k]))[None]
        found = pipeline.simulate(picture) if self.task.options.truth else pipeline.observe(picture)
        if tuple(found.likelihood.operator.in_shape[-2:]) != tuple(picture.shape[-2:]):
            size = tuple(found.likelihood.operator.in_shape[-2:])
            raise ShapeError(
                f"Expected a recipe that keeps the size of slices {tuple(picture.shape[-2:])}, got {size}; "
                "volumes keep their grid."
            )
        if self.task.options.views and self.task.options.truth:
            with torch.no_grad():
                guess = found.likelihood.operator.guess(found.likelihood.y)[0]
            self._seen[k] = guess.mean(0).cpu().numpy()
        return found

    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> _VolumeAnswer:
        """Slice by slice; each that is done is kept under its own checksum, so that a crash does not undo it."""
        known = _kept_slices(self.parts)
        count = len(self.unit)
        done: dict[int, _Slice] = {}
        missing = []
        for k in range(count):
            found = _read_slice(known.get(k))
            if found is None:
                missing.append(k)
            else:
                done[k] = found
        places = 1 if size == 1 else places_for(size, (*self.shape,), pipeline)
        for start in range(0, len(missing), places):
            group = missing[start : start + places]

            def shown(progress: Steps, ended: int = count - len(missing) + start) -> None:
                if watch is not None:
                    total = progress.total * math.ceil(count / places)
                    at = progress.total * (ended // places) + progress.done
                    watch(Steps(progress.step, min(at, total), total, progress.likelihood))

            measured = [self._measured(k, pipeline) for k in group]
            if places == 1:
                answers = [alone(pipeline, measured[0], shown, stop)]
                if not answers[0].complete:
                    raise Stopped
            else:
                answers = together(pipeline, measured, places, shown, stop)
            for k, answer in zip(group, answers, strict=True):
                done[k] = self._kept(answer)
                if count > 1:
                    _keep_slice(self.parts, k, done[k])
            if stop is not None and stop() and start + places < len(missing):
                raise Stopped
        if self.task.options.views and self.task.options.truth:
            for k in set(range(count)) - set(self._seen):  # restored by an earlier session
                self._measured(k, pipeline)
        slices = [done[k] for k in range(count)]
        for piece in slices:
            self.notes += [note for note in piece.notes if note not in self.notes]
        each = [piece.figures for piece in slices]
        figures = {
            name: float(sum(f[name] for f in each) if "seconds" in name else np.mean([f[name] for f in each]))
            for name in each[0]
        }
        stacked = np.stack([piece.values for piece in slices], axis=1)
        maps = np.stack([piece.imagined for piece in slices], axis=1)
        imagined = maps[0] if len(maps) else None
        if "npz" in self.wanted:
            return _VolumeAnswer(stacked.mean(0), stacked.std(0), imagined, stacked, figures)
        return _VolumeAnswer(stacked[0], stacked[1], imagined, None, figures)

    def _kept(self, answer: Answer) -> _Slice:
        grey = answer.samples.mean(1).numpy()  # most have one channel; a recipe may ask for colours of grey data
        values = grey if "npz" in self.wanted else np.stack([grey.mean(0), grey.std(0)])
        imagined = grey[:0] if answer.imagined is None else spread(answer.imagined)[None].numpy()
        return _Slice(values, imagined, answer.figures, answer.notes)

    def _whole(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return from_planes(pictures, self.volume.array.shape, self.axis)

    def _physical(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Numbers of the volume; what was not measured stays as it was."""
        unit = self._whole(pictures)
        truth = self.task.options.truth
        made = self.scale.to_physical(unit) if truth else self.scale.apply(self.volume.array, unit)
        return made if self.volume.valid is None else np.where(self.volume.valid, made, self.volume.array)

    def write(self, answer: _VolumeAnswer, folder: Path) -> None:
        restored = self.volume.with_array(self._physical(answer.mean))
        maps = {"std": answer.std} if len(self.recipe.seeds) > 1 else {}
        maps |= {} if answer.imagined is None else {"imagined": answer.imagined}
        sizes = {name: self._whole(unit) * np.float32(self.scale.span) for name, unit in maps.items()}
        if "dicom" in self.wanted:
            with _blaming_the_file():  # the source is read once more, with everything that is copied from it
                written = write_series(restored, folder / "dicom", self._derivation(self.recipe))
            self.notes += [str(note) for note in written.notes]
        if "nifti" in self.wanted:
            self.notes += [str(note) for note in write_nifti(restored, self.place(folder, "restored.nii.gz"))]
        if sizes and ("nifti" in self.wanted or "dicom" in self.wanted):
            for name, values in sizes.items() if self.volume.regular else ():
                write_nifti(self.volume.with_array(values), self.place(folder, f"{name}.nii.gz"))
            if not self.volume.regular:
                self.notes.append(f"no map of {' and '.join(sizes)}: slices are uneven; ask for npz")
        if "png" in self.wanted:
            self.place(folder, "preview.png").write_bytes(preview_png(restored, (self.scale.low, self.scale.high)))
        if "npz" in self.wanted and answer.samples is not None:
            arrays: dict[str, Any] = {
                "samples": np.stack([self._physical(sample) for sample in answer.samples]),
                "affine": self.volume.affine,
                "seeds": np.array(self.recipe.seeds, np.int64),
            }
            arrays |= {name: values for name, values in sizes.items() if name == "imagined"}
            np.savez_compressed(self.place(folder, "samples.npz"), **arrays)

    def _derivation(self, recipe: Recipe) -> Derivation:
        operator = " ".join(_kinds(recipe)).replace("identity", "noise")
        method, n = recipe.method.kind, len(recipe.seeds)
        what = "mean of " + f"{n} samples" if n > 1 else "one sample"
        text = (
            f"Preimage {version('preimage')}: {what} of {method} for {operator}, seeds {list(recipe.seeds)[:8]}, "
            f"recipe {recipe.digest}, slices, window {self.scale.low:g} to {self.scale.high:g}; research use only"
        )
        when = datetime.fromisoformat(self.task.created).replace(tzinfo=None)
        return Derivation(f"{method} {operator}"[:30], text, self.task.config, when=when)

    def figures(self, answer: _VolumeAnswer) -> dict[str, float]:
        return answer.figures

    def views(self, answer: _VolumeAnswer, folder: Path) -> list[dict[str, Any]]:
        """The measurement as a picture, the mean, its maps and, of a simulation, the truth: int16, packed with gzip."""
        n, span = len(self.recipe.seeds), np.float32(self.scale.span)
        shown: list[dict[str, Any]] = []

        def show(name: str, title: str, numbers: NDArray[Any], role: Literal["image", "overlay"] = "image") -> None:
            shown.append(volume_view(name, title, numbers, self.volume, folder, role, packed=True))

        if self.task.options.truth:
            seen = self._physical(np.stack([self._seen[k] for k in range(len(self.unit))]))
            show("before", "Measurement, simulated", seen)
        else:
            show("before", "Measurement", self.volume.array)
        show("mean", f"Restored (mean of {n} samples)" if n > 1 else "Restored", self._physical(answer.mean))
        if self.task.options.truth:
            show("truth", "Reference", self.volume.array)
        if n > 1:
            show("spread", "Spread (standard deviation)", self._whole(answer.std) * span, "overlay")
        if answer.imagined is not None:
            show("imagined", "Imagined by the prior", self._whole(answer.imagined) * span, "overlay")
        return shown

    def preview(self, answer: _VolumeAnswer) -> bytes:
        k = len(self.unit) // 2
        before, after = (torch.from_numpy(np.ascontiguousarray(p[k]))[None] for p in (self.unit, answer.mean))
        return png(pair(before, after, NOTICE))


def read_volume(case: Case, on_gap: Literal["refuse", "slicewise"] = "refuse") -> Volume:
    """The volume of a case that is no picture.

    Raises:
        ReadError: it cannot be read.
    """
    if case.kind != "dicom":
        with _blaming_the_file():
            return read_nifti(Path(case.files[0]))
    with _blaming_the_file():
        series = series_in([Path(name) for name in case.files]).series
    if case.series >= len(series):
        raise ReadError("Expected the series as it was found, got other files; start the run again.")
    with _blaming_the_file():
        return read_series(series[case.series], on_gap="error" if on_gap == "refuse" else "slicewise")


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


def _kinds(recipe: Recipe) -> list[str]:
    """The measurements that are made one after another."""
    operator = recipe.operator
    return [step.kind for step in (operator.steps if isinstance(operator, ComposedSpec) else (operator,))]


def _sigma_in(recipe: Recipe, span: float) -> float | None:
    sigma = recipe.noise.model_dump().get("sigma")
    return round(sigma * span, 6) if isinstance(sigma, float) else None


# slices of unfinished volumes


def parts_of(task: Task, inputs: str) -> Path:
    """Where the finished slices of an unfinished volume are kept."""
    return Job(Path(task.folder)).private / "parts" / f"{inputs[:24]}-{task.config[:16]}"


def _kept_slices(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {int(path.name.split("-")[0]): path for path in folder.glob("*-*.npz")}


def _keep_slice(folder: Path, k: int, piece: _Slice) -> None:
    buffer = io.BytesIO()
    names, figures = np.array(list(piece.figures)), np.array(list(piece.figures.values()))
    notes = np.array(piece.notes, np.str_)
    np.savez(buffer, values=piece.values, imagined=piece.imagined, names=names, figures=figures, notes=notes)
    content = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / f"{k}-{hashlib.sha256(content).hexdigest()[:32]}.npz", content, durable=False)  # proven by its name


def _read_slice(path: Path | None) -> _Slice | None:
    """A slice that was kept, if its bytes are those that its name promises."""
    if path is None:
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:32] != path.stem.split("-")[1]:
        path.unlink(missing_ok=True)
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        figures = dict(zip(kept["names"].tolist(), kept["figures"].tolist(), strict=True))
        return _Slice(kept["values"], kept["imagined"], figures, tuple(kept["notes"].tolist()))
