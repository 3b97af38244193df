"""The report of a study: one HTML file with its charts, tables and settings in it, no address of the world outside."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from app.jobs import put
from app.plot import COLOURS, Point, Series, chart
from app.study import done_runs, read_plan
from app.study_plan import Cell, Metric, Plan
from app.study_table import HEADINGS, Runs, Summary, about, calibration, grid, write_tables

_HUES = ("#0b62a8", "#c8501e", "#1d8a68", "#8a4fb0", "#b08900", "#c0397f", "#4d7a00", "#5b6168")
_DARK = ("#5aaef0", "#ff9868", "#4fcaa2", "#c797ea", "#e0bd3f", "#f285bb", "#9bcb4a", "#a3a8ae")
_MOST_ROWS = 2000  # of cases in the page; the CSV has all

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #1d2024; --soft: #5b6168; --line: #e0ddd7; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #eceae6; --soft: #a3a8ae;
--line: #32363b; } }
* { box-sizing: border-box } body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem; background: var(--paper);
color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif }
h1 { font-size: 2rem; line-height: 1.15; margin: 0 0 .5rem } h2 { font-size: 1.3rem; margin: 2.5rem 0 .8rem }
p { margin: .4rem 0; max-width: 46rem } .soft { color: var(--soft) } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .35rem .8rem .35rem 0; text-align: right; border-top: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 560; border: 0 } .words { text-align: left }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem }
figcaption { font-weight: 600; margin-bottom: .3rem } svg { width: 100%; height: auto; display: block }
svg text { font-size: 12px; fill: var(--soft) } svg .name { fill: var(--ink) }
.grid { stroke: var(--line) } .tick { stroke: var(--soft); fill: none }
.even { stroke: var(--soft); stroke-dasharray: 4 4 }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round } circle { fill: currentColor }
.bar { stroke: currentColor; stroke-width: 1.6; opacity: .6 }
figure ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .5rem 0 0; padding: 0;
font-size: .85rem; color: var(--soft) }
figure i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em;
background: currentColor }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .92rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere } pre { white-space: pre-wrap; font-size: .82rem }
"""


def report(folder: Path) -> tuple[Plan, Summary]:
    """Write all tables and `report.html` of a study from what is done of it; nothing is run.

    Raises:
        ReadError: no study, or nothing of it is done.
        WriteError: the disk refuses.
    """
    plan = read_plan(folder)
    runs = done_runs(plan, folder)
    found = write_tables(plan, runs, folder)
    put(folder / "report.html", page(plan, runs, found).encode(), mode=0o666)
    return plan, found


def page(plan: Plan, runs: Runs, found: Summary) -> str:
    """The whole page."""
    title = escape(plan.title or "A study")
    charts = "\n".join([*_quality(plan, found), *_traces(plan, runs), *_calibration(plan, runs)])
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about(plan, runs).items())
    recipes = "\n".join(_recipe(cell) for cell in plan.cells)
    missing = len(plan.cells) - len(runs)
    notice = f"<p><strong>{missing} of {len(plan.cells)} recipes are not done yet.</strong></p>" if missing else ""
    colours = "".join(f".c{n} {{ color: {c} }}" for n, c in enumerate(_HUES))
    dark = "".join(f".c{n} {{ color: {c} }}" for n, c in enumerate(_DARK))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">
<style>{_STYLE}{colours}
@media (prefers-color-scheme: dark) {{ {dark} }}</style></head>
<body>
<h1>{title}</h1>
<p class="soft">{len(plan.cells)} recipes on {len(plan.cases)} cases. Research use only.</p>
{notice}
<h2>Means over the cases</h2>
<div class="scroll">{_table(plan, found)}</div>
<p class="soft">In brackets 95 % bootstrap intervals over cases. Δ is the difference to
“{escape(next(c.name for c in plan.cells if c.number == plan.reference))}”, case by case. “calls” are network calls a
sample, “s” the median seconds a case.</p>
<h2>Charts</h2>
<div class="charts">
{charts}
</div>
<h2>How it was made</h2>
<dl>{facts}</dl>
<h2>Cases</h2>
{_cases(plan, runs)}
<h2>Recipes</h2>
{recipes}
</body></html>
"""


# charts


def _quality(plan: Plan, found: Summary) -> list[str]:
    """Every metric against every axis of numbers, against network calls and against seconds."""
    charts: list[str] = []
    for metric in plan.metrics if found.lines else ():
        name, unit, _ = HEADINGS[metric]
        what = f"{name}, {unit}" if unit else name
        for i, axis in enumerate(plan.axes):
            labels = {cell.number: cell.labels[i] for cell in plan.cells}
            if all(map(_is_number, labels.values())) and len(set(labels.values())) > 1:
                numbers = {number: float(label) for number, label in labels.items()}
                charts.append(chart(f"{name} over {axis}", axis, what, _series(plan, found, metric, numbers, joined=i)))
        if len({n for n in found.nfe.values() if n > 0}) > 1:
            calls = _series(plan, found, metric, found.nfe)
            charts.append(chart(f"{name} over network calls", "network calls a sample", what, calls, log="x"))
        if metric != "residual_sigma" and found.seconds:
            spent = _series(plan, found, metric, found.seconds)
            charts.append(chart(f"{name} over time", "seconds a case", what, spent, log="x"))
    return charts


def _series(
    plan: Plan, found: Summary, metric: Metric, x: Mapping[int, float], joined: int | None = None
) -> list[Series]:
    """Cells as points; those that differ in one axis alone are joined: `joined`, or the last of several."""
    if joined is None and len(plan.axes) > 1:
        joined = len(plan.axes) - 1
    groups: dict[str, list[Point]] = {}
    for cell in plan.cells:
        line = found.line(cell, metric, "mean")
        if line is not None:
            others = [label for i, label in enumerate(cell.labels) if i != joined]
            point = Point(x[cell.number], line.value.mean, line.value.low, line.value.high, cell.name)
            groups.setdefault(" / ".join(others) or plan.title or "all", []).append(point)
    return [Series(name, tuple(points), colour) for colour, (name, points) in enumerate(groups.items())]


def _traces(plan: Plan, runs: Runs) -> list[str]:
    """The residual, which should end near 1."""
    traced = [(cell, runs[cell.number].trace) for cell in plan.cells if cell.number in runs]
    drawn = [
        Series(cell.name, tuple(Point(p.step, p.residual_sigma) for p in trace), cell.number - 1, dots=False)
        for cell, trace in traced
        if len(trace) > 1
    ]
    return [
        chart(
            f"Residual of the first picture{_part(n, drawn)}",
            "step",
            "residual, sigma",
            drawn[n : n + COLOURS],
            log="y",
        )
        for n in range(0, len(drawn), COLOURS)
    ]


def _calibration(plan: Plan, runs: Runs) -> list[str]:
    """How often the truth lies in intervals of the samples; on the dashed line where they are right."""
    curves = calibration(plan, runs)
    drawn = [
        Series(cell.name, tuple(Point(*pair) for pair in curves[cell.number]), cell.number - 1)
        for cell in plan.cells
        if curves.get(cell.number)
    ]
    title = "Calibration of the samples"
    return [
        chart(title + _part(n, drawn), "nominal", "truth inside", drawn[n : n + COLOURS], diagonal=True)
        for n in range(0, len(drawn), COLOURS)
    ]


def _part(first: int, drawn: Sequence[Series]) -> str:
    parts = -(-len(drawn) // COLOURS)
    return f" ({first // COLOURS + 1} of {parts})" if parts > 1 else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# tables


def _table(plan: Plan, found: Summary) -> str:
    words = max(1, len(plan.axes))
    header, body = grid(plan, found, "Δ")

    def row(cells: Sequence[str], tag: str) -> str:
        starts = [f"<{tag} class=words>"] * words + [f"<{tag}>"] * (len(cells) - words)
        return "".join(f"{start}{escape(cell)}</{tag}>" for start, cell in zip(starts, cells, strict=True))

    lines = "".join(f"<tr>{row(line, 'td')}</tr>" for line in body)
    return f"<table><tr>{row(header, 'th')}</tr>{lines}</table>"


def _cases(plan: Plan, runs: Runs) -> str:
    """A metric of every case and recipe, and what failed."""
    metric = plan.metrics[0]
    name, unit, digits = HEADINGS[metric]
    done = [cell for cell in plan.cells if cell.number in runs]
    known = {cell.number: {o.number: o for o in runs[cell.number].outcomes} for cell in done}
    lines, failures = [], []
    for number, case in enumerate(plan.cases[:_MOST_ROWS], 1):
        values = []
        for cell in done:
            outcome = known[cell.number].get(number)
            value = None if outcome is None else outcome.figures.get(metric)
            values.append("failed" if value is None else f"{value:.{digits}f}")
            if outcome is not None and outcome.state != "done":
                failures.append(f"<li>{escape(case)}, {escape(cell.name)}: {escape(outcome.message)}</li>")
        figures = "".join(f"<td>{value}</td>" for value in values)
        lines.append(f"<tr><td class=words>{escape(case)}</td>{figures}</tr>")
    head = "".join(f"<th>{escape(cell.name)}</th>" for cell in done)
    note = f"<p class=soft>The first {_MOST_ROWS}; table.csv has all.</p>" if len(plan.cases) > _MOST_ROWS else ""
    return (
        f"<p>{name}{f', {unit}' if unit else ''}, of the mean of the samples.</p>{note}<ul>{''.join(failures)}</ul>"
        f'<details><summary>{len(plan.cases)} cases</summary><div class="scroll"><table>'
        f"<tr><th class=words>case</th>{head}</tr>{''.join(lines)}</table></div></details>"
    )


def _recipe(cell: Cell) -> str:
    text = json.dumps(cell.recipe.model_dump(mode="json"), indent=1)
    return (
        f"<details><summary>{escape(cell.name)} <span class=soft>{cell.recipe.digest}</span></summary>"
        f"<pre>{escape(text)}</pre></details>"
    )
