"""Which series of a folder are meant: a rule in a line of text."""

import fnmatch
import re
from collections.abc import Callable

from medical.dicom import Series
from operators.errors import RecipeError

_TEXT: dict[str, Callable[[Series], str]] = {
    "modality": lambda series: series.modality,
    "plane": lambda series: series.plane,
    "uid": lambda series: series.uid,
    "description": lambda series: series.description,
}
_NUMBER: dict[str, Callable[[Series], int | None]] = {
    "number": lambda series: series.number,
    "slices": lambda series: len(series.slices),
}
_TERM = re.compile(r"\s*([a-z]+)\s*(<=|>=|=|<|>)\s*(.+?)\s*")

Rule = Callable[[Series], bool]


def series_rule(text: str) -> Rule:
    """A test of series from text such as "modality=CT, plane=axial, slices>=20 | number=3".

    Terms between commas must all hold, and one of the sides of "|". modality, plane, uid and description are compared
    without regard to case and may have * and ?; number and slices also with <, <=, > and >=. Empty text takes all.

    Raises:
        RecipeError: the text is no such rule.
    """
    if not text.strip():
        return lambda series: True
    sides = [[_term(term) for term in side.split(",")] for side in text.split("|")]
    return lambda series: any(all(term(series) for term in side) for side in sides)


def _term(text: str) -> Rule:
    found = _TERM.fullmatch(text)
    name, sign, value = found.groups() if found else ("", "", "")
    if name in _TEXT and sign == "=":
        read, pattern = _TEXT[name], value.casefold()
        return lambda series: fnmatch.fnmatchcase(read(series).casefold(), pattern)
    if name in _NUMBER and re.fullmatch(r"\d{1,9}", value):
        number, limit = _NUMBER[name], int(value)
        return lambda series: _compared(number(series), sign, limit)
    raise RecipeError(
        f"Expected a rule for series such as modality=CT,slices>=20 of {', '.join((*_TEXT, *_NUMBER))}, "
        f"got '{text.strip()}'; correct it."
    )


def _compared(value: int | None, sign: str, limit: int) -> bool:
    if value is None:
        return False
    return {
        "=": value == limit,
        "<": value < limit,
        "<=": value <= limit,
        ">": value > limit,
        ">=": value >= limit,
    }[sign]
