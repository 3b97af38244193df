"""JSON schemas of descriptions with what a form wants besides: titles and help for people, units, scales."""

import functools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from operators import AnyNoise, AnyOperator, Ui
from restoration.recipe import AnyMethod, NoPrior, PowerLaw, TrainedPrior


class _Forms(GenerateJsonSchema):
    """JSON schemas with what a form wants besides: titles for people, units, scales, what is for experts."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        cls = schema["cls"]
        made["title"] = title_of(cls)
        made["description"] = about(cls)
        for name, field in cls.model_fields.items():
            shown = made.get("properties", {}).get(name)
            if shown is None:
                continue
            shown["title"] = label_of(name, cls)
            whole = f"{cls.__name__}.{name}"
            if (said := _HELP.get(whole) or _HELP.get(name)) is not None:
                shown["description"] = said
            if whole in _TOPS:
                shown["x-top"] = _TOPS[whole]
            for hint in field.metadata:
                if isinstance(hint, Ui):
                    shown |= {"x-unit": hint.unit, "x-scale": hint.scale, "x-advanced": hint.advanced}
        return made


@functools.cache
def schemas() -> dict[str, Any]:
    """`operator`, `noise`, `method` and `model` with their common `$defs`."""
    named: list[tuple[str, Any]] = [
        ("operator", AnyOperator),
        ("noise", AnyNoise),
        ("method", AnyMethod),
        ("model", Annotated[TrainedPrior | PowerLaw | NoPrior, Field(discriminator="kind")]),
    ]
    inputs = [(name, "validation", TypeAdapter(union)) for name, union in named]
    made, defs = TypeAdapter.json_schemas(inputs, schema_generator=_Forms)  # type: ignore[arg-type]
    return {**{name: made[name, "validation"] for name, _ in named}, "$defs": defs["$defs"]}


def title_of(cls: type) -> str:
    """What a kind is called."""
    tag = getattr(cls, "model_fields", {}).get("kind")
    known = str(getattr(cls, "title", "") or "")
    return known or _TITLES.get(cls.__name__) or _plain(str(tag.default) if tag is not None else cls.__name__)


def about(cls: type) -> str:
    """The first sentence of a docstring, without words for programmers."""
    known = _ABOUT.get(cls.__name__)
    if known is not None:
        return known
    first = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
    return first.split("; see `")[0].replace("`", "").removesuffix(".") + "." if first else ""


def label_of(name: str, cls: type | None = None) -> str:
    """What a field is called."""
    return (_LABELS.get(f"{cls.__name__}.{name}") if cls is not None else None) or _LABELS.get(name) or _plain(name)


def _plain(name: str) -> str:
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


_LABELS = {
    "GaussianKernel.std": "Width of the blur",
    "LineKernel.length": "Length of the motion",
    "LineKernel.angle": "Direction",
    "DiskKernel.radius": "Radius of the disk",
    "MotionKernel.intensity": "How crooked the path is",
    "MotionKernel.seed": "Which path",
    "DownsampleSpec.factor": "Times smaller",
    "JpegSpec.quality": "JPEG quality",
    "Gaussian.sigma": "Noise level",
    "sigma": "Noise level",
    "sigma_max": "First noise level",
    "sigma_min": "Last noise level",
    "std": "Standard deviation",
    "sha256": "Checksum",
    "rho": "Crowding (rho)",
    "eta": "Fresh noise (eta)",
    "zeta": "Fresh noise (zeta)",
}
# what a person wants to know of the commonest fields; the others have the description of their spec
_HELP = {
    "Gaussian.sigma": "1 is the step from black to white. Too high smooths detail away, too low keeps the grain.",
    "GaussianKernel.std": "Standard deviation. Too wide makes ringing edges, too narrow leaves the picture soft.",
    "DiskKernel.radius": "A bright point becomes a disk of this radius.",
    "LineKernel.length": "How far the camera or the object moved.",
    "DownsampleSpec.factor": "The result has so many times more pixels each way.",
    "DownsampleSpec.method": "How the small picture was made: bicubic is usual.",
    "JpegSpec.quality": "As in the program that saved it; lower is coarser.",
    "Karras.steps": "Number of noise levels. More is slower and finer.",
    "LinearVP.steps": "Levels over the whole of DDPM's 1000. More is slower and finer.",
    "FlowTimes.steps": "Times from 1 to 0. More is slower and finer.",
    "Karras.sigma_max": "First and largest noise level. Higher forgets more of the first guess: for large holes.",
    "Karras.sigma_min": "Last and smallest noise level. Higher ends smoother.",
    "DiffPIR.weight": "How firmly the prior's estimate is held. Higher trusts the data less.",
    "DiffPIR.zeta": "Share of fresh noise at each level. Lower is smoother and more alike from seed to seed.",
    "DAPS.ode_steps": "Network calls a level. More is slower and finer.",
}
# where sliders end that would otherwise hold a useful range in their first tenth
_TOPS = {
    "Gaussian.sigma": 0.5,
    "GaussianKernel.std": 10,
    "DiskKernel.radius": 30,
    "LineKernel.length": 80,
    "DownsampleSpec.factor": 8,
    "VaryingBlurSpec.centre": 10,
    "VaryingBlurSpec.corner": 10,
    "UnknownWidthSpec.widest": 10,
}
_TITLES = {
    "Karras": "Karras (EDM)",
    "LinearVP": "DDPM, linear",
    "FlowTimes": "Times of a flow",
    "Tail": "End of another walk",
    "TrainedPrior": "Trained on photographs",
    "PowerLaw": "1/f spectrum, closed form",
    "NoPrior": "None",
    "HMC": "Hamiltonian Monte Carlo",
}
_ABOUT = {
    "TrainedPrior": "A network that ships with the program.",
    "NoPrior": "For classical methods, which need none.",
    "Karras": "Noise levels that crowd at the low end.",
    "LinearVP": "Every so-many-th of the 1000 levels of a DDPM.",
    "FlowTimes": "Equal steps in the time of a rectified flow.",
    "Tail": "The last part of another walk, for a start that is near.",
    "DataRef": "A file of yours.",
}


def some(*names: str) -> dict[str, Any]:
    """Some of `schemas()`, with those definitions alone that they refer to."""
    every = schemas()
    wanted: dict[str, Any] = {name: every[name] for name in names}
    needed: dict[str, Any] = {}
    waiting = [wanted]
    while waiting:
        for ref in _refs(waiting.pop()):
            if ref not in needed:
                needed[ref] = every["$defs"][ref]
                waiting.append(needed[ref])
    return wanted | {"$defs": needed}


def _refs(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        if isinstance(ref := values.get("$ref"), str):
            yield ref.rsplit("/", 1)[1]
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _refs(value)
