"""Frozen descriptions: the pydantic base, display hints, capabilities, sources and the reading of tagged unions."""

import hashlib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from operators.errors import AssetCorrupt, ReadError

_S = TypeVar("_S", bound="Spec")


class Spec(BaseModel):
    """Immutable, JSON-round-trippable description. Unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Ui:
    """Display hint for one field, carried in its `Annotated` metadata.

    Attributes:
        unit: shown after the label, for example "px".
        scale: how a slider moves.
        advanced: whether the field hides in a closed group.
    """

    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    advanced: bool = False


class Need(StrEnum):
    """A capability that methods need and that operators or models offer."""

    LINEAR = "linear"
    GRADIENT = "gradient"
    PROX = "prox"
    SPECTRUM = "spectrum"
    PROJECTION = "projection"
    GAUSSIAN = "gaussian"
    MASK = "mask"
    DENOISER = "denoiser"
    VJP = "vjp"
    CODEC = "codec"
    TEXT = "text"
    BRIDGE = "bridge"
    NOISE_MAP = "noise-map"
    PARAMETERS = "parameters"
    KERNEL = "kernel"
    WIDTH = "width"
    NOISE_PRIOR = "noise-prior"
    FOURIER = "fourier"

    @property
    def sentence(self) -> str:
        """What is missing when this need is not met, as a sentence for the user."""
        return _SENTENCES[self]


_SENTENCES: dict[Need, str] = {
    Need.LINEAR: "The method needs a linear measurement (one with an adjoint), such as blur, inpainting or MRI.",
    Need.GRADIENT: "The method needs a measurement that can be differentiated with respect to the image.",
    Need.PROX: "The method needs a measurement with a proximal step, that is a regularised least-squares solve.",
    Need.SPECTRUM: "The method needs a measurement with known singular values, such as inpainting or circular blur.",
    Need.PROJECTION: "The method needs a measurement whose data an image can be made to match, such as JPEG.",
    Need.GAUSSIAN: "The method needs independent Gaussian noise of one size; DPS takes other noises.",
    Need.MASK: "The method needs a measurement with missing pixels, that is inpainting.",
    Need.DENOISER: "The method needs a prior that denoises, such as the asset 'photo'.",
    Need.VJP: "The method needs a model that can be differentiated (back-propagated through).",
    Need.CODEC: "The method needs a latent model, that is one with an encoder and a decoder.",
    Need.TEXT: "The method needs a model conditioned on text.",
    Need.PARAMETERS: "The method is blind and needs an operator with unknown parameters, such as 'unknown-exposure'.",
    Need.FOURIER: "The method needs the Fourier magnitudes of a picture in a frame, that is 'phase-retrieval'.",
    Need.KERNEL: "The method needs a blur whose kernel is unknown, that is 'unknown-kernel'.",
    Need.WIDTH: "The method needs a blur whose width is unknown, that is 'unknown-width'.",
    Need.NOISE_PRIOR: "The method needs noise that a prior can be made of, that is correlated Gaussian noise.",
    Need.BRIDGE: "The method needs a bridge model, that is one trained on pairs of degraded and clean images.",
    Need.NOISE_MAP: "The method needs a prior that takes a noise level for every pixel; no trained one here does.",
}


@dataclass(frozen=True)
class Source:
    """Where a piece of mathematics comes from.

    Attributes:
        paper: authors and year, for example "Chung et al. 2023".
        equation: the equation, algorithm or section, for example "Algorithm 1".
        arxiv: arXiv identifier or DOI.
        code: official code, "owner/name path @commit".
        licence: licence of that code.
    """

    paper: str
    equation: str = ""
    arxiv: str = ""
    code: str = ""
    licence: str = ""


class DataRef(Spec):
    """A file of the user's, such as a mask or a blur kernel, named by path and pinned by checksum.

    A relative path is read from the folder given to `read_bytes`, so that a recipe can travel with its files.
    """

    path: Annotated[str, Field(min_length=1, description="File, absolute or relative to the recipe's folder.")]
    sha256: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="Checksum of the file in hex."), Ui(advanced=True)
    ] = None

    def resolve(self, base: Path) -> Path:
        """The file's path, read from folder `base` when it is relative."""
        return base / self.path

    def read_bytes(self, base: Path = Path()) -> bytes:
        """The file's contents, after the checksum (when given) has been verified.

        Raises:
            ReadError: the file cannot be read.
            AssetCorrupt: the contents do not have the recorded checksum.
        """
        path = self.resolve(base)
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
            raise _unreadable(path, error) from error
        self._verify(path, hashlib.sha256(content).hexdigest())
        return content

    def digest(self, base: Path = Path()) -> str:
        """SHA-256 of the file, or of the names and contents of all files in a folder but hidden ones; verified.

        Raises:
            ReadError, AssetCorrupt: as `read_bytes`. Large files are never held in memory.
        """
        path = self.resolve(base)
        try:
            if path.is_dir():
                names = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
                shown = sorted(n for n in names if not any(part.startswith(".") for part in n.split("/")))
                lines = "".join(f"{_file_digest(path / n)}  {n}\n" for n in shown)
                found = hashlib.sha256(lines.encode()).hexdigest()
            else:
                found = _file_digest(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        self._verify(path, found)
        return found

    def _verify(self, path: Path, found: str) -> None:
        if self.sha256 is not None and found != self.sha256:
            raise AssetCorrupt(
                f"Expected {path} to have SHA-256 {self.sha256[:12]}…, got {found[:12]}…; "
                "restore the original file or update the recipe."
            )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path: Path, error: OSError | ValueError) -> ReadError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ReadError(f"Expected a readable file at {path!s}, got '{reason or error}'; check the path in the recipe.")


def data_refs(spec: Spec) -> Iterator[DataRef]:
    """All files that a description names, wherever in it."""
    if isinstance(spec, DataRef):
        yield spec
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Spec):
                yield from data_refs(part)


def pin(spec: _S, base: Path) -> _S:
    """The same description with every file in it named by absolute path and checksum, so that it can travel.

    Relative paths are read from folder `base`; a checksum that is already there is verified.

    Raises:
        ReadError, AssetCorrupt: a file cannot be used.
    """
    pinned: dict[str, Any] = {}
    if isinstance(spec, DataRef):
        pinned = {"sha256": spec.digest(base), "path": str(spec.resolve(base).resolve())}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            pinned[name] = pin(value, base)
        elif isinstance(value, tuple) and any(isinstance(part, Spec) for part in value):
            pinned[name] = tuple(pin(part, base) if isinstance(part, Spec) else part for part in value)
    return spec.model_copy(update=pinned) if pinned else spec


def kinds(union: Any) -> dict[str, type[Spec]]:
    """The members of a discriminated union by their `kind` tag, in the order in which they are written.

    Args:
        union: `Annotated[A | B, Field(discriminator="kind")]`, a bare union, or one Spec class.

    Raises:
        TypeError: a member is not a Spec with a literal `kind`, or two members share a tag.
    """
    found: dict[str, type[Spec]] = {}
    for member in _members(union):
        field = member.model_fields.get("kind")
        tags = get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()
        if len(tags) != 1:
            raise TypeError(f"Expected {member.__name__} to have a field `kind: Literal[...]` with one tag.")
        if tags[0] in found:
            raise TypeError(
                f"Expected distinct tags, got '{tags[0]}' on {found[tags[0]].__name__} and {member.__name__}."
            )
        found[tags[0]] = member
    return found


def _members(union: Any) -> list[type[Spec]]:
    origin = get_origin(union)
    if origin is Annotated:
        return _members(get_args(union)[0])
    if origin is Union or origin is types.UnionType:
        return [member for part in get_args(union) for member in _members(part)]
    if isinstance(union, type) and issubclass(union, Spec):
        return [union]
    raise TypeError(f"Expected a Spec class or a union of them, got {union!r}.")
