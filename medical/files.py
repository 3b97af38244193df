"""Files that are read once and known by their checksum, and files that appear whole or not at all."""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medical.volume import Source, SourceFile
from operators.errors import ReadError, WriteError


def read_whole(path: Path) -> tuple[bytes, str]:
    """The contents of a file and their sha256.

    Raises:
        ReadError: the file cannot be read. The sentence holds no path, which may hold a name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"Expected a file that can be read, got: {error.strerror}; look at the folder.") from None
    return content, hashlib.sha256(content).hexdigest()


def read_again(file: SourceFile) -> bytes:
    """The contents of a file that was read before.

    Raises:
        ReadError: the file is gone or has changed.
    """
    content, digest = read_whole(file.path)
    if digest != file.sha256:
        raise ReadError("Expected the source file as it was read, got a changed one; read the volume again.")
    return content


def check_apart(place: Path, source: Source | None) -> None:
    """Refuses to write over or between the files that a volume was read from.

    Raises:
        WriteError: `place` is a source file, or the folder of a DICOM source or something in it.
    """
    place = Path(os.path.realpath(place))
    for file in source.files if source else ():
        original = Path(os.path.realpath(file.path))
        # a lone NIfTI file may have its result beside it, a series of slices may not
        within = source is not None and source.format == "dicom" and original.parent in (place, *place.parents)
        if place == original or within:
            raise WriteError("Expected a place apart from the source files, got theirs; choose another folder.")


@contextlib.contextmanager
def whole_file(path: Path, ending: str, *, replace: bool = False) -> Iterator[Path]:
    """Gives the name of a temporary sibling to write and to check; at the end of the block it takes its place.

    Args:
        path: the file to write.
        ending: what the temporary name must end with, such as ".nii.gz".
        replace: whether an existing file may be replaced.

    Raises:
        WriteError: the file exists, or the disk refuses. After any error nothing is left behind.
    """
    if path.exists() and not replace:
        raise WriteError("Expected a new name for the output, got one that exists; choose another or allow replacing.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preimage-", dir=path.parent, ignore_cleanup_errors=True) as scratch:
            part = Path(scratch) / f"new{ending}"
            yield part
            sync(part)
            os.replace(part, path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise WriteError(f"Expected to write a file, got: {reason}; nothing was kept, choose another folder.") from None


def sync(path: Path) -> None:
    """Waits until a file, or the list of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stem(path: Path) -> str:
    """The name without its ending, both parts of ".nii.gz"."""
    return re.sub(r"(\.nii)?(\.gz)?$", "", path.name) if path.name.endswith(".gz") else path.stem
