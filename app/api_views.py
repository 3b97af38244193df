"""What the page asks for besides the rest of the API: pictures and numbers of a job that are made to be shown."""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse

from app.answers import Commands, Speed, TracePoint, errors
from app.desk import Here, JobId, shown_files
from app.live import picture, trace
from app.outputs import media_type, pieces
from app.packed import zip_of
from app.uploads import Refused
from app.views import CaseInfo, CaseViews, cases_of, open_view, views_of

STATIC = Path(__file__).parent / "gui" / "static"
"""Scripts and styles of the page."""

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".json": "application/json",
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter()


@router.get("/static/{name}", include_in_schema=False)
def static(name: str, request: Request) -> Response:
    """A script or a style of the page; asked for again each time, but sent only if it has changed."""
    path = STATIC / name
    kind = _TYPES.get(path.suffix)
    if kind is None or not re.fullmatch(r"[a-z0-9_-]+\.[a-z0-9]+", name) or not path.is_file():
        raise Refused(404, "Expected a file of the page, got a name that is none; reload the page.")
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


@router.get("/api/v1/speed", tags=["server"])
def speed(here: Here) -> Speed:
    """How fast the server's machine calls a network, as its worker found when it last had nothing to do."""
    return Speed(**here.dispatcher.speed())


@router.get("/api/v1/jobs/{job_id}/cases", tags=["jobs"], responses=errors(404))
def cases(job_id: JobId, here: Here) -> list[CaseInfo]:
    """What a job consists of; an empty list until that was looked for."""
    return cases_of(here.find(job_id))


@router.get("/api/v1/jobs/{job_id}/commands", tags=["jobs"], responses=errors(404))
def commands(job_id: JobId, here: Here, request: Request) -> Commands:
    """The same run as Python, as a command line and as a call of this API."""
    from app.gui.copying import commands as texts

    return Commands.model_validate(texts(here.find(job_id), str(request.base_url), token=here.token))


@router.get(
    "/api/v1/jobs/{job_id}/live",
    tags=["jobs"],
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": _BINARY}, "description": "The clean estimate."},
        204: {"description": "There is none yet."},
        **errors(404),
    },
)
def live(job_id: JobId, here: Here) -> Response:
    """The clean estimate of the run, at most 512 pixels a side, renewed at most twice a second (JPEG)."""
    content = picture(here.find(job_id))
    return Response(status_code=204) if content is None else Response(content, media_type="image/jpeg")


@router.get("/api/v1/jobs/{job_id}/trace", tags=["jobs"], responses=errors(404))
def points(job_id: JobId, here: Here) -> list[TracePoint]:
    """How far the clean estimate is from the data as a run goes on: a point for each live picture and at the end."""
    return [TracePoint.model_validate(entry) for entry in trace(here.find(job_id))]


@router.get("/api/v1/jobs/{job_id}/views", tags=["files"], responses=errors(404))
def views(job_id: JobId, here: Here) -> list[CaseViews]:
    """What came of each case that has ended, with pictures and volumes to look at where `options.views` was set."""
    return views_of(here.find(job_id))


@router.get(
    "/api/v1/jobs/{job_id}/views/{case}/{file}",
    tags=["files"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": _BINARY}, "description": "The file."}, **errors(404)},
)
def view(
    job_id: JobId,
    case: Annotated[str, InPath(description="Digest of the case, as in the list of views.")],
    file: Annotated[str, InPath(description="As in the list of views.")],
    here: Here,
) -> Response:
    """A file of a view."""
    opened = open_view(here.find(job_id), case, file)
    headers = {
        "content-length": str(os.fstat(opened.fileno()).st_size),
        "cache-control": "private, max-age=86400, immutable",
    }
    return StreamingResponse(pieces(opened), media_type=media_type(file), headers=headers)


@router.get(
    "/api/v1/jobs/{job_id}/archive",
    tags=["files"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": _BINARY}, "description": "A zip, to be saved."}, **errors(404)},
)
def archive(job_id: JobId, here: Here) -> Response:
    """A zip of everything that has come out so far."""
    job = here.find(job_id)
    paths = shown_files(job)
    if not paths:
        raise Refused(404, "Expected a job with results, got one without; wait for its first case.")
    headers = {"content-disposition": f'attachment; filename="preimage-{job_id}.zip"'}
    return StreamingResponse(zip_of(job, paths), media_type="application/zip", headers=headers)
