"""What went in, what came out, and the folder it is kept in."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from operators.errors import ReadError
from operators.likelihood import Likelihood
from operators.spec import Spec
from restoration.folders import FolderKind, write_folder
from restoration.recipe import Recipe

RESULT = FolderKind(
    "result",
    frozenset({"recipe.json", "report.json", "samples.npz"}),
    r"(input|mean|std|imagined|preview|truth|(sample|kernel)-[0-9]{3,4})\.png",
)
"""What the folder of a result holds; only a folder of such files is ever replaced."""


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

    `imagined_samples` is how much of the contrast of each sample the prior made up, from 0 to 1, the rest being fixed
    by the data (`restoration.posterior.imagined_share`); None where the measurement is not linear.
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
    imagined_samples: tuple[float, ...] | None = None
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
    """Samples (n, C, H, W) in unit range, what they were made from, and the report.

    `imagined` (C, H, W) is the root mean square over the samples of what the prior made up, where the data said nothing
    (`restoration.posterior.imagined`); None where the measurement is not linear.
    `found` has what a blind method found of the measurement with each sample: kernels, widths, gains, (n, ...).
    """

    samples: Tensor
    measurement: Measurement
    recipe: Recipe
    report: Report
    found: dict[str, Tensor] = field(default_factory=dict)
    imagined: Tensor | None = None

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

        Args:
            folder: where; a symbolic link is followed.
            pictures: by names that `RESULT` knows, so that a later run recognises the folder.

        Raises:
            WriteError: see `write_folder`.
        """
        with write_folder(folder, RESULT) as part:
            (part / "recipe.json").write_text(self.recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
            arrays: dict[str, Any] = {
                "samples": self.samples,
                "y": self.measurement.likelihood.y,
                "seeds": torch.tensor(self.report.seeds, dtype=torch.int64),
                **({} if self.imagined is None else {"imagined": self.imagined}),
                **{f"found_{name}": values for name, values in self.found.items()},
            }
            np.savez_compressed(part / "samples.npz", **{name: array.cpu().numpy() for name, array in arrays.items()})
            for name, content in (pictures or {}).items():
                (part / name).write_bytes(content)
            (part / "report.json").write_text(self.report.model_dump_json(indent=2) + "\n", encoding="utf-8")


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
