"""The Compare tab: up to four runs of the store beside each other."""

from app.api import Desk
from app.gui.widget import Widget


class CompareRuns(Widget):
    """Pictures, figures, residuals and settings of several jobs; the browser gets all of it from the HTTP API."""

    module = "compare_runs"


def build(desk: Desk) -> None:
    """Fill the tab."""
    CompareRuns(elem_id="compare-runs")
