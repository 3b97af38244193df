"""Answers without a model: the operator's own guess, and OpenCV's inpainting."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field

from operators.errors import NeedError
from operators.inpainting import Inpainting
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.spec import Need, Source
from restoration.method import Method, Step
from restoration.prior import Prior


class Direct(Method):
    """The operator's guess: bicubic enlargement, the blurred photograph itself, the picture with its holes."""

    kind: Literal["direct"] = "direct"
    title: ClassVar[str] = "Direct"
    deterministic: ClassVar[bool] = True
    source: ClassVar[Source] = Source(paper="none")

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """A single step."""
        x = likelihood.operator.guess(likelihood.y).expand(rng.batch, *likelihood.operator.in_shape)
        yield Step(1, 1, 0.0, x, x)


class OpenCVInpaint(Method):
    """cv2.inpaint on 8-bit colours; measured pixels are kept as they are, noise included.

    Source: Telea 2004; Bertalmio et al. 2001 (Navier-Stokes); OpenCV's implementation.
    Deviations: none.
    """

    kind: Literal["opencv-inpaint"] = "opencv-inpaint"
    title: ClassVar[str] = "OpenCV inpainting"
    deterministic: ClassVar[bool] = True
    source: ClassVar[Source] = Source(paper="Telea, JGT 2004; Bertalmio et al., CVPR 2001", code="opencv/opencv")

    algorithm: Annotated[Literal["telea", "ns"], Field(description="Fast marching (Telea) or Navier-Stokes.")] = "telea"
    radius: Annotated[float, Field(ge=1, le=100, description="Neighbourhood in pixels.")] = 3.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.MASK})

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """A single step."""
        operator = likelihood.operator
        if not isinstance(operator, Inpainting):
            raise NeedError(
                f"Expected an inpainting measurement for OpenCV, got {type(operator).__name__}; use Wiener or TV."
            )
        flag = cv2.INPAINT_TELEA if self.algorithm == "telea" else cv2.INPAINT_NS
        holes = (~operator.mask).expand(operator.in_shape).cpu().numpy().astype(np.uint8)
        filled = []
        # not `data_as_image`: OpenCV also looks at what stands in the holes, which is white for hot pixels
        for picture in operator.adjoint(likelihood.y).cpu().numpy():
            levels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
            # channel by channel, as OpenCV does itself: each may have holes of its own
            restored = [cv2.inpaint(*pair, self.radius, flag) for pair in zip(levels, holes, strict=True)]
            filled.append(np.stack(restored) / np.float32(255))
        x = torch.from_numpy(np.stack(filled)).to(likelihood.y).expand(rng.batch, *operator.in_shape)
        yield Step(1, 1, 0.0, x, x)
