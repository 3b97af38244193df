"""How far a run is and how long it will still take, on a text stream."""

import shutil
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TextIO

from app.talk import mention


class Meter(ABC):
    """Told of parts done, it reports on a stream; used in a `with` block, which leaves the stream tidy.

    A stream that refuses, or none at all, does not stop the work.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self._began = time.monotonic()

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def count(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` parts are done; `what` names the one under way."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more will come."""

    def left(self, done: int, total: int) -> str:
        """The time left, if the rest goes as fast as what is done."""
        if not done:
            return "time unknown"
        seconds = round((time.monotonic() - self._began) * (total - done) / done)
        return f"about {seconds} s left" if seconds < 100 else f"about {round(seconds / 60)} min left"


class Bar(Meter):
    """One line that is drawn over and over, for a terminal."""

    def count(self, done: int, total: int, what: str = "") -> None:
        """Redraw the bar."""
        filled = 24 * done // total
        line = f"[{'#' * filled}{'.' * (24 - filled)}] {100 * done // total:3d} %  {self.left(done, total)}  {what}"
        self._draw(line)

    def close(self) -> None:
        """Wipe the bar away."""
        self._draw("")
        mention(self.stream, "\r")

    def _draw(self, line: str) -> None:
        room = shutil.get_terminal_size().columns - 1
        mention(self.stream, "\r" + line[:room].ljust(room))


class Lines(Meter):
    """A line for each quarter of the way, where there is no terminal to draw on; none for what is over in seconds."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._quarter = 0

    def count(self, done: int, total: int, what: str = "") -> None:
        """Write a line when another quarter is done."""
        quarter = 4 * done // total
        if quarter > self._quarter and done < total and time.monotonic() - self._began > 2:
            mention(self.stream, f"{100 * done // total} % done, {self.left(done, total)}\n")
        self._quarter = quarter

    def close(self) -> None:
        """Nothing to tidy."""


def meter(stream: TextIO | None) -> Meter:
    """What suits the stream."""
    return Bar(stream) if stream is not None and stream.isatty() else Lines(stream)
