"""What went in, what came out, and the folder it is kept in."""

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from operators.errors import ReadError, WriteError
from operators.likelihood import Likelihood
from operators.spec import Spec
from restoration.recipe import Recipe


@dataclass(frozen=True)
class Measurement:
    """Data with the likelihood they belong to; `truth` (C, H, W) where the data were simulated."""

    likelihood: Likelihood
    truth: Tensor | None
    notes: tuple[str, ...] = ()

    def picture(self) -> Tensor:
        """The data as a picture (C, h, w): what a person would have been given."""
        return self.likelihood.operator.data_as_image(self.likelihood.y)[0]


class Report(Spec):
    """Figures of a run. PSNR (dB) and SSIM are those of the mean of the samples; residuals are in noise units.

    `nfe` and `vjps` are network calls and pullbacks per sample; `network_seconds` is their share of `seconds`.
    """

    model_config = Spec.model_config | {"allow_inf_nan": True, "ser_json_inf_nan": "strings"}

    complete: bool
    psnr: float | None
    ssim: float | None
    psnr_samples: tuple[float, ...] | None
    ssim_samples: tuple[float, ...] | None
    residual_sigma: float
    residual_sigma_samples: tuple[float, ...]
    residual_sigma_mean: float
    nfe: float
    vjps: float
    seconds: float
    network_seconds: float
    samples: int
    seeds: tuple[int, ...]
    device: str
    precision: str
    threads: int
    recipe_digest: str
    asset_sha256: dict[str, str]
    versions: dict[str, str]
    notes: tuple[str, ...]
    input_sha256: str | None = None
    command: str | None = None
    intended_use: Literal["research use only"] = "research use only"


@dataclass(frozen=True)
class Result:
    """Samples (n, C, H, W) in unit range, what they were made from, and the report."""

    samples: Tensor
    measurement: Measurement
    recipe: Recipe
    report: Report

    @property
    def mean(self) -> Tensor:
        """Mean of the samples (C, H, W)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation over the samples (C, H, W); zero for a single one."""
        return self.samples.std(0, correction=0)

    def described(self, *, input_sha256: str, command: str) -> "Result":
        """The same result, its report told where the input came from and how to repeat the run."""
        extra = {"input_sha256": input_sha256, "command": command}
        return replace(self, report=self.report.model_copy(update=extra))

    def save(self, folder: Path, pictures: dict[str, bytes] | None = None) -> None:
        """Write `recipe.json`, `report.json`, `samples.npz` and the given PNG files, whole or not at all.

        An earlier result in `folder` is replaced; any other content there is left alone and is an error.
        """
        check_result_folder(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        except OSError as error:
            raise WriteError(
                f"Expected to be able to write to {folder.parent}, got: {error.strerror}; choose another folder."
            ) from error
        old = part.with_name(part.name + "-old")
        try:
            (part / "recipe.json").write_text(self.recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
            np.savez_compressed(
                part / "samples.npz",
                samples=self.samples.cpu().numpy(),
                y=self.measurement.likelihood.y.cpu().numpy(),
                seeds=np.array(self.report.seeds, dtype=np.int64),
            )
            for name, content in (pictures or {}).items():
                (part / name).write_bytes(content)
            # Last: a folder with a report is a finished one.
            (part / "report.json").write_text(self.report.model_dump_json(indent=2) + "\n", encoding="utf-8")
            part.chmod(0o755)
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException as error:  # Ctrl-C too leaves the folder as it was
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            shutil.rmtree(part, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise WriteError(
                f"Expected to write the result to {folder}, got: {error.strerror}; nothing was kept."
            ) from error


def check_result_folder(folder: Path) -> None:
    """Raise WriteError unless `folder` is new, empty or holds an earlier result; call it before the work starts."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WriteError(f"Expected a folder for the result, got the file {folder}; choose another name.")
    needed = {"report.json", "recipe.json", "samples.npz"}
    names = {p.name for p in folder.iterdir()}
    if names and (not needed <= names or any(not n.endswith(".png") for n in names - needed)):
        raise WriteError(
            f"Expected a new folder or an earlier result at {folder}, got other files; choose another name."
        )


def load_samples(folder: Path) -> tuple[Tensor, Recipe, Report]:
    """Samples (n, C, H, W), recipe and report of a saved result; a folder without a report is unfinished."""
    try:
        report = Report.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))
        recipe = Recipe.model_validate_json((folder / "recipe.json").read_text(encoding="utf-8"))
        with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
            samples = torch.from_numpy(arrays["samples"])
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise ReadError(f"Expected a finished result in {folder}, got: {first}; run the recipe again.") from error
    return samples, recipe, report
