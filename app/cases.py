"""What the demo shows: kinds of damage, and pictures restored from them with their figures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from app.view import Colours
from restoration.assets import AssetCard
from restoration.method import Method
from restoration.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """One kind of damage: what it is called, what it means in a sentence, how it is undone, and the competition."""

    name: str
    title: str
    sentence: str
    recipe: Recipe
    classical: tuple[Method, ...]


@dataclass(frozen=True)
class Row:
    """Figures of one picture under one kind of damage. PSNR in dB, seconds for all samples together.

    `input_psnr` is that of the operator's plain guess (bicubic enlargement, the blurred picture itself, holes filled
    from their surroundings). The baseline is the best of the classical methods by PSNR on this very picture, a choice
    that needs the truth. `sample_*` is the first sample, whatever its quality. `spread_rms` is the root mean square of
    the samples' standard deviation, `error_rms` that of the mean's true error.
    """

    picture: str
    task: str
    input_psnr: float
    baseline: str
    baseline_psnr: float
    baseline_ssim: float
    baseline_seconds: float
    sample_psnr: float
    sample_ssim: float
    mean_psnr: float
    mean_ssim: float
    residual_sigma: float
    spread_rms: float
    error_rms: float
    nfe: float
    seconds: float
    samples: int
    seeds: tuple[int, ...]
    noise_sigma: float | None
    device: str
    precision: str
    threads: int
    recipe_digest: str
    asset_sha256: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Case:
    """A row with its pictures: `spread` is a map (H, W), the others are colours."""

    row: Row
    task: Task
    card: AssetCard
    measurement: Colours
    classical: Colours
    sample: Colours
    mean: Colours
    spread: Tensor
    truth: Colours


def average(rows: Sequence[Row], figure: str) -> float:
    """Mean of one figure over rows."""
    values = [float(asdict(row)[figure]) for row in rows]
    return sum(values) / len(values)


def method_name(method: Method) -> str:
    """What the demo calls a classical method."""
    return "Plain guess" if method.title == "Direct" else method.title
