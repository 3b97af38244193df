"""Conjugate gradients against dense solves, one sample at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import Rng
from operators.errors import NoConvergence
from operators.solve import cg, conjugate_gradient, inner, least_squares, norm, per_sample


def system(batch: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = Rng(range(seed, seed + batch), dtype=torch.float64)
    half = rng.randn((size, size))
    return half @ half.mT + torch.eye(size, dtype=torch.float64), rng.randn((size,))


@given(batch=st.integers(1, 4), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_equals_a_dense_solve(batch: int, size: int, seed: int) -> None:
    matrix, rhs = system(batch, size, seed)
    expected = torch.linalg.solve(matrix, rhs)

    def apply(x: torch.Tensor) -> torch.Tensor:
        return (matrix @ x[..., None])[..., 0]

    assert torch.allclose(cg(apply, rhs, tol=1e-12), expected, atol=1e-7)
    started = cg(apply, rhs, x0=torch.ones(1, size, dtype=torch.float64), tol=1e-12)
    assert torch.allclose(started, expected, atol=1e-7)
    inverse = 1 / matrix.diagonal(dim1=1, dim2=2)
    scaled = cg(apply, rhs, tol=1e-12, precondition=lambda r: r * inverse)
    assert torch.allclose(scaled, expected, atol=1e-7)


def test_complex_systems() -> None:
    rng = Rng([0, 1], dtype=torch.float64)
    half = rng.randn((6, 6), complex=True)
    matrix = half @ half.mH + torch.eye(6)
    rhs = rng.randn((6,), complex=True)
    found = cg(lambda x: (matrix @ x[..., None])[..., 0], rhs, tol=1e-12)
    assert torch.allclose(found, torch.linalg.solve(matrix, rhs), atol=1e-8)


def test_each_sample_stops_on_its_own() -> None:
    weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    rhs = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = conjugate_gradient(lambda x: weights * x, rhs, tol=1e-12)
    assert found.iterations.tolist() == [1, 3, 0]
    assert torch.allclose(found.x, rhs / weights)
    assert float(found.residual.max()) <= 1e-12
    for k in range(3):
        w, b = weights[k : k + 1], rhs[k : k + 1]
        alone = conjugate_gradient(lambda x, w=w: w * x, b, tol=1e-12)
        assert torch.equal(alone.x, found.x[k : k + 1])


def test_strict_tells_when_it_failed() -> None:
    matrix, rhs = system(2, 10)

    def apply(x: torch.Tensor) -> torch.Tensor:
        return (matrix @ x[..., None])[..., 0]

    with pytest.raises(NoConvergence, match="within 2 iterations"):
        cg(apply, rhs, max_iter=2, strict=True)
    assert torch.isfinite(cg(apply, rhs, max_iter=2)).all()


def test_a_broken_sample_does_not_break_the_others() -> None:
    rhs = torch.ones(2, 3)
    rhs[0, 0] = float("nan")
    found = conjugate_gradient(lambda x: 2 * x, rhs)
    assert torch.allclose(found.x[1], torch.full((3,), 0.5))
    assert torch.isnan(found.residual[0])


def test_least_squares_is_the_pseudo_inverse_in_either_precision() -> None:
    rng = Rng([0, 1], dtype=torch.float64)
    wide, tall, y = rng.randn((4, 9)), rng.randn((9, 4)), rng.randn((9,))
    for matrix, data in ((wide, y[:, :4]), (tall, y), (tall @ wide, y)):
        expected = (torch.linalg.pinv(matrix) @ data[..., None])[..., 0]
        for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 1e-3)):
            m = matrix.to(dtype)
            found = least_squares(
                lambda x, m=m: (m @ x[..., None])[..., 0],
                lambda v, m=m: (m.mT @ v[..., None])[..., 0],
                data.to(dtype),
                tol=1e-10 if dtype == torch.float64 else 1e-6,
                max_iter=500,
            )
            assert float((found - expected).norm() / expected.norm()) < tolerance


def test_inner_product_is_the_real_one() -> None:
    a = torch.tensor([[1 + 2j, 3j]])
    b = torch.tensor([[2 - 1j, 1 + 1j]])
    assert float(inner(a, b)) == float((torch.view_as_real(a) * torch.view_as_real(b)).sum())
    assert float(inner(a, a)) == pytest.approx(float(norm(a)) ** 2)


def test_per_sample_numbers_broadcast() -> None:
    assert per_sample(2.0, 4) == 2.0
    shaped = per_sample(torch.tensor([1.0, 2.0]), 4)
    assert isinstance(shaped, torch.Tensor)
    assert shaped.shape == (2, 1, 1, 1)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
@pytest.mark.parametrize("size", [1e-10, 1.0, 1e10])
def test_least_squares_has_no_scale_of_its_own(scale: float, size: float) -> None:
    # squares of these do not exist in single precision
    matrix, y = Rng([0, 1]).randn((7, 4)), Rng([2, 3]).randn((7,))

    def solve(factor: float, y: torch.Tensor) -> torch.Tensor:
        a = factor * matrix
        return least_squares(lambda x: (a @ x[..., None])[..., 0], lambda y: (a.mT @ y[..., None])[..., 0], y)

    expected = torch.linalg.lstsq(matrix, y[..., None]).solution[..., 0]
    assert torch.allclose(solve(scale, size * y) * (scale / size), expected, atol=1e-4)


def test_least_squares_leaves_empty_data_empty() -> None:
    y = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    keep = torch.tensor([1.0, 0.0])
    assert least_squares(lambda x: keep * x, lambda y: keep * y, y).tolist() == [[0, 0], [0, 0], [3, 0]]
