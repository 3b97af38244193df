"""What the HTTP API answers: its values, its errors as sentences, and the description of both."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from app.intake import Submission
from app.jobs import Busy, Status
from app.uploads import Refused
from operators.errors import PreimageError, WriteError
from operators.spec import Spec, kinds
from restoration.assets import AssetCard

FORM = {"$ref": "#/components/schemas/NewJob"}
"""Schema of the form that makes a job; `describe` puts it into the document."""


class Problem(Spec):
    """An error: one sentence on what was expected, what came and what to do."""

    detail: str


class Kind(Spec):
    """A kind of operator, noise, method or model: its tag in recipes and the JSON schema of its fields.

    `needs` and `offers` tell which go together: a method works where operator, noise and model offer all it needs.
    """

    kind: str
    title: str
    description: str
    needs: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    fields: Annotated[dict[str, Any], Field(description="JSON schema.")]


class Model(Spec):
    """A trained prior on this server; `name` is what a recipe calls it. Noise levels are in unit range."""

    name: str
    title: str
    licence: str
    source: str
    bytes: int
    sha256: str
    sigma_range: tuple[float, float] | None


class Models(Spec):
    """Kinds of models, and the trained ones that are here."""

    kinds: tuple[Kind, ...]
    trained: tuple[Model, ...]


class Preset(Spec):
    """A recipe that ships with the program."""

    name: str
    title: str
    reference: str
    recipe: dict[str, Any]


class JobInfo(Spec):
    """A job. `place` is how many wait before it; null unless it waits itself. `created` is UTC in ISO 8601.

    `wait_seconds` is an estimate of when a waiting job is begun, null where nothing is known. `files` counts what was
    sent to be restored; `pictured` says whether there is a preview.
    """

    id: str
    created: str
    title: str
    place: int | None
    wait_seconds: float | None = None
    files: int = 0
    pictured: bool = False
    status: Status


class JobDetail(JobInfo):
    """A job with what it was asked to do; names of attachments are relative to the job."""

    recipe: dict[str, Any]
    options: dict[str, Any]


class JobList(Spec):
    """Jobs, the newest first; `total` counts those that are not shown as well."""

    jobs: tuple[JobDetail, ...]
    total: int
    waiting: int


class File(Spec):
    """A file that came out."""

    path: str
    bytes: int


class TracePoint(Spec):
    """The clean estimate of a case at step `step` of `steps`, `seconds` after the case was begun.

    `residual_sigma` is null where it is not a finite number.
    """

    case: int
    step: int
    steps: int
    residual_sigma: float | None
    seconds: float


class Speed(Spec):
    """Seconds that one call of the photo prior takes for each megapixel, and on what; null before that is known.

    `name` is what `options.device` calls the device.
    """

    seconds_per_call_megapixel: float | None = None
    device: str = ""
    name: str = "cpu"


class Commands(Spec):
    """A run as text to copy, and the recipe file that the command line reads."""

    python: str
    cli: str
    curl: str
    run_file: dict[str, Any]


class Health(Spec):
    """The server answers."""

    status: str = "ok"
    version: str = importlib.metadata.version("preimage")


# registries as answers


def kinds_of(union: Any) -> list[Kind]:
    """The members of a registry."""
    found = []
    for tag, spec in kinds(union).items():
        about = (spec.__doc__ or "").strip().splitlines()[0]
        title = str(getattr(spec, "title", "")) or tag
        found.append(
            Kind(
                kind=tag,
                title=title,
                description=about,
                needs=_capabilities(spec, "needs"),
                offers=_capabilities(spec, "offers"),
                fields=spec.model_json_schema(),
            )
        )
    return found


def _capabilities(spec: type[Spec], what: str) -> tuple[str, ...]:
    """Of a description with its defaults; none where it has no defaults or nothing of the sort."""
    try:
        return tuple(sorted(getattr(spec(), what, ())))
    except ValidationError:
        return ()


def model_of(card: AssetCard) -> Model:
    """What is said of a trained prior."""
    shown = {name: getattr(card, name) for name in ("name", "title", "licence", "source", "bytes", "sha256")}
    return Model(**shown, sigma_range=card.unit_sigma_range)


# errors and the description of all this


_MEANING = {
    400: "The request is damaged.",
    401: "The token is missing or wrong.",
    403: "Another web page made the request.",
    404: "There is no such thing.",
    409: "The job is not in a state for that.",
    413: "The upload is too large, or has too many files.",
    415: "The body is no multipart form.",
    421: "The server does not go by that name.",
    422: "A value, a recipe or its files will not do.",
    500: "A defect of the server.",
    503: "Too much at a time; try again later.",
    507: "The disk is full or read-only.",
}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI is told of the errors of an address."""
    return {code: {"model": Problem, "description": _MEANING[code]} for code in codes}


def answer_with_sentences(app: FastAPI, folders: Sequence[Path]) -> None:
    """Let every error be one sentence; names of `folders` and of other places on this machine stay out of it."""

    def answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        for folder in folders:
            sentence = sentence.replace(f"{folder}/", "")
        # whatever else looks like an absolute path loses its folders
        sentence = re.sub(r"(?<![\w.])/(?!api/v1/)(?:[^\s/'\",;]+/)+", "", " ".join(sentence.split()))
        return JSONResponse({"detail": sentence}, status, headers)

    def ours(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Refused):
            return answer(error.status, str(error))
        status = 409 if isinstance(error, Busy) else 507 if isinstance(error, WriteError) else 422
        return answer(status, str(error))

    def invalid(request: Request, error: Exception) -> JSONResponse:
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        places = [[part for part in fault["loc"] if isinstance(part, str)][-1] for fault in faults[:5]]
        named = "; ".join(f"{place}: {fault['msg']}" for place, fault in zip(places, faults, strict=False))
        return answer(422, f"Expected other parameters, got {named}; correct them.")

    def by_framework(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = {
            404: "Expected an address of this API, got another; see /api/v1/openapi.json.",
            405: "Expected another method for this address, got one that it does not take; see /api/v1/openapi.json.",
        }.get(status, f"Expected a request that can be answered, got one that cannot (status {status}); correct it.")
        return answer(status, text, getattr(error, "headers", None))  # `Allow` goes with a 405

    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return answer(
            500, f"Expected to answer, got an unforeseen {type(error).__name__}; the server's log says where."
        )

    app.add_exception_handler(PreimageError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, by_framework)
    app.add_exception_handler(Exception, unforeseen)


def describe(app: FastAPI) -> None:
    """Let the OpenAPI document have the schema of the form, which FastAPI does not see, and the token."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        form = Submission.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = made["components"]["schemas"]
        schemas |= form.pop("$defs")
        binary = {"type": "string", "format": "binary"}
        form["properties"] |= {
            "files": {"type": "array", "items": binary, "minItems": 1, "description": "What is to be restored."},
            "attachments": {"type": "array", "items": binary, "description": "Files that the recipe names."},
        }
        form["required"] = ["files"]
        schemas["NewJob"] = form
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}, {}]
        app.openapi_schema = made
        return made

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way of extending it
