"""Tensors as pictures for people: exact files, spread maps with their scale, and montages. No numerics beyond that.

Everything here is clipped to [0, 1]; a result's exact values are in its `samples.npz`.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

Colours = NDArray[np.uint8]
"""(H, W, 3), red first."""

_PAPER = (255, 255, 255)
_INK = (28, 30, 33)
_FAINT = (110, 114, 120)
_LIST = 8  # a plane this many times longer than wide is a list of numbers
_OVERSHOOT = 0.25  # noise and ringing take a picture this far out of unit range
_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def to_colours(image: Tensor) -> Colours:
    """An image (C, H, W) in unit range, C = 1 or 3, as 8-bit colours."""
    levels = image.detach().to("cpu", torch.float32).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def data_picture(data: Tensor) -> Tensor:
    """Data of any operator as an image (1 or 3, H, W) in unit range, for the eye alone.

    What is a picture stays as it is. Complex data are shown by the logarithm of their size, lists are folded into rows,
    of many channels four are shown side by side, and values outside unit range are scaled to it.
    """
    image = data.detach().cpu()
    image = (image.abs() + 1e-6).log10().double() if image.is_complex() else image.double()
    if image.ndim == 1 or (image.ndim == 2 and max(image.shape) > _LIST * min(image.shape)):
        flat = image.flatten()
        width = math.ceil(math.sqrt(flat.numel()))
        image = F.pad(flat, (0, width * math.ceil(flat.numel() / width) - flat.numel())).reshape(-1, width)
    if image.ndim == 2:
        image = image[None]
    image = image.flatten(0, -3)
    if image.shape[0] not in (1, 3):
        chosen = image[:: math.ceil(image.shape[0] / 4)][:4]
        chosen = F.pad(chosen, (0, 0, 0, 0, 0, 4 - len(chosen)))
        image = torch.cat([torch.cat([*chosen[:2]], -1), torch.cat([*chosen[2:]], -1)], -2)[None]
    # quantiles by sorting, which has no limit of size
    ordered = image.flatten().sort().values
    low, high = (float(ordered[round(q * (len(ordered) - 1))]) for q in (0.001, 0.999))
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT or data.is_complex():
        image = (image - low) / max(high - low, 1e-12)
    return image.clamp(0, 1).float()


def png(colours: Colours) -> bytes:
    """Colours as the bytes of a PNG file."""
    memory = io.BytesIO()
    Image.fromarray(colours).save(memory, "PNG")
    return memory.getvalue()


def png_of(colours: Colours) -> bytes:
    """The same pixels as `png` writes, several times faster and in a somewhat larger file."""
    done, encoded = cv2.imencode(".png", colours[..., ::-1])
    if not done:
        raise RuntimeError(f"Expected OpenCV to encode {colours.shape} as PNG, got a refusal; report it.")
    return encoded.tobytes()


def jpeg(colours: Colours) -> bytes:
    """Colours as the bytes of a JPEG file, for what is looked at for a moment."""
    done, encoded = cv2.imencode(".jpg", colours[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 88))
    if not done:
        raise RuntimeError(f"Expected OpenCV to encode {colours.shape} as JPEG, got a refusal; report it.")
    return encoded.tobytes()


def webp(colours: Colours) -> bytes:
    """Colours as the bytes of a lossless WebP file, about a quarter smaller than PNG."""
    memory = io.BytesIO()
    Image.fromarray(colours).save(memory, "WEBP", lossless=True, quality=60, method=3)
    return memory.getvalue()


def enlarged(image: Tensor, height: int, width: int) -> Tensor:
    """Each pixel repeated until the image has the given size, so that a small measurement is seen as it is.

    Shapes: (C, h, w) → (C, height, width); an image that is already as large is returned unchanged.
    """
    if image.shape[-2] >= height and image.shape[-1] >= width:
        return image
    return F.interpolate(image[None], size=(height, width), mode="nearest-exact")[0]


def fitted(colours: Colours, limit: int) -> Colours:
    """Colours reduced by area averaging until no side is longer than `limit`."""
    scale = limit / max(colours.shape[:2])
    if scale >= 1:
        return colours
    height, width = (max(1, round(side * scale)) for side in colours.shape[:2])
    return np.asarray(cv2.resize(colours, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def reduced(image: Tensor, limit: int) -> Tensor:
    """An image (C, H, W) reduced by area averaging until no side is longer than `limit`; a small one as it is."""
    height, width = image.shape[-2:]
    scale = limit / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return F.interpolate(image[None].float(), size=size, mode="area")[0]


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """An image (C, h, w) in the given size: pixels repeated where it is smaller, averaged where it is larger."""
    larger = image.shape[-2] > height or image.shape[-1] > width
    whole = enlarged(image, height, width)
    return F.interpolate(whole[None], size=(height, width), mode="area")[0] if larger else whole


# Spread maps


def spread(std: Tensor) -> Tensor:
    """One number a pixel: the root mean square of the colours' standard deviations.   Shapes: (C, H, W) → (H, W)."""
    return std.detach().to("cpu", torch.float32).square().mean(0).sqrt()


def spread_scale(maps: Sequence[Tensor]) -> float:
    """The top of a colour scale for spread maps (H, W): their 99.5 % quantile, rounded up to a plain number."""
    values = np.concatenate([m.numpy().ravel() for m in maps])
    top = float(np.quantile(values, 0.995))
    if not top > 0:
        return 0.01
    power = 10.0 ** math.floor(math.log10(top))
    return float(f"{next(n for n in _NICE if top <= n * power * (1 + 1e-9)) * power:.2g}")


def heat(values: Tensor, top: float) -> Colours:
    """A map (H, W) in perceptually uniform colours (inferno): black at 0, pale yellow from `top` on."""
    levels = (values / top).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    blue_first = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO))
    return np.ascontiguousarray(blue_first[..., ::-1])


SPREAD, IMAGINED = "standard deviation over the samples (unit range)", "made up by the prior (unit range)"
"""What the two maps are of."""


def heat_with_scale(values: Tensor, top: float, caption: str) -> Colours:
    """A heat map (H, W) with a bar beneath it that says what its colours mean."""
    body = heat(values, top)
    font = _font(14)
    width = max(body.shape[1], math.ceil(font.getlength(caption)) + 12)
    canvas = Image.new("RGB", (width, body.shape[0] + 62), _PAPER)
    canvas.paste(Image.fromarray(body), ((width - body.shape[1]) // 2, 0))
    bar = heat(torch.linspace(0, top, width - 12).expand(12, -1), top)
    row = body.shape[0] + 8
    canvas.paste(Image.fromarray(bar), (6, row))
    draw = ImageDraw.Draw(canvas)
    draw.text((6, row + 15), "0", fill=_INK, font=font)
    draw.text((width / 2, row + 15), f"{top / 2:g}", fill=_INK, font=font, anchor="ma")
    draw.text((width - 6, row + 15), f"{top:g} or more", fill=_INK, font=font, anchor="ra")
    draw.text((width / 2, row + 33), caption, fill=_FAINT, font=font, anchor="ma")
    return np.asarray(canvas)


# Montages


@dataclass(frozen=True)
class Cell:
    """One picture of a montage and the line beneath it."""

    colours: Colours
    caption: str = ""


def montage(
    rows: Sequence[Sequence[Cell | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    note: str = "",
) -> Colours:
    """Pictures in a grid, each at its own size in the middle of its place; None leaves a place empty.

    Args:
        rows: the grid, all rows equally long.
        row_labels: one a row, to the left; lines break at newlines.
        column_labels: one a column, above.
        note: a line beneath the grid.
    """
    gap, text, label = 8, _font(17), _font(18)
    widths = [max((_needed(row[i], text) for row in rows), default=0) for i in range(len(rows[0]))]
    for i, name in enumerate(column_labels):
        widths[i] = max(widths[i], math.ceil(label.getlength(name)))
    captioned = [any(cell is not None and cell.caption for cell in row) for row in rows]
    pictures = [max((cell.colours.shape[0] for cell in row if cell is not None), default=0) for row in rows]
    left = max((math.ceil(label.getlength(line)) for name in row_labels for line in name.split("\n")), default=-gap)
    head, foot, line = (28 if column_labels else 0), (28 if note else 0), 27
    height = head + foot + sum(pictures) + sum(line for c in captioned if c) + gap * (len(rows) + 1)
    width = left + sum(widths) + gap * (len(widths) + 2)
    width = max(width, math.ceil(text.getlength(note)) + 2 * gap)
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    starts = [left + 2 * gap + sum(widths[:i]) + gap * i for i in range(len(widths))]
    for x, w, name in zip(starts, widths, column_labels, strict=False):
        draw.text((x + w / 2, gap), name, fill=_INK, font=label, anchor="ma")
    y = gap + head
    for number, row in enumerate(rows):
        if number < len(row_labels):
            middle = (gap, y + pictures[number] / 2)
            draw.multiline_text(middle, row_labels[number], fill=_INK, font=label, anchor="lm", spacing=6)
        for x, w, cell in zip(starts, widths, row, strict=True):
            if cell is None:
                continue
            h, cw = cell.colours.shape[:2]
            canvas.paste(Image.fromarray(cell.colours), (x + (w - cw) // 2, y + (pictures[number] - h) // 2))
            draw.text((x + w / 2, y + pictures[number] + 4), cell.caption, fill=_FAINT, font=text, anchor="ma")
        y += pictures[number] + (line if captioned[number] else 0) + gap
    if note:
        draw.text((gap, y), note, fill=_FAINT, font=text)
    return np.asarray(canvas)


def _needed(cell: Cell | None, font: ImageFont.FreeTypeFont) -> int:
    return 0 if cell is None else max(cell.colours.shape[1], math.ceil(font.getlength(cell.caption)))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Expected Pillow with FreeType, as its wheels are, got one without; reinstall Pillow.")
    return font
