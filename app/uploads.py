"""Uploaded files, from the network straight to the disk: bounded, under plain names, or refused with a sentence."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.jobs import disk_refuses, sync
from operators.errors import PreimageError

LONGEST_NAME = 120
"""Bytes of a file's name; results add to it."""

FIELDS = frozenset({"recipe", "preset", "options", "samples", "seed"})
"""Parts that are text. Those that are files: `files`, to be restored, and `attachments`, which the recipe names."""

FILES = {"files": "images", "attachments": "recipe"}
"""Parts that are files, and the folder each goes to."""


class Refused(PreimageError):
    """A request that the server does not carry out; `status` is the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What one request may bring.

    Attributes:
        bytes: of the whole body.
        files: files and attachments together.
        text: bytes of a field that is no file.
    """

    bytes: int = 2 << 30
    files: int = 2000
    text: int = 1 << 20


LIMITS = Limits()


@dataclass
class Form:
    """What came: text fields, and the names under which files lie in the folders `images` and `recipe`."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)


class Receiver:
    """Takes a multipart body piece by piece and writes its files into a folder.

    Args:
        content_type: of the request.
        folder: is made; whoever named it removes it after an error.
        limits: of this request.

    Raises:
        Refused: from every method, with the HTTP status to answer.
        WriteError: the disk refuses.
    """

    def __init__(self, content_type: str, folder: Path, limits: Limits) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused(415, "Expected a body of type multipart/form-data, got another; send fields and files so.")
        self.form, self._folder, self._limits = Form(), folder, limits
        self._received, self._count, self._ended = 0, 0, False
        self._header, self._value, self._disposition = b"", b"", b""
        self._name, self._text = "", bytearray()
        self._file: BinaryIO | None = None
        callbacks = {
            "on_part_begin": self._part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self._close_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]  # a TypedDict
            for place in FILES.values():
                (folder / place).mkdir(parents=True, mode=0o700)
        except FormParserError as error:
            raise _damaged() from error
        except OSError as error:
            raise disk_refuses(error) from error

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._received += len(piece)
        if self._received > self._limits.bytes:
            raise too_large(self._limits)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _damaged() from error
        except OSError as error:
            raise disk_refuses(error) from error

    def finish(self) -> Form:
        """The whole form, its files on the disk."""
        if not self._ended:
            raise _damaged()
        return self.form

    def close(self) -> None:
        """Close what is open, after an error."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # called by the parser

    def _part(self) -> None:
        self._disposition, self._text = b"", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in FIELDS:
            if self._name in self.form.fields:
                raise Refused(422, f"Expected one field '{self._name}', got two; leave one out.")
            return
        if self._name not in FILES:
            known = ", ".join(sorted([*FIELDS, *FILES]))
            raise Refused(422, f"Expected fields out of {known}; got '{self._name[:40]}'; correct its name.")
        given = options.get(b"filename", b"").decode("utf-8", "replace")
        if not given:
            raise Refused(422, f"Expected files with names in '{self._name}', got one without; send its file name.")
        self._count += 1
        if self._count > self._limits.files:
            raise Refused(413, f"Expected at most {self._limits.files} files, got more; send several jobs or a zip.")
        names = self.form.files if self._name == "files" else self.form.attachments
        name = plain_name(given)
        if names is self.form.attachments and name != given:
            raise Refused(422, "Expected plain names of attachments, as the recipe has them, got others; rename them.")
        name = _unique(name, names) if names is self.form.files else name
        try:
            self._file = (self._folder / FILES[self._name] / name).open("xb")
        except FileExistsError:
            raise Refused(422, "Expected attachments of different names, got two of the same; rename one.") from None
        names.append(name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > self._limits.text:
            raise Refused(
                413, f"Expected at most {self._limits.text >> 10} KiB in '{self._name}', got more; send files as files."
            )

    def _close_part(self) -> None:
        if self._file is None:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")
            return
        path = Path(self._file.name)
        self.close()
        sync(path)

    def _end(self) -> None:
        self._ended = True


def too_large(limits: Limits) -> Refused:
    """The answer to a body that is too long."""
    return Refused(
        413, f"Expected an upload of at most {limits.bytes >> 20} MiB, got more; send fewer files at a time."
    )


def plain_name(given: str) -> str:
    """The last part of a file's name without signs that do harm in a path, a terminal or a page; never hidden."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", given))[-1]
    kept = "".join(sign if sign.isprintable() and sign not in '<>:"|?*' else "_" for sign in last).strip(" .")
    if len(kept.encode()) > LONGEST_NAME:
        ending = "".join(Path(kept).suffixes[-2:])[-20:]
        kept = kept.encode()[: LONGEST_NAME - len(ending.encode())].decode("utf-8", "ignore") + ending
    return kept or "file"


def _unique(name: str, taken: Collection[str]) -> str:
    lower = {other.casefold() for other in taken}
    start, dot, ending = name.partition(".")
    unique, n = name, 1
    while unique.casefold() in lower:
        n += 1
        unique = f"{start}-{n}{dot}{ending}"
    return unique


def _damaged() -> Refused:
    return Refused(400, "Expected a whole multipart body, got a damaged or cut one; send it again.")
