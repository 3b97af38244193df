"""The HTTP API: jobs over the network, with the same recipes, options and results as on the command line.

Everything that may be asked for is in `/api/v1/openapi.json`. Answers that are no files are JSON; an error is one
sentence in `detail`, without traces and without paths of this machine.
"""

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Header, Query, Request
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
from app.api_views import router as views
from app.desk import Desk as Desk
from app.desk import Here, JobId, shown_files
from app.events import follow, nothing_new
from app.intake import submit
from app.jobs import ENDED, Busy, DiskRefuses, State
from app.outputs import media_type, open_inside, pieces
from app.uploads import Limits, Receiver, Refused
from app.worker import Dispatcher
from operators import AnyNoise, AnyOperator
from operators.errors import ReadError
from operators.spec import DataRef, kinds
from restoration.assets import AssetStore
from restoration.recipe import AnyMethod, AnyModel, preset_names, read_recipe

MOST_FOLLOWED = 64
"""Event streams at a time."""

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_LOCATION = {"schema": {"type": "string"}, "description": "Address of the job."}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}

router = APIRouter()


def make_app(dispatcher: Dispatcher, assets: AssetStore, limits: Limits, *, token: bool = False) -> FastAPI:
    """The app without the guard, which asks for a `token` or not; its worker runs from startup to shutdown."""

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
    app.state.desk = Desk(dispatcher, assets, limits, token)
    for part in (router, views):
        app.include_router(part, responses=errors(400, 401, 403, 421, 422, 500))
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
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
    state: Annotated[list[State] | None, Query(description="Only jobs in one of these states.")] = None,
) -> JobList:
    """Jobs, the newest first."""
    found = here.newest_first()
    if state:
        found = [job for job in found if here.state(job) in state]
    shown = []
    for job in found[offset : offset + limit]:
        with contextlib.suppress(ReadError):  # deleted meanwhile
            shown.append(here.detail(job))
    return JobList(jobs=tuple(shown), total=len(found), waiting=here.dispatcher.waiting)


@router.get("/api/v1/jobs/{job_id}", tags=["jobs"], responses=errors(404))
def one(job_id: JobId, here: Here) -> JobDetail:
    """A job: where it stands and what it was asked to do."""
    job = here.find(job_id)
    return here.detail(job)


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
def cancel(
    job_id: JobId,
    here: Here,
    after: Annotated[Literal["step", "case"], Query(description="When a job under way is to end.")] = "step",
) -> JobInfo:
    """Stop a job after its present step or case; what there is so far is kept, and the job can be resumed."""
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
            job.request_stop(after_case=after == "case")
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
    for path in shown_files(job):
        with contextlib.suppress(OSError):  # gone meanwhile
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
