"""The public battery of checks for operators: run it on your own before trusting a sampler with them.

Every check raises AssertionError with a sentence that names the operator and what is wrong.
"""

import copy
import pickle

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator, SpectralOperator
from operators.errors import ShapeError
from operators.rng import Rng
from operators.solve import inner, norm
from operators.spec import Need

_TINY = 700  # real unknowns up to which a dense matrix is formed


def check_operator(operator: Operator, *, batch: int = 2, seed: int = 0, tolerance: float = 1e-5) -> None:
    """Check that an operator is what it claims to be.

    Always: shapes, precision, purity, independence of samples, the display round trip, copying and pickling, and the
    gradient and the projection if they are offered. For linear operators also linearity, adjoint (to 1e-10 in double
    precision), normal operator, pseudo-inverse, proximal step and norm; on tiny images these are compared with a dense
    matrix. For spectral operators also the singular value decomposition.

    Args:
        operator: the operator; it is copied, not changed.
        batch: samples in the test batch, at least 2.
        seed: seed of the random images.
        tolerance: relative error allowed where stored constants are in single precision.

    Raises:
        AssertionError: a check failed.
    """
    op = copy.deepcopy(operator).to(torch.float64)
    rng = Rng(range(seed, seed + max(batch, 2)), dtype=torch.float64)
    x = rng.randn(op.in_shape, complex=op.in_complex)
    y = rng.randn(op.out_shape, complex=op.out_complex)
    _check_offers(op)
    _check_purity(op, x)
    _check_measured(op, x, y)
    _check_shapes(op, x, y)
    _check_samples(op, x)
    _check_precision(op, x)
    _check_copies(operator, x)
    if Need.GRADIENT in op.offers:
        _check_gradient(op, x, y, rng)
    if Need.PROJECTION in op.offers:
        _check_projection(op, x, rng, tolerance)
    if isinstance(op, LinearOperator):
        _check_linearity(op, x, rng)
        _check_adjoint(op, x, y)
        _check_solves(op, x, y, tolerance)
    if isinstance(op, SpectralOperator):
        _check_spectrum(op, x, y, rng, tolerance)


def adjoint_error(
    operator: LinearOperator, *, probes: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> float:
    """How far the adjoint is from the transpose of the operator, |A − B*| / |A| in the Frobenius norm, at any size.

    For random x and y of variance 1 per real component, E (<A x, y> − <x, B y>)² = |A − B*|² and E |A x|² = |A|²; the
    means over the probes take the place of the expectations. Inner products are summed in double precision, so what
    remains is the operator's own rounding in `dtype`: about 1e-7 for float32 and 1e-16 for float64 where B = A*.

    Args:
        operator: used as it is: on its device, with its constants in their precision.
        probes: random pairs, one after the other.
        seed: of the probes.
        dtype: real precision of images and data.
    """
    device = next((b.device for b in operator.buffers()), torch.device("cpu"))
    gap = size = 0.0
    for probe in range(seed, seed + probes):
        rng = Rng([probe], device=device, dtype=dtype)
        x = rng.randn(operator.in_shape, complex=operator.in_complex)
        y = rng.randn(operator.out_shape, complex=operator.out_complex)
        with torch.no_grad():
            data, back = _double(operator(x)), _double(operator.adjoint(y))
        gap += float(inner(data, _double(y)) - inner(_double(x), back)) ** 2
        size += float(norm(data)) ** 2
    if size == 0:
        raise AssertionError(f"{type(operator).__name__}: expected data other than zero for random images.")
    return float((gap / size) ** 0.5)


def _components(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _require(op: Operator, holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(f"{type(op).__name__}: {sentence}")


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether |a − b| <= tolerance · |b| over the batch as a whole, or both are all but zero."""
    if a.shape != b.shape:
        return False
    return float(norm((a - b)[None])) <= tolerance * float(norm(b[None])) + 1e-14


def _check_offers(op: Operator) -> None:
    linear, spectral = isinstance(op, LinearOperator), isinstance(op, SpectralOperator)
    _require(op, (Need.LINEAR in op.offers) == linear, "expected LINEAR to be offered by linear operators alone.")
    _require(op, (Need.PROX in op.offers) == linear, "expected PROX to be offered by linear operators alone.")
    _require(op, not linear or Need.PROJECTION in op.offers, "expected PROJECTION to be offered, as it is linear.")
    _require(op, (Need.SPECTRUM in op.offers) == spectral, "expected SPECTRUM to be offered by spectral ones alone.")


def _check_shapes(op: Operator, x: Tensor, y: Tensor) -> None:
    data = op(x)
    shape = (x.shape[0], *op.out_shape)
    _require(op, data.shape == shape, f"expected data of shape {shape}, got {tuple(data.shape)}.")
    _require(op, data.is_complex() == op.out_complex, f"expected out_complex to be {data.is_complex()}.")
    guess = op.guess(y)
    _require(op, guess.shape == x.shape, f"expected a guess of shape {tuple(x.shape)}, got {tuple(guess.shape)}.")
    _require(op, guess.is_complex() == op.in_complex, "expected the guess to be complex exactly when images are.")
    y = op.scatter(op.gather(y))
    picture = op.data_as_image(y)
    shown = op.data_from_image(picture)
    # a picture that only rearranges the data gives them back exactly; an offset or a weight costs a rounding
    rearranged = bool(torch.isin(_components(y), _components(picture)).all())
    same = torch.equal(shown, y) if rearranged else _near(shown, y, 1e-15)
    _require(op, same, "expected data_from_image to undo data_as_image.")
    wrong = [x[:, :, None], x[..., :-1], x[0]]
    wrong.append(x.real if op.in_complex else torch.complex(x, x))
    for bad in wrong:
        try:
            op(bad)
        except ShapeError:
            continue
        sentence = f"expected a ShapeError for images of shape {tuple(bad.shape)} {bad.dtype}, got data."
        _require(op, False, sentence)


def _check_measured(op: Operator, x: Tensor, y: Tensor) -> None:
    data, values = op(x), op.gather(y)
    again, shown = op.scatter(op.gather(data)), op.gather(op.scatter(values))
    _require(op, torch.equal(again, data), "expected data of zero wherever gather takes nothing.")
    _require(op, torch.equal(shown, values), "expected gather to undo scatter.")


def _check_purity(op: Operator, x: Tensor) -> None:
    given = x.clone()
    state = {name: value.clone() for name, value in op.state_dict().items()}
    first = op(x).clone()
    second = op(x)
    _require(op, torch.equal(first, second), "expected two calls to give the same data, got a change.")
    _require(op, torch.equal(given, x), "expected its input to be left alone, got it changed in place.")
    after = op.state_dict()
    same = state.keys() == after.keys() and all(torch.equal(state[name], after[name]) for name in state)
    _require(op, same, "expected its buffers to be left alone by a call.")


def _check_samples(op: Operator, x: Tensor) -> None:
    alone = torch.cat([op(x[k : k + 1]) for k in range(x.shape[0])])
    _require(op, _near(op(x), alone, 1e-10), "expected a sample to give the same data alone as in a batch.")
    _require(op, _near(op(x.flip(0)), alone.flip(0), 1e-10), "expected reordered images to give reordered data.")
    if isinstance(op, LinearOperator):
        y = op(x)
        alone = torch.cat([op.adjoint(y[k : k + 1]) for k in range(x.shape[0])])
        _require(op, _near(op.adjoint(y), alone, 1e-10), "expected the adjoint of a sample to be the same in a batch.")


def _check_precision(op: Operator, x: Tensor) -> None:
    double = op(x)
    lesser = copy.deepcopy(op).to(torch.float32)
    brief = x.to(torch.complex64 if x.is_complex() else torch.float32)
    for other in (lesser, op):
        single = other(brief)
        _require(op, single.real.dtype == torch.float32, f"expected single precision data, got {single.dtype}.")
        _require(op, _near(single.to(double.dtype), double, 1e-3), "expected .to(float32) to keep the data.")
    _require(op, lesser(x).real.dtype == torch.float64, "expected double precision images to give double precision.")
    again = lesser.to(torch.float64)
    _require(op, _near(again(x), double, 1e-4), "expected .to(float32).to(float64) to keep the data.")


def _check_copies(op: Operator, x: Tensor) -> None:
    expected = op(x)
    for name, other in (("deepcopy", copy.deepcopy(op)), ("pickle", pickle.loads(pickle.dumps(op)))):  # noqa: TID251 (our own bytes)
        _require(op, torch.equal(other(x), expected), f"expected a copy by {name} to give the same data.")
    other = copy.deepcopy(op)
    state = op.state_dict()
    for name, buffer in other.named_buffers():
        if name in state:
            buffer.copy_(torch.zeros_like(buffer))
    other.load_state_dict(state)
    _require(op, torch.equal(other(x), expected), "expected load_state_dict to restore the data.")
    if isinstance(op, LinearOperator) and isinstance(other, LinearOperator):
        _require(op, torch.equal(other.normal(x), op.normal(x)), "expected load_state_dict to restore normal(x).")


def _check_gradient(op: Operator, x: Tensor, y: Tensor, rng: Rng) -> None:
    data, pullback = op.vjp(x)
    _require(op, _near(data, op(x), 1e-12), "expected vjp to give the same data as a call.")
    slope = pullback(y)
    _require(op, slope.shape == x.shape, f"expected a pullback of shape {tuple(x.shape)}, got {tuple(slope.shape)}.")
    direction = rng.randn(op.in_shape, complex=op.in_complex)
    small = 1e-5
    change = (op(x + small * direction) - op(x - small * direction)) / (2 * small)
    left, right = inner(y, change), inner(slope, direction)
    size = norm(y) * norm(change) + 1e-30
    agrees = bool(((left - right).abs() <= 1e-5 * size).all())
    if op.exact_gradient:
        _require(op, agrees, "expected the gradient of finite differences.")
        return
    # a stand-in for a slope that is zero or none must be needed, and must follow the data over a long way
    _require(op, not agrees, "expected exact_gradient to be True, as finite differences agree with the gradient.")
    secant = op(x + direction) - data
    along = inner(pullback(secant), direction) / inner(secant, secant)
    _require(op, bool(((along > 0.5) & (along < 2)).all()), f"expected a gradient like long secants, got {along}.")


def _check_projection(op: Operator, x: Tensor, rng: Rng, tolerance: float) -> None:
    if isinstance(op, LinearOperator) and type(op)._project is LinearOperator._project:
        return  # z + A+ (y - A z), as good as the pseudo-inverse, which is checked by itself
    y = op(x)
    z = rng.randn(op.in_shape, complex=op.in_complex)
    near = op.project(z, y)
    _require(op, near.shape == x.shape, f"expected a projection of shape {tuple(x.shape)}, got {tuple(near.shape)}.")
    shared = torch.cat([op.project(z[k : k + 1], y[:1]) for k in range(z.shape[0])])
    _require(op, _near(op.project(z, y[:1]), shared, 1e-10), "expected one measurement to serve every sample.")
    _require(op, _near(op(near), y, tolerance), "expected a projection to have the data, A project(z, y) = y.")
    _require(op, _near(op.project(near, y), near, tolerance), "expected a second projection to change nothing.")
    _require(op, _near(op.project(x, y), x, 1e-3), "expected a projection to leave an image with these data alone.")
    close = norm(near - z) <= op.farthest * norm(x - z) * (1 + tolerance)
    _require(op, bool(close.all()), "expected no image with these data to be nearer than the projection.")


def _check_linearity(op: LinearOperator, x: Tensor, rng: Rng) -> None:
    other = rng.randn(op.in_shape, complex=op.in_complex)
    together = op(2.0 * x - 3.0 * other)
    _require(op, _near(together, 2.0 * op(x) - 3.0 * op(other), 1e-10), "expected A(2a - 3b) = 2 A a - 3 A b.")
    _require(op, not bool(op(torch.zeros_like(x)).any()), "expected zero to give zero.")


def _check_adjoint(op: LinearOperator, x: Tensor, y: Tensor) -> None:
    data, back = op(x), op.adjoint(y)
    _require(op, back.shape == x.shape, f"expected an adjoint of shape {tuple(x.shape)}, got {tuple(back.shape)}.")
    gap = (inner(data, y) - inner(x, back)).abs()
    size = norm(data) * norm(y) + norm(x) * norm(back)
    _require(op, bool((gap <= 1e-10 * size).all()), "expected <A x, y> = <x, A* y> to 1e-10 in double precision.")
    leaf = torch.zeros_like(x, requires_grad=True)
    with torch.enable_grad():
        (transposed,) = torch.autograd.grad(op(leaf), leaf, y)
    _require(op, _near(back, transposed, 1e-10), "expected the adjoint to be the transpose found by autograd.")
    bound = op.norm_squared() * norm(x).square()
    _require(op, bool((norm(data).square() <= 1.001 * bound).all()), "expected |A x|^2 <= norm_squared |x|^2.")


def _check_solves(op: LinearOperator, x: Tensor, y: Tensor, tolerance: float) -> None:
    data = op(x)
    _require(op, _near(op.normal(x), op.adjoint(data), tolerance), "expected normal(x) = adjoint(A x).")
    solved = op.pinv(data, tol=1e-10, max_iter=3000)
    _require(op, _near(op(solved), data, 10 * tolerance), "expected A A+ A = A.")
    shrunk = norm(solved) <= norm(x) * (1 + tolerance)
    _require(op, bool(shrunk.all()), "expected pinv to give the image of smallest norm.")
    z = x.flip(-1) if x.shape[-1] > 1 else 0.5 * x
    rho = torch.linspace(0.2, 0.9, x.shape[0], dtype=torch.float64)
    weight = rho.reshape(-1, *(1,) * (x.ndim - 1))
    best = op.prox(z, y, rho, tol=1e-12, max_iter=3000)
    slope = op.adjoint(op(best) - y) + weight * (best - z)
    _require(
        op,
        bool((norm(slope) <= tolerance * (norm(op.adjoint(y)) + norm(z))).all()),
        "expected prox to be stationary, A*(A x - y) + rho (x - z) = 0.",
    )
    single = torch.cat([op.prox(z[k : k + 1], y[:1], float(r), tol=1e-12, max_iter=3000) for k, r in enumerate(rho)])
    shared = op.prox(z, y[:1], rho, tol=1e-12, max_iter=3000)
    _require(op, _near(shared, single, 1e-8), "expected prox of a batch to be the prox of each sample.")
    if x[0].numel() * (2 if op.in_complex else 1) <= _TINY and y[0].numel() * (2 if op.out_complex else 1) <= _TINY:
        _check_dense(op, z, y, best, rho, tolerance)


def _check_dense(op: LinearOperator, z: Tensor, y: Tensor, best: Tensor, rho: Tensor, tolerance: float) -> None:
    count = z[0].numel() * (2 if op.in_complex else 1)
    basis = torch.eye(count, dtype=torch.float64)
    if op.in_complex:
        basis = torch.view_as_complex(basis.reshape(count, -1, 2))
    matrix = _flat(op(basis.reshape(count, *op.in_shape))).T
    for k in range(z.shape[0]):
        system = matrix.T @ matrix + float(rho[k]) * torch.eye(count, dtype=torch.float64)
        right = matrix.T @ _flat(y[k : k + 1])[0] + float(rho[k]) * _flat(z[k : k + 1])[0]
        dense = torch.linalg.solve(system, right)
        _require(op, _near(_flat(best[k : k + 1])[0], dense, tolerance), "expected prox to equal a dense solve.")
    top = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
    close = 0.8 * top <= op.norm_squared() <= top * (1 + tolerance)
    _require(op, close, f"expected norm_squared near {top:.4g}, got {op.norm_squared():.4g}.")


def _flat(x: Tensor) -> Tensor:
    return _components(x).flatten(1)


def _check_spectrum(op: SpectralOperator, x: Tensor, y: Tensor, rng: Rng, tolerance: float) -> None:
    s = op.singular_values
    _require(op, not s.is_complex() and bool((s >= 0).all()), "expected real singular values >= 0.")
    c, d = op.to_spectrum(x), op.data_to_spectrum(y)
    _require(op, c.shape == d.shape, f"expected one spectrum shape, got {tuple(c.shape)} and {tuple(d.shape)}.")
    _require(op, (s * c).shape == c.shape, "expected singular values to broadcast against a spectrum.")
    _require(op, _near(op.data_from_spectrum(s * c), op(x), tolerance), "expected A = U diag(s) V*.")
    _require(op, _near(op.from_spectrum(s * d), op.adjoint(y), tolerance), "expected A* = V diag(s) U*.")
    inside, data_inside = op.from_spectrum(c), op.data_from_spectrum(d)
    _require(op, _near(op.to_spectrum(inside), c, tolerance), "expected orthonormal columns, V*V = 1.")
    _require(op, _near(op.data_to_spectrum(data_inside), d, tolerance), "expected orthonormal columns, U*U = 1.")
    other = rng.randn(op.in_shape, complex=op.in_complex)
    left, right = inner(inside, other), inner(x, op.from_spectrum(op.to_spectrum(other)))
    _require(op, bool(((left - right).abs() <= tolerance * norm(x) * norm(other)).all()), "expected VV* = (VV*)*.")
