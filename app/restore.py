"""One case from its files to its outputs: the unit of work of a batch, of plain values, so that it can run anywhere."""

import json
import os
import secrets
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EPERM, EROFS
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from app.inputs import Case, blamed
from app.jobs import DiskRefuses, Job, disk_refuses, put, sync
from app.memory import enough_memory
from app.options import Outcome, Output
from app.work import Answer, Stopped, Task, Work, digest_of, file_digest, places_for, together
from app.work_pictures import PictureWork
from app.work_volumes import VolumeWork
from medical.dicom_pixels import quiet
from operators.errors import NeedError, PreimageError, ReadError
from operators.spec import Need
from restoration.assets import AssetStore
from restoration.bridge import Bridge
from restoration.pipeline import Pipeline
from restoration.pipeline import Progress as Steps
from restoration.prior import Denoiser, Tiled
from restoration.recipe import AnyModel, Recipe

FEWER = 256
"""Pixels a side of the tiles that a case is tried with again when memory ran out."""

_BLIND = frozenset({Need.PARAMETERS, Need.KERNEL, Need.WIDTH})
_DISK = frozenset({ENOSPC, EDQUOT, EROFS, EIO, EFBIG, EACCES, EPERM})

Tick = Callable[[int, Steps], None]
"""Told of every step: the case's number and the step."""


@lru_cache(maxsize=2)
def pipeline_of(recipe: str, device: str, precision: Any, assets: str, base: str = "") -> Pipeline:
    """The pipeline of a recipe, loaded once in a process."""

    def kept(model: AnyModel) -> Denoiser | Bridge | None:
        return prior_of(model, device, precision, assets)

    store = AssetStore(Path(assets) if assets else None)
    return Pipeline.load(Recipe.model_validate_json(recipe), store, device, precision, Path(base), kept)


@lru_cache(maxsize=2)
def prior_of(model: AnyModel, device: str, precision: Any, assets: str) -> Denoiser | Bridge | None:
    """A prior, loaded once in a process: runs that differ in other things share it."""
    return model.load(AssetStore(Path(assets) if assets else None), torch.device(device), precision)


def restore_cases(
    cases: Sequence[Case],
    task: Task,
    tick: Tick | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Outcome]:
    """Read, restore and write cases one after the other; an outcome for each, when its outputs are on the disk.

    What is wrong with a case is its outcome. After `stop` the case under way is `partial` and no other follows.

    Raises:
        DiskRefuses: nothing more can be written.
        PreimageError: the recipe cannot be loaded here.
    """
    pipeline = pipeline_of(task.recipe, task.options.device, task.options.precision, task.assets, task.base)
    size = task.options.batch or (1 if pipeline.device.type == "cpu" else 0)
    if pipeline.recipe.method.needs & _BLIND:
        size = 1  # what they find belongs to one measurement
    waiting: list[Work] = []
    for case in cases:
        if stop is not None and stop():
            break
        opened = _open(case, task, pipeline)
        if isinstance(opened, Outcome):
            yield opened
            continue
        if size == 1 or isinstance(opened, VolumeWork):
            yield _restored(opened, pipeline, size, tick, stop)
            continue
        if waiting and waiting[0].shape != opened.shape:
            yield from _all_restored(waiting, pipeline, size, tick, stop)
            waiting = []
        waiting.append(opened)
        if len(waiting) >= places_for(size, opened.shape, pipeline):
            yield from _all_restored(waiting, pipeline, size, tick, stop)
            waiting = []
    if waiting and not (stop is not None and stop()):
        yield from _all_restored(waiting, pipeline, size, tick, stop)


@contextmanager
def _smaller_tiles(pipeline: Pipeline) -> Iterator[None]:
    tiled = [part for part in pipeline.denoiser.modules() if isinstance(part, Tiled)] if pipeline.denoiser else []
    if not tiled:
        raise NeedError("Expected a prior that can work in tiles when memory runs out, got none; use smaller images.")
    before = [part.tile for part in tiled]
    for part in tiled:
        part.tile = FEWER
    try:
        yield
    finally:
        for part, tile in zip(tiled, before, strict=True):
            part.tile = tile


def _open(case: Case, task: Task, pipeline: Pipeline) -> "Work | Outcome":
    began = time.perf_counter()
    if case.kind == "unreadable":
        return _failed(case, task, case.problem, began)
    with _faults(case, task, began) as fault, quiet(), enough_memory(task.options.device):
        return (PictureWork if case.kind == "picture" else VolumeWork)(case, task, pipeline)
    return fault[0]


def _all_restored(
    works: list[Work], pipeline: Pipeline, size: int, tick: Tick | None, stop: Callable[[], bool] | None
) -> Iterator[Outcome]:
    """Outcomes of pictures of one shape that share calls."""
    answers: list[Answer] | None = None
    places = places_for(size, works[0].shape, pipeline)
    numbers = [work.case.number for work in works]
    if places > 1:
        try:
            with enough_memory(works[0].task.options.device):
                measured = [work.measurement for work in works if isinstance(work, PictureWork)]
                answers = together(
                    pipeline, measured, places, None if tick is None else lambda p: tick(numbers[0], p), stop
                )
        except Stopped:
            return
        except PreimageError:
            answers = None  # each alone finds out whose fault it is
    for i, work in enumerate(works):
        if answers is None:
            yield _restored(work, pipeline, 1, tick, stop)
        else:
            work.notes += answers[i].notes
            yield _finished(work, answers[i], pipeline)


def _restored(work: Work, pipeline: Pipeline, size: int, tick: Tick | None, stop: Callable[[], bool] | None) -> Outcome:
    case, task = work.case, work.task
    watch = None if tick is None else lambda progress: tick(case.number, progress)
    with _faults(case, task, work.began, work.inputs) as fault:
        try:
            with enough_memory(task.options.device):
                answer = work.answer(pipeline, size, watch, stop)
        except NeedError as error:
            if not isinstance(error.__cause__, (MemoryError, RuntimeError)):
                raise
            work.notes.append(f"memory ran out; done with tiles of {FEWER} pixels")
            with _smaller_tiles(pipeline), enough_memory(task.options.device):
                answer = work.answer(pipeline, 1, watch, stop)
        return _finished(work, answer, pipeline, partial=isinstance(answer, Answer) and not answer.complete)
    return fault[0]


def _finished(work: Work, answer: Any, pipeline: Pipeline, *, partial: bool = False) -> Outcome:
    """Everything written, checked into its place, and hashed."""
    case, task = work.case, work.task
    job = Job(Path(task.folder))
    with _faults(case, task, work.began, work.inputs) as fault, quiet():
        if job.holder() != task.holder:  # a straggler, whose case is another's by now
            raise Stopped
        scratch = job.scratch / f"case-{case.number}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            scratch.mkdir(parents=True)
            work.write(answer, scratch)
            work.place(scratch, "restored.json").write_bytes(work.sidecar(answer, pipeline))
            place = job.folder / case.folder
            outputs = _commit(scratch, place / "partial" if partial else place)
            if not partial and case.bids is None:
                shutil.rmtree(place / "partial", ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        digest = digest_of(case, task.salt)
        previews = job.private / "previews"
        previews.mkdir(exist_ok=True)
        put(previews / f"{digest}.png", work.preview(answer), durable=False)
        if task.options.views:
            _show(work, answer, job, digest)
        return Outcome(
            number=case.number,
            case=digest,
            kind=case.kind,
            state="partial" if partial else "done",
            message="Stopped on the way; the estimate so far is in the folder 'partial'." if partial else "",
            inputs=work.inputs,
            outputs=outputs,
            figures=work.figures(answer),
            notes=tuple(dict.fromkeys(work.notes)),
            facts=work.facts,
            seconds=round(time.perf_counter() - work.began, 4),
        )
    return fault[0]


def _show(work: Work, answer: Any, job: Job, digest: str) -> None:
    """Pictures for a page, described in `views.json`, in place of those that an earlier answer left."""
    place = job.private / "views" / digest
    fresh = job.scratch / f"views-{digest}-{secrets.token_hex(4)}"
    fresh.mkdir(parents=True)
    try:
        views, mark = work.views(answer, fresh), secrets.token_hex(4)
        for view in views:  # browsers may keep a file: that of another answer has another name
            start, dot, ending = view["file"].partition(".")
            view["file"] = f"{start}-{mark}{dot}{ending}"
            os.replace(fresh / f"{start}{dot}{ending}", fresh / view["file"])
        (fresh / "views.json").write_text(json.dumps(views), encoding="utf-8")
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _commit(scratch: Path, place: Path) -> tuple[Output, ...]:
    """Move finished files, on the disk and hashed, to where they belong; a file is there whole or not at all."""
    outputs = []
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    for path in files:
        sync(path)
        relative = path.relative_to(scratch).as_posix()
        outputs.append(Output(name=relative, sha256=file_digest(path), bytes=path.stat().st_size))
    place.mkdir(parents=True, exist_ok=True)
    for folder in (path for path in scratch.iterdir() if path.is_dir()):
        shutil.rmtree(place / folder.name, ignore_errors=True)
        os.replace(folder, place / folder.name)
    for path in files:
        if path.parent == scratch:
            os.replace(path, place / path.name)
    sync(place)
    sync(place.parent)
    return tuple(outputs)


# what goes wrong


@contextmanager
def _faults(case: Case, task: Task, began: float, inputs: str = "") -> Iterator[list[Outcome]]:
    """Whatever goes wrong in the block becomes the outcome of the case; only a disk that refuses is everybody's."""
    fault: list[Outcome] = []
    try:
        yield fault
    except Stopped:
        outcome = _failed(case, task, "Stopped on the way; slices that are done are kept for resuming.", began, inputs)
        fault.append(outcome.model_copy(update={"state": "partial"}))
    except DiskRefuses:
        raise
    except (PreimageError, OSError) as error:
        if not isinstance(error, ReadError) and (refused := _of_disk(error)) is not None:
            raise disk_refuses(refused) from error
        text = blamed(error, case.files) if isinstance(error, PreimageError) else _unforeseen(error)
        fault.append(_failed(case, task, text, began, inputs))
    except Exception as error:  # a defect of ours, or a file that finds one: the other cases go on
        Job(Path(task.folder)).log(f"case {case.number}: {type(error).__name__} at {_where(error)}")
        fault.append(_failed(case, task, _unforeseen(error), began, inputs))


def _failed(case: Case, task: Task, message: str, began: float, inputs: str = "") -> Outcome:
    return Outcome(
        number=case.number,
        case=digest_of(case, task.salt),
        kind=case.kind,
        state="failed",
        message=message,
        inputs=inputs,
        seconds=round(time.perf_counter() - began, 4),
    )


def _unforeseen(error: Exception) -> str:
    return f"Expected to restore the case, got an unforeseen {type(error).__name__}; job/log.txt says where, report it."


def _where(error: Exception) -> str:
    """The calls that led to an error, without what it says, which may hold names."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def _of_disk(error: BaseException) -> OSError | None:
    """The refusal of a disk behind an error; writers of the other rooms turn it into sentences."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
