"""Everything that came out of a job as one zip, made while it is sent."""

import datetime
import io
import os
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

from app.jobs import Job
from app.outputs import open_inside
from app.uploads import Refused

_PIECE = 1 << 20
_PACKED = frozenset({".png", ".gz", ".npz", ".jpg", ".zip"})  # deflating these again gains nothing
_HARMFUL = '\\:*?"<>|'


def zip_of(job: Job, paths: list[Path]) -> Iterator[bytes]:
    """The bytes of a zip of a job's files; one that is gone meanwhile is left out."""
    out = _Sent()
    when = datetime.datetime.fromisoformat(job.created)
    taken: set[str] = set()
    with zipfile.ZipFile(out, "w") as packed:
        for path in paths:
            try:
                opened = open_inside(job.folder, path.as_posix())
            except Refused:
                continue
            with opened:
                info = zipfile.ZipInfo(_name(path, taken), when.timetuple()[:6])
                info.compress_type = zipfile.ZIP_STORED if path.suffix in _PACKED else zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                info.file_size = os.fstat(opened.fileno()).st_size  # tells whether it needs the large format
                with packed.open(info, "w") as into:
                    while piece := opened.read(_PIECE):
                        into.write(piece)
                        if sent := out.taken():
                            yield sent
            if sent := out.taken():
                yield sent
    yield out.taken()


class _Sent(io.RawIOBase):
    """What was written since it was last taken; cannot go back, as a connection cannot."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # any buffer, in typeshed
        self._held += data
        return len(data)

    def taken(self) -> bytes:
        """And forget it."""
        found = bytes(self._held)
        self._held.clear()
        return found


def _name(path: Path, taken: set[str]) -> str:
    """The path without signs that do harm where it is unpacked, and unlike all others whatever their case."""
    parts = ["".join("_" if _odd(sign) else sign for sign in part).strip(" ") or "_" for part in path.parts]
    plain, n = "/".join(parts), 1
    unique = plain
    while unique.casefold() in taken:
        n += 1
        start, dot, ending = plain.partition(".") if "/" not in plain else (plain, "", "")
        unique = f"{start}-{n}{dot}{ending}"
    taken.add(unique.casefold())
    return unique


def _odd(sign: str) -> bool:
    return sign in _HARMFUL or unicodedata.category(sign) in ("Cc", "Cf", "Cs")
