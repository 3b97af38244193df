"""Denoising: the data are the image itself."""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operators.base import OperatorSpec, Shape, SpectralOperator, check_image_shape
from operators.spec import Need


class Identity(SpectralOperator):
    """A x = x. With noise added, its recovery is plain denoising.

    Shapes: x (B, *in_shape) → (B, *in_shape).

    Args:
        in_shape: shape of an image, without batch.
        in_complex: whether images (and data) are complex.
    """

    _ones: Tensor

    def __init__(self, in_shape: Shape, *, in_complex: bool = False) -> None:
        super().__init__(in_shape, in_shape, in_complex=in_complex, out_complex=in_complex)
        self.register_buffer("_ones", torch.ones((1,) * len(in_shape)), persistent=False)

    @property
    def singular_values(self) -> Tensor:
        """One, for every pixel."""
        return self._ones

    def to_spectrum(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x

    def from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c

    def data_to_spectrum(self, y: Tensor) -> Tensor:
        """The data themselves."""
        return y

    def data_from_spectrum(self, c: Tensor) -> Tensor:
        """The coefficients themselves."""
        return c


class IdentitySpec(OperatorSpec):
    """Plain denoising: nothing is lost but what the noise hides."""

    title: ClassVar[str] = "Noise only"
    kind: Literal["identity"] = "identity"

    @property
    def offers(self) -> frozenset[Need]:
        """What `Identity` offers."""
        return Identity.offers

    def build(self, in_shape: Shape, base: Path = Path()) -> Identity:
        """The identity on real images of `in_shape`; see `OperatorSpec.build`."""
        return Identity(check_image_shape(in_shape))
