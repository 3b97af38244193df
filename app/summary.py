"""The end of a run for people and programs: `summary.csv`, `summary.html` and `manifest.json`. No names, no paths."""

import base64
import csv
import html
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from app.jobs import Job, now
from app.options import Outcome

NOTICE = "Research use only; not for diagnosis."

_SCORES = ("psnr", "ssim", "psnr_sample", "ssim_sample")
_FIGURES = (*_SCORES, "residual_sigma", "imagined", "nfe", "vjps", "network_seconds")
_LARGEST = 1000  # pictures in a page


def summary_csv(cases: Sequence[Outcome]) -> bytes:
    """A row a case."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["number", "case", "kind", "state", "proven", "seconds", *_FIGURES, "input_sha256", "message", "notes"]
    )
    for case in cases:
        figures = [_number(case.figures.get(name)) for name in _FIGURES]
        table.writerow(
            [
                case.number,
                case.case,
                case.kind,
                case.state,
                int(case.proven),
                _number(case.seconds),
                *figures,
                case.inputs,
                case.message,
                "; ".join(case.notes),
            ]
        )
    return text.getvalue().encode()


def summary_html(job: Job, cases: Sequence[Outcome], facts: Mapping[str, Any]) -> bytes:
    """A page without links to anything: counts, and a row a case with measurement and estimate beside each other."""
    counts = {state: sum(case.state == state for case in cases) for state in ("done", "failed", "partial")}
    rows = [_row(job, case, number < _LARGEST) for number, case in enumerate(cases)]
    named = "".join(f"<li>{html.escape(str(k))}: {html.escape(str(v))}</li>" for k, v in facts.items())
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Preimage: a batch of {len(cases)} cases</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c1e21 }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ padding: .4rem .6rem; text-align: left; vertical-align: top; border-top: 1px solid #ddd }}
img {{ max-width: 26rem; display: block }}
.failed td {{ background: #fdecea }}
.notice {{ background: #fff6d6; padding: .5rem .8rem }}
li {{ overflow-wrap: anywhere }}
</style>
<h1>{len(cases)} cases: {counts["done"]} done, {counts["failed"]} failed{_and_partial(counts["partial"])}</h1>
<p class="notice">{NOTICE} Cases have numbers; <code>job/plan.json</code> says which files they were.</p>
<ul>{named}</ul>
<table><thead><tr><th>case<th>state<th>figures<th>measurement and estimate</tr></thead>
<tbody>{"".join(rows)}</tbody></table></html>
"""
    return page.encode()


def manifest(job: Job, cases: Sequence[Outcome], facts: Mapping[str, Any]) -> bytes:
    """Everything about the run, for programs."""
    request = job.request
    whole = {
        "schema_version": 1,
        "intended_use": "research only; not for diagnosis",
        "tool": {"name": "preimage", "version": version("preimage")},
        "versions": {name: _version(name) for name in ("torch", "numpy", "pydicom", "nibabel")}
        | {"python": platform.python_version()},
        "job": request.id,
        "created": request.created,
        "written": now(),
        "recipe": request.recipe,
        "options": request.options,
        **facts,
        "cases": [case.model_dump(mode="json") for case in cases],
    }
    return (json.dumps(whole, indent=2) + "\n").encode()


def _row(job: Job, case: Outcome, with_picture: bool) -> str:
    figures = "<br>".join(
        f"{name.replace('_', ' ')} {_number(case.figures[name])}" for name in _FIGURES if name in case.figures
    )
    words = "<br>".join(html.escape(text) for text in (case.message, *case.notes) if text)
    state = case.state + (" (verified)" if case.proven else "")
    return (
        f'<tr class="{case.state}"><td>{case.number}<br><small>{case.case}<br>{case.kind}</small><td>{state}<br>'
        f"<small>{case.seconds:.2f} s</small><td>{figures}<br><small>{words}</small>"
        f"<td>{_picture(job, case) if with_picture else ''}</tr>\n"
    )


def _picture(job: Job, case: Outcome) -> str:
    try:
        content = (job.private / "previews" / f"{case.case}.png").read_bytes()
    except OSError:
        return ""
    return f'<img alt="case {case.number}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def _and_partial(count: int) -> str:
    return f", {count} stopped on the way" if count else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if math.isfinite(value) else str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
