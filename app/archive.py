"""Unpacking a zip of somebody else's making: bounded, inside its folder, or refused with a sentence."""

import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from operators.errors import ReadError

MAX_FILES = 50_000
MAX_BYTES = 32 << 30
MAX_RATIO = 200
"""Deflate reaches 1032 at most; what is made of pixels stays far below 200."""

_SMALL = 1 << 20  # below this a high ratio is only a blank page
_CHUNK = 1 << 20


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of a zip into a new folder; after an error nothing of it is left.

    Sizes, names and kinds are all checked on the directory before a byte is unpacked, and sizes again while unpacking.

    Raises:
        ReadError: more files or bytes than allowed or than the disk holds, names that lead elsewhere or that are the
            same but for their case, links, devices, encryption, rare compression, damage.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check(members, archive.stat().st_size)
            room = shutil.disk_usage(folder.parent).free
            total = sum(member.file_size for member in members)
            if total > room:
                raise _refused("a zip that fits on the disk", f"{total >> 20} MiB", "make room")
            folder.mkdir(parents=True)
            for member in members:
                _unpack_one(opened, member, folder / member.filename)
    except ReadError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _refused("a whole zip", f"a damaged one ({type(error).__name__})", "pack it again") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        shutil.rmtree(folder, ignore_errors=True)
        raise _refused("plain names in a zip", "a file that is also a folder", "pack it again") from None


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_FILES:
        raise _refused(f"at most {MAX_FILES} files in a zip", f"{len(members)}", "split it")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise _refused(f"at most {MAX_BYTES >> 30} GiB in a zip", f"{total >> 30} GiB", "split it")
    if total > _SMALL and total > MAX_RATIO * size:
        raise _refused("a zip of pictures", f"one that unpacks to {total // max(size, 1)} times its size", "repack it")
    seen: set[str] = set()
    for member in members:
        if member.flag_bits & 1:
            raise _refused("a zip without a password", "an encrypted one", "unpack it first")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused("a zip with deflate or no compression", "another compression", "pack it again")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refused("plain files in a zip", "a link or a device", "pack the files themselves")
        if not _stays_inside(member):
            raise _refused("plain names in a zip", "one that leads out of it or has odd signs", "pack it again")
        name = unicodedata.normalize("NFC", member.filename).casefold()
        if name in seen:
            raise _refused("different names in a zip", "two that are the same but for their case", "rename one")
        seen.add(name)


def _stays_inside(member: zipfile.ZipInfo) -> bool:
    # orig_filename is what stands in the file; zipfile cuts `filename` at a NUL
    name = member.orig_filename
    parts = name.split("/")
    return (
        name == member.filename
        and len(name.encode("utf-8", "surrogatepass")) <= 1000
        and not PurePosixPath(name).is_absolute()
        and not any(part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > 240 for part in parts)
        and not any(sign in "\\:" or unicodedata.category(sign) in ("Cc", "Cs") for sign in name)
    )


def _unpack_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as packed, path.open("xb") as file:
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            if written > member.file_size:
                raise _refused("a zip that says how large its files are", "one with larger ones", "pack it again")
            file.write(chunk)


def _refused(expected: str, got: str, do: str) -> ReadError:
    return ReadError(f"Expected {expected}, got {got}; {do}.")
