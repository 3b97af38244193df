"""What happens to a job, as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from app.jobs import ENDED, Job, Status
from operators.errors import ReadError

EVERY = 0.25
"""Seconds between looks at the disk."""

QUIET = 15.0
"""Seconds without news after which a comment is sent, so that nobody in between takes the connection for dead."""


@dataclass
class _Seen:
    """How far a client has followed a job."""

    number: int
    size: int = -1
    status: Status | None = None


async def follow(job: Job, after: int) -> AsyncIterator[str]:
    """Events of a job, from journal event number `after` on, until it ends or is deleted."""
    seen, spoken = _Seen(after), time.monotonic()
    while True:
        try:
            news, ended = await run_in_threadpool(_news, job, seen)
        except ReadError:  # deleted
            news, ended = [], True
        if news:
            spoken = time.monotonic()
            yield "".join(news)
        if ended:
            yield "event: end\ndata: {}\n\n"
            return
        if time.monotonic() - spoken > QUIET:
            spoken = time.monotonic()
            yield ": still there\n\n"
        await asyncio.sleep(EVERY)


def nothing_new(job: Job, after: int) -> bool:
    """Whether a job has ended and no journal event came after number `after`."""
    return job.status().state in ENDED and not job.journal(after)


def _news(job: Job, seen: _Seen) -> tuple[list[str], bool]:
    status = job.status()  # before the journal, so that the end of the journal is told before the end of the job
    news = []
    size = _size(job)
    if size != seen.size:
        seen.size = size
        for event in job.journal(seen.number):
            seen.number += 1
            news.append(f"id: {seen.number}\n{_event('journal', event)}")
    if status != seen.status:
        seen.status = status
        news.append(_event("status", status.model_dump(mode="json")))
    return news, status.state in ENDED


def _size(job: Job) -> int:
    try:
        return (job.private / "journal.jsonl").stat().st_size
    except FileNotFoundError:
        return 0


def _event(name: str, facts: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(facts, separators=(',', ':'))}\n\n"
