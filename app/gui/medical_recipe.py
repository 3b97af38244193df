"""What the Medical tab asks for, as a recipe and options."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.gui.medical_data import Loaded
from app.options import Options
from operators.errors import NeedError, RecipeError
from restoration.assets import AssetCard, AssetStore
from restoration.recipe import Recipe

Problem = Literal["noise", "blur", "missing", "low", "ct", "mri"]

PROBLEMS: dict[Problem, str] = {
    "noise": "Noise",
    "blur": "Blur within slices",
    "missing": "Missing parts",
    "low": "Low resolution within slices (study)",
    "ct": "CT from few views (study)",
    "mri": "Undersampled MRI (study)",
}
STUDIES: frozenset[Problem] = frozenset({"low", "ct", "mri"})
"""Whose data are no pictures of a slice's size: only a clean volume can be degraded by them."""

CLASSICAL = "tv"
QUALITIES = {"quick": (10, 60), "balanced": (20, 150), "best": (40, 400)}
"""Network calls, and iterations of total variation."""

# levels to start from: how much of a picture the measurement leaves open
_START = {"noise": 0.1, "blur": 1.0, "missing": 5.0, "low": 1.5, "ct": 1.0, "mri": 3.0}


class Asked(BaseModel):
    """The form, checked. `sigma` is in the volume's unit, for CT data in line integrals (−ln)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    study: bool = False
    problem: Problem = "noise"
    sigma: Annotated[float, Field(gt=0)] = 10.0
    width: Annotated[float, Field(ge=0.2, le=10)] = 1.0
    hole: Literal["box", "random", "file"] = "box"
    fraction: Annotated[float, Field(ge=0.05, le=0.95)] = 0.5
    factor: Annotated[int, Field(ge=2, le=8)] = 2
    views: Annotated[int, Field(ge=4, le=720)] = 60
    arc: Annotated[float, Field(ge=30, le=360)] = 180.0
    acceleration: Annotated[float, Field(ge=1.5, le=16)] = 4.0
    pattern: Literal["equispaced-fraction", "random", "poisson-disc", "radial"] = "equispaced-fraction"
    method: str = CLASSICAL
    quality: Literal["quick", "balanced", "best"] = "balanced"
    samples: Annotated[int, Field(ge=1, le=16)] = 4
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


def priors(store: AssetStore) -> dict[str, AssetCard]:
    """The trained priors that are here, by name."""
    return {name: card for name, card in store.cards.items() if card.role == "prior"}


def best_prior(store: AssetStore, modality: str) -> str:
    """The prior whose card names the modality, else the first there is; the classical method where there is none."""
    found = priors(store)
    for name, card in found.items():
        if modality and modality.casefold() in f"{name} {card.title}".casefold().replace("mri", "mri mr"):
            return name
    return next(iter(found), CLASSICAL)


def prior_sentence(store: AssetStore, method: str) -> str:
    """What a method knows, in words."""
    card = priors(store).get(method)
    if card is None:
        return "Total variation is classical: flat regions with sharp edges, one answer and no spread."
    if "photo" in f"{card.name} {card.title}".casefold():
        return (
            f"Prior: {card.title}. It was trained on photographs, not on medical images: what it adds looks like "
            "photographs. Look at what it imagined before you believe a detail."
        )
    return f"Prior: {card.title}. Low spread does not prove that it is right for this patient, scanner or protocol."


def problem_of(asked: Asked, loaded: Loaded) -> str:
    """Why this cannot be asked of this volume, as a sentence; empty where it can."""
    if asked.problem in STUDIES and not asked.study:
        return f"{PROBLEMS[asked.problem]}: the data are no slices. Tick “My volume is clean: degrade it first”."
    if asked.problem == "ct":
        if loaded.unit != "HU":
            return "CT from few views needs Hounsfield units, which this volume does not have."
        if abs(loaded.pixel[0] / loaded.pixel[1] - 1) > 0.01:
            return "CT from few views needs square pixels, which this volume does not have."
    if asked.problem == "low" and any(side % asked.factor for side in loaded.plane):
        return f"Slices of {loaded.plane[1]} × {loaded.plane[0]} cannot be divided by {asked.factor}."
    return ""


def recipe_of(asked: Asked, loaded: Loaded, store: AssetStore, mask: str = "") -> Recipe:
    """The recipe of a form for a volume.

    Args:
        asked: the form.
        loaded: the volume.
        store: the assets.
        mask: name of the attachment for missing parts by a file.

    Raises:
        RecipeError, NeedError: it cannot be carried out.
    """
    if problem := problem_of(asked, loaded):
        raise NeedError(problem)
    sigma = asked.sigma if asked.problem == "ct" else asked.sigma / loaded.scale.span
    # below the networks' own finest level there is nothing to take away
    sigma = max(sigma, 1e-4)
    model, method = _method(asked, sigma, store)
    values: dict[str, Any] = {
        "title": f"{PROBLEMS[asked.problem].split(' (')[0]}, {loaded.slices} slices",
        "operator": _operator(asked, loaded, mask),
        "noise": {"kind": "gaussian", "sigma": sigma},
        "model": model,
        "method": method,
        "seeds": [asked.seed + n for n in range(samples_of(asked))],
    }
    return Recipe.model_validate(values)


def samples_of(asked: Asked) -> int:
    """How many samples a run has: one of a method without chance."""
    return 1 if asked.method == CLASSICAL else asked.samples


def options_of(
    asked: Asked,
    types: tuple[str, ...],
    window: tuple[float, float] | None,
    on_gap: Literal["refuse", "slicewise"],
    device: str,
) -> Options:
    """Options with views for the page."""
    values = {"output_types": types, "truth": asked.study, "window": window, "on_gap": on_gap}
    return Options.model_validate({**values, "device": device, "views": True})


def seconds(asked: Asked, loaded: Loaded, speed: float | None) -> float | None:
    """How long a run takes by the measured speed of the photo prior; None where nobody knows."""
    if asked.method == CLASSICAL or speed is None:
        return None
    calls = QUALITIES[asked.quality][0] * samples_of(asked) * loaded.slices
    padded = math.prod(math.ceil(side / 8) * 8 for side in loaded.plane)
    return calls * speed * padded / 1e6


def _operator(asked: Asked, loaded: Loaded, mask: str) -> dict[str, Any]:
    if asked.problem == "noise":
        return {"kind": "identity"}
    if asked.problem == "blur":
        size = min(2 * math.ceil(4 * asked.width) + 1, 2 * (min(loaded.plane) // 2) - 1)
        kernel = {"kind": "gaussian", "size": size, "std": asked.width}
        return {"kind": "blur", "kernel": kernel, "boundary": "reflect"}
    if asked.problem == "low":
        return {"kind": "downsample", "factor": asked.factor}
    if asked.problem == "ct":
        angles = {"kind": "uniform", "count": asked.views, "arc": asked.arc}
        window = {"low": loaded.scale.low, "high": loaded.scale.high}
        return {"kind": "ct", "angles": angles, "pixel_size": loaded.pixel[0], "window": window}
    if asked.problem == "mri":
        sampling = {"kind": asked.pattern, "acceleration": asked.acceleration}
        return {"kind": "mri", "image": "real", "sampling": sampling}
    if asked.hole == "file":
        if not mask:
            raise RecipeError("Expected a mask for the missing parts, got none; add one, white is measured.")
        return {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": mask}}}
    if asked.hole == "random":
        return {"kind": "inpainting", "mask": {"kind": "random", "fraction": asked.fraction}}
    side = {"height": max(1, loaded.plane[0] // 4), "width": max(1, loaded.plane[1] // 4)}
    return {"kind": "inpainting", "mask": {"kind": "box", **side}}


def _method(asked: Asked, sigma: float, store: AssetStore) -> tuple[dict[str, Any], dict[str, Any]]:
    calls, iterations = QUALITIES[asked.quality]
    if asked.method == CLASSICAL:
        # fits noise to about one sigma; CT solves a system in every iteration
        weight = min(1e4, (0.5 if asked.problem == "noise" else 0.1) / sigma)
        iterations = max(10, iterations // 10) if asked.problem == "ct" else iterations
        return {"kind": "none"}, {"kind": "tv", "weight": weight, "iterations": iterations}
    card = priors(store).get(asked.method)
    if card is None:
        raise RecipeError("Expected a prior that is here, got another name; choose one of the list.")
    lowest, highest = card.unit_sigma_range or (0.005, 10.0)
    start = max(_START[asked.problem], 4 * sigma) if asked.problem == "noise" else _START[asked.problem]
    schedule = {
        "kind": "karras",
        "steps": calls,
        "sigma_max": min(start, highest),
        "sigma_min": max(0.005, lowest),
        "rho": 7.0,
    }
    return {"kind": "trained", "name": asked.method}, {"kind": "diffpir", "schedule": schedule}
