"""Many inputs through one recipe: what `preimage batch`, the HTTP API and studies call. Nothing here talks to a person.

A run lives in a job folder (`app.jobs`). A case is one picture, one series or one NIfTI file; it succeeds or fails with
a sentence by itself. `run_batch` makes or takes up the job of an output folder, `run_job` works on one that exists.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError

from app.cluster import ClusterLost, restore_on_cluster
from app.inputs import Case, Plan, find_cases
from app.jobs import DiskRefuses, Job, Request, State, Status, disk_refuses, put
from app.live import Live, small
from app.options import ASIDE
from app.options import Options as Options
from app.options import Outcome as Outcome
from app.options import Output as Output
from app.restore import restore_cases
from app.summary import manifest, summary_csv, summary_html
from app.view import png, to_colours
from app.work import PREVIEW, Task, digest_of, inputs_digest
from app.work_volumes import parts_of
from medical.series_rule import series_rule
from operators.errors import NeedError, PreimageError, ReadError, RecipeError, WriteError
from operators.spec import pin
from restoration.assets import AssetStore
from restoration.pipeline import Progress as Steps
from restoration.recipe import Recipe

DONE, SOME_FAILED, NOT_STARTED, BROKEN_OFF, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all cases done; some failed; nothing could start; the disk or the engine gave up; stopped on request.

After 3 and 130 (and after a crash) the same command with --resume goes on where the journal proves that work is left.
"""


@dataclass(frozen=True)
class Progress:
    """Told to `watch` at every step of a call and after every case.

    Attributes:
        outcome: the case that has just ended, or None in between.
        ended: cases that have ended (done, failed or proven), of `total`.
        step: of `steps` of the call under way.
        steps: of that call.
    """

    outcome: Outcome | None
    ended: int
    total: int
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class BatchOutcome:
    """The end of a run: `code` is one of the exit codes above, `message` a sentence unless all went well.

    `cases` has an outcome for each case that was reached, in the order of the plan; `left_out` counts files that are
    nothing to restore, by reason.
    """

    job: Job
    code: int
    message: str
    cases: tuple[Outcome, ...]
    left_out: dict[str, int]


_EVERY = 0.5  # seconds between looks at a step

Watch = Callable[[Progress], None]
Stop = Callable[[], bool]
DEFAULTS = Options()


@dataclass(frozen=True)
class Workers:
    """Where the work is done: in this process (count 0), or in a Dask cluster.

    A cluster has `count` local processes, or runs already at `scheduler`, such as "tcp://host:8786", or is
    described by a YAML file (`app.cluster.queue_cluster`).
    """

    count: int = 0
    scheduler: str = ""


HERE = Workers()


def run_batch(
    recipe: Recipe,
    inputs: Sequence[Path],
    outdir: Path,
    options: Options = DEFAULTS,
    *,
    base: Path = Path(),
    resume: bool = False,
    overwrite: bool = False,
    fail_fast: bool = False,
    workers: Workers = HERE,
    store: AssetStore | None = None,
    watch: Watch | None = None,
    stop: Stop | None = None,
) -> BatchOutcome:
    """Restore every picture and volume of `inputs` into `outdir`; a bad one fails alone, with a sentence.

    Args:
        recipe: its seeds are the samples of every case and of every slice.
        inputs: pictures, NIfTI, DICOM, zips, and folders of them; a BIDS folder is mirrored as derivatives.
        outdir: a job folder, see `app.jobs`.
        options: what the recipe does not say.
        base: the folder that relative paths in the recipe refer to.
        resume: go on with the run of the same recipe and options in `outdir`, if there is one.
        overwrite: delete the earlier run in `outdir` first.
        fail_fast: end after the first case that fails.
        workers: where.
        store: the assets.
        watch: sees every step and every case that ends.
        stop: asked at every step; true ends the run and keeps what there is.

    Raises:
        PreimageError: nothing could start (exit code 2): the recipe, the inputs or the folder will not do.
        DiskRefuses: not even the job could be written (exit code 3).
    """
    place = Path(os.path.realpath(outdir))
    store = store or AssetStore()
    recipe = checked(recipe, options, base, store, elsewhere=bool(workers.scheduler))
    named = tuple(str(Path(os.path.realpath(path))) for path in inputs)
    _check_apart(inputs, place)
    if missing := [path for path in inputs if not path.exists()]:
        raise ReadError(f"Expected inputs that exist, got {len(missing)} that do not; look at their spelling.")
    fresh = not (place / "job" / "request.json").is_file()
    made = not place.exists()
    if not fresh:
        job = Job.open(place)
        if overwrite:
            _clear(job)
            job = Job.create(place, _request(named, recipe, options))
        elif not resume:
            raise WriteError(
                "Expected a new folder, got one with an earlier run; say --resume, --overwrite or another."
            )
        else:
            _check_same(job.request, named, recipe, options)
    else:
        job = Job.create(place, _request(named, recipe, options))
    try:
        return run_job(job, fail_fast=fail_fast, workers=workers, store=store, watch=watch, stop=stop)
    except PreimageError:
        if fresh and not job.journal():  # nothing began: the folder is as it was
            shutil.rmtree(job.private, ignore_errors=True)
            if made:
                with contextlib.suppress(OSError):
                    place.rmdir()
        raise


def run_job(
    job: Job,
    *,
    fail_fast: bool = False,
    workers: Workers = HERE,
    store: AssetStore | None = None,
    watch: Watch | None = None,
    stop: Stop | None = None,
    live: bool = False,
) -> BatchOutcome:
    """Work on a job that exists, new or interrupted; what its journal proves done is not done again.

    The job's state, journal, log and preview are kept up to date, with `live` also what `app.live` shows. It also ends
    when `Job.request_stop` was called.

    Raises:
        PreimageError: nothing could start; the job is `failed` with that sentence as its message.
        Busy: another process works on the job.
    """
    with job.hold():
        run = _Run(job, store or AssetStore(), fail_fast, workers, watch, stop, Live(job) if live else None)
        try:
            run.prepare()
            return run.work()
        except (DiskRefuses, ClusterLost) as error:
            return run.broken_off(str(error))
        except PreimageError as error:
            run.give_up(str(error))
            raise
        except KeyboardInterrupt:
            run.give_up("Aborted; resume the job.", "interrupted")
            raise


def new_job(
    recipe: Recipe,
    inputs: Sequence[Path],
    folder: Path,
    options: Options = DEFAULTS,
    *,
    base: Path = Path(),
    store: AssetStore | None = None,
) -> Job:
    """A queued job for `run_job`, its recipe checked and pinned.

    Raises:
        PreimageError: the recipe or the options cannot be carried out, or the folder is in use.
    """
    recipe = checked(recipe, options, base, store or AssetStore())
    return Job.create(folder, _request(tuple(str(path) for path in inputs), recipe, options))


def preview_plan(inputs: Sequence[Path], options: Options = DEFAULTS) -> Plan:
    """The cases that `run_batch` would find, without writing anything but, for a moment, what is in zips.

    Raises:
        PreimageError: an input does not exist, or there is nothing to do.
    """
    with tempfile.TemporaryDirectory(prefix="preimage-") as scratch:
        return find_cases(inputs, Path(scratch), options.series)


class _Run:
    """One session of work on a job that is held."""

    def __init__(
        self,
        job: Job,
        store: AssetStore,
        fail_fast: bool,
        workers: Workers,
        watch: Watch | None,
        stop: Stop | None,
        live: Live | None,
    ) -> None:
        self.job, self.store, self.fail_fast, self.workers = job, store, fail_fast, workers
        self.watch, self.asked, self.live = watch, stop, live
        self.outcomes: dict[int, Outcome] = {}
        self.plan = Plan()
        self._shown = self._pictured = 0.0
        self._steps = (0, 0)

    def prepare(self) -> None:
        """Everything that can be found wrong before work starts, and what is proven done."""
        job, request = self.job, self.job.request
        try:
            recipe = Recipe.model_validate(request.recipe)
            options = Options.model_validate(request.options)
        except ValidationError as error:
            raise RecipeError("Expected a recipe and options of this version, got others; make a new job.") from error
        elsewhere = bool(self.workers.scheduler)
        pinned = checked(recipe, options, job.folder, self.store, elsewhere=elsewhere)  # files are what they were
        self.recipe = recipe
        self.task = Task(
            folder=str(job.folder),
            recipe=recipe.model_dump_json(),
            options=options,
            created=request.created,
            config=config_of(self.recipe, options, self.store),
            salt=request.id,
            assets=str(self.store.folder),
            base="" if pinned == recipe else str(job.folder),
            holder=job.holder(),
        )
        job.set_status(Status(state="running"))
        try:
            job.scratch.mkdir(mode=0o700)
            self.plan = find_cases([job.folder / name for name in request.inputs], job.scratch, options.series)
            entries = [case.model_dump(mode="json") for case in self.plan.cases]
            put(job.private / "plan.json", json.dumps(entries, indent=1).encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise disk_refuses(error) from error
        for case in self.plan.cases:
            if (known := self._proven(case)) is not None:
                self.outcomes[case.number] = known
        facts = {"config": self.task.config, "cases": len(self.plan.cases), "proven": len(self.outcomes)}
        job.append("start", **facts, version=version("preimage"), torch=torch.__version__)
        job.log(f"{len(self.plan.cases)} cases, {len(self.outcomes)} of them proven done")
        self._describe_bids()

    def work(self) -> BatchOutcome:
        """The cases that are left, and the report."""
        for known in list(self.outcomes.values()):
            self._tell(known)
        left = [case for case in self.plan.cases if case.number not in self.outcomes]
        self._shown_to_page(Live.begin)
        cases = {case.number: case for case in left}
        broken = ""
        for outcome in self._engine(left):
            self._record(outcome, cases[outcome.number])
            if (self.fail_fast or self.task.options.fail_fast) and outcome.state == "failed":
                broken = f"Case {outcome.number} failed, and --fail-fast was asked for; resume to go on."
                break
            if self.job.stop_wanted(after_case=True):
                break
        ended = sorted(self.outcomes.values(), key=lambda outcome: outcome.number)
        failed = sum(outcome.state == "failed" for outcome in ended)
        missing = sum(case.number not in self.outcomes for case in self.plan.cases)
        partial = sum(outcome.state == "partial" for outcome in ended)
        state: State
        if broken:
            state, code, message = "failed", SOME_FAILED, broken
        elif missing or partial:
            state, code = "interrupted", INTERRUPTED
            message = f"Stopped on request with {missing + partial} cases left; resume to go on."
        elif failed:
            state, code, message = "done", SOME_FAILED, f"{failed} of {len(ended)} cases failed; summary.csv says why."
        else:
            state, code, message = "done", DONE, ""
        self._write_reports(ended, message)
        self.job.append("end", state=state, done=len(ended) - failed - partial, failed=failed, left=missing + partial)
        self.job.log(message or f"all {len(ended)} cases done")
        self.job.set_status(self._status(state, message))
        if state == "done":
            shutil.rmtree(self.job.private / "parts", ignore_errors=True)
        return BatchOutcome(self.job, code, message, tuple(ended), dict(self.plan.left_out))

    def broken_off(self, message: str) -> BatchOutcome:
        """The disk refuses, or the cluster is gone: nothing more is written but, if it can be, why."""
        self.give_up(message, "interrupted")
        ended = sorted(self.outcomes.values(), key=lambda outcome: outcome.number)
        return BatchOutcome(self.job, BROKEN_OFF, message, tuple(ended), dict(self.plan.left_out))

    def give_up(self, message: str, state: State = "failed") -> None:
        """Say why in the job, if the disk lets us."""
        self.job.log(message)
        with contextlib.suppress(PreimageError):
            self.job.set_status(self._status(state, message))

    def _engine(self, cases: Sequence[Case]) -> Iterator[Outcome]:
        if self.workers.count or self.workers.scheduler:
            return restore_on_cluster(cases, self.task, self.workers.count, self.workers.scheduler, self._stop)
        return restore_cases(cases, self.task, self._tick, self._stop)

    def _stop(self) -> bool:
        lost = self.job.holder() != self.task.holder  # somebody removed the lock, and another may have the job
        return lost or self.job.stop_wanted() or (self.asked is not None and self.asked())

    def _proven(self, case: Case) -> Outcome | None:
        """What the journal says of a case, if inputs, settings and every byte of the outputs are still what it says."""
        record = self._records().get(digest_of(case, self.task.salt))
        if record is None or case.kind == "unreadable":
            return None
        try:
            if inputs_digest(case.files) != record.inputs:
                return None
            place = self.job.folder / case.folder
            for output in record.outputs:
                path = place / output.name
                if path.stat().st_size != output.bytes or inputs_digest([str(path)]) != output.sha256:
                    return None
        except (OSError, ReadError):
            return None
        return record.model_copy(update={"number": case.number, "proven": True})

    def _records(self) -> dict[str, Outcome]:
        """The last outcome of each case that ended well with these settings."""
        if self._known is None:
            self._known = {}
            for event in self.job.journal():
                if event.get("event") == "case" and event.get("config") == self.task.config:
                    with contextlib.suppress(ValidationError):
                        outcome = Outcome.model_validate(event.get("outcome"))
                        self._known[outcome.case] = outcome
            self._known = {case: outcome for case, outcome in self._known.items() if outcome.state == "done"}
        return self._known

    _known: dict[str, Outcome] | None = None

    def _record(self, outcome: Outcome, case: Case) -> None:
        """Outputs are on the disk: now it is proven, and slices kept for a resumption can go."""
        self.outcomes[outcome.number] = outcome
        self.job.append("case", config=self.task.config, outcome=outcome.model_dump(mode="json"))
        self.job.log(f"case {outcome.number} ({outcome.case}): {outcome.state}. {outcome.message}")
        if outcome.state == "done":
            shutil.rmtree(parts_of(self.task, outcome.inputs), ignore_errors=True)
            with contextlib.suppress(OSError):
                shown = (self.job.private / "previews" / f"{outcome.case}.png").read_bytes()
                self.job.write_preview(shown)
        self._shown_to_page(lambda live: live.end(outcome.number, outcome.figures.get("residual_sigma")))
        self._steps = (0, 0)
        self.job.set_status(self._status("running", ""))
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if self.watch is not None:
            self.watch(Progress(outcome, len(self.outcomes), len(self.plan.cases)))

    def _tick(self, number: int, steps: Steps) -> None:
        if self.watch is not None:
            self.watch(Progress(None, len(self.outcomes), len(self.plan.cases), steps.done, steps.total))
        self._shown_to_page(lambda live: live.step(number, steps))
        moment = time.monotonic()
        if moment - self._shown > _EVERY:
            self._shown, self._steps = moment, (steps.done, steps.total)
            self.job.set_status(self._status("running", ""))
        if moment - self._pictured > 4 * _EVERY:
            self._pictured = moment
            self.job.write_preview(png(to_colours(small(steps.step.x0[0], 2 * PREVIEW))))

    def _shown_to_page(self, what: Callable[[Live], None]) -> None:
        if self.live is not None:
            try:
                what(self.live)
            except OSError as error:
                raise disk_refuses(error) from error

    def _status(self, state: State, message: str) -> Status:
        states = [outcome.state for outcome in self.outcomes.values()]
        return Status(
            state=state,
            message=message,
            total=len(self.plan.cases),
            done=states.count("done"),
            failed=states.count("failed"),
            step=self._steps[0],
            steps=self._steps[1],
        )

    def _write_reports(self, ended: Sequence[Outcome], message: str) -> None:
        facts = {
            "state": message or "all done",
            "method": self.recipe.method.title,
            "recipe_digest": self.recipe.digest,
            "config_sha256": self.task.config,
            "samples": len(self.recipe.seeds),
            "device": self.task.options.device,
            "threads": torch.get_num_threads(),
            "left_out": dict(self.plan.left_out),
        }
        folder = self.job.folder
        put(folder / "summary.csv", summary_csv(ended), mode=0o666)
        put(folder / "summary.html", summary_html(self.job, ended, facts), mode=0o666)
        put(folder / "manifest.json", manifest(self.job, ended, facts), mode=0o666)

    def _describe_bids(self) -> None:
        if not self.plan.bids:
            return
        described = {
            "Name": "Preimage: restored images, research use only",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "Preimage", "Version": version("preimage")}],
            "DatasetLinks": {"raw": self.plan.bids[0].resolve().as_uri()},
        }
        try:
            for root in {case.folder.split("/sub-")[0] for case in self.plan.cases if case.bids is not None}:
                place = self.job.folder / root
                place.mkdir(parents=True, exist_ok=True)
                put(place / "dataset_description.json", (json.dumps(described, indent=2) + "\n").encode(), mode=0o666)
        except OSError as error:
            raise disk_refuses(error) from error


# before the start


def config_of(recipe: Recipe, options: Options, store: AssetStore) -> str:
    """sha256 of everything that decides the bytes of the results, but for inputs, machine and number of threads."""
    values = {
        "recipe": recipe.model_dump(mode="json", exclude={"title", "reference"}),
        "options": options.identity(),
        "assets": recipe.model.asset_hashes(store),
        "version": version("preimage"),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checked(recipe: Recipe, options: Options, base: Path, store: AssetStore, *, elsewhere: bool = False) -> Recipe:
    """The recipe with its files pinned: absolute paths, and checksums that were verified where there were some.

    Args:
        recipe: relative paths in it refer to `base`.
        options: what the recipe does not say.
        base: a folder.
        store: the assets.
        elsewhere: other machines do the work, so that the devices of this one do not matter.

    Raises:
        PreimageError: what is wrong with the recipe or with the options.
    """
    if problems := recipe.problems(store, base):
        raise NeedError(" ".join(problems))
    if options.window is not None and not options.window[0] < options.window[1]:
        raise RecipeError("Expected a window from a smaller to a larger number, got another; change --window.")
    if options.device != "cpu" and not elsewhere and not torch.cuda.is_available():
        raise RecipeError(f"Expected a CUDA device for {options.device}, found none; use cpu.")
    series_rule(options.series)
    return pin(recipe, base)


def _request(inputs: tuple[str, ...], recipe: Recipe, options: Options) -> Request:
    return Request.new(inputs, recipe.model_dump(mode="json"), options.model_dump(mode="json"))


def _check_apart(inputs: Sequence[Path], place: Path) -> None:
    for path in inputs:
        real = Path(os.path.realpath(path))
        if real.is_dir() and (place == real or real in place.parents):
            raise WriteError("Expected an output folder outside the inputs, got one inside; choose another.")
        if place in real.parents and real.parent != place / "inputs" and place / "inputs" != real:
            raise WriteError("Expected inputs outside the output folder, got some inside; choose another.")


def _check_same(request: Request, inputs: tuple[str, ...], recipe: Recipe, options: Options) -> None:
    """Refuses to go on with anything but what was begun: a mixture of two runs would look like one."""
    without = {"title", "reference"}
    same = {k: v for k, v in request.recipe.items() if k not in without} == recipe.model_dump(
        mode="json", exclude=without
    )
    if not same or {k: v for k, v in request.options.items() if k not in ASIDE} != options.identity():
        raise RecipeError(
            "Expected the recipe and the options of the earlier run to resume it, got others; "
            "repeat them, say --overwrite or choose another folder."
        )
    if request.inputs != inputs:
        raise RecipeError("Expected the inputs of the earlier run to resume it, got others; choose another folder.")


def _clear(job: Job) -> None:
    """Delete an earlier run and nothing else."""
    own = {"job", "results", "derivatives", "manifest.json", "summary.csv", "summary.html"}
    if foreign := sorted({entry.name for entry in os.scandir(job.folder)} - own):
        raise WriteError(f"Expected a folder with an earlier run alone, got others such as {foreign[0]}; move them.")
    with job.hold():
        try:
            for name in ("results", "derivatives"):
                shutil.rmtree(job.folder / name, ignore_errors=True)
            for name in ("manifest.json", "summary.csv", "summary.html"):
                (job.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise disk_refuses(error) from error
    shutil.rmtree(job.private)
