"""The demo's page: one HTML file with everything in it, no address of the world outside."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib import resources

import torch

from app.cases import Case, average, method_name
from app.view import Colours, heat, spread_scale, webp

_KNOB = (
    '<span class="knob" aria-hidden="true"><svg width="18" height="12" viewBox="0 0 18 12" fill="none" '
    'stroke="#1d2024" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round">'
    '<path d="M5.5 1 1 6l4.5 5M12.5 1 17 6l-4.5 5"/></svg></span>'
)


def page(cases: Sequence[Case]) -> str:
    """The whole page.   `cases`: at least one, in the order in which they are shown, those of a task together."""
    first = cases[0].row
    names = {
        "measurement": "Measurement",
        "classical": "Best classical",
        "truth": "Truth",
        "mean": f"Mean of {first.samples} samples",
        "sample": "One sample",
        "spread": "Spread",
    }
    top = spread_scale([case.spread for case in cases])
    tasks = {case.row.task: [other for other in cases if other.row.task == case.row.task] for case in cases}
    pictures = {case.row.picture: case.card for case in cases}
    count = f"{_number(len(pictures))} picture{'s were' if len(pictures) > 1 else ' was'}"
    kinds = f"{_number(len(tasks))} way{'s' if len(tasks) > 1 else ''}"
    sections = "\n".join(_section(name, group, top) for name, group in tasks.items())
    averages = {name: _averages(group) for name, group in tasks.items()}
    every = [value for figures in averages.values() for _, value in figures]
    axis = 5 * math.floor(min(every) / 5), 5 * math.ceil(max(every) / 5)
    tiles = "\n".join(_tile(name, group[0].task.title, averages[name], axis) for name, group in tasks.items())
    sources = " · ".join(f"{escape(c.title)} ({escape(c.licence)})" for c in pictures.values())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preimage demo</title>
<link rel="icon" href="data:,">
<style>{_part("page.css")}</style>
</head>
<body data-right="mean">
<header>
<p class="brand">Preimage</p>
<h1>One measurement, many possible photographs</h1>
<p class="lede">{count.capitalize()} damaged in {kinds}, with noise added. For each measurement, <strong>
{_number(first.samples)} images that could have made it</strong> were drawn. Where they differ, the measurement leaves
the picture open. That they agree is no proof: the error of their mean is {_overconfidence(cases):.1f} times their
spread here, where exact samples would give {_exact(first.samples):.1f}.</p>
<div class="tiles">
{tiles}
</div>
<p class="axis num">Closeness to the truth (PSNR), average of {count.rsplit(" ", 1)[0]}; the lines run from {axis[0]} to
{axis[1]} dB.</p>
</header>
<div class="controls" role="group" aria-label="What the two sides of every picture show">
<div>
{_choices("left", "Left", ["measurement", "classical", "truth"], names)}
{_choices("right", "Right", ["mean", "sample", "spread"], names | {"mean": f"Mean of {first.samples}"})}
<p class="scale num">0 {_ramp()} {top:g} or more</p>
</div>
</div>
<main>
{sections}
<section class="task">
<h2>All figures</h2>
{_table(tasks)}
</section>
<section class="task prose">
<h2>How to read this</h2>
{_reading(cases, top)}
</section>
<footer>
<p>Pictures: {sources}.</p>
<p>{escape(_machine(cases))}</p>
<p>Research use only. This page holds everything it needs and loads nothing.</p>
</footer>
</main>
<script type="application/json" id="names">{json.dumps(names)}</script>
<script>{_part("page.js")}</script>
</body>
</html>
"""


def _choices(side: str, legend: str, kinds: list[str], names: dict[str, str]) -> str:
    labels = "".join(
        f'<label><input type="radio" name="{side}" value="{kind}"{" checked" if not number else ""}>'
        f"<span>{escape(names[kind])}</span></label>"
        for number, kind in enumerate(kinds)
    )
    return f'<fieldset><legend>{legend}</legend><div class="choices">{labels}</div></fieldset>'


def _averages(group: Sequence[Case]) -> list[tuple[str, float]]:
    names = {
        "Measurement": "input_psnr",
        "Best classical": "baseline_psnr",
        "One sample": "sample_psnr",
        "Mean": "mean_psnr",
    }
    return [(name, average([case.row for case in group], figure)) for name, figure in names.items()]


def _tile(task: str, title: str, figures: Sequence[tuple[str, float]], axis: tuple[int, int]) -> str:
    """Dots on one axis for all tiles: a bar would have to start at 0 dB, which means nothing."""
    span = max(1, axis[1] - axis[0])
    lines = "".join(
        f'<dt>{name}</dt><dd class="line"><i style="left:{100 * (value - axis[0]) / span:.1f}%"></i></dd>'
        f'<dd class="num">{value:.1f} dB</dd>'
        for name, value in figures
    )
    return f'<a class="tile" href="#{escape(task)}"><b>{escape(title)}</b><dl>{lines}</dl></a>'


def _section(task: str, group: Sequence[Case], top: float) -> str:
    recipe = group[0].task.recipe
    settings = {"operator": recipe.operator.model_dump(), "noise": recipe.noise.model_dump()}
    method = {"model": recipe.model.model_dump(), "method": recipe.method.model_dump()}
    figures = "\n".join(_figure(case, top) for case in group)
    command = f"preimage run {task} PICTURE -o out/{task} --truth --samples {group[0].row.samples}"
    return f"""<section class="task" id="{escape(task)}">
<h2>{escape(group[0].task.title)}</h2>
<p>{escape(group[0].task.sentence)}</p>
<div class="row">
{figures}
</div>
<details><summary>Settings and command</summary>
<p>{escape(recipe.title)}. {escape(recipe.reference)}</p>
<pre>{escape(command)}

{escape(json.dumps(settings))}
{escape(json.dumps(method))}</pre></details>
</section>"""


def _figure(case: Case, top: float) -> str:
    row, title = case.row, case.card.title
    height, width = case.truth.shape[:2]
    shown: list[tuple[str, Colours, str, str]] = [
        ("measurement", case.measurement, "left", f"measurement, {row.input_psnr:.1f} dB"),
        ("classical", case.classical, "", f"{row.baseline}, {row.baseline_psnr:.1f} dB"),
        ("truth", case.truth, "", "truth"),
        ("mean", case.mean, "right", f"mean of {row.samples} samples, {row.mean_psnr:.1f} dB"),
        ("sample", case.sample, "", f"one sample, {row.sample_psnr:.1f} dB"),
        ("spread", heat(case.spread, top), "", f"spread of the samples, black 0 to pale yellow {top:g}"),
    ]
    images = "\n".join(
        f'<img class="{side}" data-kind="{kind}" alt="{escape(title)}: {escape(alt)}" src="{_data_uri(colours)}">'
        for kind, colours, side, alt in shown
    )
    lead = row.mean_psnr - row.baseline_psnr
    verdict = f"{abs(lead):.1f} dB {'above' if lead >= 0 else 'below'} the classical one"
    return f"""<figure style="flex:{width / height:.4f} 1 0">
<div class="compare" data-title="{escape(title)}" style="aspect-ratio:{width}/{height}">
{images}
<span class="tag l">Measurement</span><span class="tag r">Mean of {row.samples} samples</span>
{_KNOB}
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="{escape(title)}: divider between two pictures">
</div>
<figcaption class="num"><b>{escape(row.picture)}</b>: {verdict}
<span class="figures"><span>Measurement</span><span>{row.input_psnr:.1f} dB</span>
<span>{escape(row.baseline)}</span><span>{row.baseline_psnr:.1f} dB</span>
<span>One sample</span><span>{row.sample_psnr:.1f} dB</span>
<span><b>Mean</b></span><span><b>{row.mean_psnr:.1f} dB</b></span></span>
Spread {row.spread_rms:.3f}, true error of the mean {row.error_rms:.3f}</figcaption>
</figure>"""


_COLUMNS = (
    ("Measured<br>dB", "input_psnr", ".2f"),
    ("Classical<br>dB", "baseline_psnr", ".2f"),
    ("<br>SSIM", "baseline_ssim", ".3f"),
    ("Sample<br>dB", "sample_psnr", ".2f"),
    ("<br>SSIM", "sample_ssim", ".3f"),
    ("Mean<br>dB", "mean_psnr", ".2f"),
    ("<br>SSIM", "mean_ssim", ".3f"),
    ("Residual<br>sigma", "residual_sigma", ".2f"),
    ("Network<br>calls", "nfe", "g"),
    ("Seconds<br>in all", "seconds", ".1f"),
)
"""Heading, figure of a `Row` and its format."""


def _table(tasks: dict[str, list[Case]]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading, _, _ in _COLUMNS)
    bodies = []
    for task, group in tasks.items():
        rows = [case.row for case in group]
        lines = [
            _line("", task, row.picture, row.baseline, [f"{asdict(row)[f]:{form}}" for _, f, form in _COLUMNS])
            for row in rows
        ]
        means = [f"{average(rows, f):{form}}" for _, f, form in _COLUMNS]
        bodies.append(f"<tbody>{''.join(lines)}{_line('average', task, 'average', '', means)}</tbody>")
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="All figures"><table class="num">
<thead><tr><th class="text" scope="col">Damage</th><th class="text" scope="col">Picture</th>
<th class="text" scope="col">Best classical</th>{head}</tr></thead>
{"".join(bodies)}
</table></div>"""


def _line(kind: str, task: str, picture: str, baseline: str, figures: Sequence[str]) -> str:
    cells = "".join(f"<td>{figure}</td>" for figure in figures)
    words = f'<td class="text">{escape(picture)}</td><td class="text">{escape(baseline)}</td>'
    return f'<tr class="{kind}"><th scope="row">{escape(task)}</th>{words}{cells}</tr>'


def _reading(cases: Sequence[Case], top: float) -> str:
    row, tasks = cases[0].row, {case.row.task: case.task for case in cases}
    sigmas = sorted({case.row.noise_sigma for case in cases if case.row.noise_sigma is not None})
    noise = ""
    if sigmas:
        noise = f" with a standard deviation of {' or '.join(f'{s:g}' for s in sigmas)} (white is 1)"
    tried = sorted({method_name(method) for task in tasks.values() for method in task.classical})
    return f"""<h3>The measurements are simulated</h3>
<p>A clean picture was passed through a known operator, and Gaussian noise{noise} was added. The methods are told the
operator and the noise level. The figure under “Measurement” is that of a plain guess: the blurred picture itself, a
bicubic enlargement, or holes filled from their surroundings.</p>
<h3>PSNR and SSIM</h3>
<p>PSNR compares with the truth pixel by pixel, in decibels; 6 dB more is half the error. SSIM compares local structure;
1 is identical. Both favour smooth answers over sharp ones that are wrong in detail.</p>
<h3>The classical side has an advantage</h3>
<p>“Best classical” is whichever of these came closest to the truth on that very picture, by PSNR:
{escape(", ".join(tried))}. Without the truth nobody could choose so well.</p>
<h3>Residual</h3>
<p>How far the samples are from the measurement, once damaged again, in units of the noise. Near 1, a sample explains
the measurement as well as the truth does; far above, it contradicts it; far below, it has fitted the noise.</p>
<h3>Spread</h3>
<p>The standard deviation over {row.samples} samples, root mean square over the colours: {_ramp()} from 0 to {top:g}.
It shows where the samples disagree; it is not a calibrated error bar. If they were exact samples of the right
posterior, the mean's true error would be about {_exact(row.samples):.1f} times the spread; here it is
{_overconfidence(cases):.1f} times. Their mean has a smaller error than a sample has on average, and is smoother.</p>"""


def _overconfidence(cases: Sequence[Case]) -> float:
    """How many times larger the mean's true error is than the samples' spread."""
    return sum(c.row.error_rms for c in cases) / max(sum(c.row.spread_rms for c in cases), 1e-12)


def _exact(samples: int) -> float:
    """The same for exact samples: the mean of n errs by (1 + 1/n) of the variance, of which they show (1 - 1/n)."""
    return math.sqrt((samples + 1) / (samples - 1))


def _machine(cases: Sequence[Case]) -> str:
    row = cases[0].row
    versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    assets = ", ".join(f"{name} {digest[:12]}" for name, digest in row.asset_sha256.items()) or "none"
    seconds = sum(case.row.seconds for case in cases)
    return (
        f"{seconds:.0f} s of sampling on {row.device}; threads {row.threads}; precision {row.precision}; "
        f"seeds {row.seeds[0]} to {row.seeds[-1]}; weights {assets}; {versions}."
    )


def _ramp() -> str:
    colours = heat(torch.linspace(0, 1, 9)[None], 1.0)[0]
    stops = ",".join(f"rgb({r} {g} {b})" for r, g, b in colours.tolist())
    style = f"background:linear-gradient(90deg,{stops})"
    return f'<span class="ramp" style="{style}" role="img" aria-label="colour scale"></span>'


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)


def _part(name: str) -> str:
    return (resources.files("app") / name).read_text(encoding="utf-8")


def _data_uri(colours: Colours) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp(colours)).decode()
