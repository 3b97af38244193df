"""Words to a person, who may have stopped listening: a reader that has gone is no reason to fail."""

import contextlib
import os
from typing import TextIO


def say(stream: TextIO | None, text: str) -> None:
    """Write what was asked for, such as a list; its reader may close the stream early, as `head` does.

    Raises:
        WriteError: the stream refuses for another reason, such as a full disk.
    """
    try:
        _write(stream, text)
    except BrokenPipeError:
        _silence(stream)
    except OSError as error:
        _silence(stream)
        from operators.errors import WriteError  # not at the top: its package loads torch, and `--help` need not wait

        raise WriteError(
            f"Expected an output that can be written to, got: {error.strerror}; send it elsewhere."
        ) from error


def mention(stream: TextIO | None, text: str) -> None:
    """Write what nobody depends on, such as progress; a stream that refuses is given up for good."""
    try:
        _write(stream, text)
    except OSError:
        _silence(stream)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # Python's standard streams are None where the caller closed them
        stream.write(text)
        stream.flush()


def _silence(stream: TextIO | None) -> None:
    """Send the rest nowhere; else what is still in the buffer would fail again, when Python exits."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: no real file behind the stream
        if stream is not None:
            sink = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(sink, stream.fileno())
            finally:
                os.close(sink)
