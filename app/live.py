"""What a page sees of a run under way: a small picture of the clean estimate and the residual, twice a second."""

import json
import math
import os
import time
from typing import Any

from torch import Tensor

from app.jobs import Job, put
from app.view import data_picture, jpeg, reduced, to_colours
from restoration.pipeline import Progress as Steps

SIDE = 512
"""Longest side of the picture, in pixels."""

EVERY = 0.5
"""Seconds from one picture to the next, at least."""

SHARE = 0.05
"""Of the run's time that may go into this: the larger pictures are, the rarer they come."""


class Live:
    """Writes `job/live.jpg` and lines of `job/trace.jsonl`: case, step, steps, residual_sigma, seconds of the case."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._due = 0.0
        self._began = time.monotonic()
        self._last: dict[int, tuple[int, int]] = {}  # the last step of each case under way

    def begin(self) -> None:
        """A case begins."""
        self._began, self._due = time.monotonic(), 0.0

    def step(self, number: int, steps: Steps) -> None:
        """Show a step of a case, if it is time."""
        self._last = {number: (steps.done, steps.total)}
        before = time.monotonic()
        if before < self._due:
            return
        put(self._job.private / "live.jpg", jpeg(to_colours(small(steps.step.x0[0], SIDE))), durable=False)
        # after the first group of samples it would only be told again
        if steps.done <= steps.step.total and steps.likelihood is not None:
            self._tell(number, steps.done, steps.total, steps.residual_sigma())
        after = time.monotonic()
        self._due = before + max(EVERY, (after - before) / SHARE)

    def end(self, number: int, residual: float | None) -> None:
        """The case has ended, with this residual."""
        done, total = self._last.pop(number, (0, 0))
        if residual is not None and total:
            self._tell(number, done, total, residual)
        self.begin()

    def _tell(self, case: int, step: int, steps: int, residual: float | None) -> None:
        known = residual if residual is not None and math.isfinite(residual) else None
        seconds = round(time.monotonic() - self._began, 3)
        facts = {"case": case, "step": step, "steps": steps, "residual_sigma": known, "seconds": seconds}
        line = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
        handle = os.open(self._job.private / "trace.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def small(image: Tensor, side: int) -> Tensor:
    """A clean estimate as a small picture (1 or 3, H, W): reduced before anything else is done with it."""
    real = image.abs() if image.is_complex() else image
    if real.ndim == 3 and real.shape[0] in (1, 3):
        return data_picture(reduced(real, side))
    return reduced(data_picture(real), side)


def picture(job: Job) -> bytes | None:
    """The last picture of a run (JPEG), or None."""
    try:
        return (job.private / "live.jpg").read_bytes()
    except FileNotFoundError:
        return None


def trace(job: Job) -> list[dict[str, Any]]:
    """The lines of `trace.jsonl`; of a case that was begun again, those of the last time."""
    try:
        lines = (job.private / "trace.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    cases: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            rows = cases.setdefault(entry["case"], [])
            if rows and entry["step"] < rows[-1]["step"]:
                rows.clear()
            rows.append(entry)
        except (ValueError, KeyError, TypeError):  # cut off
            continue
    return [entry for rows in cases.values() for entry in rows]
