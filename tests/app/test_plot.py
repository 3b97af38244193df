"""Charts as SVG."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.plot import HEIGHT, WIDTH, Point, Series, chart, scale

NUMBERS = st.floats(-1e6, 1e6)


def drawing(html: str) -> ET.Element:
    return ET.fromstring(re.search(r"<svg.*</svg>", html, re.DOTALL)[0])


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_a_scale_holds_its_values_and_has_a_few_ticks_inside(values: list[float]) -> None:
    found = scale(values)
    assert found.low < min(values) <= max(values) < found.high
    assert 1 <= len(found.ticks) <= 8
    assert all(found.low <= tick <= found.high for tick in found.ticks)
    assert all(0 <= found.at(value) <= 1 for value in values)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=20))
def test_a_logarithmic_scale_is_even_in_decades(values: list[float]) -> None:
    found = scale(values, log=True)
    assert found.log == (max(values) / min(values) > 5)
    if found.log:
        middle = math.sqrt(found.low * found.high)
        assert found.at(middle) == pytest.approx(0.5)
        assert found.ticks


def test_points_are_where_their_values_say() -> None:
    series = Series("one", (Point(0, 10), Point(1, 20, 18, 22), Point(2, 30)), 9)
    root = drawing(chart("t", "x", "y", [series]))
    assert [g.get("class") for g in root.iter("g")] == ["c1"]  # there are eight colours
    circles = root.iter("circle")
    places = [(float(c.get("cx")), float(c.get("cy"))) for c in circles]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)  # upwards is less
    assert y0 > y2
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in places)


def test_what_is_not_finite_is_left_out_and_words_are_escaped() -> None:
    series = Series("<b>&", (Point(1, math.inf), Point(2, 1), Point(3, 2, math.nan, math.nan)), 0)
    text = chart("<i>", "a&b", "y", [series], log="x")
    root = drawing(text)
    assert len(list(root.iter("circle"))) == 2
    assert "nan" not in text
    assert "inf" not in text
    assert "<i>" not in text.replace('<i class="c0">', "")
    assert "<b>" not in text


def test_the_diagonal_runs_from_corner_to_corner_of_zero_and_one() -> None:
    root = drawing(chart("t", "x", "y", [Series("s", (Point(0.2, 0.1), Point(0.6, 0.7)), 0)], diagonal=True))
    (even,) = [p for p in root.iter("path") if p.get("class") == "even"]
    x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", even.get("d")))
    assert x0 < x1
    assert y0 > y1
