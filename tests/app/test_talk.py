"""Streams whose reader has gone."""

import io
import os
import sys
from pathlib import Path

import pytest

from app.progress import Bar, Lines, meter
from app.talk import mention, say
from operators.errors import WriteError


class Gone(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise self.error


def test_a_reader_that_has_gone_is_no_error_and_a_full_disk_is() -> None:
    say(Gone(BrokenPipeError(32, "Broken pipe")), "a")
    mention(Gone(OSError(28, "No space left on device")), "a")
    with pytest.raises(WriteError, match="No space left"):
        say(Gone(OSError(28, "No space left on device")), "a")


def test_no_stream_at_all_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    say(None, "a")
    with meter(None) as shown:
        assert isinstance(shown, Lines)
        monkeypatch.setattr(shown, "_began", -1e9)
        shown.count(3, 4)


def test_a_bar_nobody_sees_goes_on() -> None:
    with Bar(Gone(BrokenPipeError(32, "Broken pipe"))) as shown:
        shown.count(1, 2)


def test_a_broken_pipe_is_silenced_for_good(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        for _ in range(2):
            say(stream, "text")
    assert sys.stdout is not None  # and closing the stream above did not raise
