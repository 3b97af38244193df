"""The patterns of compressed sensing: fast orthonormal transforms, the order of their rows, and Gaussian matrices."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from operators.errors import ShapeError
from operators.rng import generator

Order = Literal["random", "zigzag", "cake"]

MAX_MATRIX = 1 << 22
"""Most numbers in a stored sensing matrix, 1024 of 64x64 pixels for one: seconds to decompose."""


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh–Hadamard transform of the last axis, in natural (Sylvester) order; it is its own inverse.

    Butterflies of up to 16 numbers at a time, as products with a small matrix: several times faster than pairs. The
    transform of an image in both directions is that of its pixels as one list, since both have powers of two.

    Shapes: (..., n) → the same, n a power of two.

    Raises:
        ShapeError: n is not a power of two.
    """
    size = x.shape[-1]
    if not is_power_of_two(size):
        raise ShapeError(f"Expected a power of two numbers to transform, got {size}; crop the image.")
    lists, done = x.reshape(-1, size), 1
    while done < size:
        radix = min(16, size // done)
        # the bits that were transformed go to the front: after all of them everything is back in its place
        lists = (lists.reshape(-1, size // radix, radix) @ _sylvester(radix, x)).transpose(1, 2).reshape(-1, size)
        done *= radix
    return lists.reshape(x.shape)


def _sylvester(size: int, like: Tensor) -> Tensor:
    matrix = like.new_full((1, 1), size**-0.5)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def sequency_to_natural(size: int) -> Tensor:
    """For each number of sign changes from 0 to size − 1, the row of Sylvester's matrix that has so many.

    Shapes: → (size,) int64, `size` a power of two.

    Source: bit-reversed Gray code, Kunz 1979 (IEEE Trans. Computers, 28(3)). Deviations: none.
    """
    gray = torch.arange(size) ^ (torch.arange(size) >> 1)
    natural = torch.zeros(size, dtype=torch.long)
    for _ in range(size.bit_length() - 1):
        natural, gray = (natural << 1) | (gray & 1), gray >> 1
    return natural


def cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix.   Shapes: → (size frequencies, size) float64."""
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(torch.pi / size * torch.outer(k, k + 0.5)).mul_((2 / size) ** 0.5)
    basis[0] = size**-0.5
    return basis


def choose_rows(height: int, width: int, count: int, order: Order, seed: int = 0, *, paired: bool = False) -> Tensor:
    """Which coefficients of a separable transform are measured, in the order of measurement; the mean comes first.

    `zigzag` goes by the sum of the two frequencies (sign changes in both directions) as JPEG does, `cake` by the number
    of pieces into which the zeros of a pattern cut it, (u + 1)(v + 1), ties as in `zigzag`, and `random` takes each of
    the others with equal probability.

    Shapes: → (count,) int64, positions in reading order of the (height, width) plane of frequencies.

    Args:
        height: rows of the plane, frequency 0 first.
        width: columns of the plane, frequency 0 first.
        count: how many.
        order: see above.
        seed: for the random order.
        paired: for planes of Fourier coefficients, where frequency falls again in the second half: the two parts of a
            coefficient (see `PartialFourier`) then follow each other.

    Source: "cake" is the cake-cutting order of Yu 2019 (Sensors 19(19), 4122). Deviations: ties, which it leaves open.
    """
    u, v = (index.ravel() for index in np.indices((height, width)))
    own = np.arange(height * width)
    if paired:
        own = np.minimum(own, (-u % height) * width + -v % width)
        u, v = np.minimum(u, height - u), np.minimum(v, width - v)
    if order == "random":
        priority = generator(seed).permutation(height * width)[own]
        priority[0] = -1
        keys = [priority]
    else:
        keys = [own, np.where((u + v) % 2, u, -u), u + v]
    if order == "cake":
        keys.append((u + 1) * (v + 1))
    return torch.from_numpy(np.lexsort(keys)[:count].astype(np.int64))


def gaussian_matrix(count: int, pixels: int, orthonormal: bool, seed: int) -> Tensor:
    """Independent Gaussian numbers of variance 1 / count, or their rows made orthonormal.

    Shapes: → (count, pixels) float64.

    Raises:
        ShapeError: above `MAX_MATRIX` numbers.
    """
    check_matrix_size(count, pixels)
    drawn = generator(seed).standard_normal((count, pixels))
    return torch.from_numpy(np.linalg.qr(drawn.T)[0].T if orthonormal else drawn / count**0.5)


def check_matrix_size(count: int, pixels: int) -> None:
    """Raise ShapeError for a matrix above `MAX_MATRIX` numbers."""
    if count * pixels > MAX_MATRIX:
        raise ShapeError(
            f"Expected a sensing matrix of at most {MAX_MATRIX / 1e6:.1f} million numbers, got {count}x{pixels}; "
            "use blocks, fewer numbers, or Hadamard, cosine or Fourier patterns."
        )


def count_of(ratio: float, pixels: int) -> int:
    """How many numbers are measured of so many pixels: the nearest to `ratio` times as many, at least one."""
    return max(1, round(ratio * pixels))


def is_power_of_two(number: int) -> bool:
    """Whether a number is 1, 2, 4, 8, ..."""
    return number > 0 and number & (number - 1) == 0
