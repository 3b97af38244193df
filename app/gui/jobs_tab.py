"""The Jobs tab: what was run here, from the job store."""

from typing import Any

from app.api import Desk
from app.gui.widget import Widget
from operators import AnyNoise, AnyOperator
from operators.spec import kinds
from restoration.recipe import AnyMethod


class JobsList(Widget):
    """The list of jobs. Props: `keep_days` after which ended jobs are deleted (None keeps them), `titles` of kinds."""

    module = "jobs"


def build(desk: Desk) -> None:
    """Fill the tab; the rest happens in the browser, by the HTTP API."""
    keep = desk.dispatcher.keep
    JobsList(keep_days=None if keep is None else keep.total_seconds() / 86400, titles=titles(), elem_id="jobs-list")


def titles() -> dict[str, dict[str, Any]]:
    """What kinds are called, by their tags in recipes."""
    unions = {"operator": AnyOperator, "noise": AnyNoise, "method": AnyMethod}
    return {
        part: {tag: str(getattr(spec, "title", "") or tag) for tag, spec in kinds(union).items()}
        for part, union in unions.items()
    }
