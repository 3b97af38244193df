"""Which pixels were measured: functions of (height, width, parameters, seed), and descriptions.

A mask is a boolean tensor; True means measured. One of shape (H, W) serves all channels alike, one of (C, H, W) has its
own pixels in each.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.errors import ShapeError
from operators.files import read_plane
from operators.rng import generator
from operators.spec import DataRef, Spec, Ui


def box_mask(height: int, width: int, top: int, left: int, box_height: int, box_width: int) -> Tensor:
    """Everything measured but a rectangle.   Shapes: → (height, width) bool.   Units: pixels.

    Raises:
        ShapeError: the rectangle is empty or reaches outside the image.
    """
    inside = min(top, left) >= 0 and top + box_height <= height and left + box_width <= width
    if not inside or box_height < 1 or box_width < 1:
        raise ShapeError(
            f"Expected a hole inside the {height}x{width} image, got {box_height}x{box_width} at row {top}, column "
            f"{left}; make it smaller or move it."
        )
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[top : top + box_height, left : left + box_width] = False
    return mask


def random_mask(height: int, width: int, fraction: float, seed: int) -> Tensor:
    """Exactly int(fraction · height · width) distinct pixels missing, drawn at random.

    Shapes: → (height, width) bool.

    Source: the random inpainting task of Chung et al. 2023 (arXiv:2209.14687). Deviations: the fraction is given, not
    drawn, and the pixels come from `seed`, not from a global state.
    """
    mask = np.ones(height * width, bool)
    mask[generator(seed).permutation(height * width)[: int(fraction * height * width)]] = False
    return torch.from_numpy(mask.reshape(height, width))


def random_box_mask(height: int, width: int, box_height: int, box_width: int, margin: int, seed: int) -> Tensor:
    """Everything measured but a rectangle anywhere at least `margin` from the border.

    Shapes: → (height, width) bool.   Units: pixels.

    Source: the box inpainting task of Chung et al. 2023 (arXiv:2209.14687): 128x128 of 256x256, margin 16; DAPS (Zhang
    et al. 2025) has margin 32. Deviations: the position comes from `seed`, and the last one inside is drawn too.

    Raises:
        ShapeError: the rectangle and its margins do not fit.
    """
    last = (height - box_height - margin, width - box_width - margin)
    if min(box_height, box_width) < 1 or margin < 0 or min(last) < margin:
        raise ShapeError(
            f"Expected a hole and a margin that fit into the {height}x{width} image, got {box_height}x{box_width} and "
            f"{margin} on every side; make one of them smaller."
        )
    top, left = generator(seed).integers(margin, last, endpoint=True)
    return box_mask(height, width, int(top), int(left), box_height, box_width)


def line_mask(height: int, width: int, every: int, axis: Literal["rows", "columns"], lost: bool) -> Tensor:
    """Every n-th row or column, beginning with the first: alone measured, or alone missing if `lost`.

    Shapes: → (height, width) bool.
    """
    size = height if axis == "rows" else width
    kept = (torch.arange(size) % every != 0) if lost else (torch.arange(size) % every == 0)
    return (kept[:, None] if axis == "rows" else kept).expand(height, width).clone()


def stroke_mask(height: int, width: int, style: Literal["thin", "thick"], seed: int) -> Tensor:
    """Everything measured but free-form brush strokes: `thin` has many short ones, `thick` a few that are long.

    Strokes are polygonal lines of 1 to 5 pieces whose length, direction and thickness are drawn for every piece. Sizes
    go with the shorter side of the image.

    Shapes: → (height, width) bool.

    Source: the free-form masks of Yu et al. 2019 (arXiv:1806.03589, Algorithm 1) with the numbers of the narrow and
    wide masks of LaMa at 256x256 (Suvorov et al. 2022, arXiv:2109.07161; advimman/lama configs/data_gen @6bb7047,
    Apache-2.0). Deviations: angles and lengths are real numbers, wide masks have no boxes beside the strokes, and
    drawing stops after the stroke with which half of the image is missing.
    """
    draw = generator(seed)
    fewest, most, longest, thickest = _STROKES[style]
    scale = min(height, width) / 256
    border = np.array([width, height]) - 1
    missing = np.zeros((height, width), np.uint8)
    for number in range(draw.integers(fewest, most, endpoint=True)):
        at = draw.uniform(0, 1, 2) * border
        for _ in range(draw.integers(1, 5, endpoint=True)):
            angle = draw.uniform(0, 4) * (-1) ** number
            length = scale * draw.uniform(10, 10 + longest)
            brush = max(1, round(scale * draw.uniform(5, 5 + thickest)))
            end = np.clip(at + length * np.array([np.sin(angle), np.cos(angle)]), 0, border)
            cv2.line(missing, _pixel(at), _pixel(end), 1, brush)
            at = end
        if missing.mean() >= 0.5:
            break
    return torch.from_numpy(missing == 0)


def text_mask(height: int, width: int, text: str, size: int) -> Tensor:
    """Everything measured but lines of text, repeated until they cover the image.

    Shapes: → (height, width) bool.   Units: `size` is the height of a capital letter in pixels.

    The letters are those of the OpenCV that is installed (version 5 draws another face than version 4).
    """
    thickness = max(1, round(size / 8))
    scale = cv2.getFontScaleFromHeight(_FONT, size, thickness)
    (advance, _), _ = cv2.getTextSize(f"{text} ", _FONT, scale, thickness)
    missing = np.zeros((height, width), np.uint8)
    for line, bottom in enumerate(range(size + size // 2, height + size, 2 * size)):
        # every other line begins half a text earlier, so that no column stays free
        for left in range(-(line % 2) * (advance // 2), width, max(advance, 1)):
            cv2.putText(missing, text, (left, bottom), _FONT, scale, 255, thickness)
    return torch.from_numpy(missing < 128)


_FONT = cv2.FONT_HERSHEY_SIMPLEX

_STROKES = {"thin": (4, 50, 40, 10), "thick": (1, 5, 200, 100)}
"""Fewest and most strokes, and what length and thickness exceed 10 and 5 pixels by at most, at 256 pixels."""


def scratch_mask(height: int, width: int, count: int, thickness: int, seed: int) -> Tensor:
    """Everything measured but `count` curved scratches across the image.

    Shapes: → (height, width) bool.   Units: thickness in pixels.
    """
    draw = generator(seed)
    size = np.array([width, height])
    along = np.linspace(0, 1, 64)[:, None]
    missing = np.zeros((height, width), np.uint8)
    for _ in range(count):
        # a Bézier curve whose ends lie anywhere and whose handles may lie a little outside
        start, end = draw.uniform(0, 1, (2, 2)) * size
        first, second = draw.uniform(-0.25, 1.25, (2, 2)) * size
        curve = (
            (1 - along) ** 3 * start
            + 3 * (1 - along) ** 2 * along * first
            + 3 * (1 - along) * along**2 * second
            + along**3 * end
        )
        cv2.polylines(missing, [np.rint(curve).astype(np.int32)], False, 1, thickness)
    return torch.from_numpy(missing == 0)


def band_mask(channels: int, height: int, width: int, dead: float, stripes: float, seed: int) -> Tensor:
    """Whole bands missing, and whole columns in each of the others: the defects of a line scanner.

    Exactly int(dead · channels) bands are lost, and int(stripes · width) columns of each band, drawn at random.

    Shapes: → (channels, height, width) bool.
    """
    draw = generator(seed)
    mask = np.ones((channels, height, width), bool)
    mask[draw.permutation(channels)[: int(dead * channels)]] = False
    for band in mask:
        band[:, draw.permutation(width)[: int(stripes * width)]] = False
    return torch.from_numpy(mask)


def _pixel(place: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))


class Mask(Spec, ABC):
    """Description of the measured pixels."""

    kind: str
    title: ClassVar[str]

    def build(self, height: int, width: int, base: Path = Path(), channels: int = 1) -> Tensor:
        """The mask, bool, True where measured: (height, width), or (channels, height, width) where channels differ.

        Args:
            height: of the image.
            width: of the image.
            base: folder from which relative paths are read.
            channels: of the image; masks that serve all channels alike do not use it.

        Raises:
            ShapeError: the mask has another size, or nothing would be measured.
        """
        mask = self._build(height, width, channels, base)
        if mask.shape[-2:] != (height, width):
            raise ShapeError(
                f"Expected a mask of {height}x{width} pixels like the image, got {mask.shape[0]}x{mask.shape[1]}; "
                "resize the mask or choose another."
            )
        if not bool(mask.any()):
            raise ShapeError("Expected at least one measured pixel, got a mask without any; make the holes smaller.")
        return mask

    @abstractmethod
    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor: ...


_Seed = Annotated[int, Field(ge=0, lt=2**63, description="Which draw; the same seed gives the same mask.")]


_Place = Annotated[int | None, Field(ge=0, le=65536), Ui(unit="px")]
_Length = Annotated[int | None, Field(ge=1, le=65536), Ui(unit="px")]


class BoxMask(Mask):
    """One rectangular hole: half the image in each direction and centred unless told otherwise; see `box_mask`."""

    title: ClassVar[str] = "Box"
    kind: Literal["box"] = "box"
    top: Annotated[_Place, Field(description="First missing row; empty centres the hole.")] = None
    left: Annotated[_Place, Field(description="First missing column; empty centres the hole.")] = None
    height: Annotated[_Length, Field(description="Height of the hole; empty takes half the image.")] = None
    width: Annotated[_Length, Field(description="Width of the hole; empty takes half the image.")] = None

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        box_height, box_width = _half_unless_given(height, width, self.height, self.width)
        top = (height - box_height) // 2 if self.top is None else self.top
        left = (width - box_width) // 2 if self.left is None else self.left
        return box_mask(height, width, top, left, box_height, box_width)


class RandomBoxMask(Mask):
    """One rectangular hole at a random place, half the image in each direction unless told otherwise."""

    title: ClassVar[str] = "Box anywhere"
    kind: Literal["random-box"] = "random-box"
    height: Annotated[_Length, Field(description="Height of the hole; empty takes half the image.")] = None
    width: Annotated[_Length, Field(description="Width of the hole; empty takes half the image.")] = None
    margin: Annotated[
        int, Field(ge=0, le=65536, description="Least distance from the border (DPS has 16, DAPS 32)."), Ui(unit="px")
    ] = 16
    seed: _Seed = 0

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        box_height, box_width = _half_unless_given(height, width, self.height, self.width)
        return random_box_mask(height, width, box_height, box_width, self.margin, self.seed)


def _half_unless_given(height: int, width: int, box_height: int | None, box_width: int | None) -> tuple[int, int]:
    return (
        max(1, height // 2) if box_height is None else box_height,
        max(1, width // 2) if box_width is None else box_width,
    )


class RandomMask(Mask):
    """Pixels missing at random; see `random_mask`.

    With `up_to`, the fraction itself is drawn, evenly from `fraction` to `up_to`. With `per_channel`, each channel
    loses pixels of its own, and the fraction holds for all channels together.
    """

    title: ClassVar[str] = "Random pixels"
    kind: Literal["random"] = "random"
    fraction: Annotated[float, Field(ge=0, lt=1, description="Part of the pixels that is missing.")] = 0.7
    up_to: Annotated[
        float | None,
        Field(ge=0, lt=1, description="Draws the part from the range up to this one; empty takes it as it is."),
        Ui(advanced=True),
    ] = None
    per_channel: Annotated[bool, Field(description="Draw other pixels for each colour channel."), Ui(advanced=True)] = (
        False
    )
    seed: _Seed = 0

    @model_validator(mode="after")
    def _check_range(self) -> "RandomMask":
        if self.up_to is not None and self.up_to < self.fraction:
            raise ValueError(
                f"Expected a range of fractions, got one from {self.fraction} up to {self.up_to}; swap the two."
            )
        return self

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        fraction = self.fraction
        if self.up_to is not None:
            # a stream of its own, so that the pixels are those of the same fraction given outright
            fraction = generator(self.seed, 1).uniform(self.fraction, self.up_to)
        if not self.per_channel:
            return random_mask(height, width, fraction, self.seed)
        return random_mask(channels * height, width, fraction, self.seed).reshape(channels, height, width)


class LineMask(Mask):
    """Every n-th row or column, alone measured or alone missing; see `line_mask`."""

    title: ClassVar[str] = "Lines"
    kind: Literal["lines"] = "lines"
    axis: Annotated[Literal["rows", "columns"], Field(description="Which way the lines run.")] = "rows"
    every: Annotated[int, Field(ge=2, le=1024, description="Distance from one line to the next."), Ui(unit="px")] = 2
    lost: Annotated[bool, Field(description="Lose these lines alone instead of keeping them alone.")] = False

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        return line_mask(height, width, self.every, self.axis, self.lost)


class StrokeMask(Mask):
    """Free-form brush strokes; see `stroke_mask`."""

    title: ClassVar[str] = "Brush strokes"
    kind: Literal["strokes"] = "strokes"
    style: Annotated[Literal["thin", "thick"], Field(description="Many short strokes, or a few long ones.")] = "thick"
    seed: _Seed = 0

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        return stroke_mask(height, width, self.style, self.seed)


class ScratchMask(Mask):
    """Curved scratches; see `scratch_mask`."""

    title: ClassVar[str] = "Scratches"
    kind: Literal["scratch"] = "scratch"
    count: Annotated[int, Field(ge=1, le=500, description="Number of scratches.")] = 8
    width: Annotated[int, Field(ge=1, le=100, description="Thickness of a scratch."), Ui(unit="px")] = 3
    seed: _Seed = 0

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        return scratch_mask(height, width, self.count, self.width, self.seed)


class TextMask(Mask):
    """Lines of text over the whole picture; see `text_mask`."""

    title: ClassVar[str] = "Text"
    kind: Literal["text"] = "text"
    text: Annotated[
        str,
        Field(
            max_length=200, pattern="^[ -~]*[!-~][ -~]*$", description="What is written, in plain (ASCII) characters."
        ),
    ] = "Preimage"
    size: Annotated[int, Field(ge=4, le=1000, description="Height of a capital letter."), Ui(unit="px")] = 16

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        mask = text_mask(height, width, self.text, self.size)
        if bool(mask.all()):
            raise ShapeError(
                f"Expected text that covers some of the {height}x{width} image, got none at size {self.size}; "
                "choose a smaller size."
            )
        return mask


class BandMask(Mask):
    """Dead bands, and dead columns that differ from band to band; see `band_mask`."""

    title: ClassVar[str] = "Bands and stripes"
    kind: Literal["bands"] = "bands"
    dead: Annotated[float, Field(ge=0, lt=1, description="Part of the bands (channels) that is missing.")] = 0.1
    stripes: Annotated[float, Field(ge=0, lt=1, description="Part of the columns missing in each band.")] = 0.1
    seed: _Seed = 0

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        return band_mask(channels, height, width, self.dead, self.stripes, self.seed)


class MaskFile(Mask):
    """A mask from a file: white is measured, black is missing.

    Pictures are cut at mid-grey (8 bits: above 127 is measured), numpy arrays at half their
    largest value, or at a half where that is below 1.
    """

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Picture or numpy array of the image's size; white is measured.")]
    invert: Annotated[bool, Field(description="Read white as missing instead.")] = False

    def _build(self, height: int, width: int, channels: int, base: Path) -> Tensor:
        plane = read_plane(self.file, base)
        # pictures come scaled to [0, 1]; an array's own white is its largest value
        white = max(1.0, plane.max())
        return torch.from_numpy((plane > white / 2) != self.invert)


AnyMask = Annotated[
    RandomMask | BoxMask | RandomBoxMask | ScratchMask | StrokeMask | TextMask | LineMask | BandMask | MaskFile,
    Field(discriminator="kind"),
]
