"""How good and how fast: the three qualities of the page for each kind of measurement, and what a method costs."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pydantic import ValidationError

from app.gui.schemas import some, title_of
from app.gui.widget import Widget
from app.options import OutputType
from operators import AnyNoise, AnyOperator, InpaintingSpec
from operators.base import OperatorSpec
from operators.errors import PreimageError
from operators.spec import Need, Spec, kinds
from restoration.alternating import Alternating
from restoration.assets import AssetStore
from restoration.best_of import BestOf
from restoration.calls import TRAINED, Calls, calls_of_method
from restoration.draws import Langevin
from restoration.method import Method
from restoration.methods.blind_dps import BlindDPS
from restoration.methods.cddb import CDDB
from restoration.methods.daps import DAPS, Proportional
from restoration.methods.ddnm import DDNM
from restoration.methods.ddrm import DDRM
from restoration.methods.dds import DDS
from restoration.methods.diffpir import DiffPIR
from restoration.methods.dps import DPS
from restoration.methods.gdp import GDP
from restoration.methods.pigdm import PiGDM
from restoration.methods.red_diff import REDDiff
from restoration.precision import Precision
from restoration.recipe import AnyMethod, AnyModel, NoPrior, PowerLaw, TrainedBridge, TrainedPrior, read_recipe
from restoration.schedule import Karras, LinearVP
from restoration.structured import Structured

Quality = Literal["quick", "balanced", "best"]


@dataclass(frozen=True)
class Choice:
    """What a quality stands for: a method, and what of it depends on the size of Gaussian noise.

    Attributes:
        method: as it is for other noise.
        follows: the last level of the schedule is so many times the noise, within `bounds`. Ending far above the noise
            fits the data too well, and ending far below it takes steps from the levels that matter.
        bounds: of that level.
    """

    method: Method
    follows: float | None = None
    bounds: tuple[float, float] = (0.003, 0.01)

    def at(self, sigma: float | None) -> Method:
        """The method for Gaussian noise of that size; None is other noise."""
        if self.follows is None or sigma is None:
            return self.method
        last = float(f"{min(self.bounds[1], max(self.bounds[0], self.follows * sigma)):.2g}")
        schedule = self.method.schedule.model_copy(update={"sigma_min": last})  # type: ignore[attr-defined]
        return self.method.model_copy(update={"schedule": schedule})


@dataclass(frozen=True)
class Row:
    """The three qualities for measurements of these operator `kinds` (all, if empty) that offer what is needed.

    The kind "holes" is inpainting with a mask of `HOLES`.

    The method of all three needs the same.
    """

    kinds: frozenset[str]
    quick: Choice
    balanced: Choice
    best: Choice

    def suits(self, kind: str, offered: frozenset[Need]) -> bool:
        """Whether these are the qualities for such an operator, noise and model."""
        return (not self.kinds or kind in self.kinds) and all(c.method.needs <= offered for c in self.three.values())

    @property
    def three(self) -> dict[str, Choice]:
        """By name."""
        return {"quick": self.quick, "balanced": self.balanced, "best": self.best}


def _diffpir(steps: int, top: float) -> Choice:
    return Choice(DiffPIR(schedule=Karras(steps=steps, sigma_max=top)), follows=0.4)


def _quick(top: float, weight: float) -> Choice:
    # so few steps end soonest on a clean picture at a level about that of the noise; the prior is held more firmly
    # there, or the noise would be fitted as well
    method = DiffPIR(schedule=Karras(steps=6, sigma_max=top, sigma_min=0.03), weight=weight)
    return Choice(method, follows=1.2, bounds=(0.006, 0.03))


def _walk(method: type[Method], steps: int, top: float = 1.5, **settings: Any) -> Choice:
    return Choice(method.model_validate({"schedule": Karras(steps=steps, sigma_max=top), **settings}))


def _langevin(levels: int) -> DAPS:
    inner = Langevin(rate=1.25e-5, tau=0.005)
    return DAPS(schedule=Karras(steps=levels, sigma_max=5, sigma_min=0.02), inner=inner, shed=False)


def _restarted(runs: int, restarts: int) -> Choice:
    """The preset's method with other numbers of runs and of restarts before them."""
    method = read_recipe("phase-retrieval")[0].method
    return Choice(method.model_copy(update={"runs": runs, "restarts": restarts}))


def _row(kinds: set[str], quick: Choice, balanced: Choice, best: Choice) -> Row:
    return Row(frozenset(kinds), quick, balanced, best)


# docs/front-end.md has the measurements behind the first rows; the others keep the settings of docs/methods.md.
ROWS: tuple[Row, ...] = (
    _row(
        {"identity"},
        Choice(DDRM(schedule=Karras(steps=6, sigma_max=0.3, sigma_min=0.03)), follows=1.2, bounds=(0.006, 0.03)),
        Choice(DDRM(schedule=Karras(steps=20, sigma_max=0.3)), follows=0.4),
        Choice(DDRM(schedule=Karras(steps=60, sigma_max=0.3)), follows=0.4),
    ),
    _row({"holes"}, _quick(1.0, 4), _diffpir(20, 1.0), _diffpir(60, 1.0)),
    _row({"inpainting", "defects"}, _quick(0.5, 4), _diffpir(20, 0.5), _diffpir(60, 0.5)),
    _row(set(), _quick(1.5, 2), _diffpir(20, 1.5), _diffpir(60, 1.5)),
    _row(
        set(),
        _walk(DDNM, 6, 0.3, form="noise-free"),
        _walk(DDNM, 20, 0.3, form="noise-free"),
        _walk(DDNM, 60, 0.3, form="noise-free"),
    ),
    _row({"phase-retrieval"}, _restarted(2, 16), _restarted(4, 48), _restarted(8, 192)),
    _row(
        {"coded-diffraction", "hologram"},
        Choice(_langevin(30)),
        Choice(_langevin(100)),
        Choice(BestOf(runs=4, method=_langevin(100))),
    ),
    _row(
        {"unknown-kernel"},
        Choice(BlindDPS(schedule=LinearVP(steps=30))),
        Choice(BlindDPS(schedule=LinearVP(steps=100))),
        Choice(BlindDPS(schedule=LinearVP(steps=300), scale=3.5)),
    ),
    _row(
        {"unknown-width"},
        *(
            Choice(
                Alternating(
                    unknown="noise and width",
                    method=DAPS(schedule=Karras(steps=levels, sigma_max=0.5), width=Proportional(factor=0.4)),
                    rounds=rounds,
                    settle=rounds - 3,
                    stretch=8,
                )
            )
            for levels, rounds in ((8, 5), (12, 8), (12, 12))
        ),
    ),
    _row(
        {"unknown-exposure"},
        Choice(GDP(schedule=LinearVP(steps=20), rate=2.0)),
        Choice(GDP(schedule=LinearVP(steps=60), rate=2.0)),
        Choice(GDP(schedule=LinearVP(steps=200), rate=1.0)),
    ),
    _row(
        set(),
        *(Choice(Structured(method=PiGDM(schedule=Karras(steps=n, sigma_max=5)))) for n in (8, 20, 50)),
    ),
    # any noise, by least squares
    _row(set(), _walk(DDS, 8), _walk(DDS, 20), _walk(DDS, 60)),
    _row(set(), *(Choice(REDDiff(schedule=LinearVP(steps=n))) for n in (20, 60, 200))),
)


HOLES = frozenset({"file", "box", "random-box", "strokes"})
"""Masks whose missing parts may be wide: painted ones too. The wider they are, the higher the levels must begin."""


def row_of(operator: OperatorSpec, others: frozenset[Need]) -> Row | None:
    """The qualities for an operator where noise and model offer what is given; None if there are none."""
    wide = isinstance(operator, InpaintingSpec) and operator.mask.kind in HOLES
    kind = "holes" if wide else operator.kind
    return next((row for row in ROWS if row.suits(kind, operator.offers | others)), None)


def offers(spec: type[Spec]) -> frozenset[Need]:
    """What a kind of operator, noise or model offers, at its defaults where that depends on parameters."""
    try:
        return frozenset(getattr(spec(), "offers", ()))
    except ValidationError:  # it has no defaults: it names a file
        made = spec.model_construct()
        return frozenset(getattr(made, "offers", ()))


def reasons(method: Method, offered: frozenset[Need]) -> str:
    """Why a method cannot go with what is offered, in a sentence or two; empty if it can."""
    return " ".join(need.sentence for need in sorted(method.needs - offered))


def beginnings(kind: type[Method]) -> list[Method]:
    """Settings that a person may begin with: the defaults, then forms of the method that need something else."""
    if kind is DDNM:
        return [DDNM(), DDNM(schedule=Karras(steps=20, sigma_max=0.5), form="noise-free")]
    if kind is DAPS:
        return [DAPS(), _langevin(100)]
    if kind is BestOf:
        return [BestOf(), BestOf(method=DPS()), BestOf(method=BlindDPS())]
    if kind is Alternating:
        return [Alternating(), Alternating(unknown="noise and width")]
    if kind is CDDB:
        return [CDDB(), CDDB(form="projection")]
    return [kind()]


# the form


class QualityForm(Widget):
    """Step 3: how good, how many samples, and for experts the method. Its value is for `recipe_of`.

    Props: `picture` {width, height, channels}, `advice` of `advise`.
    """

    module: ClassVar[str] = "form_quality"

    def __init__(self, value: Any = None, **settings: Any) -> None:
        super().__init__(value, **(quality_props() | settings))


def quality_props(store: AssetStore | None = None) -> dict[str, Any]:
    """What the second form is made of."""
    assets = store or AssetStore()
    models = [
        {"model": TrainedPrior(name=card.name).model_dump(mode="json"), "title": card.title}
        for card in assets.cards.values()
        if card.role == "prior"
    ] + [
        {"model": TrainedBridge(name=card.name).model_dump(mode="json"), "title": card.title}
        for card in assets.cards.values()
        if card.role == "bridge"
    ]
    models += [
        {"model": spec.model_dump(mode="json"), "title": title_of(type(spec))} for spec in (PowerLaw(), NoPrior())
    ]
    return {
        "schema": some("method"),
        "table": table(),
        "models": models,
        "precisions": list(get_args(Precision)),
        "outputs": [kind for kind in get_args(OutputType) if kind not in ("nifti", "dicom")],
        "picture": None,
        "advice": None,
    }


# what the page is told


@functools.cache
def table() -> dict[str, Any]:
    """All that the page needs to grey methods and to name qualities without asking again; JSON.

    `offers` by union and kind; `methods` with title, group and beginnings, each with needs, settings and calls; `needs`
    with the sentence of each; `rows` of the qualities.
    """
    unions = {"operator": AnyOperator, "noise": AnyNoise, "model": AnyModel}
    return {
        "offers": {name: {kind: sorted(offers(spec)) for kind, spec in kinds(u).items()} for name, u in unions.items()},
        "holes": sorted(HOLES),
        "needs": {need.value: need.sentence for need in Need},
        "methods": [
            {
                "kind": kind,
                "title": spec.title,
                "group": group_of(kind),
                "beginnings": [_shown(method) for method in beginnings(spec)],
            }
            for kind, spec in kinds(AnyMethod).items()
            if issubclass(spec, Method)
        ],
        "rows": [
            {
                "kinds": sorted(row.kinds),
                "needs": sorted(frozenset().union(*(c.method.needs for c in row.three.values()))),
                **{
                    name: {**_shown(c.method), "follows": c.follows, "bounds": c.bounds}
                    for name, c in row.three.items()
                },
            }
            for row in ROWS
        ],
    }


def _shown(method: Method) -> dict[str, Any]:
    try:
        calls = calls_of_method(method, TRAINED)
    except PreimageError:
        calls = Calls()
    return {
        "needs": sorted(method.needs),
        "settings": method.model_dump(mode="json"),
        "title": method.title,
        "calls": calls.denoiser,
        "vjps": calls.vjps,
    }


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Fast": ("diffpir", "ddrm", "ddnm", "dds", "red-diff", "flow-dps", "flow-chef", "pnp-flow"),
    "Posterior samplers": ("daps", "pnp-dm", "moment-matching", "pigdm", "mcg-diff", "rad"),
    "By gradients through the network": ("dps", "lgd", "mcg", "sitcom"),
    "What was measured by is not fully known": ("blind-dps", "alternating", "gdp", "structured"),
    "Several runs": ("best-of",),
    "Trained on pairs": ("bridge", "cddb"),
    "Classical, without a network": ("wiener", "tv", "opencv-inpaint", "direct"),
}


def group_of(kind: str) -> str:
    """Under which heading a method stands."""
    return next((group for group, members in _GROUPS.items() if kind in members), "Others")
