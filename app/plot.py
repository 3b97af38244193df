"""Line charts as SVG text, without scripts, fonts or addresses of their own; colours come from the page's style."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Literal

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 46


@dataclass(frozen=True)
class Point:
    """A point, its interval if it has one, and what it is called."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    name: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour of the style, joined by a line in their order; `dots` marks them."""

    name: str
    points: tuple[Point, ...]
    colour: int
    dots: bool = True


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with its ticks; logarithmic where values span decades."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (here - low) / (high - low)


def scale(values: Sequence[float], *, log: bool = False) -> Scale:
    """An axis that holds all values with a little air, ticked at 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    if log and low > 0 and high / low > 5:
        low, high = low / 1.15, high * 1.15
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
        if len(ticks) > 7:
            ticks = [t for t in ticks if math.isclose(math.log10(t) % 1, 0, abs_tol=1e-9)]
        return Scale(low, high, tuple(ticks), log=True)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - air, high + air
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(m * step for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 6)
    first = math.ceil(low / step)
    return Scale(low, high, tuple(k * step for k in range(first, math.floor(high / step) + 1)))


def chart(
    title: str, x: str, y: str, series: Sequence[Series], *, diagonal: bool = False, log: Literal["", "x", "y"] = ""
) -> str:
    """A figure: SVG and its legend.

    Args:
        title: above the chart.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        series: at least one point in all; points that are not finite are left out.
        diagonal: also draw y = x.
        log: axis that is logarithmic where its values span enough.
    """
    kept = [replace(s, points=tuple(filter(_finite, s.points))) for s in series]
    points = [p for s in kept for p in s.points]
    heights = [v for p in points for v in (p.y, p.low, p.high) if math.isfinite(v)]
    across = scale([p.x for p in points] + ([0, 1] if diagonal else []), log=log == "x")
    up = scale(heights + ([0, 1] if diagonal else []), log=log == "y")

    def place(px: float, py: float) -> tuple[float, float]:
        return (
            _LEFT + across.at(px) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up.at(py) * (HEIGHT - _TOP - _BOTTOM),
        )

    body = []
    for tick in up.ticks:
        _, top = place(across.low, tick)
        body.append(f'<path class="grid" d="M{_LEFT} {top:.1f}H{WIDTH - _RIGHT}"/>')
        body.append(f'<text x="{_LEFT - 7}" y="{top + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in across.ticks:
        left, _ = place(tick, up.low)
        body.append(f'<path class="tick" d="M{left:.1f} {HEIGHT - _BOTTOM}v5"/>')
        body.append(f'<text x="{left:.1f}" y="{HEIGHT - _BOTTOM + 19}" text-anchor="middle">{tick:.6g}</text>')
    body.append(f'<path class="tick" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>')
    if diagonal:
        body.append('<path class="even" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>'.format(*place(0, 0), *place(1, 1)))
    body += [_drawn(one, place) for one in kept]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    words = (
        f'<text class="name" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>'
        f'<text class="name" transform="translate(14 {(_TOP + HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y)}</text>'
    )
    legend = "".join(f'<li><i class="c{s.colour % COLOURS}"></i>{escape(s.name)}</li>' for s in kept)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {y} against {x}")}">'
        f"{''.join(body)}{words}</svg><ul>{legend}</ul></figure>"
    )


COLOURS = 8
"""Of the style; higher numbers repeat them."""


def _drawn(series: Series, place: Callable[[float, float], tuple[float, float]]) -> str:
    spots = [(p, *place(p.x, p.y)) for p in series.points]
    parts = []
    if len(spots) > 1:
        path = "L".join(f"{left:.1f} {top:.1f}" for _, left, top in spots)
        parts.append(f'<path class="line" d="M{path}"/>')
    for p, left, top in spots if series.dots else ():
        if math.isfinite(p.low) and math.isfinite(p.high):
            (_, high), (_, low) = place(p.x, p.high), place(p.x, p.low)
            parts.append(f'<path class="bar" d="M{left:.1f} {low:.1f}V{high:.1f}"/>')
        label = f"{p.name or series.name}: {p.x:.6g}, {p.y:.6g}"
        parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4"><title>{escape(label)}</title></circle>')
    return f'<g class="c{series.colour % COLOURS}">{"".join(parts)}</g>'


def _finite(point: Point) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)
