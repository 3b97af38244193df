"""Every operator that can be described passes the public battery, and wrong operators do not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import (
    AnyOperator,
    BlurSpec,
    DownsampleSpec,
    Gaussian,
    Identity,
    Inpainting,
    InpaintingSpec,
    Likelihood,
    LinearOperator,
    Operator,
    OperatorSpec,
    Rng,
    SpectralOperator,
    kinds,
    make_blur,
)
from operators.errors import ShapeError
from operators.kernels import DiskKernel, GaussianKernel, MotionKernel, disk_kernel
from operators.masks import BoxMask, RandomMask, ScratchMask
from operators.testing import check_operator

VARIANTS: list[OperatorSpec] = [
    BlurSpec(boundary="circular"),
    BlurSpec(boundary="circular", kernel=MotionKernel(size=15, seed=3)),
    BlurSpec(boundary="zero", kernel=DiskKernel(size=7, radius=2.5)),
    BlurSpec(boundary="zero", kernel=MotionKernel(size=9)),
    BlurSpec(boundary="reflect", kernel=DiskKernel(size=9, radius=2)),
    BlurSpec(boundary="reflect", kernel=MotionKernel(size=12)),
    BlurSpec(boundary="reflect", kernel=GaussianKernel(size=9, std=0.8)),
    DownsampleSpec(factor=2),
    DownsampleSpec(factor=3),
    DownsampleSpec(factor=8),
    DownsampleSpec(factor=4, method="area"),
    InpaintingSpec(mask=BoxMask()),
    InpaintingSpec(mask=BoxMask(top=0, left=1, height=3, width=4)),
    InpaintingSpec(mask=ScratchMask(count=2, width=1)),
    InpaintingSpec(mask=RandomMask(fraction=0)),
    InpaintingSpec(mask=RandomMask(fraction=0.95)),
]
SHAPES = [(1, 16, 16), (3, 14, 19), (2, 25, 16)]
# for colour alone, and for volumes alone
OTHER_SHAPES = [(3, 18, 24), (1, 8, 6, 7)]
# a description that needs a file of the user's has a test of its own
SPECS = [kind() for kind in kinds(AnyOperator).values() if not any(f.is_required() for f in kind.model_fields.values())]


def _shapes(spec: OperatorSpec) -> list[tuple[int, ...]]:
    """The shapes that a description takes, colours and volumes only where it refuses another."""
    taken = {}
    for shape in [*SHAPES, *OTHER_SHAPES]:
        try:
            taken[shape] = spec.usable_shape(shape)
        except ShapeError:
            continue
    return list(taken.values()) if not set(SHAPES) <= set(taken) else [taken[shape] for shape in SHAPES]


def test_every_kind_is_tested() -> None:
    assert [spec.kind for spec in SPECS if not _shapes(spec)] == []
    assert set(kinds(AnyOperator)) - {spec.kind for spec in SPECS} == {"learned-blur"}


@pytest.mark.parametrize(
    ("spec", "shape"), [(spec, shape) for spec in [*SPECS, *VARIANTS] for shape in _shapes(spec)], ids=repr
)
def test_described_operator_passes_the_battery(spec: OperatorSpec, shape: tuple[int, ...]) -> None:
    operator = spec.build(shape)
    assert operator.offers == spec.offers
    check_operator(operator)


@pytest.mark.parametrize("spec", VARIANTS, ids=repr)
def test_description_survives_json(spec: OperatorSpec) -> None:
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("complex_", [False, True])
def test_complex_images(complex_: bool) -> None:
    check_operator(Identity((2, 5, 6), in_complex=complex_))
    mask = RandomMask(fraction=0.4).build(7, 6)
    check_operator(Inpainting(mask, (2, 7, 6), in_complex=complex_))


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
def test_blur_of_a_volume(boundary: str) -> None:
    check_operator(make_blur(disk_kernel(5, 1.5), (1, 3, 8, 7), boundary))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("spec", [*SPECS, *VARIANTS], ids=repr)
def test_another_device_gives_the_same(spec: OperatorSpec) -> None:
    shape = (1, 8, 40, 48) if spec.kind == "thick-slices" else (3, 48, 48)
    operator = spec.build(spec.usable_shape(shape))
    rng = Rng([0, 1])
    x = rng.randn(operator.in_shape, complex=operator.in_complex)
    y = rng.randn(operator.out_shape, complex=operator.out_complex)
    if not isinstance(operator, LinearOperator):
        expected = [operator(x), operator.guess(y)]
        operator = operator.to("cuda")
        for a, b in zip([operator(x.cuda()), operator.guess(y.cuda())], expected, strict=True):
            assert a.is_cuda
            assert torch.allclose(a.cpu(), b, atol=1e-3, rtol=1e-3)
        return
    rho = torch.tensor([0.1, 0.5])
    noise, seeds = Gaussian(sigma=0.1), Rng([5, 6])
    held = Likelihood(operator, noise, y)
    expected = [operator(x), operator.adjoint(y), operator.prox(x, y, rho), operator.guess(y), held.grad(x)[0]]
    expected += [held.draw(x, 0.05, seeds.child("draw")), noise.sample(operator(x), seeds.child("noise"))]
    size = operator.norm_squared()
    operator, x, y, seeds = operator.to("cuda"), x.cuda(), y.cuda(), seeds.to("cuda")
    held = Likelihood(operator, noise, y)
    found = [operator(x), operator.adjoint(y), operator.prox(x, y, rho.cuda()), operator.guess(y), held.grad(x)[0]]
    found += [held.draw(x, 0.05, seeds.child("draw")), noise.sample(operator(x), seeds.child("noise"))]
    for a, b in zip(found, expected, strict=True):
        assert a.is_cuda
        assert torch.allclose(a.cpu(), b, atol=1e-3, rtol=1e-3)
    assert operator.norm_squared() == pytest.approx(size, rel=1e-3)


def test_composition() -> None:
    shape = (2, 12, 16)
    blur = make_blur(disk_kernel(5, 1.5), shape, "reflect")
    small = DownsampleSpec(factor=4).build(shape)
    both = small @ blur
    check_operator(both)
    check_operator(Inpainting(RandomMask(fraction=0.3).build(3, 4), (2, 3, 4)) @ both)


@given(
    height=st.integers(4, 17),
    width=st.integers(4, 17),
    channels=st.integers(1, 3),
    batch=st.integers(2, 4),
    size=st.integers(3, 9),
    boundary=st.sampled_from(["circular", "reflect", "zero"]),
    seed=st.integers(0, 99),
)
def test_blur_of_any_size(
    height: int, width: int, channels: int, batch: int, size: int, boundary: str, seed: int
) -> None:
    spec = BlurSpec.model_validate({"kernel": {"kind": "motion", "size": size, "seed": seed}, "boundary": boundary})
    if boundary == "reflect" and size // 2 >= min(height, width):
        return
    check_operator(spec.build((channels, height, width)), batch=batch, seed=seed)


@given(
    factor=st.integers(2, 8),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    method=st.sampled_from(["bicubic", "area"]),
    batch=st.integers(2, 3),
)
def test_reduction_of_any_size(factor: int, rows: int, columns: int, method: str, batch: int) -> None:
    spec = DownsampleSpec.model_validate({"factor": factor, "method": method})
    check_operator(spec.build((2, rows * factor, columns * factor)), batch=batch)


@given(
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**63 - 1),
    batch=st.integers(2, 4),
)
def test_inpainting_of_any_density(height: int, width: int, fraction: float, seed: int, batch: int) -> None:
    spec = InpaintingSpec(mask=RandomMask(fraction=fraction, seed=seed))
    check_operator(spec.build((2, height, width)), batch=batch)


class _Plain(LinearOperator):
    """A correct operator, which the wrong ones below spoil: mirror and weight, with the adjoint by autograd."""

    def __init__(self) -> None:
        super().__init__((2, 4, 5), (2, 4, 5))
        self.register_buffer("weight", torch.linspace(0.5, 1.5, 5))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-2) * self.weight.to(x.dtype)


class _WrongAdjoint(_Plain):
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.weight.to(y.dtype)


class _SlightlyWrongAdjoint(_Plain):
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y.flip(-2) * self.weight.to(y.dtype) * (1 + 1e-8)


class _Impure(_Plain):
    calls = 0

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super()._forward(x) * self.calls


class _InPlace(_Plain):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2.0)


class _Coupled(_Plain):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return super()._forward(x) + 1e-6 * x.mean(0, keepdim=True)


class _Affine(_Plain):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return super()._forward(x) + 0.01


class _Unchecked(_Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward(x)


class _DataInHoles(_Plain):
    def gather(self, y: torch.Tensor) -> torch.Tensor:
        return y[..., :-1]

    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, 1))


class _LossyScatter(_DataInHoles):
    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(0.5 * values, (0, 1))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * super()._forward(x)


class _WrongShape(_Plain):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return super()._forward(x)[..., :4]


class _WrongProx(_Plain):
    def _prox(
        self, z: torch.Tensor, y: torch.Tensor, rho: torch.Tensor | float, tol: float, max_iter: int
    ) -> torch.Tensor:
        return 0.99 * super()._prox(z, y, rho, tol, max_iter)


class _CoupledProx(_Plain):
    def _prox(
        self, z: torch.Tensor, y: torch.Tensor, rho: torch.Tensor | float, tol: float, max_iter: int
    ) -> torch.Tensor:
        mean = rho.mean() if isinstance(rho, torch.Tensor) else rho
        return super()._prox(z, y, mean, tol, max_iter)


class _WrongPinv(_Plain):
    def _pinv(self, y: torch.Tensor, tol: float, max_iter: int) -> torch.Tensor:
        return self._adjoint(y)


class _WrongNorm(_Plain):
    def norm_squared(self, iterations: int = 30) -> float:
        return 1.0


class _FixedPrecision(_Plain):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-2).double()


class _FalseOffer(_Plain):
    offers = LinearOperator.offers | SpectralOperator.offers


class _WrongGradient(Operator):
    """A pointwise square whose gradient is cut."""

    def __init__(self) -> None:
        super().__init__((1, 4, 4), (1, 4, 4))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.detach()

    def _guess(self, y: torch.Tensor) -> torch.Tensor:
        return y


class _Square(_WrongGradient):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


class _WrongSpectrum(Identity):
    def data_to_spectrum(self, y: torch.Tensor) -> torch.Tensor:
        return 2 * y


class _LosesState(_Plain):
    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        state["_buffers"] = {"weight": torch.ones(5)}
        return state


def test_right_operators_pass() -> None:
    check_operator(_Plain())
    check_operator(_Square())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (_WrongAdjoint, "A\\*|vjp|gradient"),
        (_SlightlyWrongAdjoint, "1e-10"),
        (_Impure, "two calls"),
        (_InPlace, "two calls|left alone"),
        (_Coupled, "alone as in a batch"),
        (_Affine, "2a - 3b"),
        (_Unchecked, "ShapeError"),
        (_DataInHoles, "zero wherever"),
        (_LossyScatter, "gather to undo scatter"),
        (_WrongShape, "data of shape"),
        (_WrongProx, "stationary"),
        (_CoupledProx, "stationary"),
        (_WrongPinv, "A A\\+ A = A"),
        (_WrongNorm, "norm_squared"),
        (_FixedPrecision, "single precision"),
        (_FalseOffer, "SPECTRUM"),
        (_WrongGradient, "gradient"),
        (_LosesState, "deepcopy|pickle"),
    ],
)
def test_wrong_operators_fail(wrong: type[Operator], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_operator(wrong())


def test_wrong_spectrum_fails() -> None:
    with pytest.raises(AssertionError, match="expected"):
        check_operator(_WrongSpectrum((2, 4, 4)))
