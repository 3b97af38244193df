"""Result folders: checked before any work is done, written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from operators.errors import WriteError


def check_place(folder: Path) -> None:
    """Raise WriteError unless `folder`, or the nearest parent there is, can be written to."""
    place = folder
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise WriteError(
                f"Expected a folder to write {folder.name} in, got the file {place}; choose another place."
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WriteError(f"Expected a name for a folder, got: {reason}; choose a shorter or simpler name.") from error
    if not os.access(place, os.W_OK | os.X_OK):
        raise WriteError(f"Expected a folder that can be written to, got {place}; choose another place.")


def check_earlier(folder: Path, files: frozenset[str], what: str) -> None:
    """Raise WriteError unless `folder` is new, empty or holds nothing but `files`, the earlier output of `what`."""
    check_place(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WriteError(f"Expected a folder for {what}, got the file {folder}; choose another name.")
    if other := sorted({p.name for p in folder.iterdir()} - files):
        raise WriteError(
            f"Expected a new folder or an earlier {what} at {folder}, found {other[0]} in it; choose another name."
        )


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with these files in the place of `folder`: readers see the old one or the new one, never a mixture.

    Raises:
        WriteError: the disk refuses; the old folder is then still there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            part, old = Path(scratch) / "new", Path(scratch) / "old"
            part.mkdir()
            for name, content in files.items():
                (part / name).write_bytes(content)
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(part, folder)
            except BaseException:
                if old.exists():
                    os.replace(old, folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"Expected to write {folder}, got: {reason}; nothing was kept, choose another folder."
        ) from error
