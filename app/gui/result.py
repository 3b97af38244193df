"""The result panel: what became of one job of the store."""

from typing import ClassVar

from app.gui.widget import Widget


class ResultView(Widget):
    """Shows a job while it waits, runs and after it has ended.

    Props: `job`, its identifier or "" for none, and `tab`, the tab that the panel belongs to ("restore"). Once a job is
    given, the browser talks to the HTTP API alone. Events: `example`, to run the built-in example, and `more`, with
    `{"job": identifier}`, to run that job again with several samples; the identifier comes from the browser.
    """

    module = "result"
    signals: ClassVar[tuple[str, ...]] = ("example", "more")
