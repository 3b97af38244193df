"""Studies: one recipe with some of its fields varied, over many inputs, as a table with intervals.

A study is JSON. It is expanded into recipes and checked as a whole before any weight is loaded; every recipe is then a
job of the batch engine, so that a killed study goes on where the journals prove that work is left.

    DIR/study.json         the plan: expanded, paths absolute, files pinned by checksum
    DIR/runs/NN-DIGEST/    the job of a recipe (`app.jobs`); NN-DIGEST.json has its outcomes and its trace
    DIR/table.csv ...      see `app.study_table` and `app.study_page`
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError

from app.batch import DONE, HERE, SOME_FAILED, Workers, preview_plan, run_batch
from app.batch import Progress as BatchProgress
from app.jobs import put
from app.memory import enough_memory
from app.options import Outcome
from app.pictures import read_picture
from app.study_plan import Cell, Plan
from operators.errors import PreimageError, ReadError, WriteError
from operators.spec import Spec
from restoration.assets import AssetStore
from restoration.metrics import psnr
from restoration.pipeline import Pipeline, with_seeds
from restoration.recipe import Recipe

_TRACED = 100  # points of a trace, about


class Point(Spec):
    """A step of a trace: the residual of the clean estimate in noise units, and its PSNR where the truth is known."""

    model_config = Spec.model_config | {"allow_inf_nan": True, "ser_json_inf_nan": "strings"}

    step: int
    sigma: float
    residual_sigma: float
    psnr: float | None = None


class Run(Spec):
    """What came of a cell, and the versions and the machine it was made with."""

    outcomes: tuple[Outcome, ...]
    trace: tuple[Point, ...]
    made: dict[str, str]


@dataclass(frozen=True)
class Progress:
    """How far a study is: `cell` of `cells` is under way, `share` of the whole is done."""

    cell: Cell
    cells: int
    share: float


def run_study(
    plan: Plan,
    folder: Path,
    *,
    resume: bool = False,
    workers: Workers = HERE,
    store: AssetStore | None = None,
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[int, str]:
    """Work on all cells, one batch after the other; a job that is proven done is verified, not done again.

    Args:
        plan: of the study.
        folder: new, or that of the same study with `resume`.
        resume: go on with the study in `folder`, if there is one.
        workers: as in `run_batch`.
        store: the assets.
        watch: told of every step and every case.
        stop: asked at every step.

    Returns:
        An exit code of `app.batch` and a sentence unless all went well.

    Raises:
        PreimageError: nothing could start.
    """
    _take(plan, folder, resume)
    failed = 0
    for cell in plan.cells:
        told = _Told(cell, len(plan.cells), watch)
        kept = read_run(folder, cell)
        done = run_batch(
            cell.recipe,
            [Path(name) for name in plan.inputs],
            folder / "runs" / cell.folder,
            plan.options,
            resume=True,
            workers=workers,
            store=store,
            watch=told.batch,
            stop=stop,
        )
        if done.code not in (DONE, SOME_FAILED):
            return done.code, done.message
        failed += sum(outcome.state != "done" for outcome in done.cases)
        trace = kept.trace if kept is not None else ()
        if plan.trace and not trace:
            trace = tuple(_trace(plan, cell, store))
        made = kept.made if kept is not None and all(outcome.proven for outcome in done.cases) else _made(plan)
        run = Run(outcomes=done.cases, trace=trace, made=made)
        put(_run_file(folder, cell), run.model_dump_json(indent=1).encode(), mode=0o666)
    if failed:
        total = len(plan.cells) * len(plan.cases)
        return SOME_FAILED, f"{failed} of {total} restorations failed; the table says which, job/log.txt of a run why."
    return DONE, ""


class _Told:
    """Turns what a batch tells into shares of the study."""

    def __init__(self, cell: Cell, cells: int, watch: Callable[[Progress], None] | None) -> None:
        self._cell, self._cells, self._watch = cell, cells, watch

    def batch(self, progress: BatchProgress) -> None:
        if self._watch is not None:
            within = progress.step / progress.steps if progress.steps and progress.outcome is None else 0.0
            share = min(1.0, (progress.ended + within) / max(1, progress.total))
            self._watch(Progress(self._cell, self._cells, (self._cell.number - 1 + share) / self._cells))


def _take(plan: Plan, folder: Path, resume: bool) -> None:
    """Make the folder of a study, or find the same study in it."""
    place = folder / "study.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            if any(not entry.name.startswith(".") for entry in folder.iterdir()):  # what a crash left is hidden
                raise WriteError(f"Expected a new or empty folder for a study, got {folder}; choose another name.")
            put(place, (plan.model_dump_json(indent=1) + "\n").encode(), mode=0o666)
            return
    except OSError as error:
        raise WriteError(f"Expected a folder for the study, got: {error.strerror}; choose another name.") from error
    if not resume:
        raise WriteError(f"Expected a new folder, got the study in {folder}; say --resume or choose another name.")
    if read_plan(folder).model_copy(update={"title": plan.title}) != plan:
        raise WriteError(
            f"Expected the study that {folder} was made for, got one with other recipes, inputs or options; "
            "choose another folder."
        )


def read_plan(folder: Path) -> Plan:
    """The plan of a study's folder.

    Raises:
        ReadError: there is none.
    """
    try:
        return Plan.model_validate_json((folder / "study.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise ReadError(f"Expected the folder of a study, got {folder}; run the study first.") from error


def read_run(folder: Path, cell: Cell) -> Run | None:
    """What came of a cell, or None while it is not done."""
    try:
        return Run.model_validate_json(_run_file(folder, cell).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ReadError(f"Expected the outcomes of {cell.name}, got a damaged file; remove it and resume.") from error


def _made(plan: Plan) -> dict[str, str]:
    device = platform.machine() if plan.device == "cpu" else torch.cuda.get_device_name(torch.device(plan.device))
    return {
        "preimage": version("preimage"),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "machine": f"{device}, {torch.get_num_threads()} threads, precision {plan.precision}",
    }


def _run_file(folder: Path, cell: Cell) -> Path:
    return folder / "runs" / f"{cell.folder}.json"


def _trace(plan: Plan, cell: Cell, store: AssetStore | None) -> Iterator[Point]:
    """The first sample of the first picture again, looked at step by step.

    It is a run of its own, so that what looking costs is in nobody's seconds.
    """
    picture = _first_picture(plan)
    if picture is None:
        return
    try:
        with enough_memory(plan.device):
            yield from _points(plan, with_seeds(cell.recipe, cell.recipe.seeds[:1]), picture, store)
    except PreimageError:
        return  # the batch has said so of the case itself


def _first_picture(plan: Plan) -> Path | None:
    """Not one that lies in a zip, whose files are gone."""
    cases = preview_plan([Path(name) for name in plan.inputs]).cases
    return next((Path(c.files[0]) for c in cases if c.kind == "picture" and Path(c.files[0]).exists()), None)


def _points(plan: Plan, recipe: Recipe, path: Path, store: AssetStore | None) -> Iterator[Point]:
    pipeline = Pipeline.load(recipe, store, plan.device, plan.precision)
    pixels = read_picture(path).pixels
    measurement = pipeline.simulate(pixels) if plan.truth else pipeline.observe(pixels)
    with closing(pipeline.steps(measurement, recipe.seeds)) as steps:
        for step in steps:
            if step.index % math.ceil(step.total / _TRACED) == 0 or step.index in (1, step.total):
                likelihood = measurement.likelihood
                held = likelihood if step.found is None else step.found.held(likelihood)
                with torch.no_grad():
                    residual = float(held.residual_sigma(step.x0))
                quality = None if measurement.truth is None else psnr(measurement.truth, step.x0[0])
                yield Point(step=step.index, sigma=step.sigma, residual_sigma=residual, psnr=quality)


def done_runs(plan: Plan, folder: Path) -> Mapping[int, Run]:
    """What came of the cells that are done, by number."""
    found = {cell.number: read_run(folder, cell) for cell in plan.cells}
    return {number: run for number, run in found.items() if run is not None}
