"""What a study is, and how its file becomes a plan: expanded, pinned and checked, no weight loaded."""

import glob
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from app.batch import preview_plan
from app.inputs import Case
from app.options import Options
from app.pictures import read_picture
from operators.errors import PreimageError, ReadError, RecipeError
from operators.spec import Spec, pin
from restoration.assets import AssetStore
from restoration.pipeline import with_seeds
from restoration.precision import Precision
from restoration.recipe import Recipe, Seed, read_recipe

Metric = Literal["psnr", "ssim", "residual_sigma"]
MOST_CELLS = 10_000

_S = TypeVar("_S", bound=Spec)
Axis = list[Any] | dict[str, Any]


class Study(Spec):
    """What a person writes. Relative paths, also those in recipes, are read from the folder of the study's file.

    `vary` maps fields of the recipe to values, either a list or {label: value}. A field is named with dots, such as
    "method.schedule.steps" or "operator.steps.0"; a value may be a whole description, such as a method. Several fields
    that change together are named with commas, "model, method", and have a list of as many values each. What an entry
    is called in tables may stand before a colon, "views: operator.angles.count"; else it is the field's last word. All
    combinations of all entries are run, the last entry changing fastest. Deterministic methods take the first seed
    alone.
    """

    version: Literal[1] = 1
    title: Annotated[str, Field(description="A few words for people.")] = ""
    base: Annotated[str | dict[str, Any], Field(description="Recipe: a preset's name, a file, or the JSON itself.")]
    vary: Annotated[dict[str, Axis], Field(default={}, description="Fields of the recipe and their values.")]
    inputs: Annotated[tuple[str, ...], Field(description="Files, folders or patterns such as in/*.png.")] = ()
    seeds: Annotated[
        tuple[Seed, ...] | None, Field(min_length=1, max_length=4096, description="One per sample; else the recipe's.")
    ] = None
    truth: Annotated[bool, Field(description="Inputs are clean: degrade them first and score the results.")] = False
    metrics: Annotated[
        tuple[Metric, ...] | None, Field(min_length=1, description="Which are tabled; all that there are if left out.")
    ] = None
    reference: Annotated[
        dict[str, str],
        Field(default={}, description="Labels, by name in tables, of the recipe that others are compared with."),
    ]
    trace: Annotated[bool, Field(description="Also trace the residual of the first picture over the steps.")] = True
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$", description="cpu, cuda or cuda:N.")] = "cpu"
    precision: Annotated[Precision, Field(description="Of the network; fp32 repeats exactly.")] = "fp32"


class Cell(Spec):
    """One recipe of a study, pinned, with its label on every axis."""

    number: int
    labels: tuple[str, ...]
    recipe: Recipe

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return " / ".join(self.labels) or self.recipe.method.kind

    @property
    def folder(self) -> str:
        """Of its job."""
        return f"{self.number:02d}-{self.recipe.digest}"


class Plan(Spec):
    """A study with everything filled in: what is run, and what `study.json` of its folder holds.

    Attributes:
        axes: short names of the entries of `vary`.
        inputs: absolute paths.
        cases: names of the cases, by number from 1; those of the batch.
        assets: checksums of the weights.
        reference: number of the cell that others are compared with.
    """

    version: Literal[1] = 1
    title: str
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    inputs: tuple[str, ...]
    cases: tuple[str, ...]
    assets: dict[str, str]
    truth: bool
    metrics: tuple[Metric, ...]
    reference: int
    trace: bool
    device: str
    precision: Precision

    @property
    def options(self) -> Options:
        """Those of every batch."""
        return Options(truth=self.truth, device=self.device, precision=self.precision)


# from the file to the plan


def study_names() -> list[str]:
    """Names of the studies that ship with the package; their inputs are the reader's."""
    shipped = resources.files("assets") / "studies"
    return sorted(p.name.removesuffix(".json") for p in shipped.iterdir() if p.name.endswith(".json"))


def read_study(name: str) -> tuple[Study, Path]:
    """A study from a file or by the name of one that ships, and the folder that its relative paths refer to.

    Raises:
        ReadError: no such study.
        RecipeError: not JSON, or fields that are none; one sentence names them all.
    """
    path = Path(name)
    if name in study_names():
        return _parsed(Study, (resources.files("assets") / "studies" / f"{name}.json").read_text("utf-8"), name), Path()
    try:
        return _parsed(Study, path.read_text(encoding="utf-8"), name), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(
            f"Expected a study file (JSON) or one of {', '.join(study_names())}, got '{name}'; check the path."
        ) from error


def expand(study: Study, folder: Path, store: AssetStore, inputs: Sequence[Path] = ()) -> Plan:
    """All recipes and all cases of a study, checked without loading a weight.

    Args:
        study: as its file says.
        folder: of that file.
        store: the assets.
        inputs: in place of the study's own, relative to the current folder.

    Raises:
        RecipeError: names everything that is wrong, with the recipes that it concerns.
    """
    found = _Problems()
    base = _base(study, folder)
    axes = [_axis(name, values, found) for name, values in study.vary.items()]
    names = _short([name for name, _, _ in axes])
    count = math.prod(len(labelled) for _, _, labelled in axes)
    if count > MOST_CELLS:
        found.add(f"Expected at most {MOST_CELLS} recipes, got {count}; vary less.")
        axes = []
    cells: list[Cell] = []
    for number, chosen in enumerate(product(*(labelled for _, _, labelled in axes)), 1):
        labels = tuple(label for label, _ in chosen)
        with found.about(", ".join(labels)):
            values = base
            for (_, fields, _), (_, parts) in zip(axes, chosen, strict=True):
                values = _filled(_assigned(values, fields, parts))
            recipe = pin(_parsed(Recipe, json.dumps(values), "the study"), folder)
            if recipe.method.deterministic:  # further samples would be equal
                recipe = with_seeds(recipe, recipe.seeds[:1])
            for problem in recipe.problems(store, folder):
                found.add(problem, ", ".join(labels))
            cells.append(Cell(number=number, labels=labels, recipe=recipe))
    known: dict[str, Cell] = {}
    for cell in cells:
        if (first := known.setdefault(cell.recipe.digest, cell)) is not cell:
            found.add(f"Expected different recipes, got the same twice: {first.name} and {cell.name}.")
    paths = _inputs([str(path) for path in inputs] or study.inputs, Path() if inputs else folder, found)
    cases = _cases(paths, found)
    if len(found) == 0:
        _check_shapes(cells, cases, study.truth, found)
    reference = _reference(study, names, cells, found)
    metrics: tuple[Metric, ...] = ("psnr", "ssim", "residual_sigma") if study.truth else ("residual_sigma",)
    if wrong := [m for m in study.metrics or () if m not in metrics]:
        found.add(f'Expected "truth": true for {" and ".join(wrong)}, got clean images of nothing; leave them out.')
    found.give_up()
    return Plan(
        title=study.title,
        axes=names,
        cells=tuple(cells),
        inputs=tuple(str(path) for path in paths),
        cases=tuple(case.key.strip("/") for case in cases),
        assets={name: sha for cell in cells for name, sha in cell.recipe.model.asset_hashes(store).items()},
        truth=study.truth,
        metrics=study.metrics or metrics,
        reference=reference,
        trace=study.trace,
        device=study.device,
        precision=study.precision,
    )


class _Problems:
    """Sentences, each with the recipes that it concerns."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, sentence: str, where: str = "") -> None:
        places = self._found.setdefault(sentence, [])
        if where and where not in places:
            places.append(where)

    @contextmanager
    def about(self, where: str) -> Iterator[None]:
        """A block whose sentence, if it ends with one, joins the others."""
        try:
            yield
        except PreimageError as error:
            self.add(str(error), where)

    def give_up(self) -> None:
        if not self._found:
            return
        sentences = [f"{_some(places)}{sentence}" for sentence, places in self._found.items()]
        if len(sentences) == 1:
            raise RecipeError(sentences[0])
        listed = " ".join(f"({n}) {sentence}" for n, sentence in enumerate(sentences, 1))
        raise RecipeError(f"Expected a study that can be run, got {len(sentences)} problems. {listed}")


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return f"[{'; '.join(places[:3])}{more}] " if places else ""


def _base(study: Study, folder: Path) -> dict[str, Any]:
    """The recipe as JSON, its own files pinned."""
    if isinstance(study.base, str):
        path = folder / study.base
        recipe, place = read_recipe(str(path) if path.suffix == ".json" or path.is_file() else study.base)
    else:
        recipe, place = _parsed(Recipe, json.dumps(study.base), "the study's base"), folder
    if study.seeds is not None:
        recipe = with_seeds(recipe, study.seeds)
    return pin(recipe, place).model_dump(mode="json")


_Parsed = tuple[str, list[str], list[tuple[str, list[Any]]]]


def _axis(name: str, values: Axis, found: _Problems) -> _Parsed:
    """An entry of `vary`: its name, its fields, and its values with a label each, one value a field."""
    fields = [field.strip() for field in name.rpartition(":")[2].split(",")]
    pairs = list(values.items()) if isinstance(values, dict) else [("", value) for value in values]
    if not pairs:
        found.add(f"Expected values for {name}, got none; add some or leave it out.")
    parts = []
    for label, value in pairs:
        several = value if len(fields) > 1 else [value]
        if not isinstance(several, list) or len(several) != len(fields):
            found.add(f"Expected a list of {len(fields)} values for {name}, got {_brief(value)}; one for each field.")
        else:
            parts.append((label, several))
    if not isinstance(values, dict):
        parts = list(zip(_labels([several for _, several in parts]), (s for _, s in parts), strict=True))
    if len({label for label, _ in parts}) != len(parts):
        found.add(f"Expected different values for {name}, got one twice; leave it out.")
    return name, fields, parts


def _labels(values: list[list[Any]]) -> list[str]:
    """What values without a label are called: numbers and words as they are, descriptions by their kind."""

    def brief(value: Any) -> str:
        return str(value["kind"]) if isinstance(value, dict) and "kind" in value else _brief(value)

    labels = [", ".join(map(brief, several)) for several in values]
    return labels if len(set(labels)) == len(labels) else [", ".join(map(_brief, several)) for several in values]


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """What stands before a colon, or a field's last word, "steps" of "method.schedule.steps", where that is enough."""
    last = [
        name.rpartition(":")[0].strip() or " ".join(field.strip().rpartition(".")[2] for field in name.split(","))
        for name in names
    ]
    return tuple(name if last.count(word) > 1 else word for name, word in zip(names, last, strict=True))


def _assigned(values: dict[str, Any], fields: Sequence[str], parts: Sequence[Any]) -> dict[str, Any]:
    """A copy with some fields replaced."""
    copy = json.loads(json.dumps(values))
    for field, value in zip(fields, parts, strict=True):
        place: Any = copy
        *way, last = field.split(".")
        try:
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place[step]
            if isinstance(place, list):
                place[int(last)] = value
            else:
                place.update({last: value})
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise RecipeError(f"Expected a field of the recipe, got '{field}'; see the recipe's JSON.") from error
    return copy  # type: ignore[no-any-return]  # JSON of an object is an object


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what was put in, so that further fields can be reached; as it is where that fails."""
    try:
        return Recipe.model_validate(values).model_dump(mode="json")
    except ValidationError:
        return values


def _parsed(kind: type[_S], text: str, where: str) -> _S:
    try:
        return kind.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        faults = (
            str(error)
            if isinstance(error, RecursionError)
            else "; ".join(
                f"{'.'.join(str(p) for p in e['loc']) or kind.__name__.lower()}: {e['msg']}" for e in error.errors()[:5]
            )
        )
        raise RecipeError(
            f"Expected a valid {kind.__name__.lower()} in {where}, got: {faults}; correct these fields."
        ) from error


def _inputs(patterns: Sequence[str], folder: Path, found: _Problems) -> list[Path]:
    paths: list[Path] = []
    if not patterns:
        found.add("Expected inputs, got none; name them in the study or with --input.")
    for pattern in patterns:
        whole = os.path.join(os.path.abspath(folder), pattern)
        names = [whole] if os.path.exists(whole) else sorted(glob.glob(whole, recursive=True))
        if not names:
            found.add(f"Expected inputs at {pattern}, got none; paths start at the study's folder.")
        paths += [Path(os.path.normpath(name)) for name in names]
    return paths


def _cases(inputs: Sequence[Path], found: _Problems) -> list[Case]:
    try:
        cases = preview_plan(inputs).cases if inputs else []
    except PreimageError as error:
        found.add(str(error))
        return []
    for case in cases:
        if case.problem:
            found.add(case.problem, case.key.strip("/"))
    return cases


def _check_shapes(cells: Sequence[Cell], cases: Sequence[Case], truth: bool, found: _Problems) -> None:
    """Each operator is built once for each size of the pictures."""
    shapes: dict[tuple[int, ...], str] = {}
    for case in cases:
        if case.kind == "picture" and os.path.exists(case.files[0]):  # not in a zip
            try:
                shapes.setdefault(tuple(read_picture(case.files[0]).pixels.shape), case.key.strip("/"))
            except ReadError as error:
                found.add(str(error))
    seen: set[str] = set()
    for cell in cells:
        operator = cell.recipe.operator
        if (text := operator.model_dump_json()) in seen:
            continue
        seen.add(text)
        for shape, name in shapes.items():
            problems = []
            # how many channels a prior takes is known when it is loaded: grey pictures may be taken as three
            able = [shape, (3, *shape[1:])] if shape[0] == 1 else [shape]
            for tried in able:
                try:
                    operator.build(operator.usable_shape(tried) if truth else operator.image_shape(tried))
                    break
                except PreimageError as error:
                    problems.append(str(error))
            else:
                found.add(problems[-1], f"{cell.name} on {name}")


def _reference(study: Study, names: Sequence[str], cells: Sequence[Cell], found: _Problems) -> int:
    if unknown := [name for name in study.reference if name not in names]:
        found.add(
            f'Expected names of varied fields in "reference", got {", ".join(unknown)}; choose of {", ".join(names)}.'
        )
        return 1
    wanted = [(names.index(name), label) for name, label in study.reference.items()]
    matching = [cell.number for cell in cells if all(cell.labels[i] == label for i, label in wanted)]
    if not matching and cells:
        known = [sorted({cell.labels[i] for cell in cells}) for i, _ in wanted]
        found.add(f'Expected labels of recipes in "reference", got none of {known}; choose of these.')
    return matching[0] if matching else 1
