"""Pixels of a sensor that do not measure: dead ones, hot ones and dead columns, at known places."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from operators.base import OperatorSpec, Shape, check_image_shape
from operators.errors import ShapeError
from operators.inpainting import Inpainting
from operators.rng import generator
from operators.spec import Need


def defects(height: int, width: int, dead: float, hot: float, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Where pixels are dead and where they are hot, drawn at random.

    `dead` and `hot` are parts of all pixels; `columns` whole columns are dead as well.

    Shapes: → two (height, width) bool, never both True.

    Raises:
        ShapeError: more dead columns than there are, or no pixel left.
    """
    if columns > width:
        raise ShapeError(f"Expected at most {width} dead columns, got {columns}; the image has no more columns.")
    draw = generator(seed)
    count = height * width
    order = draw.permutation(count)
    is_dead, is_hot = np.zeros(count, bool), np.zeros(count, bool)
    is_dead[order[: int(dead * count)]] = True
    is_hot[order[int(dead * count) : int(dead * count) + int(hot * count)]] = True
    dead_mask, hot_mask = is_dead.reshape(height, width), is_hot.reshape(height, width)
    dead_mask[:, draw.permutation(width)[:columns]] = True
    return torch.from_numpy(dead_mask), torch.from_numpy(hot_mask & ~dead_mask)


class DefectivePixels(Inpainting):
    """Inpainting of dead and hot pixels: data are the good pixels and zero elsewhere; pictures show hot ones white.

    Shapes: x (B, ..., H, W) → (B, ..., H, W).

    Args:
        dead: bool (H, W), True where a pixel reads nothing.
        hot: bool (H, W), True where a pixel is saturated.
        in_shape: (..., H, W), without batch.

    Raises:
        ShapeError: the masks have another size than the image, or leave no pixel.
    """

    hot: Tensor

    def __init__(self, dead: Tensor, hot: Tensor, in_shape: Shape) -> None:
        super().__init__(~(dead | hot), in_shape)
        self.register_buffer("hot", hot.clone())

    def data_as_image(self, y: Tensor) -> Tensor:
        """The good pixels in place, dead ones black, hot ones white.   Shapes: data → (B, ..., H, W)."""
        self.check_data(y)
        return torch.where(self.hot, 1, y)


class DefectsSpec(OperatorSpec):
    """A sensor with dead pixels, hot (saturated) pixels and dead columns whose places are known."""

    title: ClassVar[str] = "Defective pixels"
    kind: Literal["defects"] = "defects"
    dead: Annotated[float, Field(ge=0, le=0.49, description="Part of the pixels that reads nothing.")] = 0.01
    hot: Annotated[float, Field(ge=0, le=0.49, description="Part of the pixels that is saturated.")] = 0.01
    columns: Annotated[int, Field(ge=0, le=1024, description="Number of dead columns.")] = 2
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which pixels; the same seed gives the same.")] = 0

    @property
    def offers(self) -> frozenset[Need]:
        """What `DefectivePixels` offers."""
        return DefectivePixels.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> DefectivePixels:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        shape = check_image_shape(in_shape)
        dead, hot = defects(shape[-2], shape[-1], self.dead, self.hot, self.columns, self.seed)
        return DefectivePixels(dead, hot, shape)
