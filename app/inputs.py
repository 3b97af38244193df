"""What a batch works on: pictures, DICOM series, NIfTI files, zips and trees of them, as cases with a place each."""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from app.archive import unpack
from medical.dicom import Series, find_series
from medical.files import stem
from medical.series_rule import Rule, series_rule
from operators.errors import PreimageError, ReadError
from operators.spec import Spec

Kind = Literal["picture", "dicom", "nifti", "unreadable"]

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_REFUSED = frozenset({".gif", ".npy", ".npz", ".mat", ".heic", ".avif", ".jp2", ".mha", ".nrrd", ".mgz", ".h5"})
_DICOM = frozenset({".dcm", ".dicom", ".ima"})
_NIFTI = (".nii", ".nii.gz", ".hdr", ".hdr.gz")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LABELS = ("_mask", "_dseg", "_probseg")
_UNIMPORTANT = ("not a picture (report, structure, dose, segmentation or the like)", "a DICOMDIR")


class Case(Spec):
    """One picture, one series or one NIfTI file, and where its outputs go; plain values that can travel.

    Attributes:
        number: from 1.
        key: tells the case from the others of the run, and the same in every session; holds names.
        kind: how it is read; "unreadable" for what was refused before, with `problem` saying why.
        files: absolute paths.
        folder: of the outputs, relative to the job's folder.
        series: which of the series in `files`, for multi-frame DICOM.
        bids: start and end of BIDS names, such as ("sub-01_", "T1w"); empty for others.
        about: size and kind of a series.
        problem: a sentence without names.
    """

    number: int
    key: str
    kind: Kind
    files: tuple[str, ...]
    folder: str
    series: int = 0
    bids: tuple[str, str] | None = None
    about: str = ""
    problem: str = ""

    def output(self, name: str) -> str:
        """What a file called `name`, such as "restored.nii.gz", is called in `folder`."""
        if self.bids is None:
            return name
        what, _, ending = name.partition(".")
        return f"{self.bids[0]}desc-{what}_{self.bids[1]}.{ending}"


@dataclass
class Plan:
    """The cases of some inputs, how many files were left out for which reason, and the BIDS folders among them."""

    cases: list[Case] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    bids: list[Path] = field(default_factory=list)


def find_cases(inputs: Sequence[Path], scratch: Path, rule: str = "") -> Plan:
    """The cases of files, folders and zips, in the order of the inputs and of names in them.

    Files that cannot be read are cases too, and fail alone; files that are nothing to restore are left out and counted.

    Args:
        inputs: what a person named.
        scratch: a folder that zips are unpacked in.
        rule: for DICOM series, see `medical.series_rule`.

    Raises:
        ReadError: an input does not exist, or there is nothing to do.
        RecipeError: the rule is none.
    """
    finder = _Finder(scratch, series_rule(rule))
    roots = _roots(inputs)
    for path, root in zip(inputs, roots, strict=True):
        finder.add(path, root)
    if not finder.plan.cases:
        counted = ", ".join(f"{count} x {reason}" for reason, count in finder.plan.left_out.items())
        raise ReadError(f"Expected pictures, DICOM or NIfTI, found none ({counted or 'no files'}); look at the inputs.")
    return finder.plan


def _roots(inputs: Sequence[Path]) -> list[str]:
    """The folder of each input among the results: none for an only folder, else its name, made unique."""
    for path in inputs:
        if not path.exists():
            raise ReadError("Expected inputs that exist, got a name that does not; look at its spelling.")
    if len(inputs) == 1 and inputs[0].is_dir():
        return [""]
    taken: set[str] = set()
    names = []
    for path in inputs:
        base = _plain(Path(os.path.realpath(path)).name or "input")
        name, n = base, 1
        while name.casefold() in taken:
            n += 1
            name = f"{base}-{n}"
        taken.add(name.casefold())
        names.append(name)
    return names


class _Finder:
    def __init__(self, scratch: Path, rule: Rule) -> None:
        self.scratch, self.rule, self.plan = scratch, rule, Plan()
        self._places: set[str] = set()
        self._zips = 0

    def add(self, path: Path, root: str) -> None:
        if path.is_dir():
            self._tree(path, root, root)
            return
        kind = kind_of(path)
        if kind == "zip":
            self._zip(path, root, root)
        elif kind == "dicom":
            self._dicom(path, [path], root, PurePosixPath(root), root)
        elif kind == "":
            self._case(root, "unreadable", [path], root, problem=_none_of_these())
        else:
            self._case(root, kind, _with_pair(path), root)

    def _tree(self, top: Path, root: str, key: str, *, packed: bool = False) -> None:
        bids = not packed and _is_bids(top)
        if bids:
            self.plan.bids.append(top)
        dicom: list[Path] = []
        for path, problem in self._walk(top, bids):
            relative = path.relative_to(top).as_posix()
            place, name = f"{root}/{relative}".lstrip("/"), f"{key}/{relative}"
            kind = "unreadable" if problem else kind_of(path)
            if problem:
                self._case(name, "unreadable", [path], place, problem=problem)
            elif kind == "zip" and packed:
                self.plan.left_out["a zip inside a zip"] += 1
            elif kind == "zip":
                self._zip(path, place, name)
            elif kind == "dicom":
                dicom.append(path)
            elif kind == "":
                self.plan.left_out["not a picture or a volume"] += 1
            elif bids and kind == "nifti":
                self._bids(name, path, relative, root)
            else:
                self._case(name, kind, _with_pair(path), place)
        if dicom:
            self._dicom(top, dicom, key, PurePosixPath(root), root)

    def _walk(self, top: Path, bids: bool) -> Iterator[tuple[Path, str]]:
        """Files below a folder in the order of their names, and what is wrong with them before they are opened."""
        real = Path(os.path.realpath(top))
        for place, folders, names in os.walk(top):
            links = [name for name in folders if (Path(place) / name).is_symlink()]
            self.plan.left_out["a link to a folder"] += len(links)
            hidden = [name for name in folders if name.startswith(".")]
            skipped = ("derivatives", "sourcedata", "code") if bids and Path(place) == top else ()
            folders[:] = sorted(set(folders) - set(links) - set(hidden) - set(skipped))
            for name in sorted(names):
                path = Path(place) / name
                if name.startswith("."):
                    self.plan.left_out["a hidden file"] += 1
                elif path.is_symlink() and real not in Path(os.path.realpath(path)).parents:
                    yield path, "Expected a file of the folder, got a link that leads out of it; copy the file."
                elif not path.is_file():
                    self.plan.left_out["a device, a pipe or a broken link"] += 1
                else:
                    yield path, ""
        self.plan.left_out += Counter()  # forgets zeros

    def _zip(self, path: Path, place: str, key: str) -> None:
        self._zips += 1
        folder = self.scratch / f"zip-{self._zips}"
        try:
            unpack(path, folder)
        except ReadError as error:
            self._case(key, "unreadable", [path], place, problem=str(error))
            return
        self._tree(folder, place, key, packed=True)

    def _dicom(self, top: Path, files: list[Path], key: str, root: PurePosixPath, prefix: str) -> None:
        found = find_series(top)
        placed = {Path(os.path.realpath(piece.path)) for series in found.series for piece in series.slices}
        for path in files:
            if Path(os.path.realpath(path)) in placed:
                continue
            alone = find_series(path)
            reason = next(iter(alone.left_out), "a copy of another slice")
            if reason in _UNIMPORTANT or alone.series:
                self.plan.left_out[reason if not alone.series else "a copy of another slice"] += 1
                continue
            relative = "" if path == top else path.relative_to(top).as_posix()
            problem = f"Expected a DICOM image, got one that is not read: {reason}; see the medical page of the docs."
            place = f"{prefix}/{relative}".strip("/")
            self._case(f"{key}/{relative}", "unreadable", [path], place, problem=problem)
        shared: Counter[tuple[str, ...]] = Counter()
        real = Path(os.path.realpath(top))
        for series in found.series:
            members = tuple(dict.fromkeys(str(piece.path) for piece in series.slices))
            index, shared[members] = shared[members], shared[members] + 1
            if not self.rule(series):
                self.plan.left_out["a slice of a series that the rule leaves out"] += len(series.slices)
                continue
            name = f"series-{_digest(series, real)}" + (f"-{index + 1}" if index else "")
            common = Path(os.path.commonpath([os.path.dirname(os.path.realpath(m)) for m in members]))
            inside = common.relative_to(real).as_posix() if real in (common, *common.parents) else "."
            place = (root / inside / name).as_posix()
            self._case(
                f"{key}/{inside}/{name}", "dicom", [Path(m) for m in members], place, series=index, about=str(series)
            )

    def _bids(self, key: str, path: Path, relative: str, root: str) -> None:
        name = stem(path)
        start, _, suffix = name.rpartition("_")
        if name.endswith(_LABELS):
            self.plan.left_out["a label map"] += 1
            return
        if not re.fullmatch(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*", start) or not re.fullmatch(
            r"[A-Za-z0-9]+", suffix
        ):
            self.plan.left_out["a NIfTI file without a BIDS name"] += 1
            return
        inside = PurePosixPath("derivatives/preimage") / root / PurePosixPath(relative).parent
        self.plan.cases.append(
            Case(
                number=len(self.plan.cases) + 1,
                key=key,
                kind="nifti",
                files=(str(path.absolute()),),
                folder=inside.as_posix(),
                bids=(f"{start}_", suffix),
            )
        )

    def _case(
        self,
        key: str,
        kind: Kind,
        files: list[Path],
        place: str,
        *,
        series: int = 0,
        about: str = "",
        problem: str = "",
    ) -> None:
        plain = "/".join(_plain(part) for part in place.split("/") if part not in ("", ".")) or "case"
        unique, n = plain, 1
        while unique.casefold() in self._places:
            n += 1
            unique = f"{plain}-{n}"
        self._places.add(unique.casefold())
        self.plan.cases.append(
            Case(
                number=len(self.plan.cases) + 1,
                key=key,
                kind=kind,
                files=tuple(str(path.absolute()) for path in files),
                folder=f"results/{unique}",
                series=series,
                about=about,
                problem=problem,
            )
        )


def kind_of(path: Path) -> Literal["picture", "dicom", "nifti", "zip", ""]:
    """What a file is to be read as: by its first bytes, else by its ending; "" for nothing to restore.

    A file whose ending promises a picture or a volume is one, so that what is wrong with it is said, not passed over.
    """
    name = path.name.lower()
    try:
        with path.open("rb") as file:
            head = file.read(352)
    except OSError:
        head = b""
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "picture"
    if name.endswith(_NIFTI) or head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0":
        return "nifti"
    if name.endswith(".gz") and _inside_gzip(path)[344:348] in (b"n+1\0", b"ni1\0"):
        return "nifti"
    ending = path.suffix.lower()
    if ending == ".zip":
        return "zip"
    if ending in _DICOM:
        return "dicom"
    if ending in _PICTURES or ending in _REFUSED:
        return "picture"
    return ""


def _with_pair(path: Path) -> list[Path]:
    """A file and, for the header of a pair, its voxels."""
    name = path.name
    if not name.lower().endswith((".hdr", ".hdr.gz")):
        return [path]
    at = name.lower().rindex(".hdr")
    return [
        path,
        *(
            path.with_name(name[:at] + other)
            for other in (".img", ".img.gz")
            if path.with_name(name[:at] + other).exists()
        ),
    ]


def _inside_gzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(352)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_bids(folder: Path) -> bool:
    try:
        described = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(described, dict) and "BIDSVersion" in described


def _digest(series: Series, root: Path) -> str:
    """A name for a series from which files of the tree it has; nothing that is written in them."""
    names = sorted(
        Path(os.path.realpath(piece.path)).relative_to(root).as_posix() if root.is_dir() else "-"
        for piece in series.slices
    )
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _plain(name: str) -> str:
    """A file name as it is, unless it has signs that do harm in a terminal or is too long to be added to."""
    text = name.encode("utf-8", "surrogateescape")
    if len(text) <= 200 and name.isprintable() and name not in (".", ".."):
        return name
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".") or "file"
    return f"{kept}-{hashlib.sha256(text).hexdigest()[:8]}"


def _none_of_these() -> str:
    return "Expected a picture, DICOM, NIfTI or a zip of them, got another file; convert it."


def blamed(error: PreimageError, files: Sequence[str]) -> str:
    """The sentence of an error without the names of the files it is about."""
    text = " ".join(str(error).split())
    for name in sorted({*files, *(os.path.basename(name) for name in files)}, key=len, reverse=True):
        text = text.replace(f"{name}: e", "E").replace(f"{name}: ", "").replace(name, "the file")
    return text
