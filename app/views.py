"""What a page is told of the cases of a job: which they are, what came of them, and what there is to look at."""

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from app.inputs import Case
from app.jobs import Job
from app.options import Outcome
from app.outputs import open_inside
from app.uploads import Refused
from app.work import digest_of
from operators.spec import Spec


class CaseInfo(Spec):
    """A case of a job: `name` is that of its file or series, `bytes` the size of its files where they are still here.

    `folder` is where its outputs go.
    """

    number: int
    name: str
    kind: str
    folder: str
    bytes: int | None


class CaseViews(Spec):
    """What came of a case, and what a page shows of it; files of a view are at `views/{case}/{file}`.

    `outputs` are names inside `folder`. A view of a picture has name, title, alt, file, width, height, seed,
    residual_sigma and scale (low, high and unit of a map's colours, else null); one of a volume has name, title, alt,
    file, shape, affine, dtype, slope, intercept, unit, window, role and per_slice. See docs/api.md.
    """

    number: int
    case: str
    kind: str
    state: str
    message: str
    folder: str
    outputs: tuple[str, ...]
    figures: dict[str, float | None]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    views: tuple[dict[str, Any], ...]


def cases_of(job: Job) -> list[CaseInfo]:
    """The cases of a job; none before they were looked for."""
    return [
        CaseInfo(number=c.number, name=_name(job, c), kind=c.kind, folder=c.folder, bytes=_bytes(c)) for c in _plan(job)
    ]


def views_of(job: Job) -> list[CaseViews]:
    """Cases that have ended so far, in their order."""
    salt = job.request.id
    planned = {digest_of(case, salt): case for case in _plan(job)}
    last: dict[str, Outcome] = {}
    for event in job.journal():
        if event.get("event") == "case":
            with contextlib.suppress(ValidationError):
                outcome = Outcome.model_validate(event.get("outcome"))
                last[outcome.case] = outcome
    found = [_case(job, planned[digest], outcome) for digest, outcome in last.items() if digest in planned]
    return sorted(found, key=lambda case: case.number)


def open_view(job: Job, case: str, name: str) -> BinaryIO:
    """A file of a view.

    Raises:
        Refused: there is none.
    """
    plain = re.fullmatch(r"[0-9a-f]{12}", case) and re.fullmatch(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9]+){1,2}", name)
    if not plain or name == "views.json":
        raise Refused(404, "Expected a file of a view, got a name that is none; see the list of views.")
    return open_inside(job.private / "views", f"{case}/{name}")


def _case(job: Job, case: Case, outcome: Outcome) -> CaseViews:
    views: Any = []
    if outcome.state != "failed":
        with contextlib.suppress(OSError, ValueError):
            views = json.loads((job.private / "views" / outcome.case / "views.json").read_bytes())
    partial = outcome.state == "partial" and bool(outcome.outputs)
    return CaseViews(
        number=case.number,
        case=outcome.case,
        kind=outcome.kind,
        state=outcome.state,
        message=outcome.message,
        folder=f"{case.folder}/partial" if partial else case.folder,
        outputs=tuple(output.name for output in outcome.outputs),
        figures={name: value if math.isfinite(value) else None for name, value in outcome.figures.items()},
        notes=outcome.notes,
        facts=outcome.facts,
        views=tuple(view for view in views if isinstance(view, dict)) if isinstance(views, list) else (),
    )


def _plan(job: Job) -> list[Case]:
    try:
        entries = json.loads((job.private / "plan.json").read_bytes().decode("utf-8", "surrogatepass"))
        return [Case.model_validate(entry) for entry in entries]
    except (OSError, ValueError, TypeError):  # not yet, or damaged
        return []


def _name(job: Job, case: Case) -> str:
    if case.kind == "dicom":
        name = case.folder.rsplit("/", 1)[-1]
    else:
        path, unpacked = Path(case.files[0]), job.scratch.absolute()
        inside = path.relative_to(unpacked).parts[1:] if unpacked in path.parents else (path.name,)
        name = "/".join(inside)
    return name.encode("utf-8", "replace").decode()


def _bytes(case: Case) -> int | None:
    try:
        return sum(Path(name).stat().st_size for name in case.files)
    except OSError:
        return None
