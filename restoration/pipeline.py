"""From a recipe and a picture to a result."""

import math
import platform
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator, Shape
from operators.errors import Diverged, NeedError, RecipeError, ShapeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import pin
from restoration.allocator import keep_freed_memory
from restoration.assets import AssetStore
from restoration.bridge import BilledBridge, Bridge
from restoration.method import Found, Step
from restoration.methods.cddb import CDDB
from restoration.methods.direct_bridge import DirectBridge
from restoration.metrics import psnr, ssim
from restoration.posterior import imagined_share
from restoration.precision import Precision, resolve_precision
from restoration.prior import Cost, Denoiser, Grey, Prior
from restoration.recipe import AnyModel, Recipe
from restoration.result import Measurement, Report, Result

# Pixels of all samples that one network call takes: more gains nothing on two cores and costs memory.
PIXELS_PER_CALL = 1_200_000


@dataclass(frozen=True)
class Progress:
    """A step and how far the whole run is, over all groups of samples.

    `likelihood` is that of the samples in `step`, None where they belong to several measurements.
    """

    step: Step
    done: int
    total: int
    likelihood: Likelihood | None = None

    @torch.no_grad()
    def residual_sigma(self) -> float | None:
        """Of the clean estimates, in noise units, the mean over the samples of the step."""
        if self.likelihood is None:
            return None
        found = self.step.found
        held = self.likelihood if found is None else found.held(self.likelihood)
        return float(held.residual_sigma(self.step.x0).mean())


class RunDiverged(Diverged):
    """A run that left the finite numbers; `last` is the step before, with its estimates, if there was one."""

    def __init__(self, step: int, what: str, last: Step | None) -> None:
        super().__init__(step, what)
        self.last = last


class Pipeline:
    """The heavy things, made once: the prior on its device. Frozen after `load`.

    Use:
        pipeline = Pipeline.load(recipe, AssetStore())
        result = pipeline.run(pipeline.simulate(truth))
    """

    def __init__(
        self,
        recipe: Recipe,
        denoiser: Denoiser | Bridge | None,
        device: torch.device,
        precision: str,
        base: Path,
        asset_hashes: dict[str, str],
    ) -> None:
        self.recipe, self.denoiser, self.device = recipe, denoiser, device
        self.precision, self.base, self.asset_hashes = precision, base, asset_hashes
        self.version = version("preimage")

    @classmethod
    def load(
        cls,
        recipe: Recipe,
        store: AssetStore | None = None,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
        base: Path = Path(),
        load: Callable[[AnyModel], Denoiser | Bridge | None] | None = None,
    ) -> "Pipeline":
        """Check the recipe and load its prior; `base` is the folder that relative paths in the recipe refer to.

        `load` gives the prior instead, for those who keep it. On a CPU, memory that the process frees stays with it
        from now on, see `restoration.allocator`.
        """
        store, device = store or AssetStore(), torch.device(device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RecipeError("Expected a CUDA device for --device cuda, found none; use --device cpu.")
        if problems := recipe.problems(store, base):
            raise NeedError(" ".join(problems))
        recipe = pin(recipe, base)
        if device.type == "cpu":
            keep_freed_memory()
        denoiser = recipe.model.load(store, device, precision) if load is None else load(recipe.model)
        hashes = recipe.model.asset_hashes(store)
        # Only a network runs in anything but the state's own precision.
        actual = resolve_precision(precision, device) if hashes else "fp32"
        return cls(recipe, denoiser, device, actual, base, hashes)

    def simulate(self, truth: Tensor, seed: int = 0) -> Measurement:
        """y = A x + n from a clean image (C, H, W) in unit range; the image is cropped to what the operator takes."""
        truth, notes = self._channels(truth.to(self.device), self.recipe.operator.usable_shape)
        shape = self.recipe.operator.usable_shape(tuple(truth.shape))
        if shape != tuple(truth.shape):
            height, width = shape[-2:]
            notes.append(f"cropped from {truth.shape[-2]}x{truth.shape[-1]} to {height}x{width}, as the operator needs")
            truth = truth[..., :height, :width]
        operator = self._operator(shape)
        with torch.no_grad():
            draws = Rng([seed], device=self.device).child("measurement")
            likelihood = Likelihood.simulate(operator, self.recipe.noise, truth[None], draws)
        return Measurement(likelihood, truth, tuple(notes))

    def observe(self, picture: Tensor) -> Measurement:
        """A picture of the measurement (C, h, w): the blurred, small or damaged photograph itself."""
        coloured, notes = self._channels(picture.to(self.device), self.recipe.operator.image_shape)
        operator = self._operator(self.recipe.operator.image_shape(tuple(coloured.shape)))
        shown = _as_grey_as_data(coloured, operator)
        y = operator.data_from_image(shown[None])
        if coloured.shape != picture.shape == shown.shape:  # grey data are no grey picture of something in colour
            notes = []
        return Measurement(Likelihood(operator, self.recipe.noise, y), None, tuple(notes))

    def _operator(self, shape: Shape) -> Operator:
        return self.recipe.operator.build(shape, self.base).to(self.device)

    def _channels(self, picture: Tensor, image_of: Callable[[Shape], Shape]) -> tuple[Tensor, list[str]]:
        """The picture with channels that model and operator take, and what there is to say of that.

        `image_of` gives the shape of the image that the operator would look at.
        """
        wanted = None if self.denoiser is None else self.denoiser.shape[0]
        if picture.shape[0] == 1 and wanted in (None, 3) and not isinstance(self.denoiser, Bridge):
            if _stays_grey(tuple(picture.shape), image_of):
                return picture, [] if wanted is None else ["grey picture, by a prior of colour pictures"]
            return picture.expand(3, -1, -1), ["grey picture taken as three equal channels"]
        if wanted is not None and picture.shape[0] != wanted:
            noun = "bridge" if isinstance(self.denoiser, Bridge) else "prior"
            raise ShapeError(
                f"Expected a picture of {wanted} channels for this {noun}, got {picture.shape[0]}; convert it."
            )
        return picture, []

    def groups(self, measurement: Measurement) -> list[tuple[int, ...]]:
        """The seeds in groups that one network call takes together."""
        pixels = measurement.likelihood.operator.in_shape[-2] * measurement.likelihood.operator.in_shape[-1]
        size = max(1, PIXELS_PER_CALL // pixels)
        seeds = self.recipe.seeds
        return [seeds[i : i + size] for i in range(0, len(seeds), size)]

    def steps(self, measurement: Measurement, seeds: tuple[int, ...], cost: Cost | None = None) -> Generator[Step]:
        """The method's own steps for some seeds, billed to `cost`.

        Raises:
            RunDiverged: numbers that are not finite; it carries the last step before them.
        """
        last: Step | None = None
        for step in self._run(measurement.likelihood, Rng(seeds, device=self.device), cost or Cost()):
            estimate = step.x0 if step.index == step.total else step.estimate
            for what, value in (("the clean estimate", estimate), ("the iterate", step.x)):
                if isinstance(value, Tensor) and not _finite(value):
                    raise RunDiverged(step.index, what, last)
            last = step
            yield step

    def _run(self, likelihood: Likelihood, rng: Rng, cost: Cost) -> Iterator[Step]:
        method, model = self.recipe.method, self.denoiser
        if isinstance(model, Bridge):
            # `Recipe.problems` lets methods without a model through as well; they are given none.
            if isinstance(method, DirectBridge | CDDB):
                model = model.told(self.recipe.operator, self.recipe.noise, held_to_data=isinstance(method, CDDB))
                return method.run(BilledBridge(model, cost), likelihood, rng)
            return method.run(None, likelihood, rng)
        if model is not None and model.shape[0] == 3 and likelihood.operator.in_shape[:1] == (1,):
            model = Grey(model)
        return method.run(None if model is None else Prior(model, cost), likelihood, rng)

    def run(
        self,
        measurement: Measurement,
        watch: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """All samples. `watch` sees every step; when `stop` says so, what there is becomes a partial result.

        A partial result holds the samples that are done and the clean estimates of the group that was under way.
        """
        began, cost = time.perf_counter(), Cost()
        samples: list[Tensor] = []
        particles: list[float] = []
        found: list[Found] = []
        interrupted = False
        groups = self.groups(measurement)
        for number, seeds in enumerate(groups):
            last: Step | None = None
            with closing(self.steps(measurement, seeds, cost)) as steps:
                for last in steps:
                    if last.effective is not None:
                        particles.append(float(last.effective.min()))
                    if watch is not None:
                        at, end = number * last.total + last.index, len(groups) * last.total
                        watch(Progress(last, at, end, measurement.likelihood))
                    if stop is not None and stop() and (last.index < last.total or number + 1 < len(groups)):
                        interrupted = True
                        break
            if last is None:
                raise NeedError(f"Expected at least one step from {type(self.recipe.method).__name__}, got none.")
            samples.append(last.x0)
            if last.found is not None:
                found += [last.found.of(k) for k in range(len(last.x0))]
            if interrupted:
                break
        done = torch.cat(samples)
        report = self._report(measurement, done, found, cost, time.perf_counter() - began, complete=not interrupted)
        shares, imagined = _imagined([f.held(measurement.likelihood) for f in found] or measurement.likelihood, done)
        report = report.model_copy(update={"imagined_samples": shares})
        if particles:
            note = f"smallest effective number of particles: {min(particles):.1f}"
            report = report.model_copy(update={"notes": (*report.notes, note)})
        return Result(done, measurement, self.recipe, report, _values(found, measurement.likelihood), imagined)

    def _report(
        self,
        measurement: Measurement,
        samples: Tensor,
        found: list[Found],
        cost: Cost,
        seconds: float,
        *,
        complete: bool,
    ) -> Report:
        likelihood, truth, n = measurement.likelihood, measurement.truth, len(samples)
        mean = samples.mean(0)
        extra = (
            ("the method is deterministic: all samples are equal",)
            if n > 1 and self.recipe.method.deterministic
            else ()
        )
        with torch.no_grad():
            held = [f.held(likelihood) for f in found] or [likelihood] * n
            residuals = torch.cat([h.residual_sigma(s[None]) for h, s in zip(held, samples, strict=True)])
            each = held if found else held[:1]
            residual_mean = float(torch.cat([h.residual_sigma(mean[None]) for h in each]).mean())
        return Report(
            complete=complete,
            psnr=None if truth is None else psnr(truth, mean),
            ssim=None if truth is None else ssim(truth, mean),
            psnr_samples=None if truth is None else tuple(psnr(truth, s) for s in samples),
            ssim_samples=None if truth is None else tuple(ssim(truth, s) for s in samples),
            residual_sigma=float(residuals.mean()),
            residual_sigma_samples=tuple(residuals.tolist()),
            residual_sigma_mean=residual_mean,
            nfe=round(cost.denoised / n, 2),
            vjps=round(cost.pulled_back / n, 2),
            seconds=round(seconds, 4),
            network_seconds=round(cost.seconds, 4),
            samples=n,
            seeds=self.recipe.seeds[:n],
            device=str(self.device) if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            precision=self.precision,
            threads=torch.get_num_threads(),
            recipe_digest=self.recipe.digest,
            asset_sha256=self.asset_hashes,
            versions={"python": platform.python_version(), "torch": torch.__version__, "preimage": self.version},
            notes=(*measurement.notes, *extra, *_words(_values(found, likelihood))),
        )


def _finite(x: Tensor) -> bool:
    # One sum is much cheaper than a look at every number.
    parts = torch.view_as_real(x) if x.is_complex() else x
    return math.isfinite(float(parts.sum(dtype=torch.float64)))


@torch.no_grad()
def _imagined(
    held: Likelihood | list[Likelihood], samples: Tensor
) -> tuple[tuple[float, ...], Tensor] | tuple[None, None]:
    """The share of each sample that was imagined, and the root mean square of these parts over the samples."""
    each = held if isinstance(held, list) else [held] * len(samples)
    if not all(isinstance(h.operator, LinearOperator) for h in each):
        return None, None
    pairs = [imagined_share(h, sample[None]) for h, sample in zip(each, samples, strict=True)]
    parts = torch.cat([part for _, part in pairs])
    return tuple(float(share) for share, _ in pairs), parts.abs().square().mean(0).sqrt()


def _values(found: list[Found], likelihood: Likelihood) -> dict[str, Tensor]:
    """What was found of the measurement, by name, (n, ...) each; nothing where it was known."""
    each = [f.values(likelihood) for f in found]
    return {name: torch.cat([values[name] for values in each]) for name in each[0]} if each else {}


def _words(found: dict[str, Tensor]) -> list[str]:
    """The smaller of these values in words; kernels and maps are in `samples.npz` alone."""
    small = {name: values.reshape(len(values), -1) for name, values in found.items() if values[0].numel() <= 9}
    rows = {name: ", ".join("/".join(f"{v:.4g}" for v in row) for row in rows.tolist()) for name, rows in small.items()}
    return [f"found {name}, sample by sample: {row}" for name, row in rows.items()]


def _stays_grey(shape: Shape, image_of: Callable[[Shape], Shape]) -> bool:
    """Whether a measurement of a grey picture is one of a grey image; some are of colours alone."""
    try:
        return image_of(shape)[0] == 1
    except ShapeError:
        return False


def _as_grey_as_data(picture: Tensor, operator: Operator) -> Tensor:
    """A picture of equal channels with as many of them as pictures of the operator's data have; others as they are."""
    dtype = torch.promote_types(picture.dtype, torch.complex32) if operator.out_complex else picture.dtype
    data = operator.data_as_image(torch.zeros(1, *operator.out_shape, dtype=dtype, device=picture.device))
    if data.ndim != 4 or data.shape[1] == picture.shape[0] or not torch.equal(picture, picture[:1].expand_as(picture)):
        return picture
    return picture[:1].expand(data.shape[1], -1, -1)


def with_seeds(recipe: Recipe, seeds: tuple[int, ...]) -> Recipe:
    """The same recipe for other samples."""
    return Recipe.model_validate({**recipe.model_dump(), "seeds": seeds})
