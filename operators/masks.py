"""Which pixels were measured: functions of (height, width, parameters, seed), and descriptions.

A mask is a (H, W) boolean tensor; True means measured. It serves all channels alike.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.errors import ShapeError
from operators.files import read_plane
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
    draw = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed)))
    mask = np.ones(height * width, bool)
    mask[draw.permutation(height * width)[: int(fraction * height * width)]] = False
    return torch.from_numpy(mask.reshape(height, width))


def scratch_mask(height: int, width: int, count: int, thickness: int, seed: int) -> Tensor:
    """Everything measured but `count` curved scratches across the image.

    Shapes: → (height, width) bool.   Units: thickness in pixels.
    """
    draw = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed)))
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


class Mask(Spec, ABC):
    """Description of the measured pixels."""

    kind: str
    title: ClassVar[str]

    def build(self, height: int, width: int, base: Path = Path()) -> Tensor:
        """The mask, (height, width) bool, True where measured; relative paths are read from folder `base`.

        Raises:
            ShapeError: the mask has another size, or nothing would be measured.
        """
        mask = self._build(height, width, base)
        if mask.shape != (height, width):
            raise ShapeError(
                f"Expected a mask of {height}x{width} pixels like the image, got {mask.shape[0]}x{mask.shape[1]}; "
                "resize the mask or choose another."
            )
        if not bool(mask.any()):
            raise ShapeError("Expected at least one measured pixel, got a mask without any; make the holes smaller.")
        return mask

    @abstractmethod
    def _build(self, height: int, width: int, base: Path) -> Tensor: ...


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

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        box_height = max(1, height // 2) if self.height is None else self.height
        box_width = max(1, width // 2) if self.width is None else self.width
        top = (height - box_height) // 2 if self.top is None else self.top
        left = (width - box_width) // 2 if self.left is None else self.left
        return box_mask(height, width, top, left, box_height, box_width)


class RandomMask(Mask):
    """Pixels missing at random; see `random_mask`."""

    title: ClassVar[str] = "Random pixels"
    kind: Literal["random"] = "random"
    fraction: Annotated[float, Field(ge=0, lt=1, description="Part of the pixels that is missing.")] = 0.7
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        return random_mask(height, width, self.fraction, self.seed)


class ScratchMask(Mask):
    """Curved scratches; see `scratch_mask`."""

    title: ClassVar[str] = "Scratches"
    kind: Literal["scratch"] = "scratch"
    count: Annotated[int, Field(ge=1, le=500, description="Number of scratches.")] = 8
    width: Annotated[int, Field(ge=1, le=100, description="Thickness of a scratch."), Ui(unit="px")] = 3
    seed: _Seed = 0

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        return scratch_mask(height, width, self.count, self.width, self.seed)


class MaskFile(Mask):
    """A mask from a file: white is measured, black is missing.

    Pictures are cut at mid-grey (8 bits: above 127 is measured), numpy arrays at half their largest value.
    """

    title: ClassVar[str] = "From a file"
    kind: Literal["file"] = "file"
    file: Annotated[DataRef, Field(description="Picture or numpy array of the image's size; white is measured.")]
    invert: Annotated[bool, Field(description="Read white as missing instead.")] = False

    def _build(self, height: int, width: int, base: Path) -> Tensor:
        plane = read_plane(self.file, base)
        # pictures come scaled to [0, 1]; an array's own white is its largest value
        white = max(1.0, plane.max())
        return torch.from_numpy((plane > white / 2) != self.invert)


AnyMask = Annotated[RandomMask | BoxMask | ScratchMask | MaskFile, Field(discriminator="kind")]
