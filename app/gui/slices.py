"""The slice viewer as a component of the page."""

from typing import Any, ClassVar

from app.gui.widget import Widget


class SliceViewer(Widget):
    """Volumes as linked slices: `static/slices.js`.

    Props:
        source: `{"views": [...]}`, views of `app.gui.volumes.packed` with their `url`; None for nothing.
        job: identifier of a job that is followed and whose volume is shown when it is there; "" for none.
    """

    module: ClassVar[str] = "slices"

    def __init__(self, value: Any = None, **settings: Any) -> None:
        super().__init__(value, **settings)
