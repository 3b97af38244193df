"""The forms of the page, made from the descriptions of operators, noises and methods, and the recipe they stand for."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError
from torch.nn.functional import adaptive_avg_pool2d

from app.gui.quality import Choice, QualityForm, row_of
from app.gui.schemas import label_of, some, title_of
from app.gui.widget import Widget
from app.options import Options, OutputType
from operators import AnyOperator, Gaussian, InpaintingSpec
from operators.errors import PreimageError, RecipeError
from operators.kernels import Kernel, KernelFile
from operators.masks import MaskFile
from operators.spec import Need, Spec, data_refs, kinds
from restoration.assets import AssetStore
from restoration.calls import calls_of
from restoration.precision import Precision
from restoration.recipe import NoPrior, Recipe, Seed, TrainedPrior

LEAST_SIGMA = 0.004
"""Least noise level that is suggested: what is said of a measurement is never quite exact."""

_DEEPEST = 24  # how far values from the browser may be nested
_PREVIEW = 96  # pixels of a side of the kernel that is shown

# the kinds of trouble a person can choose from

Card = Literal["missing", "blur", "small", "noise", "jpeg", "phase", "other"]

CARDS: tuple[dict[str, Any], ...] = (
    {
        "id": "missing",
        "title": "Missing parts",
        "help": "Scratches, holes, writing: you paint over them.",
        "kinds": ["inpainting"],
    },
    {
        "id": "blur",
        "title": "Blur",
        "help": "Out of focus, moved, or soft all over.",
        "kinds": ["blur"],
    },
    {"id": "small", "title": "Too small", "help": "Too few pixels: make it larger.", "kinds": ["downsample"]},
    {
        "id": "noise",
        "title": "Noise only",
        "help": "Grainy, but sharp and complete.",
        "kinds": ["identity"],
    },
    {
        "id": "jpeg",
        "title": "JPEG artefacts",
        "help": "Blocks and halos of strong compression.",
        "kinds": ["jpeg"],
    },
    {
        "id": "phase",
        "title": "Phase",
        "help": "Diffraction patterns and holograms.",
        "kinds": ["phase-retrieval", "coded-diffraction", "hologram"],
    },
    {"id": "other", "title": "Other …", "help": "Everything else that can be undone here.", "kinds": []},
)

_GROUPS: dict[str, tuple[str, ...]] = {
    "Blur": ("blur", "varying-blur", "turbulence", "exposure-blur", "learned-blur", "unknown-kernel", "unknown-width"),
    "Missing or wrong pixels": ("inpainting", "defects", "stripes", "bayer", "identity"),
    "Size and colour": ("downsample", "blur-downsample", "grayscale", "jpeg", "quantisation"),
    "Light": ("exposure", "clipping", "haze", "unknown-exposure"),
    "Diffraction": ("phase-retrieval", "coded-diffraction", "hologram"),
    "Medical": ("ct", "mri", "mri-noncartesian", "thick-slices"),
    "Few numbers": ("single-pixel", "compressed"),
    "Many bands": ("band-blur", "spectral-response"),
    "Several together": ("composed", "stacked"),
}


def groups() -> list[dict[str, Any]]:
    """All registered operators by heading, each kind once."""
    found = kinds(AnyOperator)
    titled = {kind: title_of(spec) for kind, spec in found.items()}
    grouped = {kind for members in _GROUPS.values() for kind in members}
    headed = {**_GROUPS, "More": tuple(kind for kind in found if kind not in grouped)}
    return [
        {"title": heading, "kinds": [{"kind": kind, "title": titled[kind]} for kind in members if kind in titled]}
        for heading, members in headed.items()
        if any(kind in titled for kind in members)
    ]


def card_of(kind: str) -> Card:
    """The card under which an operator stands."""
    return next((card["id"] for card in CARDS if kind in card["kinds"]), "other")


# widgets


class ProblemForm(Widget):
    """Step 2: what went wrong with the picture. Its value is for `recipe_of`.

    Props: `picture` {width, height, channels}, `guess` of `app.gui.suggest`, `advice` of `advise`.
    """

    module: ClassVar[str] = "form_problem"
    signals: ClassVar[tuple[str, ...]] = ("change", "suggest")

    def __init__(self, value: Any = None, **settings: Any) -> None:
        super().__init__(value, **(problem_props() | settings))


def problem_props() -> dict[str, Any]:
    """What the first form is made of."""
    return {
        "schema": some("operator", "noise"),
        "cards": list(CARDS),
        "groups": groups(),
        "picture": None,
        "guess": None,
        "advice": None,
    }


# from the forms to a recipe and back


class _Problem(Spec):
    """Value of the first form."""

    problem: Card
    source: Literal["paint", "pattern"] = "paint"
    paint: bool = False
    operator: dict[str, Any] | None = None
    noise: dict[str, Any] = Field(default_factory=lambda: Gaussian().model_dump(mode="json"))
    truth: bool = False


class _Quality(Spec):
    """Value of the second form."""

    quality: Literal["quick", "balanced", "best", "custom"] = "balanced"
    method: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    seeds: Annotated[tuple[Seed, ...], Field(max_length=4096)] | None = None
    precision: Precision = "auto"
    output: OutputType | None = None


def recipe_of(
    problem: Any,
    quality: Any,
    picture: Mapping[str, Any] | None = None,
    mask: str | None = None,
    attachments: Mapping[str, str] | None = None,
    store: AssetStore | None = None,
) -> tuple[Recipe, Options]:
    """The recipe and the options that the two forms ask for. Their values are taken for hostile.

    Args:
        problem: value of the first form.
        quality: value of the second form.
        picture: width, height and channels of what is to be restored, if it is known.
        mask: name of the attachment with the painted mask; white is measured.
        attachments: the name of the attachment for each uploaded file that `files_of` tells of.
        store: where models are; the package's own by default.

    Raises:
        RecipeError: one sentence for a person.
    """
    asked, chosen = _read(problem, quality)
    attached = dict(attachments or {})
    operator = _operator(asked, mask, attached)
    made: dict[str, Any] = {"operator": operator, "noise": asked.noise, "seeds": _seeds(chosen)}
    if chosen.model is not None:
        if chosen.model.get("kind") not in {"trained", "bridge", "power-law", "none"}:
            raise RecipeError("That model is not offered on this page. Choose one of the list under Advanced.")
        made["model"] = chosen.model
    if chosen.quality == "custom":
        if chosen.method is None:
            raise RecipeError("No method is chosen. Choose one under Advanced, or take Balanced.")
        made["method"] = chosen.method
    try:
        recipe = Recipe.model_validate(_with_attachments(made, attached))
    except (ValidationError, RecursionError) as error:
        raise RecipeError(_faults(error)) from error
    allowed = {*attached.values(), *([mask] if mask else [])}
    if any(ref.path not in allowed for ref in data_refs(recipe.operator)):
        raise RecipeError("A file of these settings is not here. Choose the file again in step 2.")
    if chosen.quality != "custom":
        recipe = recipe.model_copy(update={"method": _choice(recipe, chosen.quality).at(_grain(recipe))})
    if chosen.model is None and not recipe.method.needs & {Need.DENOISER, Need.BRIDGE}:
        recipe = recipe.model_copy(update={"model": NoPrior()})
    recipe = recipe.model_copy(update={"title": _title(recipe, asked, chosen)})
    _check(recipe, picture, store or AssetStore())
    return recipe, _options(asked, chosen)


def forms_of(recipe: Recipe, options: Options | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the two forms that stand for a recipe; `recipe_of` undoes it but for title and reference."""
    options = options or Options()
    operator = recipe.operator
    card = card_of(operator.kind)
    painted = isinstance(operator, InpaintingSpec) and isinstance(operator.mask, MaskFile)
    problem = _Problem(
        problem=card,
        source="pattern" if card == "missing" and not painted else "paint",
        paint=card == "missing" and painted,
        operator=operator.model_dump(mode="json"),
        noise=recipe.noise.model_dump(mode="json"),
        truth=options.truth,
    )
    row = row_of(operator, recipe.noise.offers | recipe.model.offers)
    same = (
        [name for name, choice in row.three.items() if choice.at(_grain(recipe)) == recipe.method]
        if row is not None
        else []
    )
    automatic = TrainedPrior() if recipe.method.needs & {Need.DENOISER, Need.BRIDGE} else NoPrior()
    first, count = recipe.seeds[0], len(recipe.seeds)
    running = recipe.seeds == tuple(range(first, first + count)) and count <= 64
    quality = _Quality.model_validate(
        {
            "quality": same[0] if same else "custom",
            "method": None if same else recipe.method.model_dump(mode="json"),
            "model": None if recipe.model == automatic else recipe.model.model_dump(mode="json"),
            "seed": first,
            "samples": min(count, 64),
            "seeds": None if running else recipe.seeds,
            "precision": options.precision,
            "output": options.output_types[0] if options.output_types else None,
        }
    )
    return problem.model_dump(mode="json"), quality.model_dump(mode="json")


def files_of(problem: Any) -> list[str]:
    """Paths of uploaded files that the value of the first form names; they are as hostile as the rest of it."""
    operator = problem.get("operator") if isinstance(problem, dict) else None
    return list(dict.fromkeys(_paths(operator))) if _depth(operator) < _DEEPEST else []


def advise(problem: Any, quality: Any, picture: Any = None) -> tuple[ProblemForm, QualityForm]:
    """What the forms show of their own values: the kernel, exact network calls, what goes together, what is wrong."""
    first, second = advice_on(problem, quality, picture)
    return ProblemForm(advice=first), QualityForm(advice=second)


def advice_on(problem: Any, quality: Any, picture: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON of `advise`."""
    named = {path: f"file-{k}" for k, path in enumerate(files_of(problem))}
    picture = picture if isinstance(picture, dict) else None
    first: dict[str, Any] = {"kernel": None, "refusal": ""}
    second: dict[str, Any] = {"calls": None, "vjps": None, "kind": None, "offers": None, "refusal": ""}
    if not isinstance(problem, dict) or not problem.get("problem"):
        return first, second
    try:
        recipe, _ = recipe_of(problem, quality, picture, "mask.png", named)
        calls = calls_of(recipe)
        second |= {"calls": calls.denoiser, "vjps": calls.vjps}
    except PreimageError as error:
        second["refusal"] = str(error)
    try:
        asked, _ = _read(problem, {"quality": "balanced"})
        parts = {"operator": _operator(asked, "mask.png", named), "noise": asked.noise}
        recipe = Recipe.model_validate(_with_attachments(parts, named))
        second["kind"] = recipe.operator.kind
        second["offers"] = sorted(recipe.operator.offers | recipe.noise.offers)
        first["kernel"] = _kernel(getattr(recipe.operator, "kernel", None))
    except (PreimageError, ValidationError, RecursionError) as error:
        first["refusal"] = _faults(error)
    return first, second


def _read(problem: Any, quality: Any) -> tuple[_Problem, _Quality]:
    if not isinstance(problem, dict) or not problem.get("problem"):
        raise RecipeError("Step 2 first: say what is wrong with the picture.")
    if max(_depth(problem), _depth(quality)) > _DEEPEST or len(json.dumps([problem, quality], default=str)) > 200_000:
        raise RecipeError("These settings are larger than any that this page makes. Reload the page and choose again.")
    try:
        return _Problem.model_validate(problem), _Quality.model_validate({} if quality is None else quality)
    except ValidationError as error:
        raise RecipeError(_faults(error)) from error


def _operator(asked: _Problem, mask: str | None, attached: dict[str, str]) -> dict[str, Any]:
    """The operator as JSON; the painted mask is put in under its own name."""
    if asked.problem != "missing" or asked.source == "pattern":
        if asked.operator is None:
            raise RecipeError("Step 2 is not finished: choose what is wrong with the picture.")
        return asked.operator
    if mask is None:
        raise RecipeError("Nothing is painted. Paint the missing area, or choose another problem type.")
    given = asked.operator.get("mask") if asked.operator else None
    kept = {key: given[key] for key in ("invert",) if key in given} if isinstance(given, dict) else {}
    attached[mask] = mask
    return {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": mask}, **kept}}


def _with_attachments(values: Any, attached: Mapping[str, str]) -> Any:
    """JSON whose uploaded files go by the names of attachments; checksums are taken anew."""
    if isinstance(values, dict):
        if _is_file(values):
            path = values["path"]
            if path not in attached:
                raise RecipeError("A file of these settings is not here. Choose the file again in step 2.")
            return {"path": attached[path]}
        return {key: _with_attachments(value, attached) for key, value in values.items()}
    if isinstance(values, list):
        return [_with_attachments(value, attached) for value in values]
    return values


def _is_file(values: dict[str, Any]) -> bool:
    return isinstance(values.get("path"), str) and set(values) <= {"path", "sha256"}


def _paths(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        if _is_file(values):
            yield values["path"]
        else:
            for value in values.values():
                yield from _paths(value)
    if isinstance(values, list):
        for value in values:
            yield from _paths(value)


def _depth(values: Any) -> int:
    """How far JSON is nested; not further than is looked at."""
    deep, level = 0, [values]
    while level and deep <= _DEEPEST:
        deep += 1
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [part for parts in inner for part in parts]
    return deep


def _seeds(chosen: _Quality) -> tuple[int, ...]:
    return chosen.seeds or tuple(range(chosen.seed, chosen.seed + chosen.samples))


def _grain(recipe: Recipe) -> float | None:
    return recipe.noise.sigma if isinstance(recipe.noise, Gaussian) else None


def _choice(recipe: Recipe, quality: str) -> Choice:
    row = row_of(recipe.operator, recipe.noise.offers | recipe.model.offers)
    if row is None:
        raise RecipeError("No ready-made quality suits this problem and noise. Choose a method under Advanced.")
    return row.three[quality]


def _check(recipe: Recipe, picture: Mapping[str, Any] | None, store: AssetStore) -> None:
    problems = [p for p in recipe.problems(store) if not p.startswith("Methods that would work here")]
    if problems:
        raise RecipeError(" ".join(problems[:2]))
    sizes = [picture.get(name) for name in ("channels", "height", "width")] if picture is not None else []
    if sizes and all(isinstance(n, int) and 0 < n < 2**20 for n in sizes):
        try:
            recipe.operator.image_shape(tuple(n for n in sizes if isinstance(n, int)))
        except PreimageError as error:
            raise RecipeError(str(error)) from error


def _title(recipe: Recipe, asked: _Problem, chosen: _Quality) -> str:
    named = {card["id"]: str(card["title"]) for card in CARDS}
    problem = title_of(type(recipe.operator)) if asked.problem in ("other", "phase") else named[asked.problem]
    quality = recipe.method.title if chosen.quality == "custom" else _QUALITIES[chosen.quality]
    return f"{problem}, {quality}"


_QUALITIES = {"quick": "quick look", "balanced": "balanced", "best": "best"}


def _options(asked: _Problem, chosen: _Quality) -> Options:
    output = () if chosen.output is None else (chosen.output,)
    return Options(truth=asked.truth, precision=chosen.precision, output_types=output)


def _kernel(spec: Any) -> dict[str, Any] | None:
    """A small picture of a kernel: its middle, strongest white, as bytes row by row."""
    if not isinstance(spec, Kernel) or isinstance(spec, KernelFile):
        return None
    try:
        kernel = spec.build()
    except PreimageError:
        return None
    rows, columns = (torch.nonzero(kernel.sum(axis) > 1e-4 * kernel.sum()).flatten() for axis in (1, 0))
    middle = [n // 2 for n in kernel.shape]
    reach = 1 + int(max((rows - middle[0]).abs().max(), (columns - middle[1]).abs().max()))
    top, left = (max(0, m - reach) for m in middle)
    cut = kernel[top : middle[0] + reach + 1, left : middle[1] + reach + 1]
    side = max(cut.shape)
    if side > _PREVIEW:
        cut = adaptive_avg_pool2d(cut[None], _PREVIEW)[0]
    shown = (255 * cut.clamp(min=0) / cut.max()).round().to(torch.uint8)
    return {
        "width": cut.shape[1],
        "height": cut.shape[0],
        "side": side,
        "bytes": base64.b64encode(shown.numpy().tobytes()).decode(),
    }


def _faults(error: Exception) -> str:
    """What is wrong with values, for a person."""
    if not isinstance(error, ValidationError):
        return (
            str(error) if isinstance(error, PreimageError) else "These settings are nested too deeply. Simplify them."
        )
    said = []
    for fault in error.errors(include_url=False)[:2]:
        names = [str(part) for part in fault["loc"] if isinstance(part, str)]
        name = label_of(names[-1]) if names else "The settings"
        context = fault.get("ctx", {})
        kind = fault["type"]
        own = str(context.get("error", ""))
        wants = _WANTS.get(kind, "").format(**context) if kind in _WANTS else ""
        given = fault.get("input")
        got = f", not {given!r}" if isinstance(given, int | float | bool) and wants else ""
        said.append(f"{name} should be {wants}{got}." if wants else own or f"{name} is not as it should be.")
    return " ".join(dict.fromkeys(said))


_WANTS = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "yes or no",
    "bool_parsing": "yes or no",
    "string_type": "text",
    "string_pattern_mismatch": "text of another form",
    "string_too_short": "given",
    "string_too_long": "shorter",
    "literal_error": "one of the choices",
    "union_tag_invalid": "one of the choices",
    "union_tag_not_found": "one of the choices",
    "missing": "given",
    "extra_forbidden": "left out: there is no such setting",
    "too_short": "longer",
    "too_long": "shorter",
}
