"""The tables of a study: tidy rows, means with bootstrap intervals, Markdown and LaTeX.

table.csv        a row for each case, recipe and estimate; no clock in it, so that repeating gives the same bytes
times.csv        seconds of each case and recipe
summary.csv      means over cases with intervals, and differences to the reference recipe
trace.csv        the residual of one picture over the steps
calibration.csv  how often the truth lies between the samples
summary.md, summary.tex
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.jobs import put
from app.options import Outcome
from app.scores import coverage
from app.study import Run
from app.study_plan import Cell, Metric, Plan
from operators.errors import NeedError

Runs = Mapping[int, Run]

RESAMPLES = 9999
LEAST = 5
"""Fewer cases get no interval: resamples of so few say next to nothing."""

_OF_IMAGES = ("psnr", "ssim")  # differ between the mean of the samples and a single one
_COLUMNS = ("psnr", "ssim", "residual_sigma", "nfe", "vjps")
HEADINGS: dict[Metric, tuple[str, str, int]] = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "residual_sigma": ("residual", "sigma", 3),
}
"""Name, unit and digits of each metric."""


# tidy rows


def rows(plan: Plan, runs: Runs) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: for each cell and case one of the mean of the samples, then one for each sample.

    `residual_sigma` of a mean is the average over its samples, as in the report of a batch. Failed cases have a row
    without figures.
    """
    header = ["recipe", "digest", *plan.axes, "case", "input_sha256", "state", "estimate", "seed", *_COLUMNS]
    table: list[list[Any]] = []
    for cell, outcome in _pairs(plan, runs):
        figures, seeds = outcome.figures, cell.recipe.seeds
        start = [cell.number, cell.recipe.digest, *cell.labels, plan.cases[outcome.number - 1]]
        start += [outcome.inputs, outcome.state]
        table.append([*start, "mean", "", *(_number(figures.get(name)) for name in _COLUMNS)])
        for k, seed in enumerate(seeds):
            if f"psnr[{k}]" in figures:
                scores = [_number(figures[f"{name}[{k}]"]) for name in _COLUMNS[:3]]
                table.append([*start, "sample", seed, *scores, *(_number(figures.get(name)) for name in _COLUMNS[3:])])
    return header, table


def times(plan: Plan, runs: Runs) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: the seconds of every case."""
    header = ["recipe", "digest", *plan.axes, "case", "seconds", "network_seconds"]
    table = []
    for cell, outcome in _pairs(plan, runs):
        spent = [_number(outcome.figures.get(name)) for name in ("seconds", "network_seconds")]
        table.append([cell.number, cell.recipe.digest, *cell.labels, plan.cases[outcome.number - 1], *spent])
    return header, table


def traces(plan: Plan, runs: Runs) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: the trace of every cell."""
    table = [
        [cell.number, *cell.labels, p.step, _number(p.sigma), _number(p.residual_sigma), _number(p.psnr)]
        for cell in plan.cells
        if cell.number in runs
        for p in runs[cell.number].trace
    ]
    return ["recipe", *plan.axes, "step", "sigma", "residual_sigma", "psnr"], table


def calibration(plan: Plan, runs: Runs) -> dict[int, list[tuple[float, float]]]:
    """Nominal and true coverage, over the pixels of all cases, by number of the cell; only where there are samples."""
    found = {}
    for cell in plan.cells:
        each = [_ranks(o, len(cell.recipe.seeds)) for o in _done(runs, cell)]
        if each and all(each):
            found[cell.number] = coverage([float(share) for share in np.mean(each, axis=0)])
    return found


def _ranks(outcome: Outcome, samples: int) -> list[float]:
    names = [f"rank[{r}]" for r in range(samples + 1)]
    return [outcome.figures[name] for name in names] if names[0] in outcome.figures else []


def _pairs(plan: Plan, runs: Runs) -> Iterable[tuple[Cell, Outcome]]:
    for cell in plan.cells:
        for outcome in runs[cell.number].outcomes if cell.number in runs else ():
            yield cell, outcome


def _done(runs: Runs, cell: Cell) -> list[Outcome]:
    return [o for o in runs[cell.number].outcomes if o.state == "done"] if cell.number in runs else []


# means and intervals


@dataclass(frozen=True)
class Interval:
    """A mean over `n` cases with its 95 % interval, NaN where there is none."""

    n: int
    mean: float
    low: float = math.nan
    high: float = math.nan


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean and its 95 % bootstrap interval (BCa), resampling cases; the seed decides the resamples.

    Source: Efron 1987, "Better bootstrap confidence intervals", as scipy.stats.bootstrap has it.
    """
    from scipy.stats import bootstrap  # not at the top: takes half a second to load

    array = np.asarray(values, np.float64)
    if len(array) == 0:
        return Interval(0, math.nan)
    mean = float(array.mean())
    if len(array) < LEAST or not np.isfinite(array).all():
        return Interval(len(array), mean)
    if np.ptp(array) <= 1e-12 * max(1.0, float(np.abs(array).max())):  # nothing to resample
        return Interval(len(array), mean, mean, mean)
    rng = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed)))
    found = bootstrap((array,), np.mean, n_resamples=RESAMPLES, rng=rng, vectorized=True).confidence_interval
    return Interval(len(array), mean, float(found.low), float(found.high))


@dataclass(frozen=True)
class Line:
    """A cell in the summary: a metric's mean over cases, and its difference to the reference.

    The difference is taken case by case, over the cases that both have.
    """

    cell: Cell
    metric: Metric
    estimate: str
    value: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Summary:
    """Lines by cell, metric and estimate; by number of the cell, network calls a sample and median seconds a case."""

    lines: dict[tuple[int, Metric, str], Line]
    nfe: dict[int, float]
    seconds: dict[int, float]

    def line(self, cell: Cell, metric: Metric, estimate: str) -> Line | None:
        """The line of a cell, if there is one."""
        return self.lines.get((cell.number, metric, estimate))


def summary(plan: Plan, runs: Runs) -> Summary:
    """Means over the cases, of the mean of the samples and of single ones; a case counts once, however many samples."""
    lines: dict[tuple[int, Metric, str], Line] = {}
    reference = next(cell for cell in plan.cells if cell.number == plan.reference)
    for metric in plan.metrics:
        for estimate in ("mean", "sample"):
            name = f"{metric}_sample" if estimate == "sample" else metric
            known = {cell.number: _figures(runs, cell, name) for cell in plan.cells}
            if estimate == "sample" and all(len(cell.recipe.seeds) == 1 for cell in plan.cells):
                continue
            for cell in plan.cells:
                own, other = known[cell.number], known[reference.number]
                if not own:
                    continue
                paired = [own[case] - other[case] for case in own if case in other]
                difference = None if cell == reference or not paired else interval(paired)
                value = interval(list(own.values()))
                lines[cell.number, metric, estimate] = Line(cell, metric, estimate, value, difference)
    numbered = [cell for cell in plan.cells if _done(runs, cell)]
    return Summary(
        lines,
        {cell.number: float(np.mean(list(_figures(runs, cell, "nfe").values()))) for cell in numbered},
        {cell.number: float(np.median(list(_figures(runs, cell, "seconds").values()))) for cell in numbered},
    )


def _figures(runs: Runs, cell: Cell, name: str) -> dict[int, float]:
    return {o.number: o.figures[name] for o in _done(runs, cell) if name in o.figures}


# as text


def markdown(plan: Plan, found: Summary) -> str:
    """A row a cell: labels, means with intervals and differences, network calls and seconds."""
    header, body = grid(plan, found, "Δ")
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def latex(plan: Plan, found: Summary) -> str:
    """The same for the package booktabs."""
    header, body = grid(plan, found, "$\\Delta$")
    rules = [_tex_line(header), "\\midrule\n", *map(_tex_line, body)]
    width = max(1, len(plan.axes))
    columns = "l" * width + "r" * (len(header) - width)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{''.join(rules)}\\bottomrule\n\\end{{tabular}}\n"


def _tex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell if cell.startswith("$") else _tex(cell) for cell in cells) + " \\\\\n"


def _tex(text: str) -> str:
    signs = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(signs.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def grid(plan: Plan, found: Summary, delta: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the summary, spelled; the labels first. `delta` stands for a difference."""
    shown = [(m, e) for m in plan.metrics for e in ("mean", "sample") if any(found.line(c, m, e) for c in plan.cells)]
    several = any(estimate == "sample" for _, estimate in shown)
    header = list(plan.axes) or ["recipe"]
    columns: list[tuple[Metric, str, bool]] = []
    for metric, estimate in shown:
        name, unit, _ = HEADINGS[metric]
        of = {"mean": " of the mean", "sample": " of a sample"}[estimate] if several and metric in _OF_IMAGES else ""
        header.append(f"{name}{of}{f', {unit}' if unit else ''}")
        columns.append((metric, estimate, False))
        if len(plan.cells) > 1 and estimate == "mean" and metric in _OF_IMAGES:
            header.append(f"{delta} {name}")
            columns.append((metric, estimate, True))
    body = []
    for cell in plan.cells:
        if cell.number not in found.nfe:
            continue
        row = list(cell.labels) or [cell.name]
        for metric, estimate, compared in columns:
            line, digits = found.line(cell, metric, estimate), HEADINGS[metric][2]
            value = None if line is None else line.difference if compared else line.value
            row.append("" if value is None else _spelled(value, digits, "+" if compared else ""))
        body.append([*row, f"{found.nfe[cell.number]:g}", f"{found.seconds[cell.number]:.2f}"])
    return [*header, "calls", "s"], body


def _spelled(value: Interval, digits: int, sign: str) -> str:
    text = f"{value.mean:{sign}.{digits}f}"
    if math.isnan(value.low):
        return text
    return f"{text} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"


def about(plan: Plan, runs: Runs) -> dict[str, str]:
    """What a reader needs to judge the figures: seeds, weights, versions, machine, how intervals were made."""
    made: dict[str, set[str]] = {}
    for run in runs.values():
        for name, value in run.made.items():
            made.setdefault(name, set()).add(value)
    return {
        "recipes": f"{len(runs)} of {len(plan.cells)} done",
        "cases": str(len(plan.cases)),
        "measurements": "simulated, noise of seed 0 for every case and recipe" if plan.truth else "as given",
        "seeds of the samples": "; ".join(sorted({", ".join(map(str, cell.recipe.seeds)) for cell in plan.cells})),
        "intervals": f"95 %, BCa bootstrap over cases, {RESAMPLES} resamples, seed 0; none below {LEAST} cases",
        "differences": f"case by case, to {next(c.name for c in plan.cells if c.number == plan.reference)}",
        "weights": ", ".join(f"{name} {sha[:12]}" for name, sha in plan.assets.items()) or "none",
    } | {name: "; ".join(sorted(values)) for name, values in made.items()}


# files


def write_tables(plan: Plan, runs: Runs, folder: Path) -> Summary:
    """Write all of them; what a clock decides is in `times.csv` and the summaries alone.

    Raises:
        WriteError: the disk refuses.
    """
    found = summary(plan, runs)
    _put(folder / "table.csv", _csv(*rows(plan, runs)))
    _put(folder / "times.csv", _csv(*times(plan, runs)))
    header = ["recipe", *plan.axes, "metric", "estimate", "cases", "mean", "low", "high"]
    ends = ["paired", "difference", "difference_low", "difference_high"]
    lines = []
    for x in found.lines.values():
        apart = [""] * 4 if x.difference is None else _numbers(x.difference)
        lines.append([x.cell.number, *x.cell.labels, x.metric, x.estimate, *_numbers(x.value), *apart])
    _put(folder / "summary.csv", _csv([*header, *ends], lines))
    _put(folder / "trace.csv", _csv(*traces(plan, runs)))
    curves = calibration(plan, runs)
    points = [
        [cell.number, *cell.labels, _number(nominal), _number(held)]
        for cell in plan.cells
        for nominal, held in curves.get(cell.number, [])
    ]
    _put(folder / "calibration.csv", _csv(["recipe", *plan.axes, "nominal", "held"], points))
    _put(folder / "summary.md", markdown(plan, found).encode())
    _put(folder / "summary.tex", latex(plan, found).encode())
    return found


def write_parquet(plan: Plan, runs: Runs, path: Path) -> None:
    """The same rows as `table.csv`, with types.

    Raises:
        NeedError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise NeedError(
            "Expected the package pyarrow for Parquet, found none; pip install 'preimage[parquet]'."
        ) from error
    header, table = rows(plan, runs)
    numbers = dict.fromkeys(_COLUMNS, float) | {"recipe": int, "seed": int}
    columns = {
        name: [numbers[name](row[i]) if row[i] != "" else None for row in table]
        if name in numbers
        else [str(row[i]) for row in table]
        for i, name in enumerate(header)
    }
    part = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), part)
    _put(path, part.getvalue())


def _put(path: Path, content: bytes) -> None:
    put(path, content, mode=0o666)  # for people, unlike what a job keeps for itself


def _csv(header: Sequence[str], table: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *table])
    return text.getvalue().encode()


def _numbers(value: Interval) -> list[Any]:
    return [value.n, *("" if math.isnan(x) else _number(x) for x in (value.mean, value.low, value.high))]


def _number(value: float | None) -> str:
    """Nine digits: more than float32 holds."""
    return "" if value is None else f"{value:.9g}"
