"""Compressed sensing and the single-pixel camera, against dense matrices made by others."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.ndimage import label

from operators import AnyOperator, CompressedSpec, MatrixSensing, OperatorSpec, Rng, SinglePixel, SinglePixelSpec
from operators.compressed import AnyPatterns, CosinePatterns, FourierPatterns, GaussianPatterns, HadamardPatterns
from operators.errors import ShapeError
from operators.partial import Blocks, PartialCosine, PartialFourier, PartialHadamard, PartialTransform
from operators.patterns import MAX_MATRIX, choose_rows, gaussian_matrix, hadamard, sequency_to_natural
from operators.spec import kinds
from operators.testing import check_operator

FAST: list[type[PartialTransform]] = [PartialCosine, PartialHadamard, PartialFourier]


def everything(height: int, width: int) -> torch.Tensor:
    return torch.arange(height * width)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32, 128, 512])
def test_hadamard_is_that_of_scipy(size: int) -> None:
    x = Rng([0, 1], dtype=torch.float64).randn((3, size))
    expected = x.numpy() @ scipy.linalg.hadamard(size) / size**0.5
    assert np.allclose(hadamard(x).numpy(), expected, atol=1e-12)
    assert torch.allclose(hadamard(hadamard(x)), x, atol=1e-12)


def test_hadamard_of_other_sizes_is_refused() -> None:
    for size in (0, 3, 12):
        with pytest.raises(ShapeError, match="power of two"):
            hadamard(torch.zeros(2, size))


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_sequency_counts_sign_changes(size: int) -> None:
    walsh = scipy.linalg.hadamard(size)[sequency_to_natural(size).numpy()]
    assert (np.diff(walsh, axis=1) != 0).sum(1).tolist() == list(range(size))


def test_hadamard_rows_are_walsh_functions_of_both_directions() -> None:
    height, width = 8, 16
    x = Rng([0], dtype=torch.float64).randn((height, width))[0]
    found = PartialHadamard(everything(height, width), (height, width))(x[None])[0].reshape(height, width)
    down, across = (scipy.linalg.hadamard(n)[sequency_to_natural(n).numpy()] / n**0.5 for n in (height, width))
    assert np.allclose(found.numpy(), down @ x.numpy() @ across.T, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (16, 9)])
def test_cosine_rows_are_those_of_scipy(shape: tuple[int, int]) -> None:
    x = Rng([0], dtype=torch.float64).randn(shape)[0]
    found = PartialCosine(everything(*shape), shape).double()(x[None])[0].reshape(shape)
    assert np.allclose(found.numpy(), scipy.fft.dctn(x.numpy(), norm="ortho"), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 1), (6, 8), (5, 8), (6, 9), (7, 5)])
def test_fourier_rows_are_the_two_parts_of_each_coefficient(shape: tuple[int, int]) -> None:
    height, width = shape
    x = Rng([0], dtype=torch.float64).randn(shape)[0]
    found = PartialFourier(everything(*shape), shape).double()(x[None])[0].reshape(shape).numpy()
    spectrum = np.fft.fft2(x.numpy(), norm="ortho")
    for u in range(height):
        for v in range(width):
            mirror = (-u % height, -v % width)
            if (u, v) == mirror:
                expected = spectrum[u, v].real
            elif (u, v) < mirror:
                expected = 2**0.5 * spectrum[u, v].real
            else:
                expected = 2**0.5 * spectrum[mirror].imag
            assert found[u, v] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", FAST)
@pytest.mark.parametrize("scrambled", [False, True])
def test_all_rows_make_an_isometry(kind: type[PartialTransform], scrambled: bool) -> None:
    pixels = torch.randperm(32, generator=torch.Generator().manual_seed(0)) if scrambled else None
    signs = 1.0 - 2.0 * (torch.arange(32) % 3 == 0) if scrambled else None
    operator = kind(everything(4, 8), (2, 4, 8), pixels=pixels, signs=signs)
    x = Rng([0, 1], dtype=torch.float64).randn((2, 4, 8))
    assert torch.allclose(operator.normal(x), x, atol=1e-6)
    assert torch.allclose(operator(x).square().sum((1, 2)), x.square().sum((1, 2, 3)), rtol=1e-6)


def test_scrambling_comes_before_the_transform() -> None:
    pixels = torch.tensor([3, 0, 2, 1])
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    plain = PartialHadamard(everything(2, 2), (2, 2))
    scrambled = PartialHadamard(everything(2, 2), (2, 2), pixels=pixels, signs=signs)
    assert scrambled(x).equal(plain(torch.tensor([[[4.0, -1.0], [-3.0, 2.0]]])))


@pytest.mark.parametrize("kind", FAST)
def test_blocks_are_measured_like_images_of_their_size(kind: type[PartialTransform]) -> None:
    rows = torch.tensor([0, 5, 2, 11])
    x = Rng([0, 1]).randn((3, 8, 12))
    whole, blocks = kind(rows, (3, 4, 4)), kind(rows, (3, 8, 12), 4)
    assert blocks.out_shape == (3, 6, 4)
    for number in range(6):
        top, left = 4 * (number // 3), 4 * (number % 3)
        part = x[..., top : top + 4, left : left + 4].contiguous()
        assert torch.allclose(blocks(x)[:, :, number], whole(part), atol=1e-6)


@given(rows=st.integers(1, 3), columns=st.integers(1, 3), side=st.integers(1, 5), channels=st.integers(1, 3))
def test_blocks_join_to_the_image(rows: int, columns: int, side: int, channels: int) -> None:
    shape = (channels, rows * side, columns * side)
    blocks = Blocks(shape, side)
    x = Rng([0, 1]).randn(shape)
    assert blocks.split(x).shape == (2 * channels * rows * columns, side * side)
    assert blocks.join(blocks.split(x)).equal(x)
    unfolded = torch.nn.functional.unfold(x.reshape(-1, 1, *shape[1:]), side, stride=side).transpose(1, 2)
    assert blocks.split(x).equal(unfolded.reshape(-1, side * side))


def test_zigzag_is_that_of_jpeg() -> None:
    order = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (3, 1), (2, 2), (1, 3)]
    found = choose_rows(4, 4, 13, "zigzag")
    assert [(int(k) // 4, int(k) % 4) for k in found] == order


def test_cake_cutting_goes_by_the_pieces_of_the_patterns() -> None:
    height, width = 8, 8
    rows = choose_rows(height, width, height * width, "cake")
    identity = torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)
    patterns = PartialHadamard(rows, (8, 8))(identity).T.reshape(64, 8, 8).numpy()
    pieces = [label(p > 0)[1] + label(p < 0)[1] for p in patterns]
    assert pieces == sorted(pieces)
    assert len(set(rows.tolist())) == 64


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    order=st.sampled_from(["random", "zigzag", "cake"]),
    paired=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_order_takes_each_row_once_and_the_mean_first(
    height: int, width: int, order: str, paired: bool, seed: int
) -> None:
    rows = choose_rows(height, width, height * width, order, seed, paired=paired)  # type: ignore[arg-type]
    assert int(rows[0]) == 0
    assert rows.sort().values.tolist() == list(range(height * width))
    fewer = choose_rows(height, width, 1 + height * width // 3, order, seed, paired=paired)  # type: ignore[arg-type]
    assert fewer.equal(rows[: len(fewer)])
    if paired:  # both parts of a coefficient follow each other
        place = {int(k): number for number, k in enumerate(rows)}
        for k in range(height * width):
            mirror = (-(k // width) % height) * width + -(k % width) % width
            assert abs(place[k] - place[mirror]) <= 1


def test_random_rows_are_spread_evenly() -> None:
    counts = np.zeros(24)
    for seed in range(400):
        counts[choose_rows(4, 6, 7, "random", seed).numpy()] += 1
    assert counts[0] == 400
    assert np.abs(counts[1:] - 400 * 6 / 23).max() < 5 * (400 * 6 / 23 * 17 / 23) ** 0.5


VARIANTS: list[OperatorSpec] = [
    CompressedSpec(),
    CompressedSpec(ratio=0.01),
    CompressedSpec(ratio=1, patterns=FourierPatterns()),
    CompressedSpec(patterns=FourierPatterns(order="zigzag"), block=5),
    CompressedSpec(patterns=HadamardPatterns(order="cake")),
    CompressedSpec(patterns=HadamardPatterns(scramble="pixels"), block=8),
    CompressedSpec(patterns=CosinePatterns(order="zigzag"), block=7, ratio=0.1),
    CompressedSpec(patterns=GaussianPatterns(), block=8),
    CompressedSpec(patterns=GaussianPatterns(orthonormal=False, seed=3), ratio=0.5),
    SinglePixelSpec(),
    SinglePixelSpec(ratio=0.001),
    SinglePixelSpec(masks="binary", ratio=1, order="zigzag"),
    SinglePixelSpec(masks="differential", order="random", seed=2),
]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 14, 19)], ids=str)
@pytest.mark.parametrize("spec", VARIANTS, ids=repr)
def test_described_sensing_passes_the_battery(spec: OperatorSpec, shape: tuple[int, ...]) -> None:
    operator = spec.build(spec.usable_shape(shape))
    assert operator.offers == spec.offers
    check_operator(operator)
    assert TypeAdapter(AnyOperator).validate_json(spec.model_dump_json()) == spec


@given(
    kind=st.sampled_from(list(kinds(AnyPatterns).values())),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    ratio=st.floats(0.01, 1),
    order=st.sampled_from(["random", "zigzag", "cake"]),
    scramble=st.sampled_from(["none", "signs", "pixels"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_whole_images_of_any_size(
    kind: type, height: int, width: int, ratio: float, order: str, scramble: str, seed: int
) -> None:
    fast = {} if kind is GaussianPatterns else {"order": order, "scramble": scramble}
    spec = CompressedSpec(ratio=ratio, patterns=kind(seed=seed, **fast))
    shape = spec.usable_shape((2, height, width))
    operator = spec.build(shape)
    assert operator.out_shape == (2, max(1, round(ratio * shape[1] * shape[2])))
    check_operator(operator)


def test_sizes_are_those_of_the_published_networks() -> None:
    # ReconNet and ISTA-Net: blocks of 33x33, 272 and 109 numbers at 25 % and 10 %
    for ratio, count in ((0.25, 272), (0.10, 109)):
        spec = CompressedSpec(ratio=ratio, patterns=GaussianPatterns(), block=33)
        assert spec.usable_shape((1, 256, 256)) == (1, 231, 231)
        assert spec.build((1, 66, 99)).out_shape == (1, 6, count)


def test_gaussian_rows() -> None:
    rows = gaussian_matrix(60, 400, True, 0)
    assert torch.allclose(rows @ rows.T, torch.eye(60, dtype=torch.float64), atol=1e-12)
    plain = gaussian_matrix(60, 400, False, 0)
    assert float(plain.mean()) == pytest.approx(0, abs=5 / (60 * 60 * 400) ** 0.5)
    assert float(plain.var()) == pytest.approx(1 / 60, rel=0.05)
    # both span the same space
    assert torch.allclose(plain @ rows.T @ rows, plain, atol=1e-12)
    assert not gaussian_matrix(60, 400, False, 1).equal(plain)
    ones = MatrixSensing(rows, (20, 20)).singular_values
    assert ones.equal(torch.ones(60))


def test_a_matrix_is_applied_as_it_is() -> None:
    matrix = torch.arange(24.0).reshape(3, 8)  # of rank 2
    operator = MatrixSensing(matrix, (2, 2, 4)).double()
    check_operator(operator)
    assert len(operator.singular_values) == 2
    x = Rng([0, 1], dtype=torch.float64).randn((2, 2, 4))
    assert torch.allclose(operator(x), x.flatten(-2) @ matrix.double().T, atol=1e-5)
    expected = np.linalg.pinv(matrix.double().numpy()) @ operator(x)[0, 0].numpy()
    assert np.allclose(operator.guess(operator(x))[0, 0].flatten().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("spec", [CompressedSpec(patterns=HadamardPatterns()), CompressedSpec()], ids=repr)
def test_closed_forms_are_closed(spec: CompressedSpec) -> None:
    operator = spec.build((1, 16, 16))
    x, z = Rng([0]).randn((1, 16, 16)), Rng([1]).randn((1, 16, 16))
    y = operator(x)
    assert operator.pinv(y, max_iter=0).equal(operator.adjoint(y))
    near = operator.prox(z, y, 0.25, max_iter=0)
    assert torch.allclose(operator(near), (y + 0.25 * operator(z)) / 1.25, atol=1e-5)
    assert torch.allclose(near - operator.adjoint(operator(near)), z - operator.adjoint(operator(z)), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 40, 64])
def test_single_pixel_masks_are_open_or_closed(count: int) -> None:
    rows = choose_rows(8, 8, count, "cake")
    operator = SinglePixel(rows, (8, 8)).double()
    check_operator(operator)
    identity = torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)
    masks = operator(identity).T * 8  # light is divided by the root of 64
    assert torch.allclose(masks, masks.round(), atol=1e-12)
    assert set(masks.round().int().flatten().tolist()) <= {0, 1}
    assert bool((masks[0] == 1).all())
    assert torch.allclose(masks[1:].sum(1), torch.full((count - 1,), 32.0, dtype=torch.float64))
    exact = torch.linalg.svdvals(operator(identity).T)
    found = operator.singular_values.sort(descending=True).values
    assert torch.allclose(found, exact, rtol=1e-5)
    assert bool((operator(torch.rand(5, 8, 8, dtype=torch.float64)) >= 0).all())


def test_binary_masks_hold_what_differential_ones_do() -> None:
    binary, differential = (SinglePixelSpec(masks=m).build((3, 32, 16)) for m in ("binary", "differential"))  # type: ignore[arg-type]
    x = Rng([0, 1], dtype=torch.float64).randn((3, 32, 16))
    y = binary(x)
    assert torch.allclose(2 * y - y[..., :1], differential(x), atol=1e-6)
    assert torch.allclose(binary.guess(y), differential.guess(differential(x)), atol=1e-4)


def test_coarse_masks_see_a_picture_better_than_random_ones() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    picture = ((rows - 12) ** 2 + (columns - 18) ** 2 < 60).float()[None, None]
    error = {}
    for order in ("cake", "zigzag", "random"):
        operator = SinglePixelSpec(order=order, ratio=0.2).build((1, 32, 32))  # type: ignore[arg-type]
        error[order] = float((operator.guess(operator(picture)) - picture).square().mean())
    assert max(error["cake"], error["zigzag"]) < 0.4 * error["random"]


def test_data_are_shown_where_their_frequencies_are() -> None:
    operator = CompressedSpec(patterns=CosinePatterns(order="zigzag"), ratio=3 / 64).build((1, 8, 8))
    shown = operator.data_as_image(torch.tensor([[[1.0, 2.0, 3.0]]]))
    assert shown.shape == (1, 1, 8, 8)
    assert shown[0, 0, :2, :2].tolist() == [[1, 2], [3, 0]]
    assert float(shown.sum()) == 6


def test_usable_shapes() -> None:
    hadamard_whole = CompressedSpec(patterns=HadamardPatterns())
    assert hadamard_whole.usable_shape((3, 300, 256)) == (3, 256, 256)
    assert SinglePixelSpec().usable_shape((3, 127, 1)) == (3, 64, 1)
    assert CompressedSpec(block=33).usable_shape((3, 300, 70)) == (3, 297, 66)
    assert CompressedSpec().usable_shape((3, 301, 77)) == (3, 301, 77)


@pytest.mark.parametrize("kind", ["cosine", "hadamard", "fourier"])
def test_images_too_large_for_patterns_are_refused(kind: str) -> None:
    spec = CompressedSpec.model_validate({"patterns": {"kind": kind}})
    with pytest.raises(ShapeError, match="64 megapixels, got 1048576x1048576"):
        spec.build((1, 1 << 20, 1 << 20))


def test_sides_too_long_for_dense_cosines_are_refused() -> None:
    with pytest.raises(ShapeError, match="Cosine patterns expected sides of at most 16384 pixels, got 2x20000000"):
        CompressedSpec().build((1, 2, 20_000_000))


def test_what_cannot_be_built_is_refused_in_a_sentence() -> None:
    for spec in (CompressedSpec(patterns=HadamardPatterns()), SinglePixelSpec()):
        with pytest.raises(ShapeError, match="powers of two, got 16x24"):
            spec.build((1, 16, 24))
    with pytest.raises(ShapeError, match="multiples of the block's, 8, got 16x20"):
        CompressedSpec(patterns=GaussianPatterns(), block=8).build((1, 16, 20))
    with pytest.raises(ShapeError, match="one block, got 20x7"):
        CompressedSpec(block=8).usable_shape((1, 20, 7))
    with pytest.raises(ShapeError, match="use blocks"):
        CompressedSpec(patterns=GaussianPatterns()).build((3, 256, 256))
    with pytest.raises(ShapeError, match=r"4\.2 million"):
        MatrixSensing(torch.zeros(MAX_MATRIX // 4096 + 1, 4096), (64, 64))
    with pytest.raises(ValidationError, match="power of two"):
        CompressedSpec(patterns=HadamardPatterns(), block=33)
    for ratio in (0, 1.01):
        with pytest.raises(ValidationError):
            CompressedSpec(ratio=ratio)
    with pytest.raises(ShapeError, match="open mask, row 0, first"):
        SinglePixel(torch.tensor([1, 0]), (4, 4))
    for matrix in (torch.zeros(3, 15), torch.zeros(17, 16), torch.zeros(16), torch.zeros(0, 16)):
        with pytest.raises(ShapeError, match="up to 16 rows and 16 columns"):
            MatrixSensing(matrix, (4, 4))
    for matrix in (torch.zeros(3, 16), torch.full((3, 16), torch.nan)):
        with pytest.raises(ShapeError, match="finite numbers that are not all zero"):
            MatrixSensing(matrix, (4, 4))


@pytest.mark.parametrize("rows", [[], [0, 0], [16], [-1], [[0]], [0.0]])
def test_rows_that_are_no_places_are_refused(rows: list[object]) -> None:
    with pytest.raises(ShapeError, match="distinct places among 16"):
        PartialCosine(torch.tensor(rows, dtype=None if rows else torch.long), (4, 4))


def test_a_scrambling_that_does_not_fit_is_refused() -> None:
    rows = torch.tensor([0])
    with pytest.raises(ShapeError, match="all 16 places"):
        PartialCosine(rows, (4, 4), pixels=torch.arange(15))
    for signs in (torch.ones(15), torch.zeros(16)):
        with pytest.raises(ShapeError, match="16 signs"):
            PartialCosine(rows, (4, 4), signs=signs)
