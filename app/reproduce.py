"""Doing a result again: from the folder of a run or of a batch, and how far the answers are apart."""

import contextlib
import hashlib
import json
import platform
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from app.batch import run_job
from app.jobs import Job
from app.memory import enough_memory
from app.options import Options, Outcome
from app.pictures import read_picture
from medical.nifti import read_nifti
from operators.errors import NeedError, PreimageError, ReadError
from operators.spec import pin
from restoration.assets import AssetStore
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe
from restoration.result import Report, load_samples

TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}
"""Largest root mean square difference in unit range that still counts as equal, by precision, off the CPU or in bf16.

On a CPU in fp32 results must be equal bit by bit, on as many threads and with the same torch.
"""

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Comparison:
    """The end of a repetition: whether it is equal, in what sense, and the sentences that say so."""

    equal: bool
    sentences: tuple[str, ...]


def reproduce(
    folder: Path,
    given: Sequence[Path],
    store: AssetStore,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
) -> Comparison:
    """Do the result in `folder` again, elsewhere, and compare; the folder is only read.

    Args:
        folder: of `preimage run`, or the job folder of a batch or of a recipe of a study.
        given: where the inputs are now, if they were moved.
        store: the assets.
        watch: told how many of how many steps or cases are done.
        stop: asked at every step.

    Raises:
        PreimageError: it cannot be done again: no result there, unfinished, another input, other weights.
    """
    if (folder / "job" / "request.json").is_file():
        return _batch(folder, given, store, watch, stop)
    if (folder / "study.json").is_file():
        raise ReadError(
            f"Expected the folder of a run or of a batch, got the study {folder}; name one of the folders in its runs/."
        )
    return _run(folder, given, store, watch, stop)


# a run


def _run(
    folder: Path, given: Sequence[Path], store: AssetStore, watch: Watch | None, stop: Callable[[], bool] | None
) -> Comparison:
    samples, recipe, report = load_samples(folder)
    if not report.complete:
        raise ReadError(f"Expected a whole result in {folder}, got one that was stopped early; run it again.")
    if recipe.digest != report.recipe_digest:
        raise ReadError(f"Expected the recipe that made {folder}, got one that was changed since; restore recipe.json.")
    command = _Command.read(report)
    picture = read_picture(_found(given or [command.input], report.input_sha256))
    with _threads(report.threads), enough_memory(command.device):
        pipeline = Pipeline.load(recipe, store, command.device, report.precision)  # type: ignore[arg-type]
        if pipeline.asset_hashes != report.asset_sha256:
            raise NeedError("Expected the weights that made the result, got others; install the version that had them.")
        measurement = pipeline.simulate(picture.pixels) if command.truth else pipeline.observe(picture.pixels)
        result = pipeline.run(measurement, lambda p: watch(p.done, p.total) if watch is not None else None, stop)
    if not result.report.complete:
        raise NeedError("Expected to finish the repetition, was stopped; start it again.")
    apart = _apart(samples.numpy(), result.samples.cpu().numpy())
    return _verdict([("samples", apart)], command.device, report.precision, _changes(report.versions))


@dataclass(frozen=True)
class _Command:
    """What of a result stands only in the command that its report has."""

    input: Path
    truth: bool
    device: str

    @classmethod
    def read(cls, report: Report) -> "_Command":
        words = shlex.split(report.command or "")
        if words[:2] != ["preimage", "run"] or len(words) < 6 or "--device" not in words:
            raise ReadError(
                "Expected the command of the run in report.json, got none; only saved runs can be repeated."
            )
        return cls(Path(words[3]), "--truth" in words, words[words.index("--device") + 1])


def _found(paths: Sequence[Path], sha256: str | None) -> Path:
    if len(paths) > 1:
        raise ReadError(f"Expected one --input for a run, got {len(paths)}; name the picture.")
    path = paths[0]
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ReadError(f"Expected the input at {path}, found none there; say --input PATH.") from error
    if digest != sha256:
        raise ReadError(f"Expected the input of that run, got {path} with other contents; say --input PATH.")
    return path


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads as then: sums are split by thread, which decides their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# a batch


def _batch(
    folder: Path, given: Sequence[Path], store: AssetStore, watch: Watch | None, stop: Callable[[], bool] | None
) -> Comparison:
    job = Job.open(folder)
    request = job.request
    manifest = _manifest(folder)
    first = {outcome.number: outcome for outcome in _outcomes(manifest)}
    if manifest.get("state") != "all done" and any(outcome.state == "partial" for outcome in first.values()):
        raise ReadError(f"Expected a batch that is done in {folder}, got one with cases left; resume it first.")
    options = Options.model_validate(request.options)
    named = tuple(str(path.absolute()) for path in given) or request.inputs
    if missing := [name for name in named if not (folder / name).exists()]:
        raise ReadError(f"Expected the input at {missing[0]}, found none there; say --input PATH.")
    with tempfile.TemporaryDirectory(prefix="preimage-") as scratch, _threads(int(manifest.get("threads", 1))):
        inputs = tuple(str(folder / name) for name in named)
        recipe = pin(Recipe.model_validate(request.recipe), folder).model_dump(mode="json")
        changed = request.model_copy(update={"inputs": inputs, "recipe": recipe})
        again = Job.create(Path(scratch) / "again", changed)

        def told(progress: Any) -> None:
            if watch is not None:
                watch(progress.ended, progress.total)

        done = run_job(again, store=store, watch=told, stop=stop)
        second = {outcome.number: outcome for outcome in done.cases}
        if any(outcome.state == "partial" for outcome in done.cases) or len(second) < len(first):
            raise NeedError("Expected to finish the repetition, was stopped; start it again.")
        if others := [n for n, o in first.items() if o.inputs != second[n].inputs and o.state == "done"]:
            raise ReadError(f"Expected the inputs of that batch, got others for case {others[0]}; say --input PATH.")
        compared: list[tuple[str, _Apart]] = []
        folders = _folders(folder), _folders(again.folder)
        precision = _precision(first.values(), lambda number: folder / folders[0][number], options.precision)
        for number, outcome in sorted(first.items()):
            places = folder / folders[0][number], again.folder / folders[1][number]
            compared.append((f"case {number}", _case_apart(outcome, second[number], *places)))
    return _verdict(compared, options.device, precision, _changes(manifest.get("versions", {})))


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"Expected a batch that is done in {folder}, got one without a manifest; resume it.") from error
    return found if isinstance(found, dict) else {}


def _outcomes(manifest: Mapping[str, Any]) -> list[Outcome]:
    try:
        return [Outcome.model_validate(case) for case in manifest["cases"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise ReadError("Expected the manifest of a batch, got a damaged one; resume the batch.") from error


def _folders(folder: Path) -> dict[int, str]:
    """Where the outputs of each case are, by number."""
    try:
        plan = json.loads((folder / "job" / "plan.json").read_bytes())
        return {int(case["number"]): str(case["folder"]) for case in plan}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError("Expected job/plan.json of the batch, got none that can be read; resume the batch.") from error


def _precision(outcomes: Iterable[Outcome], places: Callable[[int], Path], wanted: str) -> str:
    """What the sidecar of the first case says; the options may leave it to the machine."""
    for outcome in outcomes:
        for output in outcome.outputs:
            if output.name.endswith(".json"):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    return str(json.loads((places(outcome.number) / output.name).read_bytes())["precision"])
    return wanted if wanted != "auto" else "fp32"


def _case_apart(first: Outcome, second: Outcome, then: Path, now: Path) -> "_Apart":
    """How far two outcomes of a case are apart: not at all where all files are the same, sidecars aside."""
    if first.state != second.state:
        return _Apart(False, f"{first.state} then, {second.state} now: {second.message or first.message}")
    kept, made = ({o.name for o in x.outputs if not o.name.endswith(".json")} for x in (first, second))
    if other := sorted((kept ^ made) | {name for name in kept if not (then / name).is_file()}):
        return _Apart(False, f"{other[0]} is there only once")
    changed = [name for name in sorted(kept) if (then / name).read_bytes() != (now / name).read_bytes()]
    if not changed:
        return _Apart(True)
    worst = _Apart(True)
    for name in changed:
        there, here = (_numbers(place / name) for place in (then, now))
        if there is None or here is None:
            continue  # derived from the others, or without numbers
        low, high = first.facts.get("window", (0.0, 1.0))
        apart = _apart(there, here, high - low)
        if apart.words:
            return apart
        worst = apart if (apart.rms, apart.largest) > (worst.rms, worst.largest) else worst
    return worst if not worst.same else _Apart(False, f"{changed[0]} has other bytes")


def _numbers(path: Path) -> NDArray[np.generic] | None:
    """What a file of a result holds."""
    try:
        if path.name.endswith("samples.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                return np.asarray(arrays["samples"])
        if path.name.endswith(("restored.png", "restored.tif")):
            return read_picture(path).pixels.numpy()
        if path.name.endswith("restored.nii.gz"):
            return read_nifti(path).array
    except (OSError, ValueError, KeyError, PreimageError):
        return None
    return None


# how far apart


@dataclass(frozen=True)
class _Apart:
    """`rms` and `largest` differences; `words` where there are no numbers."""

    same: bool
    words: str = ""
    rms: float = 0.0
    largest: float = 0.0


def _apart(first: NDArray[np.generic], second: NDArray[np.generic], span: float = 1.0) -> _Apart:
    """Differences in unit range, which is `span` long in these numbers."""
    if first.shape != second.shape:
        return _Apart(False, f"shape {first.shape} then, {second.shape} now")
    if first.dtype == second.dtype and first.tobytes() == second.tobytes():
        return _Apart(True)
    difference = np.abs(first.astype(np.float64) - second.astype(np.float64)) / span
    return _Apart(False, rms=float(np.sqrt(np.mean(difference**2))), largest=float(difference.max()))


def _verdict(compared: Sequence[tuple[str, _Apart]], device: str, precision: str, changes: str) -> Comparison:
    exact = device == "cpu" and precision == "fp32"
    allowed = 0.0 if exact else TOLERANCE[precision]
    if all(apart.same for _, apart in compared):
        return Comparison(True, (f"equal, bit by bit ({_counted(compared)})",))
    different = [(name, a) for name, a in compared if not a.same and (exact or a.words or not a.rms <= allowed)]
    if not different:
        worst = max(apart.rms for _, apart in compared)
        return Comparison(True, (f"equal within {allowed:g} rms for {device} in {precision}, worst {worst:.2g}",))
    shown = [
        f"{name}: {a.words or f'differs by {a.rms:.3g} rms, {a.largest:.3g} at most'}" for name, a in different[:10]
    ]
    wanted = "bit by bit" if exact else f"within {allowed:g} rms"
    return Comparison(
        False, (f"different: {len(different)} of {_counted(compared)} not equal {wanted}", *shown, changes)
    )


def _counted(compared: Sequence[tuple[str, _Apart]]) -> str:
    return "all samples" if [name for name, _ in compared] == ["samples"] else f"{len(compared)} cases"


def _changes(versions: Mapping[str, str]) -> str:
    """What has changed since, as far as a report knows."""
    now = {"preimage": version("preimage"), "torch": torch.__version__, "python": platform.python_version()}
    changed = [f"{n} {versions[n]} then, {now[n]} now" for n in now if n in versions and versions[n] != now[n]]
    return (
        f"since then: {', '.join(changed)}"
        if changed
        else ("versions are the same; another processor, or a network that runs in parallel, changes the last bits")
    )
