"""Output folders: checked before any work is done, written whole or not at all."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from operators.errors import WriteError


@dataclass(frozen=True)
class FolderKind:
    """A kind of output folder.

    Attributes:
        name: what it is called in sentences.
        always: files that every finished folder of this kind holds.
        may: pattern of the names of further files it may hold.
    """

    name: str
    always: frozenset[str]
    may: str = r"(?!)"  # matches nothing

    def foreign(self, folder: Path) -> list[str]:
        """What a folder holds that is not the output of an earlier run; for lack of its own files, all there is."""
        entries = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(folder)}
        if not self.always <= entries.keys():
            return sorted(entries)
        own = re.compile(self.may)
        return sorted(n for n, plain in entries.items() if not (plain and (n in self.always or own.fullmatch(n))))


def check_folder(folder: Path, kind: FolderKind) -> Path:
    """The absolute place, symbolic links followed, that output for `folder` is written to.

    Raises:
        WriteError: the place cannot be written, is in use as the current directory or a root of a disk, or holds
            anything but an earlier output of this kind.
    """
    try:
        place = Path(os.path.realpath(folder))
        if place.is_symlink():
            raise WriteError(f"Expected a folder for the {kind.name}, got the endless link {folder}; remove the link.")
        nearest = place
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise WriteError(f"Expected a folder for the {kind.name}, got the file {nearest}; choose another name.")
        here = Path.cwd()
        if place == here or place in here.parents or os.path.ismount(place):
            raise WriteError(
                f"Expected a folder that can be replaced, got {place}, which is in use; name a new folder inside it."
            )
        # An earlier folder is replaced by renaming, which its parent must allow as well.
        for needed in {nearest, place.parent} if nearest == place else {nearest}:
            if not os.access(needed, os.W_OK | os.X_OK):
                raise WriteError(f"Expected a folder that can be written to, got {needed}; choose another place.")
        foreign = kind.foreign(place) if nearest == place else []
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise WriteError(
            f"Expected a name for a folder, got: {reason}; choose another, shorter or simpler one."
        ) from error
    if foreign:
        raise WriteError(
            f"Expected a new folder or an earlier {kind.name} at {folder}, got other files such as {foreign[0]}; "
            "choose another name."
        )
    return place


@contextlib.contextmanager
def write_folder(folder: Path, kind: FolderKind) -> Iterator[Path]:
    """Gives an empty folder to fill; at the end of the block it takes the place of `folder`.

    Readers see the old folder or the new one, never a mixture; after an error or Ctrl-C the old one is still there.

    Raises:
        WriteError: see `check_folder`; or the disk refuses.
    """
    place = check_folder(folder, kind)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside the place, so that renaming stays on one disk. The new folder is made by mkdir, which heeds the umask.
        with tempfile.TemporaryDirectory(prefix=".preimage-", dir=place.parent, ignore_cleanup_errors=True) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            yield new
            check_folder(place, kind)  # again: its user may have put something there in the meantime
            try:
                if place.exists():
                    os.replace(place, old)
                os.replace(new, place)
            except BaseException:
                if old.exists() and not place.exists():
                    os.replace(old, place)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"Expected to write the {kind.name} to {folder}, got: {reason}; nothing was kept, choose another folder."
        ) from error
