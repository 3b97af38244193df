"""What all requests to the server share."""

import contextlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Depends, Request
from fastapi import Path as InPath

from app.answers import JobDetail, JobInfo
from app.intake import IMAGES
from app.jobs import Job, State
from app.jobs import Request as Asked
from app.uploads import Limits, Refused
from app.worker import Dispatcher
from operators.errors import ReadError
from restoration.assets import AssetStore

MOST_WAITING = 1000
"""Jobs in the queue; more are refused until some have ended."""


def device_here() -> str:
    """Where jobs of the page are run: on a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Desk:
    """What all requests share. `changing` is held while the state of a job is looked at and changed.

    `token` says whether clients need one.
    """

    dispatcher: Dispatcher
    assets: AssetStore
    limits: Limits
    token: bool = False
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
        return JobInfo(**self._facts(job)[0])

    def detail(self, job: Job) -> JobDetail:
        """The same with what was asked for."""
        facts, asked = self._facts(job)
        return JobDetail(**facts, recipe=asked.recipe, options=asked.options)

    def _facts(self, job: Job) -> tuple[dict[str, Any], Asked]:
        """What is said of a job; a damaged one is shown too, with a sentence."""
        name, status = job.folder.name, job.status()
        try:
            asked = job.request
        except ReadError as error:
            asked = Asked(id=name, created=job.created, inputs=(), recipe={}, options={})
            status = status.model_copy(update={"message": str(error)})
        title, place = str(asked.recipe.get("title", "")), self.dispatcher.place(name)
        facts: dict[str, Any] = {"id": name, "created": asked.created, "title": title, "place": place, "status": status}
        facts |= {"wait_seconds": self._wait(place), "files": _files(job), "pictured": job.pictured()}
        return facts, asked

    def state(self, job: Job) -> State | None:
        """Of a job; None for one that was deleted meanwhile."""
        with contextlib.suppress(ReadError):
            return job.status().state
        return None

    def _wait(self, place: int | None) -> float | None:
        """Seconds until a job is begun: what is left of the one under way, and as long as usual for those between."""
        if place is None:
            return None
        usual, left, begun = self.dispatcher.usual, 0.0, self.dispatcher.begun
        if begun is not None:
            name, since = begun
            share = 0.0
            with contextlib.suppress(ReadError):
                status = self.dispatcher.store.get(name).status()
                ended = status.done + status.failed + status.step / max(status.steps, 1)
                share = ended / max(status.total, 1)
            if share > 0:
                left, usual = since * (1 / share - 1), since / share if usual is None else usual
            elif usual is not None:
                left = max(usual - since, 0.0)
            else:
                return None
        if place and usual is None:
            return None
        return round(left + place * (usual or 0.0), 1)

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


def shown_files(job: Job) -> list[Path]:
    """What came out, relative to the job; not what is hidden, or was put there under a name that is no text."""
    shown = []
    for path in job.files():
        with contextlib.suppress(UnicodeEncodeError):
            path.as_posix().encode()
            if not any(part.startswith(".") for part in path.parts):
                shown.append(path)
    return shown


def _files(job: Job) -> int:
    try:
        return len(os.listdir(job.folder / IMAGES))
    except OSError:
        return 0


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


Here = Annotated[Desk, Depends(_desk)]
JobId = Annotated[str, InPath(description="Identifier of the job, 16 hexadecimal digits.")]
