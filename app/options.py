"""What a batch is told besides its recipe, and what it tells of each case; plain values."""

from typing import Annotated, Any, Literal

from pydantic import Field

from operators.spec import Spec
from restoration.precision import Precision

OutputType = Literal["png", "tiff", "npz", "nifti", "dicom"]


ASIDE = frozenset({"views", "fail_fast"})
"""Options that do not decide the bytes of results."""


class Options(Spec):
    """What a recipe does not say. All of it but the last two belongs to the identity of the results.

    Attributes:
        output_types: empty takes what suits each input: PNG for pictures, NIfTI for NIfTI, DICOM for DICOM. A TIFF has
            the depth of the picture it was made from: 8 or 16 bits, or 32-bit float, which is neither rounded nor
            clipped. A PNG has 8 bits, or 16 where the picture had more than 8.
        truth: inputs are clean: degrade them first (noise of seed 0, as `preimage run --truth`) and score the results.
        series: rule that picks DICOM series, see `medical.series_rule`; empty takes all.
        window: physical numbers that become 0 and 1 for volumes; by default -1000 to 1000 HU, or the 0.5th and 99.5th
            percentile of each volume.
        on_gap: DICOM series with missing or uneven slices are refused, or restored slice by slice.
        device: "cpu", "cuda" or "cuda:N".
        precision: of the network; "fp32" where bytes must repeat on another machine.
        batch: images that share a network call. 0 is one on a CPU, where more gain nothing, and on a GPU as many as
            about 5 megapixels hold. The last bits of results depend on it.
        views: also pictures of the results for a page, beside the job; not a part of them.
        fail_fast: end after the first case that fails.
    """

    output_types: tuple[OutputType, ...] = ()
    truth: bool = False
    series: str = ""
    window: tuple[float, float] | None = None
    on_gap: Literal["refuse", "slicewise"] = "refuse"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$")] = "cpu"
    precision: Precision = "auto"
    batch: Annotated[int, Field(ge=0, le=1024)] = 0
    views: bool = False
    fail_fast: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of the results, as JSON."""
        return self.model_dump(mode="json", exclude=set(ASIDE))


class Output(Spec):
    """A file that came out, by its name inside the case's folder."""

    name: str
    sha256: str
    bytes: int


class Outcome(Spec):
    """What became of a case. Holds no names and no paths: `job/plan.json` says which file case `number` is.

    Attributes:
        number: from 1, in the order of the plan.
        case: a salted digest that stays the same when the job is resumed.
        kind: "picture", "dicom", "nifti", or "unreadable" for what was refused before it was opened.
        state: done, failed, or partial (stopped on the way; the estimate so far is kept, and resuming redoes it).
        message: why it failed, one sentence.
        inputs: sha256 of the input files together.
        outputs: what was written; of partial cases, into the folder "partial" within the case's own.
        figures: residual_sigma, nfe, vjps, seconds, network_seconds; for linear measurements imagined, the mean share
            of the samples' contrast that the prior made up; psnr and ssim (and `psnr_sample`, `ssim_sample`, means over
            single samples, and those of `app.scores`) with `truth`. Means over slices for volumes, sums of seconds.
        notes: what a person should know, by code where there is one.
        facts: geometry and normalisation of volumes, bits of pictures.
        proven: whether it was done in an earlier session and verified instead of done again.
    """

    model_config = Spec.model_config | {"allow_inf_nan": True, "ser_json_inf_nan": "strings"}

    number: int
    case: str
    kind: str
    state: Literal["done", "failed", "partial"]
    message: str = ""
    inputs: str = ""
    outputs: tuple[Output, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    proven: bool = False
