"""Photographs as training crops."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Photo:
    """One photograph at several scales, uint8 (H, W, channels), finest first."""

    name: str
    scales: tuple[np.ndarray, ...]
    weight: float


def load_photos(
    folder: Path, scales: tuple[float, ...], light_prefix: str, light_weight: float, *, grey: bool = False
) -> list[Photo]:
    """Every picture of a folder, in name order; names that start with `light_prefix` are drawn less often."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"Expected photographs (.jpg, .png) in {folder}, found none; give their folder as --data."
        )
    photos = []
    for path in files:
        with Image.open(path) as file:
            image = file.convert("L" if grey else "RGB")
        sizes = [(round(image.width / s), round(image.height / s)) for s in scales]
        resized = (image if s == image.size else image.resize(s, Image.Resampling.BICUBIC) for s in sizes)
        light = bool(light_prefix) and path.name.startswith(light_prefix)
        photos.append(
            Photo(
                path.name,
                tuple(np.asarray(r).reshape(r.height, r.width, -1) for r in resized),
                light_weight if light else 1.0,
            )
        )
    return photos


class Crops:
    """Random square crops with flips and quarter turns, in [-1, 1]."""

    def __init__(self, photos: list[Photo], size: int) -> None:
        self.images: list[np.ndarray] = []
        weights: list[float] = []
        for photo in photos:
            usable = [s for s in photo.scales if min(s.shape[:2]) >= size]
            if not usable:
                continue
            self.images += usable
            weights += [photo.weight / len(usable)] * len(usable)
        if not self.images:
            raise ValueError(f"Expected photographs of at least {size} pixels a side, found none; use a smaller crop.")
        self.probabilities = np.array(weights) / np.sum(weights)
        self.size = size

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """(count, 3, size, size) float32 in [-1, 1]."""
        n, crops = self.size, []
        for index in rng.choice(len(self.images), size=count, p=self.probabilities):
            image = self.images[index]
            top, left = (int(rng.integers(extent - n + 1)) for extent in image.shape[:2])
            crop = np.rot90(image[top : top + n, left : left + n], int(rng.integers(4)))
            crops.append(crop[:, ::-1] if rng.integers(2) else crop)
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def centre_crops(photos: list[Photo], size: int) -> Tensor:
    """The middle of each photograph at its finest scale, (N, 3, size, size) in [-1, 1]."""
    crops = []
    for photo in photos:
        image = photo.scales[0]
        if min(image.shape[:2]) < size:
            raise ValueError(
                f"Expected held-out photographs of at least {size} pixels a side, got {photo.name}; choose others."
            )
        top, left = ((extent - size) // 2 for extent in image.shape[:2])
        crops.append(image[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
