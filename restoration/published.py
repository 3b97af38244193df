"""Settings that papers and their released code publish, for the tasks that they publish them for.

They are data (`assets/published.json`), in this package's units; `preimage recipes --published` lists them.
"""

from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field

from operators.noise import Gaussian
from operators.spec import Spec

EVIDENCE = {
    "code": "read in the released code",
    "paper": "from the paper, as recalled",
}


class Task(Spec):
    """A measurement that settings are published for."""

    title: str
    operator: dict[str, Any]


class Published(Spec):
    """One setting.

    Attributes:
        task: name of the measurement.
        sigma: of its Gaussian noise, in unit range.
        method: as in a recipe.
        evidence: whether figures were read in the released code, or are the paper's as recalled.
        reference: paper, and the file or table.
        note: what is not as published.
    """

    task: str
    sigma: Annotated[float, Field(gt=0)]
    method: dict[str, Any]
    evidence: Literal["code", "paper"]
    reference: Annotated[str, Field(min_length=1)]
    note: str = ""


class _Table(Spec):
    version: Literal[1]
    tasks: dict[str, Task]
    presets: dict[str, Published]


@cache
def _table() -> _Table:
    return _Table.model_validate_json((resources.files("assets") / "published.json").read_text(encoding="utf-8"))


def published_settings() -> dict[str, Published]:
    """All of them, by name, such as "dps/sr-x4": a method or a form of it, and a task."""
    return _table().presets


def published_recipe(name: str) -> dict[str, Any]:
    """The recipe of one of them as JSON: one sample, the photo prior.

    Raises:
        KeyError: there is none of that name.
    """
    preset = _table().presets[name]
    task = _table().tasks[preset.task]
    return {
        "title": task.title,
        "reference": " ".join(filter(None, [f"{preset.reference} ({EVIDENCE[preset.evidence]}).", preset.note])),
        "operator": task.operator,
        "noise": Gaussian(sigma=preset.sigma).model_dump(mode="json"),
        "model": {"kind": "trained", "name": "photo"},
        "method": preset.method,
        "seeds": [0],
    }
