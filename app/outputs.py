"""A job's files for others: nothing but what came out, whatever path is asked for."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.uploads import Refused

_PIECE = 1 << 16

_TYPES = {
    ".png": "image/png",
    ".tif": "image/tiff",
    ".zip": "application/zip",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".gz": "application/gzip",
    ".dcm": "application/dicom",
}


def open_inside(folder: Path, path: str) -> BinaryIO:
    """Open a regular file below a job's folder, step by step, so that no link can lead out of it on the way.

    Raises:
        Refused: there is no such file among those that came out.
    """
    parts = path.split("/")
    if parts[0] in ("job", "inputs") or any(part.startswith(".") or part == "" or "\0" in part for part in parts):
        raise _missing()
    place = opened = -1
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        # without O_NONBLOCK a pipe would wait for its writer
        opened = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    except (OSError, ValueError) as error:
        raise _missing() from error
    finally:
        if place >= 0:
            os.close(place)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise _missing()
    return os.fdopen(opened, "rb")


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The content of a file, bit by bit; closes it."""
    with file:
        while piece := file.read(_PIECE):
            yield piece


def media_type(path: str) -> str:
    """Of a file by its name."""
    return _TYPES.get(Path(path).suffix.lower(), "application/octet-stream")


def _missing() -> Refused:
    return Refused(404, "Expected a file of the job, got a name that is none; see the list of files.")
