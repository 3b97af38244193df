"""Small pictures of volumes, with the notice of research use drawn into them."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medical.volume import Volume
from operators.errors import ShapeError

NOTICE = "research use only - not for diagnosis"

_COLOURS = np.array([(230, 60, 60), (60, 190, 90), (70, 120, 240), (230, 190, 40), (190, 80, 210), (60, 200, 210)])


def preview_png(
    volume: Volume,
    window: tuple[float, float] | None = None,
    labels: NDArray[np.integer] | None = None,
    side: int = 256,
) -> bytes:
    """The middle axial, coronal and sagittal slices beside each other, as a PNG file without metadata.

    The patient's right is on the left of the axial and coronal pictures, the front at the top of the axial and on the
    left of the sagittal one. A volume of one slice gives one picture.

    Args:
        volume: (I, J, K), or (I, J, K, T), of which the first T is shown; complex numbers as magnitudes.
        window: the numbers that become black and white; the 0.5th and 99.5th percentile if not given.
        labels: (I, J, K), drawn in colours where not 0.
        side: height and width in pixels of the square that each slice is fitted into.

    Raises:
        ShapeError: labels of another shape.
    """
    if labels is not None and labels.shape != volume.array.shape[:3]:
        raise ShapeError(f"Expected labels {volume.array.shape[:3]}, got {labels.shape}; keep the volume's grid.")
    numbers = np.abs(volume.array) if np.iscomplexobj(volume.array) else volume.array
    numbers = (numbers[..., 0] if numbers.ndim == 4 else numbers).astype(np.float32)
    grey = Volume(numbers, volume.affine).reoriented("LPS")
    marks = None if labels is None else Volume(labels.astype(np.float32), volume.affine).reoriented("LPS").array
    low, high = window or (float(v) for v in np.percentile(numbers, (0.5, 99.5)))
    tiles = []
    for axis in (2, 1, 0):
        across, down = (a for a in range(3) if a != axis)
        if 1 in (grey.array.shape[across], grey.array.shape[down]) and 1 in grey.array.shape:
            continue
        middle = grey.array.shape[axis] // 2
        overlay = None if marks is None else marks.take(middle, axis).T
        plane = _picture(grey.array.take(middle, axis).T, low, high, overlay)
        if axis != 2:
            plane = plane[::-1]  # the head at the top
        tiles.append(_fitted(plane, grey.spacing[across], grey.spacing[down], side))
    sheet = Image.fromarray(np.concatenate(tiles, axis=1) if tiles else np.zeros((side, side, 3), dtype=np.uint8))
    return _encoded(_with_notice(sheet))


def _picture(
    plane: NDArray[np.float32], low: float, high: float, marks: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    grey = np.clip((plane - low) / max(high - low, 1e-12), 0, 1) * 255
    colour = np.repeat(grey[..., None], 3, axis=2)
    if marks is not None:
        which = marks.astype(np.int64)
        colour = np.where((which > 0)[..., None], 0.5 * colour + 0.5 * _COLOURS[(which - 1) % len(_COLOURS)], colour)
    return np.asarray(np.rint(colour), dtype=np.uint8)


def _fitted(plane: NDArray[np.uint8], across: float, down: float, side: int) -> NDArray[np.uint8]:
    """A picture with square pixels, centred in a black square."""
    height, width = plane.shape[0] * down, plane.shape[1] * across
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
    square = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _with_notice(sheet: Image.Image) -> Image.Image:
    """The sheet above a strip with the notice; beside the picture, so that it hides nothing."""
    font = ImageFont.load_default(14)
    width = max(sheet.width, round(font.getlength(NOTICE)) + 12)
    whole = Image.new("RGB", (width, sheet.height + 22))
    whole.paste(sheet, ((width - sheet.width) // 2, 0))
    ImageDraw.Draw(whole).text((6, sheet.height + 3), NOTICE, fill=(255, 220, 120), font=font)
    return whole


def _encoded(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
