"""The widget in which a person marks missing parts of a picture, and what Python makes of its answer."""

import io
import os
import secrets
import stat
import struct
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from pydantic import Field, ValidationError

from app.gui.proxy import Shown, equal_pixels, mask_url
from app.gui.widget import Widget
from operators.errors import ReadError, ShapeError
from operators.spec import Spec

_LARGEST = 64 << 20
"""Bytes of a mask that is read; noise of 64 megapixels at one bit a pixel takes 8 MiB."""

_NOTHING = "Nothing is painted. Paint the missing area, or choose another problem type."


class MaskPainter(Widget):
    """A picture to paint missing parts on, with brush, eraser, rectangles by numbers and mask files.

    Props from Python: `source` is `Shown.source()`, or None for no picture; `known` is None or the answer of `known()`,
    a mask that replaces what is painted or adds to it (both can be undone). The value is that of `Painted`.
    """

    module: ClassVar[str] = "painter"
    signals: ClassVar[tuple[str, ...]] = ("change", "equal")

    def __init__(self, value: Any = None, **settings: Any) -> None:
        # a property that is there from the beginning can be watched
        super().__init__(value, **{"source": None, "known": None, **settings})


class Painted(Spec):
    """The value of a `MaskPainter`, which a browser sends and anybody can invent.

    Attributes:
        mask: an uploaded PNG of the picture's full size, white where measured; None while nothing is painted.
        width, height: of the mask.
        painted: part of the picture that is missing.
        revision: goes up with every change.
        saved: whether `mask` is what is painted.
        equal: with the event "equal": mark the pixels of this value.
    """

    mask: Annotated[str, Field(max_length=4096)] | None = None
    width: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    height: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    painted: Annotated[float, Field(ge=0, le=1)] = 0.0
    revision: Annotated[int, Field(ge=0, lt=2**53)] = 0
    saved: bool = True
    equal: float | None = None


def mask_file(value: Any, full_shape: tuple[int, int], folder: Path, cache: Path) -> Path:
    """The painted mask as a file for `operators.masks.MaskFile`: white is measured, black is missing.

    Args:
        value: of a `MaskPainter`; hostile.
        full_shape: (H, W) of the picture.
        folder: the file is written into it, as mask.png.
        cache: Gradio's folder of uploads; no other file is opened.

    Raises:
        ReadError: nothing is painted or saved, or what was sent is no mask.
        ShapeError: the mask has another size, or nothing would remain.
    """
    painted = _checked(value)
    if not painted.saved:
        raise ReadError("The mask is still being saved. Wait for a moment and press the button again.")
    if painted.mask is None:
        raise ReadError(_NOTHING)
    height, width = full_shape
    if (painted.height, painted.width) != full_shape:
        raise _other_size((painted.width, painted.height), full_shape)
    content = _uploaded(painted.mask, cache)
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 33:
        raise _no_mask()
    declared: tuple[int, int] = struct.unpack(">II", content[16:24])
    if declared != (width, height):
        raise _other_size(declared, full_shape)
    measured = _decoded(content)
    if measured.shape != full_shape:
        raise _no_mask()
    if measured.all():
        raise ReadError(_NOTHING)
    if not measured.any():
        raise ShapeError("The whole picture is painted, so nothing would be left to go by. Erase some of it.")
    written = folder / "mask.png"
    Image.fromarray(measured).save(written)
    return written


def known(missing: NDArray[np.bool_], word: str, *, add: bool = False) -> dict[str, Any]:
    """The property `known` of a `MaskPainter`: pixels (H, W) that are missing, and a sentence about them.

    With `add` they are added to what is painted, else they replace it.
    """
    return {"url": mask_url(missing), "word": word, "add": add, "id": secrets.token_hex(8)}


def shown(picture: Shown | None) -> MaskPainter:
    """The widget's update for a picture that was just added or taken away.

    What the file itself marks as missing is painted already; else what was painted stays, if the size is the same.
    """
    if picture is None:
        return MaskPainter(source=None)
    if picture.missing is None:
        return MaskPainter(source=picture.source())
    word = "Pixels that are transparent or without a value are marked as missing."
    return MaskPainter(source=picture.source(), known=known(picture.missing, word))


def marked_equal(value: Any, path: Path) -> MaskPainter:
    """The answer to the event "equal": all pixels of the asked value marked, as an update of the widget.

    Args:
        value: of the widget; hostile.
        path: of the uploaded picture.

    Raises:
        ReadError: no pixel has this value, or none was asked for.
    """
    asked = _checked(value).equal
    if asked is None:
        raise ReadError("Give a value first, for example 0 for black.")
    found = equal_pixels(path, asked)
    word = f"Marked {int(found.sum())} pixels that are exactly {asked:g}."
    return MaskPainter(known=known(found, word, add=True))


def _checked(value: Any) -> Painted:
    try:
        return Painted.model_validate({} if value is None else value)
    except ValidationError as error:
        raise _no_mask() from error


def _uploaded(path: str, cache: Path) -> bytes:
    """The bytes of a regular file in Gradio's cache, whatever links there are."""
    try:
        place = os.path.realpath(path, strict=True)
        inside = os.path.commonpath([place, os.path.realpath(cache, strict=True)]) == os.path.realpath(cache)
        if not inside or not os.path.isabs(path):
            raise _no_mask()
        file = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as opened:
            facts = os.fstat(opened.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LARGEST:
                raise _no_mask()
            return opened.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise _no_mask() from error


def _decoded(content: bytes) -> NDArray[np.bool_]:
    """(H, W) bool, True where white; the size was checked on the header."""
    try:
        image = PngImageFile(io.BytesIO(content))
        if image.mode not in ("1", "L") or getattr(image, "is_animated", False):
            raise ValueError("no grey picture")
        image.load()
    except Exception as error:  # what decoders raise on a stranger's bytes is no contract
        raise _no_mask() from error
    return np.asarray(np.asarray(image.convert("L")) > 127)


def _no_mask() -> ReadError:
    return ReadError("The painted mask did not arrive as it should. Change it a little, or reload the page.")


def _other_size(got: tuple[int, int], full_shape: tuple[int, int]) -> ShapeError:
    height, width = full_shape
    return ShapeError(
        f"Mask is {got[0]} × {got[1]}, image is {width} × {height}. Scale the mask in the painter, or choose another."
    )
