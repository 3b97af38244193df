"""What the page shows of an uploaded picture: facts about the file, and a small copy that a browser can draw."""

import base64
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from app import picture_files
from app.inputs import kind_of
from app.uploads import plain_name
from operators.errors import PreimageError, ReadError
from operators.files import MAX_PIXELS

LONGEST = 1024
"""Longest side of a proxy in pixels."""

_TINY = 128  # pixels a side up to which a proxy is a PNG: JPEG would smear single pixels
_DARK = 0.25  # brightest values below this part of white are shown brighter, as data of 12 bits in 16 are
_PROFILE = 1 << 16  # bytes of a colour profile that travel with a proxy


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as the page shows it.

    Attributes:
        name: of the file, harmless to show.
        width, height: of the upright picture.
        bits: per channel in the file: 8, 16 or 32 (float).
        channels: 1 or 3, opacity not counted.
        kind: "PNG", "JPEG", "TIFF", "BMP" or "WebP".
        url: the proxy as a data URL.
        proxy_width, proxy_height: of the proxy.
        brighter: how many times brighter than stored the proxy is; 1 for most.
        missing: (height, width) bool, True at pixels that the file itself marks as missing (not opaque, or NaN); None
            where it marks none.
    """

    name: str
    width: int
    height: int
    bits: int
    channels: int
    kind: str
    url: str = field(repr=False)
    proxy_width: int
    proxy_height: int
    brighter: float = 1.0
    missing: NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def facts(self) -> str:
        """One line for people: "photo.tif · 2048 × 1536 · 16-bit grey"."""
        depth = f"{self.bits}-bit" if self.bits < 32 else "32-bit float"
        facts = f"{self.name} · {self.width} × {self.height} · {depth} {'colour' if self.channels == 3 else 'grey'}"
        if self.missing is not None:
            facts += f" · {100 * self.missing.mean():.1f} % of it transparent or without a value"
        return facts + (f" · shown {self.brighter:.3g} times brighter than stored" if self.brighter > 1 else "")

    def source(self) -> dict[str, Any]:
        """The property `source` of a `MaskPainter`."""
        names = ("url", "width", "height", "proxy_width", "proxy_height", "name")
        return {name: getattr(self, name) for name in names}


def read_shown(
    path: Path, name: str = "", *, max_bytes: int = picture_files.MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Shown:
    """Look at an uploaded picture; whatever the job would refuse is refused here, in a sentence.

    Transparency and NaN are not refused: they mark missing pixels, see `restorable`. JPEGs are decoded at the smallest
    scale that serves the proxy.

    Args:
        path: of the file.
        name: that the person gave it; by default that of the path.
        max_bytes: of the file.
        max_pixels: of the picture.

    Raises:
        ReadError: one sentence, which names the file but no folder.
    """
    name = plain_name(name or path.name)
    _check(path, name, max_bytes)
    try:
        looked = _look(path, max_pixels)
    except PreimageError as error:
        raise ReadError(_sentence(error, path, name)) from error
    width, height = _fit(looked.width, looked.height)
    small = cv2.resize(looked.pixels, (width, height), interpolation=cv2.INTER_AREA)
    levels, brighter = _levels(small, None if looked.missing is None else _shrunk(looked.missing, width, height))
    return Shown(
        name=name,
        width=looked.width,
        height=looked.height,
        bits=8 * looked.pixels.dtype.itemsize,
        channels=1 if looked.pixels.ndim == 2 else 3,
        kind=looked.kind,
        url=_data_url(levels, looked.icc),
        proxy_width=width,
        proxy_height=height,
        brighter=brighter,
        missing=looked.missing,
    )


def restorable(path: Path, folder: Path) -> Path:
    """The file that a job can restore: `path` itself, or a copy in `folder` without transparency and NaN.

    The copy has the same depth and is upright, with 0 at missing pixels; the mask says that they were not measured.

    Raises:
        ReadError: the file cannot be read.
    """
    looked = _look(path, MAX_PIXELS, small=True)
    if looked.missing is None:
        return path
    pixels = np.where(looked.missing if looked.pixels.ndim == 2 else looked.missing[..., None], 0, looked.pixels)
    stem = path.name.rpartition(".")[0] or path.name
    copy = folder / (f"{stem}.tif" if pixels.dtype == np.float32 else f"{stem}.png")
    if pixels.dtype == np.float32:
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(copy, pixels, photometric=photometric, iccprofile=looked.icc, metadata=None, software=False)
    else:
        copy.write_bytes(picture_files.png_bytes(pixels, looked.icc))
    return copy


def equal_pixels(path: Path, value: float) -> NDArray[np.bool_]:
    """Where all channels have exactly this value of the file's own numbers.   Shapes: → (H, W) bool.

    Raises:
        ReadError: the file cannot be read, or no pixel has this value.
    """
    pixels = (
        _look(path, MAX_PIXELS).pixels if not _is_jpeg(path) else picture_files.upright(*_stored(path, MAX_PIXELS)[:2])
    )
    equal = pixels == value
    found = np.asarray(equal if equal.ndim == 2 else equal.all(-1), np.bool_)
    if not found.any():
        top = "1" if pixels.dtype == np.float32 else f"{np.iinfo(pixels.dtype).max}"
        raise ReadError(f"No pixel is exactly {value:g} in every channel; values of this file go from 0 to {top}.")
    return found


def mask_url(missing: NDArray[np.bool_]) -> str:
    """A mask as the data URL of a 1-bit PNG, white where measured, for the painter's property `known`."""
    memory = io.BytesIO()
    Image.fromarray(~missing).save(memory, "PNG")
    return _url("png", memory.getvalue())


# Looking


@dataclass(frozen=True, eq=False)
class _Looked:
    """Upright pixels (h, w[, 3]) of the file's type, of the full size except for JPEG, and the full size."""

    pixels: NDArray[Any]
    width: int
    height: int
    kind: str
    icc: bytes | None
    missing: NDArray[np.bool_] | None = None


def _check(path: Path, name: str, max_bytes: int) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ReadError(f'"{name}" is no longer here; add it again.') from error
    if size > max_bytes:
        raise ReadError(
            f'"{name}" is {_megabytes(size)}; the limit here is {_megabytes(max_bytes)} (set by --max-upload).'
        )
    kind = kind_of(path)
    if kind in ("dicom", "nifti"):
        raise ReadError(f'"{name}" is a medical file; open it on the Medical tab.')
    if kind == "zip":
        raise ReadError(f'"{name}" holds several files; send it on the Batch tab.')
    with path.open("rb") as file:
        try:
            picture_files.kind_of_picture(path, file)
        except ReadError as error:
            raise ReadError(
                f'"{name}" is not an image I can read. Use PNG, JPEG, TIFF, BMP or WebP.'
                if size
                else f'"{name}" is empty; copy or export it again.'
            ) from error


def _look(path: Path, max_pixels: int, *, small: bool = False) -> _Looked:
    """Decode once, JPEG no larger than needed; of a JPEG, `small` asks for nothing but its header's facts."""
    if _is_jpeg(path):
        return _look_at_jpeg(path, max_pixels, small=small)
    try:
        stored, orientation, icc, kind = _stored(path, max_pixels)
        missing = None
        if stored.dtype == np.float32:
            finite = np.isfinite(stored) if stored.ndim == 2 else np.isfinite(stored).all(-1)
            missing = None if finite.all() else picture_files.upright(~finite, orientation)
    except ReadError as error:
        # the header was found good but for its opacity, which here is no fault
        if "a transparency (alpha) channel" not in str(error):
            raise
        stored, opacity, orientation, icc, kind = _with_opacity(path, error)
        opaque = opacity == np.iinfo(opacity.dtype).max
        missing = None if opaque.all() else picture_files.upright(~opaque, orientation)
    pixels = picture_files.upright(stored, orientation)
    if missing is not None and missing.all():
        raise ReadError(f"{path}: expected some pixels with a value, got none; choose another picture.")
    if pixels.dtype == np.float32:
        if missing is not None:
            pixels = np.where(missing if pixels.ndim == 2 else missing[..., None], np.float32(0), pixels)
        picture_files.to_unit(path, pixels)  # refuses values off range
    height, width = pixels.shape[:2]
    return _Looked(np.ascontiguousarray(pixels), width, height, kind, icc, missing)


def _stored(path: Path, max_pixels: int) -> picture_files.Stored:
    picture_files.check_file(path)
    with path.open("rb") as file:
        return picture_files.decode(path, file, max_pixels)


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def _look_at_jpeg(path: Path, max_pixels: int, *, small: bool) -> _Looked:
    with path.open("rb") as file, picture_files.blaming_the_file(path):
        image = JpegImageFile(file)
        width, height = image.size
        picture_files.check_size(path, image.size, max_pixels)
        if image.mode not in ("L", "RGB"):
            raise picture_files.unreadable(
                path, "RGB or grey pixels", f"colour mode {image.mode}", "convert the picture to RGB"
            )
        orientation, icc = int(image.getexif().get(picture_files.ORIENTATION, 1)), image.info.get("icc_profile")
        # libjpeg decodes at 1/2, 1/4 or 1/8 in a fraction of the time
        image.draft(image.mode, (1, 1) if small else _fit(width, height))
        image.load()
        pixels = picture_files.upright(np.asarray(image), orientation)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return _Looked(np.ascontiguousarray(pixels), width, height, "JPEG", icc)


def _with_opacity(path: Path, refusal: ReadError) -> tuple[NDArray[Any], NDArray[Any], int, bytes | None, str]:
    """Colours (h, w[, 3]) and opacity (h, w) as stored; pixels that are not fully opaque are not to be relied on."""
    with path.open("rb") as file:
        kind = picture_files.kind_of_picture(path, file)
        if kind not in ("PNG", "WebP"):  # decoders do not agree on what a transparent TIFF stores
            raise refusal
        with picture_files.blaming_the_file(path):
            image = picture_files.OPENERS[kind](file)
            image.load()  # strict about damage, which OpenCV is not
            orientation, icc = int(image.getexif().get(picture_files.ORIENTATION, 1)), image.info.get("icc_profile")
            grey = image.mode in ("L", "LA", "I;16")
            file.seek(0)
            stored = picture_files.decode_opencv(file.read())
            if stored.ndim != 3 or stored.shape[-1] != 4 or stored.shape[:2] != (image.height, image.width):
                raise ValueError("the decoder found no opacity")
    opacity, colours = stored[..., 0], stored[..., 1:]  # the order of channels is turned about
    return colours[..., 0] if grey else colours, opacity, orientation, icc, kind


# Proxies


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrunk(missing: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    return cv2.resize(missing.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _levels(small: NDArray[Any], missing: NDArray[np.bool_] | None) -> tuple[NDArray[np.uint8], float]:
    """8-bit levels for the eye, and how many times brighter than stored they are."""
    if small.dtype == np.uint8:
        return small, 1.0
    unit = small.astype(np.float32) / (1 if small.dtype == np.float32 else np.iinfo(small.dtype).max)
    top = float(np.quantile(unit if missing is None else unit[~missing], 0.999)) if unit.size else 1.0
    brighter = 1.0 if not 0 < top < _DARK or not math.isfinite(top) else 1 / top
    return np.asarray((unit * brighter).clip(0, 1) * 255 + 0.5, np.uint8), brighter


def _data_url(levels: NDArray[np.uint8], icc: bytes | None) -> str:
    image, memory = Image.fromarray(levels), io.BytesIO()
    profile = icc if icc is not None and len(icc) <= _PROFILE else None
    if max(levels.shape[:2]) <= _TINY or np.isin(levels, (0, 255)).all():
        image.save(memory, "PNG", icc_profile=profile)
        return _url("png", memory.getvalue())
    image.save(memory, "JPEG", quality=90, subsampling=0, icc_profile=profile)
    return _url("jpeg", memory.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# Sentences


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.3g} MB" if size < 100 * 2**20 else f"{size / 2**20:.0f} MB"


def _sentence(error: PreimageError, path: Path, name: str) -> str:
    said = str(error).removeprefix(f"{path}: ").replace(str(path), name)
    return f'"{name}" cannot be used: {said[:1].lower()}{said[1:]}'
