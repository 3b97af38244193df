"""What all kinds of cases have in common: the run they belong to, one image restored, and how files are described."""

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.inputs import Case
from app.options import Options
from app.scores import sample_figures
from app.view import Cell, enlarged, fitted, montage, to_colours
from operators.base import LinearOperator
from operators.errors import NeedError, ReadError
from operators.spec import Spec
from restoration.metrics import psnr, ssim
from restoration.pipeline import PIXELS_PER_CALL, Pipeline
from restoration.posterior import imagined_share
from restoration.prior import Cost
from restoration.recipe import Recipe
from restoration.result import Measurement
from restoration.together import run_together

PREVIEW = 192
"""Pixels a side of each picture in a preview."""


class Stopped(Exception):
    """Somebody asked to stop before the volume was whole."""


class Task(Spec):
    """What all cases of a run have in common.

    Attributes:
        folder: of the job.
        recipe: pinned, as JSON text. Relative paths in it refer to `base`.
        options: what the recipe does not say.
        created: when the run was asked for; the date in derived DICOM images.
        config: sha256 of recipe, options and version: what decides the bytes of the results.
        salt: of the digests that name cases.
        assets: folder of the assets, if not the package's own.
        base: folder of the job, or empty for a recipe without relative paths, so that jobs can share its pipeline.
        holder: who holds the job, as `Job.holder` says; once that is another, nothing more is written.
    """

    folder: str
    recipe: str
    options: Options
    created: str
    config: str
    salt: str
    assets: str = ""
    base: str = ""
    holder: str = ""


def digest_of(case: Case, salt: str) -> str:
    """The name of a case in journal and reports: nobody who does not know the files and the salt learns them by it."""
    return hashlib.sha256(f"{salt}\0{case.key}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


def inputs_digest(files: Sequence[str]) -> str:
    """sha256 of a file, or of the checksums of several.

    Raises:
        ReadError: one cannot be read.
    """
    return joined(file_digest(Path(name)) for name in files)


# one image


@dataclass(frozen=True)
class Answer:
    """What became of one image: samples (n, C, H, W) in unit range, figures and notes.

    `imagined` (C, H, W) is the root mean square over the samples of what the prior made up, None where the measurement
    is not linear; `figures` has its mean share. `residuals` are those of the samples, `residual` that of their mean.
    """

    samples: Tensor
    measurement: Measurement
    figures: dict[str, float]
    notes: tuple[str, ...]
    imagined: Tensor | None
    complete: bool = True
    found: dict[str, Tensor] = field(default_factory=dict)
    residuals: tuple[float, ...] = ()
    residual: float | None = None

    @property
    def mean(self) -> Tensor:
        """(C, H, W)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """(C, H, W); zero for a single sample."""
        return self.samples.std(0, correction=0)


def alone(pipeline: Pipeline, measurement: Measurement, watch: Any, stop: Any) -> Answer:
    """What `preimage run` would answer, byte for byte."""
    result = pipeline.run(measurement, watch, stop)
    report = result.report
    figures = {
        "residual_sigma": report.residual_sigma,
        "nfe": report.nfe,
        "vjps": report.vjps,
        "seconds": report.seconds,
        "network_seconds": report.network_seconds,
    }
    if report.imagined_samples is not None:
        figures["imagined"] = float(np.mean(report.imagined_samples))
    if measurement.truth is not None:
        figures |= _scores(measurement.truth, result.samples, report.residual_sigma_samples)
    made_up = None if result.imagined is None else result.imagined.cpu()
    return Answer(
        result.samples.cpu(),
        measurement,
        figures,
        report.notes,
        made_up,
        report.complete,
        result.found,
        report.residual_sigma_samples,
        report.residual_sigma_mean,
    )


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


def together(pipeline: Pipeline, measurements: list[Measurement], size: int, watch: Any, stop: Any) -> list[Answer]:
    """Answers for measurements of one shape, or none of them if stopped."""
    cost, began = Cost(), time.perf_counter()
    found = run_together(pipeline, measurements, size, cost, watch, stop)
    if found is None:
        raise Stopped
    seconds, n = time.perf_counter() - began, len(pipeline.recipe.seeds)
    answers = []
    for measurement, samples in zip(measurements, found, strict=True):
        with torch.no_grad():
            residuals = [float(measurement.likelihood.residual_sigma(s[None])) for s in samples]
            residual = float(measurement.likelihood.residual_sigma(samples.mean(0)[None]))
        figures = {
            "residual_sigma": float(np.mean(residuals)),
            "nfe": round(cost.denoised / (size * n), 2),
            "vjps": round(cost.pulled_back / (size * n), 2),
            "seconds": round(seconds / len(measurements), 4),
            "network_seconds": round(cost.seconds / len(measurements), 4),
        }
        made_up = None
        if isinstance(measurement.likelihood.operator, LinearOperator):
            with torch.no_grad():
                shares, parts = imagined_share(measurement.likelihood, samples)
            figures["imagined"] = float(shares.mean())
            made_up = parts.abs().square().mean(0).sqrt().cpu()
        if measurement.truth is not None:
            figures |= _scores(measurement.truth, samples, residuals)
        answers.append(
            Answer(
                samples.cpu(),
                measurement,
                figures,
                measurement.notes,
                made_up,
                residuals=tuple(residuals),
                residual=residual,
            )
        )
    return answers


def places_for(size: int, shape: tuple[int, ...], pipeline: Pipeline) -> int:
    """How many images a call takes; a fixed number for a shape, on which the last bits of the results depend."""
    return size or max(1, 4 * PIXELS_PER_CALL // (shape[-2] * shape[-1] * len(pipeline.recipe.seeds)))


# a case at work


class Work(ABC):
    """An opened case: its images, and how answers become files."""

    def __init__(self, case: Case, task: Task, inputs: str) -> None:
        self.case, self.task, self.inputs = case, task, inputs
        self.recipe = Recipe.model_validate_json(task.recipe)
        self.began = time.perf_counter()
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        self.shape: tuple[int, ...] = ()

    @abstractmethod
    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> Any:
        """Restore all images; raises Stopped where a part would be worth nothing."""

    @abstractmethod
    def write(self, answer: Any, folder: Path) -> None:
        """Write the outputs into an empty folder, under the names that they will have."""

    @abstractmethod
    def figures(self, answer: Any) -> dict[str, float]:
        """Of the whole case."""

    @abstractmethod
    def preview(self, answer: Any) -> bytes:
        """Measurement and estimate beside each other (PNG)."""

    def views(self, answer: Any, folder: Path) -> list[dict[str, Any]]:
        """Write what a page shows of the answer into an empty folder; a description of each, see `docs/api.md`."""
        return []

    def sidecar(self, answer: Any, pipeline: Pipeline) -> bytes:
        """What the outputs are, without a clock in it: the same bytes whenever the case is repeated."""
        recipe, options = self.recipe, self.task.options  # the pipeline's has paths of this machine
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
            "options": options.identity(),
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
        """Where an output is written."""
        return folder / self.case.output(name)


def pair(before: Tensor, after: Tensor, note: str = "") -> NDArray[np.uint8]:
    """Measurement and estimate (C, h, w) beside each other, each at most PREVIEW pixels a side."""
    cells = [Cell(fitted(to_colours(image), PREVIEW)) for image in (enlarged(before, *after.shape[-2:]), after)]
    return montage([cells], note=note)


# files


def fitting(options: Options, able: tuple[str, ...]) -> tuple[str, ...]:
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


def file_digest(path: Path) -> str:
    """sha256 of a file.

    Raises:
        ReadError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReadError(f"Expected a file that can be read, got: {error.strerror}; look at the folder.") from error


def joined(digests: Iterable[str]) -> str:
    """A digest for some checksums; one alone stands for itself."""
    several = list(digests)
    return several[0] if len(several) == 1 else hashlib.sha256("".join(several).encode()).hexdigest()
