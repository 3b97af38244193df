"""Draws docs/gallery.md: `python -m docs.make_gallery`. For each operator an image, its data and the first guess.

The photograph is a bundled sample, the phantom that of Shepp and Logan, the volume scikit-image's binary blobs.
"""

import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter
from skimage.data import binary_blobs, shepp_logan_phantom
from torch import Tensor
from torch.nn import functional as F

from app.view import data_picture, to_colours
from operators import AnyOperator, Gaussian, OperatorSpec, Rng

HERE = Path(__file__).parent
SIDE = 192
SIGMA = 0.02

# family, title, source of the image, description
ENTRIES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("Blur", "Gaussian", "photograph", {"kind": "blur", "kernel": {"kind": "gaussian", "size": 25, "std": 3.0}}),
    (
        "Blur",
        "Anisotropic Gaussian",
        "photograph",
        {"kind": "blur", "kernel": {"kind": "oriented-gaussian"}, "boundary": "replicate"},
    ),
    ("Blur", "Camera shake", "photograph", {"kind": "blur", "kernel": {"kind": "motion", "size": 41}}),
    ("Blur", "Straight motion", "photograph", {"kind": "blur", "kernel": {"kind": "line"}, "boundary": "valid"}),
    ("Blur", "Out of focus", "photograph", {"kind": "blur", "kernel": {"kind": "disk"}, "boundary": "zero"}),
    ("Blur", "Diffraction (Airy)", "photograph", {"kind": "blur", "kernel": {"kind": "airy"}}),
    ("Blur", "Aberration (Zernike)", "photograph", {"kind": "blur", "kernel": {"kind": "zernike"}}),
    ("Blur", "Blur that varies over the field", "photograph", {"kind": "varying-blur", "corner": 5.0}),
    ("Blur", "Atmospheric turbulence", "photograph", {"kind": "turbulence", "strength": 3.0}),
    ("Blur", "Exposure, motion and saturation", "photograph", {"kind": "exposure-blur"}),
    ("Missing pixels", "Random pixels", "photograph", {"kind": "inpainting", "mask": {"kind": "random"}}),
    ("Missing pixels", "Box", "photograph", {"kind": "inpainting", "mask": {"kind": "box"}}),
    ("Missing pixels", "Scratches", "photograph", {"kind": "inpainting", "mask": {"kind": "scratch"}}),
    ("Missing pixels", "Free-form strokes", "photograph", {"kind": "inpainting", "mask": {"kind": "strokes"}}),
    ("Missing pixels", "Text", "photograph", {"kind": "inpainting", "mask": {"kind": "text"}}),
    ("Missing pixels", "Lines", "photograph", {"kind": "inpainting", "mask": {"kind": "lines"}}),
    ("Missing pixels", "Raw colour mosaic", "photograph", {"kind": "bayer"}),
    ("Resolution", "Bicubic, a quarter", "photograph", {"kind": "downsample"}),
    ("Resolution", "Area, a twelfth", "photograph", {"kind": "downsample", "factor": 12, "method": "area"}),
    ("Resolution", "Gaussian and decimation", "photograph", {"kind": "downsample", "method": "gaussian"}),
    ("Resolution", "Any kernel and decimation", "photograph", {"kind": "blur-downsample"}),
    ("Resolution", "Thick slices (seen from the front)", "volume", {"kind": "thick-slices"}),
    ("Colour and tone", "Grey", "photograph", {"kind": "grayscale"}),
    ("Colour and tone", "Clipping", "photograph", {"kind": "clipping"}),
    ("Colour and tone", "Low light", "photograph", {"kind": "exposure", "gain": 0.3, "gamma": 1.5}),
    ("Colour and tone", "Haze", "photograph", {"kind": "haze"}),
    ("Colour and tone", "Quantisation", "photograph", {"kind": "quantisation"}),
    ("Colour and tone", "JPEG, quality 10", "photograph", {"kind": "jpeg"}),
    ("Colour and tone", "Dead and hot pixels", "photograph", {"kind": "defects"}),
    ("Colour and tone", "Stripes", "photograph", {"kind": "stripes"}),
    ("Compressed sensing", "Cosines", "photograph", {"kind": "compressed"}),
    (
        "Compressed sensing",
        "Gaussian blocks",
        "photograph",
        {"kind": "compressed", "patterns": {"kind": "gaussian"}, "block": 16},
    ),
    ("Compressed sensing", "Fourier", "photograph", {"kind": "compressed", "patterns": {"kind": "fourier"}}),
    (
        "Compressed sensing",
        "Hadamard blocks",
        "photograph",
        {"kind": "compressed", "patterns": {"kind": "hadamard"}, "block": 64},
    ),
    ("Compressed sensing", "Single-pixel camera", "phantom-128", {"kind": "single-pixel"}),
    ("CT", "60 views", "phantom", {"kind": "ct", "window": None, "pixel_size": 0.02}),
    (
        "CT",
        "Limited angle, 90 of 180",
        "phantom",
        {
            "kind": "ct",
            "window": None,
            "pixel_size": 0.02,
            "angles": {"kind": "subset", "pattern": "limited", "count": 90},
        },
    ),
    (
        "CT",
        "Fan beam",
        "phantom",
        {
            "kind": "ct",
            "window": None,
            "angles": {"kind": "subset", "count": 120, "total": 360},
            "beam": {"kind": "fan", "source_origin": 400.0, "origin_detector": 400.0},
        },
    ),
    ("MRI", "Columns, a quarter", "phantom", {"kind": "mri"}),
    (
        "MRI",
        "Poisson disc, eight coils",
        "phantom",
        {"kind": "mri", "sampling": {"kind": "poisson-disc"}, "coils": {"kind": "birdcage"}},
    ),
    ("MRI", "Radial on the grid", "phantom", {"kind": "mri", "sampling": {"kind": "radial"}}),
    ("MRI", "Radial, off the grid", "phantom", {"kind": "mri-noncartesian"}),
    ("Phase retrieval", "Fourier magnitude", "photograph", {"kind": "phase-retrieval"}),
    ("Phase retrieval", "Coded diffraction", "photograph", {"kind": "coded-diffraction"}),
    ("Phase retrieval", "Hologram", "photograph", {"kind": "hologram"}),
    ("Hyperspectral", "Blur by band", "bands", {"kind": "band-blur", "last": 4.0}),
    ("Hyperspectral", "Broad bands", "bands", {"kind": "spectral-response"}),
    ("Hyperspectral", "Dead bands and stripes", "bands", {"kind": "inpainting", "mask": {"kind": "bands"}}),
    (
        "Composition",
        "Blur, then fewer pixels",
        "photograph",
        {
            "kind": "composed",
            "steps": [
                {"kind": "blur", "kernel": {"kind": "disk"}},
                {"kind": "downsample", "factor": 3, "method": "area"},
            ],
        },
    ),
    (
        "Composition",
        "Two pictures of one scene",
        "photograph",
        {"kind": "stacked", "parts": [{"kind": "downsample", "factor": 4}, {"kind": "grayscale"}]},
    ),
    ("Composition", "Denoising", "photograph", {"kind": "identity"}),
]


def photograph() -> Tensor:
    """(3, 192, 192) in [0, 1]."""
    with Image.open(str(files("assets") / "images" / "chelsea.png")) as picture:
        colours = np.asarray(picture.convert("RGB"))
    image = torch.from_numpy(colours.copy()).permute(2, 0, 1).float() / 255
    side = min(image.shape[1:])
    left = (image.shape[2] - side) // 2
    return F.interpolate(image[None, :, :side, left : left + side], size=(SIDE, SIDE), mode="area")[0]


def phantom() -> Tensor:
    """(1, 192, 192) in [0, 1]."""
    image = torch.from_numpy(shepp_logan_phantom()).float()
    return F.interpolate(image[None, None], size=(SIDE, SIDE), mode="area")[0].clamp(0, 1)


def bands() -> Tensor:
    """(16, 192, 192): the photograph's colours blended into a smooth spectrum."""
    colours, at = photograph(), torch.linspace(0, 1, 16)
    weights = torch.stack([(-((at - c) ** 2) / 0.06).exp() for c in (0.85, 0.5, 0.15)], dim=1)
    return torch.einsum("bc,chw->bhw", weights / weights.sum(1, keepdim=True), colours)


def volume() -> Tensor:
    """(1, 48, 192, 192): blobs, shown by their middle slice."""
    blobs = binary_blobs(SIDE, blob_size_fraction=0.15, n_dim=3, volume_fraction=0.4, rng=0)[:48]
    return torch.from_numpy(blobs).float()[None]


def phantom_128() -> Tensor:
    """(1, 128, 128), sides that are powers of two."""
    return F.interpolate(phantom()[None], size=(128, 128), mode="area")[0]


SOURCES = {
    "photograph": photograph,
    "phantom": phantom,
    "phantom-128": phantom_128,
    "bands": bands,
    "volume": volume,
}


def panel(data: Tensor) -> Image.Image:
    """Any tensor as a picture of 192 rows."""
    colours = to_colours(data_picture(data))
    width = max(24, min(2 * SIDE, round(colours.shape[1] * SIDE / colours.shape[0])))
    return Image.fromarray(colours).resize((width, SIDE), Image.Resampling.NEAREST)


def draw(spec: OperatorSpec, image: Tensor) -> Image.Image:
    """Image, data with a little noise, and guess, side by side."""
    shape = spec.usable_shape(tuple(image.shape))
    image = image[tuple(slice(0, n) for n in shape)]
    operator = spec.build(shape)
    x = image[None].to(torch.complex64) if operator.in_complex else image[None]
    y = Gaussian(sigma=SIGMA).sample(operator(x), Rng([0]))
    shown = operator.data_as_image(y)[0]
    guess = operator.guess(y)[0]
    guess = guess.abs() if guess.is_complex() else guess
    views = [image, shown, guess]
    if image.ndim == 4:  # a volume (C, D, H, W): seen from the front, depth downwards
        views = [view[0, :, view.shape[2] // 2] for view in views]
    pictures = [panel(view) for view in views]
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + 8 * 2, SIDE), (255, 255, 255))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + 8
    return sheet


def main() -> int:
    """Write the page and its pictures."""
    reader: TypeAdapter[OperatorSpec] = TypeAdapter(AnyOperator)
    folder = HERE / "gallery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = [
        "# Gallery",
        "",
        f"An image, its data (noise {SIGMA}) and the first guess, as `python -m docs.make_gallery` draws them.",
        "Complex data are shown by the logarithm of their size, data that are no picture as folded lists.",
        "",
    ]
    family = ""
    for number, (group, title, source, description) in enumerate(ENTRIES):
        if group != family:
            family = group
            lines += [f"## {family}", ""]
        spec = reader.validate_python(description)
        name = f"{number:02d}-{spec.kind}.webp"
        draw(spec, SOURCES[source]()).save(folder / name, quality=82, method=6)
        lines += [f"**{title}** (`{spec.kind}`)", "", f"![{title}: image, data and guess](gallery/{name})", ""]
    (HERE / "gallery.md").write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
