"""Classical phase retrieval: alternating projections without a prior, and scores that allow for what no data tell.

Images are real and not negative. Every image, every channel and every restart is a problem of its own.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from operators.errors import ShapeError
from operators.phase import MagnitudeOperator, PhaseRetrieval
from operators.rng import Rng

Rule = Literal["hio", "raar"]


@dataclass(frozen=True)
class Retrieval:
    """What a retrieval found.

    Attributes:
        x: (*in_shape) every channel from the restart that explains its data best.
        restarts: (n, *in_shape) all of them.
        residuals: (n, ...) | |L x| − |y| | / |y| of each restart and channel.
    """

    x: Tensor
    restarts: Tensor
    residuals: Tensor


def error_reduction(operator: MagnitudeOperator, y: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Alternate between the measured magnitudes and the images that are real and not negative.

    The misfit never grows, and stops falling at the next local minimum.

    Shapes: y (1 or B, *out_shape), start (B, *in_shape) real → (B, *in_shape).

    Raises:
        ShapeError: wrong shape, or an operator of complex images.

    Source: Gerchberg & Saxton 1972; Fienup 1982 (error reduction). Deviations: none.
    """
    _check_real(operator)
    magnitude = operator.magnitude(y)
    x = start
    for _ in range(iterations):
        x = operator.unfield(magnitude * torch.sgn(operator.field(x))).clamp(min=0)
    return x


def retrieve(
    operator: PhaseRetrieval,
    y: Tensor,
    rng: Rng,
    *,
    rule: Rule = "hio",
    beta: float = 0.9,
    iterations: int = 1000,
    polish: int = 100,
) -> Retrieval:
    """Hybrid input-output (HIO) or RAAR from random phases, then error reduction; one restart per stream of `rng`.

    Both rules keep the measured magnitudes and push what lies outside the image, or is negative, towards zero:
    with g' the nearest image to g of the measured magnitudes, where g' (HIO) or 2 g' − g (RAAR) is allowed the next g
    is g', elsewhere g − beta g' (HIO) or beta g + (1 − 2 beta) g' (RAAR). The best restart is the one with the smallest
    residual; the truth plays no part.

    Shapes: y (1, *out_shape).

    Args:
        operator: Fourier magnitudes of real images.
        y: data.
        rng: one stream per restart.
        rule: "hio" or "raar".
        beta: from 0 to 1; usual are 0.9 for HIO and 0.8 to 0.9 for RAAR.
        iterations: of the rule.
        polish: of error reduction.

    Raises:
        ShapeError: wrong shape, an operator of complex images, or a `beta` out of range.

    Source: Fienup 1982 (HIO); Luke 2005, "Relaxed averaged alternating reflections". Deviations: none.
    """
    noise = rng.rand((*operator.in_shape[:-2], *operator.grid))
    return retrieve_from(operator, y, noise, rule=rule, beta=beta, iterations=iterations, polish=polish)


def retrieve_from(
    operator: PhaseRetrieval,
    y: Tensor,
    noise: Tensor,
    *,
    rule: Rule = "hio",
    beta: float = 0.9,
    iterations: int = 1000,
    polish: int = 100,
) -> Retrieval:
    """`retrieve` with one restart for each image (n, ..., *grid) of `noise`, whose phases it begins with."""
    _check_real(operator)
    operator.check_data(y)
    if y.shape[0] != 1 or not 0 < beta <= 1:
        raise ShapeError(
            f"Expected one set of data and a beta from 0 to 1, got {y.shape[0]} and {beta}; retrieve one by one."
        )
    height, width = operator.in_shape[-2:]
    rows, columns = operator.grid
    centred = torch.fft.ifftshift(operator.magnitude(y), (-2, -1))
    # a real image has equal magnitudes at opposite frequencies: their mean is the nearest such data
    centred = (centred + centred.flip((-2, -1)).roll((1, 1), (-2, -1))) / 2
    magnitude = centred[..., : columns // 2 + 1]
    inside = torch.zeros(rows, columns, dtype=torch.bool, device=y.device)
    inside[:height, :width] = True

    def nearest(g: Tensor) -> Tensor:
        waves = torch.fft.rfft2(g, norm="ortho")
        image: Tensor = torch.fft.irfft2(magnitude * torch.sgn(waves), s=operator.grid, norm="ortho")
        return image

    g = nearest(noise.to(y))
    for _ in range(iterations):
        found = nearest(g)
        if rule == "hio":
            g = torch.where(inside & (found >= 0), found, g - beta * found)
        else:
            g = torch.where(inside & (2 * found >= g), found, beta * g + (1 - 2 * beta) * found)
    start = nearest(g)[..., :height, :width].clamp(min=0)
    restarts = error_reduction(operator, y, start, polish)
    residuals = relative_residual(operator, y, restarts)
    best = residuals.argmin(0)
    x = restarts.gather(0, best[None, ..., None, None].expand(1, *operator.in_shape))[0]
    return Retrieval(x, restarts, residuals)


def relative_residual(operator: MagnitudeOperator, y: Tensor, x: Tensor) -> Tensor:
    """| |L x| − |y| | / |y| of each channel.

    Shapes: y (1 or B, *out_shape), x (B, *in_shape) → (B, *in_shape without height and width).
    """
    magnitude = operator.magnitude(y)
    gap = operator.field(x).abs() - magnitude
    pixels = len(operator.in_shape) - 1  # the first axis that is not counted as a channel
    size = torch.linalg.vector_norm(magnitude.flatten(pixels), dim=-1)
    relative: Tensor = torch.linalg.vector_norm(gap.flatten(pixels), dim=-1) / size.clamp(min=torch.finfo(y.dtype).tiny)
    return relative


def align(x: Tensor, truth: Tensor, *, shifts: bool = False) -> Tensor:
    """Each channel of x as it is or turned by 180°, whichever is nearer to the truth: both have the same magnitudes.

    Shapes: x (B, ..., H, W) real, truth (..., H, W) → (B, ..., H, W).

    Args:
        x: images found.
        truth: the image that was measured.
        shifts: also try all (periodic) shifts, which have the same magnitudes if borders of the image are black.

    Raises:
        ShapeError: images of another shape than the truth.
    """
    if x.shape[1:] != truth.shape or x.is_complex() or truth.is_complex():
        raise ShapeError(
            f"Expected real images (B, {', '.join(map(str, truth.shape))}), got {tuple(x.shape)}; crop them."
        )
    turned = x.flip((-2, -1))
    if shifts:
        x, turned = _shifted(x, truth), _shifted(turned, truth)
    as_is, around = ((image - truth).square().sum((-2, -1), keepdim=True) for image in (x, turned))
    return torch.where(around < as_is, turned, x)


def aligned_psnr(x: Tensor, truth: Tensor, *, shifts: bool = False) -> Tensor:
    """PSNR of each image after `align`, for images in unit range.   Shapes: (B, ..., H, W), (..., H, W) → (B,).

    Units: dB.
    """
    error = (align(x, truth, shifts=shifts) - truth).square().flatten(1).mean(1)
    return -10 * error.log10()


def _shifted(x: Tensor, truth: Tensor) -> Tensor:
    """Each channel of x rolled to where its periodic correlation with the truth is greatest."""
    height, width = truth.shape[-2:]
    spectrum = torch.fft.rfft2(x)
    correlation = torch.fft.irfft2(spectrum.conj() * torch.fft.rfft2(truth), s=(height, width))
    peak = correlation.flatten(-2).argmax(-1)[..., None]
    rows = (torch.arange(height, device=x.device) - peak // width) % height
    columns = (torch.arange(width, device=x.device) - peak % width) % width
    x = x.gather(-2, rows[..., None].expand(x.shape))
    return x.gather(-1, columns[..., None, :].expand(x.shape))


def _check_real(operator: MagnitudeOperator) -> None:
    if operator.in_complex:
        raise ShapeError(f"Expected {type(operator).__name__} of real images, got complex; build it for real ones.")
