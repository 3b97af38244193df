"""The HTTP API: jobs over the network, with the same recipes, options and results as on the command line.

Everything that may be asked for is in `/api/v1/openapi.json`. Answers that are no files are JSON; an error is one
sentence in `detail`, without traces and without paths of this machine.
"""

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.answers import (
    FORM,
    File,
    Health,
    JobDetail,
    JobInfo,
    JobList,
    Kind,
    Models,
    Preset,
    answer_with_sentences,
    describe,
    errors,
    kinds_of,
    model_of,
)
from app.events import follow, nothing_new
from app.intake import submit
from app.jobs import ENDED, Busy, DiskRefuses, Job
from app.jobs import Request as Asked
from app.outputs import media_type, open_inside, pieces
from app.uploads import Limits, Receiver, Refused
from app.worker import Dispatcher
from operators import AnyNoise, AnyOperator
from operators.errors import ReadError
from operators.spec import DataRef, kinds
from restoration.assets import AssetStore
from restoration.recipe import AnyMethod, AnyModel, preset_names, read_recipe

MOST_WAITING = 1000
"""Jobs in the queue; more are refused until some have ended."""

MOST_FOLLOWED = 64
"""Event streams at a time."""


@dataclass
class Desk:
    """What all requests share. `changing` is held while the state of a job is looked at and changed."""

    dispatcher: Dispatcher
    assets: AssetStore
    limits: Limits
    changing: threading.Lock = field(default_factory=threading.Lock)
    followed: int = 0

    def find(self, identifier: str) -> Job:
        """A job, or a 404."""
        try:
            return self.dispatcher.store.get(identifier)
        except ReadError as error:
            text = "Expected the identifier of a job that is here, got another; see the list of jobs."
            raise Refused(404, text) from error

    def info(self, job: Job) -> JobInfo:
        """What is said of a job in lists."""
        return JobInfo(**self.facts(job)[0])

    def facts(self, job: Job) -> tuple[dict[str, Any], Asked]:
        """The same as single values, and what was asked for; a damaged job is shown too, with a sentence."""
        name, status = job.folder.name, job.status()
        try:
            asked = job.request
        except ReadError as error:
            asked = Asked(id=name, created=job.created, inputs=(), recipe={}, options={})
            status = status.model_copy(update={"message": str(error)})
        title, place = str(asked.recipe.get("title", "")), self.dispatcher.place(name)
        return {"id": name, "created": asked.created, "title": title, "place": place, "status": status}, asked

    def newest_first(self) -> list[Job]:
        """All jobs, by the time at which the request was written: no request need be read for that."""
        found = []
        for name in os.listdir(self.dispatcher.store.root):
            with contextlib.suppress(OSError, ReadError):  # deleted meanwhile, or no job
                job = self.dispatcher.store.get(name)
                found.append(((job.private / "request.json").stat().st_mtime_ns, name, job))
        return [job for _, _, job in sorted(found, key=lambda entry: entry[:2], reverse=True)]

    def check_room(self) -> None:
        """A 503 while the queue is full."""
        if self.dispatcher.waiting >= MOST_WAITING:
            raise Refused(503, f"Expected fewer than {MOST_WAITING} waiting jobs, got as many; try again later.")


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


Here = Annotated[Desk, Depends(_desk)]
JobId = Annotated[str, InPath(description="Identifier of the job, 16 hexadecimal digits.")]

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_LOCATION = {"schema": {"type": "string"}, "description": "Address of the job."}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}

router = APIRouter()


def make_app(dispatcher: Dispatcher, assets: AssetStore, limits: Limits) -> FastAPI:
    """The app, without the guard around it; its worker runs from startup to shutdown."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        dispatcher.start()
        yield
        await run_in_threadpool(dispatcher.stop)

    app = FastAPI(
        title="Preimage",
        version=importlib.metadata.version("preimage"),
        summary="Images that could have made a measurement. Research use only.",
        description=__doc__ or "",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.desk = Desk(dispatcher, assets, limits)
    app.include_router(router, responses=errors(400, 401, 403, 421, 422, 500))
    answer_with_sentences(app, [dispatcher.store.root.absolute(), assets.folder.absolute()])
    describe(app)
    return app


@router.get("/healthz", tags=["server"])
def health() -> Health:
    """Whether the server answers; needs no token."""
    return Health()


# What recipes are made of


@router.get("/api/v1/operators", tags=["recipes"])
def operators() -> list[Kind]:
    """Kinds of measurement operators."""
    return kinds_of(AnyOperator)


@router.get("/api/v1/noises", tags=["recipes"])
def noises() -> list[Kind]:
    """Kinds of noise."""
    return kinds_of(AnyNoise)


@router.get("/api/v1/methods", tags=["recipes"])
def methods() -> list[Kind]:
    """Restoration methods."""
    return kinds_of(AnyMethod)


@router.get("/api/v1/models", tags=["recipes"])
def models(here: Here) -> Models:
    """Kinds of models, and the trained priors that are here. Checkpoints are not taken over the network."""
    files = {tag for tag, spec in kinds(AnyModel).items() if issubclass(spec, DataRef)}
    taken = tuple(kind for kind in kinds_of(AnyModel) if kind.kind not in files)
    return Models(kinds=taken, trained=tuple(model_of(c) for c in here.assets.cards.values() if c.role == "prior"))


@router.get("/api/v1/presets", tags=["recipes"])
def presets() -> list[Preset]:
    """Recipes that ship with the program."""
    found = [(name, read_recipe(name)[0]) for name in preset_names()]
    return [
        Preset(name=name, title=recipe.title, reference=recipe.reference, recipe=recipe.model_dump(mode="json"))
        for name, recipe in found
    ]


# Jobs


@router.post(
    "/api/v1/jobs",
    tags=["jobs"],
    status_code=201,
    responses={201: {"headers": {"Location": _LOCATION}}, **errors(413, 415, 503, 507)},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}},
)
async def create(request: Request, response: Response, here: Here) -> JobInfo:
    """Queue a job: files to restore, a recipe or the name of a preset, and options.

    `Location` in the answer is the job's address.
    """
    here.check_room()
    store, name = here.dispatcher.store, secrets.token_hex(8)
    staging = store.root / f".upload-{name}"
    receiver = None
    try:
        receiver = await run_in_threadpool(Receiver, request.headers.get("content-type", ""), staging, here.limits)
        async for piece in request.stream():
            await run_in_threadpool(receiver.write, piece)
        job = await run_in_threadpool(submit, receiver.finish(), staging, store, name, here.assets)
    except ClientDisconnect as error:
        raise Refused(400, "Expected a whole upload, got an end of the connection; send it again.") from error
    finally:
        if receiver is not None:
            receiver.close()
        await run_in_threadpool(shutil.rmtree, staging, True)
    here.dispatcher.add(job)
    response.headers["location"] = f"/api/v1/jobs/{name}"
    return await run_in_threadpool(here.info, job)


@router.get("/api/v1/jobs", tags=["jobs"])
def jobs(
    here: Here, limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0
) -> JobList:
    """Jobs, the newest first."""
    found = here.newest_first()
    shown = []
    for job in found[offset : offset + limit]:
        with contextlib.suppress(ReadError):  # deleted meanwhile
            shown.append(here.info(job))
    return JobList(jobs=tuple(shown), total=len(found), waiting=here.dispatcher.waiting)


@router.get("/api/v1/jobs/{job_id}", tags=["jobs"], responses=errors(404))
def one(job_id: JobId, here: Here) -> JobDetail:
    """A job: where it stands and what it was asked to do."""
    job = here.find(job_id)
    facts, asked = here.facts(job)
    return JobDetail(**facts, recipe=asked.recipe, options=asked.options)


@router.get(
    "/api/v1/jobs/{job_id}/events",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={
        200: {"content": _STREAM, "description": "Server-sent events."},
        204: {"description": "The job has ended and there is nothing new; do not reconnect."},
        **errors(404, 503),
    },
)
async def events(
    job_id: JobId,
    here: Here,
    last_event_id: Annotated[int, Header(ge=0, description="Number of the last journal event that was seen.")] = 0,
) -> Response:
    """What happens to a job, as it happens, until it ends.

    Events `journal` (numbered; a client that comes back gets those after its `Last-Event-ID`), `status` (where the job
    stands, at most four times a second) and, at the end, `end`.
    """
    job = await run_in_threadpool(here.find, job_id)
    if last_event_id and await run_in_threadpool(nothing_new, job, last_event_id):
        return Response(status_code=204)
    if here.followed >= MOST_FOLLOWED:
        raise Refused(503, f"Expected fewer than {MOST_FOLLOWED} event streams, got as many; ask for the job instead.")
    return StreamingResponse(_counted(here, follow(job, last_event_id)), media_type="text/event-stream")


@router.post("/api/v1/jobs/{job_id}/cancel", tags=["jobs"], status_code=202, responses=errors(404, 409, 507))
def cancel(job_id: JobId, here: Here) -> JobInfo:
    """Stop a job after its present step; what there is so far is kept, and the job can be resumed."""
    job = here.find(job_id)
    with here.changing:
        status = job.status()
        if status.state in ENDED:
            raise Refused(409, f"Expected a job that waits or is under way, got one that is {status.state}; leave it.")
        if status.state == "queued" and here.dispatcher.withdraw(job):
            text = "Cancelled before it was begun; resume the job to run it."
            try:
                job.set_status(status.model_copy(update={"state": "interrupted", "message": text}))
            except DiskRefuses:
                here.dispatcher.add(job)  # it is not cancelled
                raise
        else:
            job.request_stop()
    return here.info(job)


@router.post("/api/v1/jobs/{job_id}/resume", tags=["jobs"], status_code=202, responses=errors(404, 409, 503, 507))
def resume(job_id: JobId, here: Here) -> JobInfo:
    """Queue a job again that was interrupted or failed; what is proven done is not done again."""
    job = here.find(job_id)
    here.check_room()
    with here.changing:
        status = job.status()
        if status.state not in ("interrupted", "failed"):
            raise Refused(409, f"Expected a job that was interrupted or failed, got one that is {status.state}; wait.")
        (job.private / "stop").unlink(missing_ok=True)  # of a worker that died before it could obey
        job.set_status(status.model_copy(update={"state": "queued", "message": ""}))
        here.dispatcher.add(job)
    return here.info(job)


@router.delete("/api/v1/jobs/{job_id}", tags=["jobs"], status_code=204, responses=errors(404, 409, 507))
def delete(job_id: JobId, here: Here) -> None:
    """Remove a job and all its files from the disk. One that is under way has to be cancelled first."""
    job = here.find(job_id)
    with here.changing:
        removable = {*ENDED, "queued"} if here.dispatcher.withdraw(job) else ENDED
        if job.status().state not in removable:
            raise Refused(409, "Expected a job that nobody works on, got one under way; cancel it first.")
        until = time.monotonic() + 5  # its worker may be about to leave it
        while True:
            try:
                return job.delete()
            except Busy:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


# Files


@router.get("/api/v1/jobs/{job_id}/files", tags=["files"], responses=errors(404))
def files(job_id: JobId, here: Here) -> list[File]:
    """What has come out so far: `results/`, and summaries once the job has ended."""
    job = here.find(job_id)
    shown = []
    for path in job.files():
        # gone meanwhile, or under a name that is no text, put there by others
        with contextlib.suppress(OSError, UnicodeEncodeError):
            path.as_posix().encode()
            if not any(part.startswith(".") for part in path.parts):
                shown.append(File(path=path.as_posix(), bytes=(job.folder / path).lstat().st_size))
    return shown


@router.get(
    "/api/v1/jobs/{job_id}/files/{path:path}",
    tags=["files"],
    response_class=StreamingResponse,
    responses={200: {"content": _BINARY, "description": "The file, to be saved."}, **errors(404)},
)
def file(job_id: JobId, path: Annotated[str, InPath(description="As in the list of files.")], here: Here) -> Response:
    """A file that came out."""
    opened = open_inside(here.find(job_id).folder, path)
    headers = {"content-length": str(os.fstat(opened.fileno()).st_size), "content-disposition": "attachment"}
    return StreamingResponse(pieces(opened), media_type=media_type(path), headers=headers)


@router.get(
    "/api/v1/jobs/{job_id}/preview",
    tags=["files"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The last picture."}, **errors(404)},
)
def preview(job_id: JobId, here: Here) -> Response:
    """The last picture of the run, which changes while it works (PNG)."""
    picture = here.find(job_id).preview()
    if picture is None:
        raise Refused(404, "Expected a job that has a picture already, got one without; wait for its first steps.")
    return Response(picture, media_type="image/png")


async def _counted(here: Desk, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    here.followed += 1
    try:
        async for line in lines:
            yield line
    finally:
        here.followed -= 1
