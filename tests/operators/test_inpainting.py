"""Masks, their files, and the operator that keeps the measured pixels."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import Bayer, BayerSpec, DataRef, Inpainting, InpaintingSpec, Rng
from operators.errors import AssetCorrupt, ReadError, ShapeError
from operators.files import read_plane
from operators.kernels import KernelFile
from operators.masks import BoxMask, MaskFile, RandomMask, ScratchMask, box_mask, random_mask, scratch_mask
from operators.testing import check_operator


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    fraction=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
)
def test_random_mask_drops_exactly_that_many(height: int, width: int, fraction: float, seed: int) -> None:
    mask = random_mask(height, width, fraction, seed)
    assert int((~mask).sum()) == int(fraction * height * width)
    assert torch.equal(mask, random_mask(height, width, fraction, seed))


def test_random_masks_differ_by_seed() -> None:
    assert not torch.equal(random_mask(16, 16, 0.5, 0), random_mask(16, 16, 0.5, 2**32))


def test_box_is_half_the_image_and_centred_by_default() -> None:
    mask = BoxMask().build(256, 256)
    assert int((~mask).sum()) == 128 * 128
    assert not mask[64:192, 64:192].any()


def test_box_where_it_is_told() -> None:
    mask = BoxMask(top=1, left=0, height=2, width=3).build(5, 6)
    assert torch.equal(~mask, torch.nn.functional.pad(torch.ones(2, 3), (0, 3, 1, 2)).bool())


@pytest.mark.parametrize("box", [(3, 0, 3, 2), (0, 5, 1, 2), (-1, 0, 2, 2), (0, 0, 0, 1)])
def test_box_outside_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ShapeError, match="inside the 5x6 image"):
        box_mask(5, 6, *box)


def test_scratches_are_thin_and_repeatable() -> None:
    mask = ScratchMask().build(64, 96)
    assert 0.02 < float((~mask).float().mean()) < 0.6
    assert torch.equal(mask, ScratchMask().build(64, 96))
    assert not torch.equal(mask, ScratchMask(seed=1).build(64, 96))
    assert scratch_mask(32, 32, 3, 1, 0).sum() > scratch_mask(32, 32, 3, 5, 0).sum()


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one measured pixel"):
        BoxMask(height=4, width=4).build(4, 4)
    with pytest.raises(ShapeError, match="at least one measured pixel"):
        Inpainting(torch.zeros(4, 4, dtype=torch.bool), (1, 4, 4))
    with pytest.raises(ValidationError):
        RandomMask(fraction=1)


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), np.full((4, 7), 255, np.uint8))
    with pytest.raises(ShapeError, match="8x8 pixels like the image, got 4x7"):
        MaskFile(file=DataRef(path="m.png")).build(8, 8, tmp_path)
    with pytest.raises(ShapeError, match="bool mask of shape"):
        Inpainting(torch.ones(4, 4, dtype=torch.bool), (1, 4, 5))
    with pytest.raises(ShapeError, match="threshold"):
        Inpainting(torch.ones(4, 4), (1, 4, 4))


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", "-16.png", "-rgba.png"])
@pytest.mark.parametrize("invert", [False, True])
def test_white_is_measured(tmp_path: Path, suffix: str, invert: bool) -> None:
    truth = np.random.default_rng(0).random((6, 9)) > 0.5
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, truth)
    elif suffix == ".npz":
        np.savez(path, anything=truth.astype(np.int16) * 7)
    elif suffix == "-16.png":
        cv2.imwrite(str(path), truth.astype(np.uint16) * 65535)
    elif suffix == "-rgba.png":
        cv2.imwrite(str(path), np.dstack([truth * 255] * 3 + [np.full((6, 9), 9)]).astype(np.uint8))
    else:
        cv2.imwrite(str(path), np.where(truth, 128, 127).astype(np.uint8))
    mask = MaskFile(file=DataRef(path=str(path)), invert=invert).build(6, 9)
    assert np.array_equal(mask.numpy(), truth != invert)


def test_data_are_zero_in_the_holes_and_the_measured_pixels_are_in_reading_order() -> None:
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    x = torch.arange(12.0).reshape(1, 2, 3, 2)
    operator = Inpainting(mask, (2, 3, 2))
    assert operator.out_shape == (2, 3, 2)
    assert operator(x).tolist() == (x * mask).tolist()
    assert operator.gather(x).tolist() == [[[0, 3, 4, 5], [6, 9, 10, 11]]]
    assert operator.scatter(operator.gather(x)).tolist() == operator(x).tolist()
    assert operator.data_from_image(x).tolist() == operator(x).tolist()
    assert operator.data_from_image(torch.where(mask, x, torch.nan)).tolist() == operator(x).tolist()
    guess = operator.guess(operator(x))
    assert torch.equal(guess[..., mask], x[..., mask])
    assert float(guess[0, 0, 0, 1]) in (0.0, 3.0)  # (0, 0) and (1, 1) are equally near
    assert float(guess[0, 1, 1, 0]) in (6.0, 9.0, 10.0)


def test_prox_is_the_pixelwise_average() -> None:
    operator = InpaintingSpec().build((3, 8, 8))
    rng = Rng([0, 1])
    z, x = rng.randn((3, 8, 8)), rng.randn((3, 8, 8))
    rho = torch.tensor([0.5, 2.0])
    best = operator.prox(z, operator(x), rho)
    weight = rho.reshape(2, 1, 1, 1)
    expected = torch.where(operator.mask, (x + weight * z) / (1 + weight), z)
    assert torch.allclose(best, expected, atol=1e-6)


def test_kernel_file(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).random((5, 7))
    np.save(tmp_path / "k.npy", kernel)
    built = KernelFile(file=DataRef(path="k.npy")).build(tmp_path)
    assert np.allclose(built.numpy(), (kernel / kernel.sum())[::-1, ::-1])
    cv2.imwrite(str(tmp_path / "k.png"), (kernel * 255).astype(np.uint8))
    assert float(KernelFile(file=DataRef(path="k.png")).build(tmp_path).sum()) == pytest.approx(1)
    np.save(tmp_path / "flat.npy", kernel - kernel.mean())
    np.save(tmp_path / "none.npy", np.zeros((3, 3)))
    with pytest.raises(ReadError, match="positive sum"):
        KernelFile(file=DataRef(path="none.npy")).build(tmp_path)


def test_files_that_are_no_plane_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "complex.npy", np.zeros((3, 4), complex))
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan))
    np.save(tmp_path / "object.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "text.png").write_bytes(b"not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-9])
    (tmp_path / "damaged.npz").write_bytes(b"PK damaged")
    for name in ("cube.npy", "complex.npy", "nan.npy", "object.npy", "two.npz", "text.png", "empty.png", "cut.npy"):
        with pytest.raises(ReadError, match="Expected"):
            read_plane(DataRef(path=name), tmp_path)
    for name in ("damaged.npz", "absent.npy", "."):
        with pytest.raises(ReadError, match="Expected"):
            read_plane(DataRef(path=name), tmp_path)


def vast_npy() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (20_000, 20_000)})
    return file.getvalue()


def vast_png(side: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["array.npy", "archive.npz", "picture.png", "vast.png", "picture.tif", "picture.bmp"])
def test_vast_planes_are_refused_by_their_header(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    if name == "archive.npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", vast_npy())
    elif name == "picture.tif":
        cv2.imwrite(str(path), np.zeros((16, 16), np.uint8))
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for tag in ("ImageWidth", "ImageLength"):
                tiff.pages.first.tags[tag].overwrite(20_000)
    elif name == "picture.bmp":
        cv2.imwrite(str(path), np.zeros((16, 16), np.uint8))
        content = bytearray(path.read_bytes())
        struct.pack_into("<ii", content, 18, 20_000, 20_000)
        path.write_bytes(content)
    else:
        path.write_bytes({"array.npy": vast_npy(), "picture.png": vast_png(8_001), "vast.png": vast_png(20_000)}[name])
    monkeypatch.setattr("operators.files.cv2.imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ReadError, match="at most 64 megapixels"):
        read_plane(DataRef(path=name), tmp_path)


def test_a_vast_file_is_not_loaded(tmp_path: Path) -> None:
    with (tmp_path / "vast.npy").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ReadError, match="below 1 GiB"):
        read_plane(DataRef(path="vast.npy"), tmp_path)


def test_colours_and_opacity_and_numbers_of_any_kind_are_read(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    colours = drawn.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    assert np.allclose(read_plane(DataRef(path="a.png"), tmp_path), colours[..., :3].mean(-1) / 255, atol=1e-15)
    for number in (drawn.random((6, 5)).astype(np.float32), drawn.integers(0, 9999, (6, 5, 3)).astype(np.uint16)):
        tifffile.imwrite(tmp_path / "a.tif", number, photometric="rgb" if number.ndim == 3 else "minisblack")
        expected = number if number.ndim == 2 else number.mean(-1) / 65535
        assert np.allclose(read_plane(DataRef(path="a.tif"), tmp_path), expected, atol=1e-15)
    np.savez_compressed(tmp_path / "a.npz", a=np.asfortranarray(number[..., 0]))
    assert np.array_equal(read_plane(DataRef(path="a.npz"), tmp_path), number[..., 0])


def test_checksum_is_verified(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((2, 2)))
    with pytest.raises(AssetCorrupt, match="SHA-256"):
        MaskFile(file=DataRef(path="m.npy", sha256="0" * 64)).build(2, 2, tmp_path)
    with pytest.raises(ValidationError):
        DataRef(path="m.npy", sha256="xyz")


def test_masks_of_each_channel_give_one_list() -> None:
    mask = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]]])
    operator = Inpainting(mask, (2, 2, 2))
    x = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert operator(x).equal(x * mask)
    assert operator.gather(x).tolist() == [[0, 2, 3, 7]]
    assert operator.normal(x).equal(x * mask)
    # nearest in the same channel, however near another one has a pixel
    assert operator.guess(operator(x))[0, 1].tolist() == [[7, 7], [7, 7]]


def test_a_channel_without_pixels_is_guessed_from_another() -> None:
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[1] = True
    operator = Inpainting(mask, (2, 3, 4))
    x = Rng([0]).randn((2, 3, 4))
    assert operator.guess(operator(x)).equal(x[:, 1:].expand(1, 2, 3, 4))


def test_a_mask_of_all_channels_alike_is_the_shared_mask() -> None:
    mask = random_mask(9, 7, 0.4, 0)
    shared, own = Inpainting(mask, (3, 9, 7)), Inpainting(mask.expand(3, 9, 7), (3, 9, 7))
    x = Rng([0, 1]).randn((3, 9, 7))
    z, rho = x.flip(-1), torch.tensor([0.3, 2.0])
    assert own(x).equal(shared(x))
    assert own.gather(x).equal(shared.gather(x).flatten(1))
    assert own.guess(own(x)).equal(shared.guess(shared(x)))
    assert own.prox(z, own(x), rho).equal(shared.prox(z, shared(x), rho))


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    fraction=st.floats(0, 0.9),
    complex_=st.booleans(),
)
def test_channels_of_their_own_pass_the_battery(
    height: int, width: int, channels: int, fraction: float, complex_: bool
) -> None:
    mask = RandomMask(fraction=fraction, per_channel=True, seed=height).build(height, width, channels=channels)
    check_operator(Inpainting(mask, (channels, height, width), in_complex=complex_))


def test_described_masks_of_each_channel_fit_every_image() -> None:
    spec = InpaintingSpec(mask=RandomMask(fraction=0.5, per_channel=True))
    for shape, measured in (((4, 6), 12), ((5, 4, 6), 60)):
        assert spec.build(shape).gather(torch.ones(1, *shape)).shape == (1, measured)
    with pytest.raises(ShapeError, match="bool mask of shape"):
        Inpainting(torch.ones(2, 4, 6, dtype=torch.bool), (3, 4, 6))


PATTERNS = ["RGGB", "BGGR", "GRBG", "GBRG"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 13, 18), (2, 3, 5, 6), (3, 3, 3)])
def test_mosaic_passes_the_battery(pattern: str, shape: tuple[int, ...]) -> None:
    check_operator(Bayer(shape, pattern))  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mosaic_is_one_colour_for_each_pixel(pattern: str) -> None:
    operator = BayerSpec.model_validate({"pattern": pattern}).build((3, 5, 7))
    x = Rng([0]).randn((3, 5, 7))
    raw = operator(x)
    assert raw.shape == (1, 1, 5, 7)
    for row in range(5):
        for column in range(7):
            colour = "RGB".index(pattern[2 * (row % 2) + column % 2])
            assert raw[0, 0, row, column] == x[0, colour, row, column]


def smooth_picture(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [0.5 + 0.4 * torch.sin(a * rows + b * columns) for a, b in ((3, 1), (-2, 4), (1, -5))]
    return torch.stack(waves)[None]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_opencv_reads_the_mosaic_by_the_same_name(pattern: str) -> None:
    picture = smooth_picture(40, 52)
    raw = Bayer((3, 40, 52), pattern)(picture)[0, 0]  # type: ignore[arg-type]
    levels = (raw * 65535).round().numpy().astype(np.uint16)
    error = {}
    for name in PATTERNS:
        colours = cv2.demosaicing(levels, getattr(cv2, f"COLOR_Bayer{name}2RGB")) / 65535
        error[name] = float(np.abs(colours.transpose(2, 0, 1) - picture[0].numpy())[:, 2:-2, 2:-2].max())
    assert error[pattern] < 0.01
    assert min(other for name, other in error.items() if name != pattern) > 0.1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_demosaiced_guess_is_exact_where_colours_go_in_parallel(pattern: str) -> None:
    # Malvar's filters take the slopes of one colour for those of all: planes of equal slope come back exactly
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(11.0), indexing="ij")
    plane = 0.02 * rows - 0.03 * columns + 0.5
    picture = torch.stack([plane, plane + 0.2, plane - 0.1])[None]
    operator = Bayer((3, 14, 11), pattern)  # type: ignore[arg-type]
    guess = operator.guess(operator(picture))
    assert torch.allclose(guess[..., 2:-2, 2:-2], picture[..., 2:-2, 2:-2], atol=1e-5)
    assert float((guess - picture).abs().max()) < 0.2
    assert torch.equal(guess * operator.mask, picture * operator.mask)


def test_the_demosaiced_guess_beats_bilinear_interpolation() -> None:
    texture = torch.nn.functional.avg_pool2d(Rng([0]).randn((1, 42, 42)), 3, 1)
    picture = (0.5 + 0.3 * texture + 0.05 * smooth_picture(40, 40)).clamp(0, 1)
    operator = Bayer((3, 40, 40))
    raw = operator(picture)
    ours = operator.guess(raw)[0].numpy()
    levels = (raw[0, 0] * 65535).round().numpy().astype(np.uint16)
    bilinear = cv2.demosaicing(levels, cv2.COLOR_BayerRGGB2RGB).transpose(2, 0, 1) / 65535
    inner = (slice(None), slice(3, -3), slice(3, -3))
    truth = picture[0].numpy()
    assert np.square(ours - truth)[inner].mean() < 0.5 * np.square(bilinear - truth)[inner].mean()


def test_a_raw_picture_may_come_in_one_channel_or_three() -> None:
    spec = BayerSpec(pattern="GBRG")
    assert spec.image_shape((1, 8, 6)) == spec.image_shape((3, 8, 6)) == spec.image_shape((8, 6)) == (3, 8, 6)
    operator = spec.build((3, 8, 6))
    x = Rng([0, 1]).randn((3, 8, 6))
    raw = operator(x)
    assert operator.data_from_image(raw).equal(raw)
    assert operator.data_from_image(raw.expand(2, 3, 8, 6)).equal(raw)
    assert operator.data_from_image(operator.adjoint(raw)).equal(raw)
    with pytest.raises(ShapeError, match="Bayer data expected"):
        operator.data_from_image(torch.zeros(1, 2, 8, 6))


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 8, 8), (8, 8), (3, 2, 8)])
def test_images_without_three_colours_are_refused(shape: tuple[int, ...]) -> None:
    for refuse in (Bayer, BayerSpec().build, BayerSpec().usable_shape):
        with pytest.raises(ShapeError, match="three colours"):
            refuse(shape)
