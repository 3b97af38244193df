"""The JSON of a run."""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError

from operators import AnyNoise, AnyOperator
from operators.base import OperatorSpec
from operators.composition import ComposedSpec, StackedSpec
from operators.ct import CTSpec
from operators.errors import PreimageError, ReadError, RecipeError
from operators.gain import HazeSpec
from operators.lowdose import LowDose
from operators.noise import Gaussian, Noise
from operators.spec import Need, Spec, Ui, kinds
from restoration.alternating import Alternating
from restoration.analytic import PowerLawPrior
from restoration.assets import AssetStore, load_bridge, load_denoiser
from restoration.best_of import BestOf
from restoration.bridge import Bridge, suited
from restoration.checkpoints import Checkpoint
from restoration.i2sb_checkpoint import I2SBCheckpoint
from restoration.ir_sde_checkpoint import IRSDECheckpoint
from restoration.methods.blind_dps import BlindDPS
from restoration.methods.cddb import CDDB
from restoration.methods.daps import DAPS
from restoration.methods.ddnm import DDNM
from restoration.methods.ddrm import DDRM
from restoration.methods.dds import DDS
from restoration.methods.diffpir import DiffPIR
from restoration.methods.direct import Direct, OpenCVInpaint
from restoration.methods.direct_bridge import DirectBridge
from restoration.methods.dps import DPS
from restoration.methods.flow_chef import FlowChef
from restoration.methods.flow_dps import FlowDPS
from restoration.methods.gdp import GDP
from restoration.methods.lgd import LGD
from restoration.methods.mcg import MCG
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.pnp_flow import PnPFlow
from restoration.methods.rad import RAD
from restoration.methods.red_diff import REDDiff
from restoration.methods.sitcom import SITCOM
from restoration.methods.tv import TV
from restoration.methods.wiener import Wiener
from restoration.precision import Precision
from restoration.prior import Denoiser
from restoration.published import published_recipe, published_settings
from restoration.resfusion_checkpoint import ResfusionCheckpoint
from restoration.resshift_checkpoint import ResShiftCheckpoint
from restoration.structured import Structured

AnyMethod = Annotated[
    DiffPIR
    | DAPS
    | DPS
    | DDRM
    | DDNM
    | PiGDM
    | MomentMatching
    | DDS
    | MCG
    | LGD
    | PnPDM
    | REDDiff
    | SITCOM
    | MCGDiff
    | PnPFlow
    | FlowDPS
    | FlowChef
    | RAD
    | BlindDPS
    | GDP
    | Alternating
    | Structured
    | BestOf
    | DirectBridge
    | CDDB
    | Wiener
    | TV
    | OpenCVInpaint
    | Direct,
    Field(discriminator="kind"),
]


class TrainedPrior(Spec):
    """A prior that ships with the package, by name."""

    kind: Literal["trained"] = "trained"
    name: Annotated[str, Field(description="Name of the asset.")] = "photo"
    offers: ClassVar[frozenset[Need]] = Denoiser.offers

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Denoiser:
        """Read and check the weights."""
        card = store.card(self.name, "prior")
        return load_denoiser(card, store.resolve(card), device, precision)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """Noise levels it was trained for, in unit range; AssetMissing for an unknown name."""
        return store.card(self.name, "prior").unit_sigma_range

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Name and sha256 of what is loaded."""
        return {self.name: store.card(self.name, "prior").sha256}


class TrainedBridge(Spec):
    """A bridge that ships with the package, by name; it undoes the measurement that its card names, and no other."""

    kind: Literal["bridge"] = "bridge"
    name: Annotated[str, Field(description="Name of the asset.")] = "photo-bridge"
    offers: ClassVar[frozenset[Need]] = Bridge.offers

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Bridge:
        """Read and check the weights."""
        card = store.card(self.name, "bridge")
        return load_bridge(card, store.resolve(card), device, precision)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """None: a bridge has times, not noise levels. AssetMissing for an unknown name."""
        store.card(self.name, "bridge")
        return None

    def problems(self, operator: OperatorSpec, noise: Noise, method: Spec, store: AssetStore) -> list[str]:
        """Whether it was trained for this measurement, from its card alone."""
        card = store.cards.get(self.name)
        if card is None or card.bridge is None:
            return []  # said by `sigma_range`
        wrong = suited(card.bridge.tasks, operator, noise, held_to_data=isinstance(method, CDDB))
        if isinstance(wrong, str):
            return [f"The bridge '{self.name}' expected {wrong}; choose the bridge of that measurement, or DiffPIR."]
        return []

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Name and sha256 of what is loaded."""
        return {self.name: store.card(self.name, "bridge").sha256}


class PowerLaw(Spec):
    """A stationary Gaussian with a 1/f spectrum: closed form, no weights."""

    kind: Literal["power-law"] = "power-law"
    std: Annotated[float, Field(gt=0, le=10, description="Standard deviation of a pixel."), Ui(unit="unit range")] = (
        0.25
    )
    exponent: Annotated[float, Field(gt=0, le=4, description="Amplitude falls as 1/f^exponent.")] = 1.2
    offers: ClassVar[frozenset[Need]] = Denoiser.offers

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> Denoiser:
        """The closed form; always in the state's own precision."""
        return PowerLawPrior(0.5, self.std, self.exponent, channels=None).to(device)

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """Any level."""
        return 0.0, math.inf

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Nothing is loaded."""
        return {}


class NoPrior(Spec):
    """For classical methods, which bring their own assumptions."""

    kind: Literal["none"] = "none"
    offers: ClassVar[frozenset[Need]] = frozenset()

    def load(self, store: AssetStore, device: torch.device, precision: Precision) -> None:
        """Nothing."""

    def sigma_range(self, store: AssetStore, base: Path = Path()) -> tuple[float, float] | None:
        """None: there is nothing to walk."""
        return None

    def asset_hashes(self, store: AssetStore) -> dict[str, str]:
        """Nothing is loaded."""
        return {}


AnyModel = Annotated[
    TrainedPrior
    | TrainedBridge
    | Checkpoint
    | I2SBCheckpoint
    | ResfusionCheckpoint
    | IRSDECheckpoint
    | ResShiftCheckpoint
    | PowerLaw
    | NoPrior,
    Field(discriminator="kind"),
]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Recipe(Spec):
    """Everything that decides a result, except the input: operator, noise, model, method and one seed per sample."""

    version: Literal[1] = 1
    title: Annotated[str, Field(description="A few words for people; not part of the digest.")] = ""
    reference: Annotated[str, Field(description="Paper whose setting this follows; not part of the digest.")] = ""
    operator: AnyOperator
    noise: AnyNoise = Gaussian(sigma=0.025)
    model: AnyModel = TrainedPrior()
    method: AnyMethod = DiffPIR()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=4096)] = (0,)

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON, title and reference left out."""
        values = self.model_dump(mode="json", exclude={"title", "reference"})
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]

    def problems(self, store: AssetStore, base: Path = Path()) -> list[str]:
        """All that is wrong, found before any weight is loaded: assets, needs, levels, unfit noise, seeds.

        Relative paths are read from folder `base`.
        """
        found = []
        try:
            if (trained := self.model.sigma_range(store, base)) is not None:
                self.method.check(trained)
        except PreimageError as error:
            found.append(str(error))
        if self.operator.in_complex:  # pictures and priors are real
            found.append(
                f"Expected an operator on real images, got complex ones from {self.operator.kind}; "
                'say "image": "real" in the recipe.'
            )
        offered = self.operator.offers | self.noise.offers | self.model.offers
        if missing := self.method.needs - offered:
            found += [need.sentence for need in sorted(missing)]
            able = [f"'{kind}'" for kind, other in kinds(AnyMethod).items() if _needs(other) <= offered]
            found.append(f"Methods that would work here, at their defaults: {', '.join(able)}.")
        found += _noise_problems(self.operator, self.noise)
        if isinstance(self.model, TrainedBridge):
            found += self.model.problems(self.operator, self.noise, self.method, store)
        if isinstance(self.model, ResShiftCheckpoint):
            found += self.model.problems(self.operator, self.method, base)
        if len(set(self.seeds)) != len(self.seeds):
            found.append(f"Expected different seeds, got {list(self.seeds)}; equal seeds give equal samples.")
        return found


def preset_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("assets") / "recipes"
    return sorted(p.name.removesuffix(".json") for p in folder.iterdir() if p.name.endswith(".json"))


def read_recipe(name: str) -> tuple[Recipe, Path]:
    """A recipe from a file, or the name of a preset or a published setting, and the folder of its relative paths.

    Raises ReadError where there is neither, RecipeError with the place and the choices where the JSON is wrong.
    """
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        try:
            text, base = path.read_text(encoding="utf-8"), path.parent
        except (OSError, UnicodeDecodeError) as error:
            raise ReadError(f"Expected a recipe (JSON) at {path}, got: {_reason(error)}; check the path.") from error
    elif name in preset_names():
        text, base = (resources.files("assets") / "recipes" / f"{name}.json").read_text(encoding="utf-8"), Path()
    elif name in published_settings():
        return Recipe.model_validate(published_recipe(name)), Path()
    else:
        raise ReadError(
            f"Expected a recipe file, a preset out of {', '.join(preset_names())}, or a published setting such as "
            f"dps/sr-x4; got '{name}'; choose one of them."
        )
    return parse_recipe(text, str(path)), base


def parse_recipe(text: str, where: str) -> Recipe:
    """A recipe from JSON text; one sentence names every field that is wrong."""
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"Expected JSON in {where}, got: {str(error)[:200]}; correct the file.") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'recipe'}: {e['msg']}" for e in error.errors()[:5])
        raise RecipeError(f"Expected a valid recipe in {where}, got: {faults}; correct these fields.") from error


def _noise_problems(operator: OperatorSpec, noise: Noise) -> list[str]:
    """Sentences for laws that depend on more than what an operator keeps in its data."""
    found = []
    for part in _with_parts(operator):
        if isinstance(part, CTSpec) and isinstance(noise, LowDose) and part.window and part.window.intercept != 0:
            found.append(
                "Expected a CT window that begins at -1000 HU for low-dose noise, which counts photons through the "
                f"whole attenuation, got {part.window.low:g} HU; set low to -1000 or choose Gaussian noise."
            )
        if Need.GAUSSIAN in noise.offers:
            continue
        if isinstance(part, StackedSpec) and len({*(part.weights or ()), 1.0}) > 1:
            found.append(
                f"Expected Gaussian noise for weighted stacked data, whose numbers are no longer those of the law, "
                f"got {noise.title}; leave out the weights or choose Gaussian noise."
            )
        if isinstance(part, HazeSpec):
            found.append(
                f"Expected Gaussian noise for haze, whose airlight is taken away from the data, got {noise.title}; "
                "choose Gaussian noise."
            )
    return found


def _with_parts(operator: OperatorSpec) -> Iterator[OperatorSpec]:
    yield operator
    parts = operator.steps if isinstance(operator, ComposedSpec) else ()
    for part in operator.parts if isinstance(operator, StackedSpec) else parts:
        yield from _with_parts(part)


def _needs(method: type[Spec]) -> frozenset[Need]:
    needs: frozenset[Need] = method().needs  # type: ignore[attr-defined]  # the union holds methods alone
    return needs


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8 text"
