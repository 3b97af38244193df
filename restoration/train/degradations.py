"""Photographs degraded as the world does it: unknown blur, resizing, noise and compression in any order.

For networks that are to undo what no operator of ours describes; where an operator does, training uses that.
"""

import io

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

Size = tuple[int, int]

_RESIZES = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


def real_world(x: Tensor, factor: int, rng: np.random.Generator) -> Tensor:
    """Small pictures of unknown history.

    Each goes through blur, resizing, noise and JPEG in random order, half of them twice; then it is brought to a
    `factor`-th of its size and compressed once more.

    Shapes: x (B, 3, H, W), H and W multiples of `factor` → (B, 3, H / factor, W / factor).   Units: unit range.

    Source: the random order of BSRGAN (Zhang et al. 2021, arXiv:2103.14006), the second pass with probability 1/2 of
    Real-ESRGAN as ResShift uses it (Wang et al. 2021, arXiv:2107.10833; Yue et al. 2023, section 4.1).
    Deviations: no sinc kernels, no sensor model; ranges are narrower (pictures of a web, not of a worst case).
    """
    if x.shape[1] != 3 or x.shape[-2] % factor or x.shape[-1] % factor:
        raise ValueError(
            f"Expected colour pictures with sides that are multiples of {factor}, got {tuple(x.shape)}; crop them."
        )
    images = x.detach().cpu().permute(0, 2, 3, 1).numpy().astype(np.float32)
    size = x.shape[-1] // factor, x.shape[-2] // factor
    made = [_one(image, size, rng) for image in images]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous().to(x)


def _one(image: np.ndarray, size: Size, rng: np.random.Generator) -> np.ndarray:
    for twice in range(2 if rng.random() < 0.5 else 1):
        steps = [_blur, _resize, _noise, _jpeg]
        for k in rng.permutation(len(steps)):
            image = steps[k](image, rng, 0.5 if twice else 1.0, size)
    image = cv2.resize(image, size, interpolation=_RESIZES[rng.integers(3)])
    return _jpeg(image, rng, 1.0, size)


def _blur(image: np.ndarray, rng: np.random.Generator, strength: float, size: Size) -> np.ndarray:
    """A Gaussian of any direction."""
    if rng.random() < 0.2:
        return image
    wide, narrow = strength * rng.uniform(0.2, 2.8, 2)
    angle = rng.uniform(0, np.pi)
    reach = np.arange(-10, 11)
    across, down = np.meshgrid(reach, reach)
    u = np.cos(angle) * across + np.sin(angle) * down
    v = np.cos(angle) * down - np.sin(angle) * across
    kernel = np.exp(-0.5 * ((u / wide) ** 2 + (v / narrow) ** 2))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101))


def _resize(image: np.ndarray, rng: np.random.Generator, strength: float, size: Size) -> np.ndarray:
    """Larger or, mostly, smaller, but not below the final size."""
    scale = float(rng.uniform(0.25, 1.2)) ** strength
    height, width = (max(low, round(n * scale)) for n, low in zip(image.shape[:2], size[::-1], strict=True))
    resized = cv2.resize(image, (width, height), interpolation=_RESIZES[rng.integers(3)])
    return np.asarray(resized).clip(0, 1)


def _noise(image: np.ndarray, rng: np.random.Generator, strength: float, size: Size) -> np.ndarray:
    """Gaussian, of colour or grey, or of counted photons."""
    kind = rng.random()
    if kind < 0.2:
        return image
    if kind < 0.6:
        photons = 10 ** rng.uniform(2, 4) / strength
        counted: np.ndarray = rng.poisson(np.clip(image, 0, 1) * photons) / photons
        return counted.clip(0, 1).astype(np.float32)
    channels = 1 if kind > 0.9 else 3
    noise = rng.standard_normal((*image.shape[:2], channels), dtype=np.float32)
    noisy: np.ndarray = image + np.float32(strength * rng.uniform(1, 20) / 255) * noise
    return noisy.clip(0, 1)


def _jpeg(image: np.ndarray, rng: np.random.Generator, strength: float, size: Size) -> np.ndarray:
    stored, file = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=int(rng.integers(40, 96)))
    with Image.open(file) as decoded:
        return np.asarray(decoded, dtype=np.float32) / 255
