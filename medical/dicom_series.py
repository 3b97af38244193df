"""Series of slices in a folder tree, told apart by what they are and where they lie, never by file names alone."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from medical.dicom_geometry import SAME_PLACE, Stack, plane_of, stack
from medical.dicom_pixels import LOSSY, quiet
from medical.dicom_slices import SPLITTERS, Slice, numbers, read_header, slices_of, why_not
from medical.volume import Note
from operators.errors import ReadError


@dataclass(frozen=True, eq=False)
class Series:
    """Slices of one kind on one grid, in spatial order.

    Attributes:
        slices: along the normal.
        stack: their grid; None for a picture without a place in the patient, such as a radiograph.
        notes: what was noticed on the way.
        conflict: why it is unclear which slices belong together, as "got ..." of a sentence; empty where it is clear.
    """

    slices: tuple[Slice, ...] = field(repr=False)
    stack: Stack | None = field(repr=False)
    notes: tuple[Note, ...]
    conflict: str

    @property
    def problem(self) -> str:
        """Why they are not one even volume: a conflict, or gaps; empty where they are."""
        return self.conflict or (self.stack.problem if self.stack else "")

    @property
    def modality(self) -> str:
        """Such as "CT" or "MR"."""
        return str(self.slices[0].header.get("Modality", ""))

    @property
    def plane(self) -> str:
        """axial, coronal, sagittal or oblique; "picture" without a place in the patient."""
        orientation = self.slices[0].orientation
        return "picture" if orientation is None else plane_of(orientation)

    @property
    def number(self) -> int | None:
        """SeriesNumber."""
        value = self.slices[0].header.get("SeriesNumber")
        return None if value in (None, "") else int(value)

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; an identifier, not to be logged."""
        return str(self.slices[0].header.get("SeriesInstanceUID", "") or "")

    @property
    def description(self) -> str:
        """SeriesDescription; free text that may hold a name, not to be logged."""
        return str(self.slices[0].header.get("SeriesDescription", "") or "")

    def __str__(self) -> str:
        header = self.slices[0].header
        size = f"{header.Columns}x{header.Rows}x{len(self.slices)}"
        return f"{self.modality} {self.plane} {size}" + (f", cannot be read: {self.problem}" if self.problem else "")


@dataclass(frozen=True, eq=False)
class Found:
    """The series of a folder, largest first, and how many files were left out for which reason."""

    series: tuple[Series, ...]
    left_out: Mapping[str, int]


def find_series(folder: Path, *, bare: bool = False) -> Found:
    """All series of grey images below a folder, or in one file.

    Args:
        folder: searched to any depth; links that lead out of it are not followed.
        bare: also read files without the 128-byte preamble and "DICM", if they name what they are.

    Raises:
        ReadError: the folder does not exist.
    """
    if not folder.exists():
        raise ReadError("Expected a folder or a file to read, got a name that does not exist; look at its spelling.")
    left_out: Counter[str] = Counter()
    return _sorted_out(_files(folder, left_out), left_out, bare)


def series_in(files: Iterable[Path]) -> Found:
    """All series of grey images in some files."""
    return _sorted_out(files, Counter(), bare=False)


def _sorted_out(files: Iterable[Path], left_out: Counter[str], bare: bool) -> Found:
    groups: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    for path in files:
        header = read_header(path, bare)
        if isinstance(header, str):
            left_out[header] += 1
            continue
        with quiet():
            reason = why_not(header)
            pieces = [] if reason else slices_of(path, header)
        if reason:
            left_out[reason] += 1
        for piece in pieces:
            groups[piece.key].append(piece)
    series: list[Series] = []
    with quiet():
        for members in groups.values():
            for alike in _by_orientation(members):
                series += _resolved(alike, left_out)
    return Found(tuple(sorted(series, key=lambda s: (-len(s.slices), s.number or 0, str(s)))), dict(left_out))


def _files(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    root = Path(os.path.realpath(folder))
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if path.is_symlink() and root not in Path(os.path.realpath(path)).parents:
                left_out["a link that leads out of the folder"] += 1
            elif path.is_file():
                yield path


def _by_orientation(members: list[Slice]) -> list[list[Slice]]:
    """Slices of one direction together; directions that differ by rounding count as one."""
    groups: list[list[Slice]] = []
    for member in members:
        for group in groups:
            known = group[0].orientation
            if known is None or member.orientation is None or np.abs(known - member.orientation).max() < 1e-3:
                group.append(member)
                break
        else:
            groups.append([member])
    return groups


def _resolved(members: list[Slice], left_out: Counter[str]) -> list[Series]:
    """Series with one slice at each place: copies dropped, repetitions told apart, or a series that says it cannot."""
    notes: list[Note] = []
    if len(members) > 1 and _repeats(members):
        kept = _without_copies(members)
        if dropped := len(members) - len(kept):
            left_out["a copy of another slice"] += dropped
            notes.append(Note("W-DUP", f"{dropped} slices are copies of others and were left out"))
        members = kept
    if len(members) > 1 and _repeats(members):
        for name in SPLITTERS:
            parts: dict[str, list[Slice]] = defaultdict(list)
            for member in members:
                parts[str(member.marks.get(name))].append(member)
            if len(parts) > 1 and not any(_repeats(part) for part in parts.values()):
                return [_series(part, notes, "") for part in parts.values()]
        count = sum(map(len, _repeats(members)))
        return [
            _series(members, notes, f"{count} different slices at places of others, and nothing to tell them apart")
        ]
    return [_series(members, notes, "")]


def _repeats(members: list[Slice]) -> list[list[Slice]]:
    """Groups of slices at the same place."""
    placed = [m for m in members if m.position is not None]
    if not placed:
        return []
    positions = np.array([m.position for m in placed])
    groups: dict[int, list[Slice]] = defaultdict(list)
    order = np.lexsort(np.round(positions / SAME_PLACE).T)
    leader = int(order[0])
    for k in order:
        if np.abs(positions[k] - positions[leader]).max() >= 2 * SAME_PLACE:
            leader = int(k)
        groups[leader].append(placed[int(k)])
    return [group for group in groups.values() if len(group) > 1]


def _without_copies(members: list[Slice]) -> list[Slice]:
    """Members without those whose place and pixels another has."""
    copies: set[int] = set()
    for group in _repeats(members):
        seen: set[str] = set()
        for member in group:
            if member.frame is None:
                dataset = pydicom.dcmread(member.path, force=True)
                digest = hashlib.sha256(dataset.get("PixelData", b"")).hexdigest()
                if digest in seen:
                    copies.add(id(member))
                seen.add(digest)
    return [m for m in members if id(m) not in copies]


def _series(members: list[Slice], notes: list[Note], conflict: str) -> Series:
    notes = list(notes)
    first = members[0]
    header = first.header
    uids = [UID(str(header.get(n) or "")) for n in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(uids):
        notes.append(Note("W-EMPTY-UID", "identifiers are empty; slices were put together by folder and geometry"))
    elif not all(uid.is_valid for uid in uids):
        notes.append(Note("W-EMPTY-UID", "identifiers are malformed; results cannot refer to their source"))
    lossy = any(str(header.file_meta.TransferSyntaxUID).endswith(f"1.2.{end}") for end in LOSSY)
    if lossy or header.get("LossyImageCompression") == "01":
        notes.append(Note("W-LOSSY-SOURCE", "the source was compressed with losses, which a restoration does not undo"))
    if header.get("BurnedInAnnotation") == "YES":
        notes.append(Note("W-BURNED-IN", "text is burned into the pixels; it may identify the patient"))
    if first.spacing is None:
        notes.append(Note("W-NO-SPACING", "no distance between pixels is given; 1 mm is assumed"))
    if first.orientation is None or first.position is None:
        notes.append(Note("W-NO-POSITION", "no place in the patient is given; the picture stands alone"))
        return Series((first,), None, tuple(notes), conflict)
    if not header.get("FrameOfReferenceUID"):
        notes.append(Note("W-NO-FOR", "no frame of reference: places cannot be compared with other series"))
    tags = {name: _step(first.marks.get(name)) for name in ("SliceThickness", "SpacingBetweenSlices")}
    step = tags["SpacingBetweenSlices"] or tags["SliceThickness"]
    if len(members) == 1 and not step:
        notes.append(Note("W-NO-SPACING", "no thickness is given; 1 mm is assumed"))
    positions = np.array([member.position for member in members])
    grid = stack(first.orientation, positions, first.spacing or (1.0, 1.0), step or 1.0)
    if len(members) > 1 and not conflict:
        true = float(np.linalg.norm(grid.affine[:3, 2]))
        wrong = [f"{name} says {value:g}" for name, value in tags.items() if value and abs(value - true) > 0.02 * true]
        if wrong:
            notes.append(Note("W-SPACING-TAG", f"slices are {true:.4g} mm apart; {' and '.join(wrong)} mm"))
    notes += grid.notes
    if grid.problem and not conflict:
        notes.append(Note("W-GAP", f"uneven slices: {grid.problem}"))
    return Series(tuple(members[k] for k in grid.order), grid, tuple(notes), conflict)


def _step(value: Any) -> float:
    found = numbers([value], 1)
    return float(abs(found[0])) if found is not None else 0.0
