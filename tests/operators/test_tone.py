"""Clipping, exposure and quantisation, and the projections onto what they leave open."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import (
    Clipping,
    ClippingSpec,
    DataRef,
    DownsampleSpec,
    Exposure,
    ExposureSpec,
    Gain,
    GrayscaleSpec,
    HazeSpec,
    InpaintingSpec,
    LinearOperator,
    Operator,
    OperatorSpec,
    Quantisation,
    QuantisationSpec,
    Rng,
)
from operators.errors import NeedError, ShapeError
from operators.spec import Need
from operators.testing import check_operator

SHAPE = (2, 5, 6)


@settings(max_examples=12)
@given(
    spec=st.one_of(
        st.builds(ClippingSpec, form=st.sampled_from(["symmetric", "exposure"]), gain=st.floats(1.01, 16)),
        st.builds(ExposureSpec, gain=st.floats(0.01, 4), gamma=st.floats(1, 5)),
        st.builds(QuantisationSpec, levels=st.integers(2, 256)),
    ),
    channels=st.integers(1, 4),
)
def test_any_tone_passes_the_battery(spec: OperatorSpec, channels: int) -> None:
    operator = spec.build((channels, 11, 10))
    assert operator.offers == spec.offers
    check_operator(operator)


def test_symmetric_clipping_is_the_published_one() -> None:
    x = Rng([0]).rand(SHAPE)
    published = (2 * (2 * x - 1)).clamp(-1, 1)  # DAPS, on [-1, 1]
    assert torch.allclose(2 * ClippingSpec().build(SHAPE)(x) - 1, published, atol=1e-6)
    assert torch.allclose(ClippingSpec(form="exposure", gain=3).build(SHAPE)(x), (3 * x).clamp(0, 1))


def nearest_by_search(operator: Operator, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """For operators on single numbers: of many numbers with the same data, the nearest to z."""
    grid = torch.linspace(-2, 3, 100_001, dtype=torch.float64)
    data = operator(grid.reshape(-1, 1, 1, 1)).flatten()
    found = [grid[(data - one).abs() < 1e-4] for one in y.flatten()]
    return torch.stack([g[(g - one).abs().argmin()] for g, one in zip(found, z.flatten(), strict=True)]).reshape(
        z.shape
    )


@pytest.mark.parametrize(
    "operator",
    [
        Clipping((1, 1, 1)),
        Clipping((1, 1, 1), 4, 0.0),
        Exposure(torch.tensor(0.7), 2.2, (1, 1, 1)),
        Quantisation((1, 1, 1), 5),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_projection_is_the_nearest_number_with_these_data(operator: Operator) -> None:
    rng = Rng(range(40), dtype=torch.float64)
    z, y = 0.5 + 0.6 * rng.randn((1, 1, 1)), operator(0.1 + 0.9 * rng.rand((1, 1, 1)))
    assert torch.allclose(operator.project(z, y), nearest_by_search(operator, z, y), rtol=0, atol=2e-3)


def test_projection_keeps_what_clipping_leaves_open() -> None:
    operator = Clipping((1, 1, 4))
    y = torch.tensor([[[[0.0, 1.0, 1.0, 0.5]]]])
    z = torch.tensor([[[[0.1, 0.9, 0.2, 0.9]]]])
    # black may be anything below a quarter, white anything above three; both stay within what they were if they can
    assert torch.allclose(operator.project(z, y), torch.tensor([[[[0.1, 0.9, 0.75, 0.5]]]]))


def test_quantisation_has_its_levels_and_single_precision_stays_in_its_cells() -> None:
    for levels in (2, 8, 256):
        operator = Quantisation((1, 40, 50), levels)
        x, z = Rng([0, 1]).rand((1, 40, 50)), Rng([2, 3]).randn((1, 40, 50))
        y = operator(x)
        assert len(y.unique()) == levels or levels == 256
        assert float((y - x).abs().max()) <= 0.5 / (levels - 1) + 1e-6
        assert torch.equal(operator(operator.project(z, y)), y)


def test_the_slope_of_rounding_is_that_of_the_image() -> None:
    operator = Quantisation(SHAPE, 4)
    x, v = Rng([0]).rand(SHAPE), Rng([1]).randn(SHAPE)
    _, pullback = operator.vjp(x)
    assert torch.allclose(pullback(v), v)


def test_black_pixels_have_a_slope() -> None:
    operator = Exposure(torch.tensor(0.5), 2.2, SHAPE)
    data, pullback = operator.vjp(torch.zeros(1, *SHAPE))
    assert not data.any()
    assert not pullback(torch.ones(1, *SHAPE)).any()


def test_low_light_is_linear_only_without_a_curve(tmp_path: Path) -> None:
    np.save(tmp_path / "light.npy", np.linspace(0.2, 1, 30).reshape(5, 6))
    light = torch.linspace(0.2, 1, 30).reshape(5, 6)
    x = Rng([0]).rand(SHAPE)
    even = ExposureSpec(gain=0.5, illumination=DataRef(path="light.npy"))
    operator = even.build(SHAPE, tmp_path)
    assert isinstance(operator, Gain)
    assert torch.allclose(operator(x), 0.5 * light * x)
    curved = ExposureSpec(gain=0.5, gamma=2.0, illumination=DataRef(path="light.npy"))
    operator = curved.build(SHAPE, tmp_path)
    assert not isinstance(operator, LinearOperator)
    assert torch.allclose(operator(x), (0.5 * light * x) ** 2)
    assert Need.LINEAR in even.offers
    assert Need.LINEAR not in curved.offers
    np.save(tmp_path / "light.npy", np.zeros((5, 6)))
    with pytest.raises(ShapeError, match="light everywhere"):
        curved.build(SHAPE, tmp_path)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ShapeError, match="gain above 1"):
        Clipping(SHAPE, 1.0)
    with pytest.raises(ShapeError, match="pivot from 0 to 1"):
        Clipping(SHAPE, 2.0, -0.1)
    with pytest.raises(ShapeError, match="use Gain"):
        Exposure(torch.tensor(0.5), 1.0, SHAPE)
    with pytest.raises(ShapeError, match="2 to 256 levels"):
        Quantisation(SHAPE, 1)
    for spec, wrong in ((ClippingSpec, {"gain": 1}), (ExposureSpec, {"gamma": 0.5}), (QuantisationSpec, {"levels": 1})):
        with pytest.raises(ValidationError):
            spec.model_validate(wrong)


@pytest.mark.parametrize("kind", [DownsampleSpec(factor=3), GrayscaleSpec(), InpaintingSpec(), HazeSpec()], ids=repr)
def test_projections_of_linear_operators(kind: OperatorSpec) -> None:
    operator = kind.build((3, 6, 9)).double()
    rng = Rng([0, 1], dtype=torch.float64)
    x, z = rng.rand((3, 6, 9)), rng.rand((3, 6, 9))
    y = operator(x)
    near = operator.project(z, y[:1])
    assert torch.allclose(operator(near), y[:1].expand_as(y), atol=1e-6)
    assert torch.allclose(operator.project(near, y[:1]), near, atol=1e-6)
    # to the nearest of all images with these data, of which x is one, the way is perpendicular to what is free
    free = x[:1] - near
    assert float((free * (near - z)).flatten(1).sum(1).abs().max()) < 1e-5


class _NoProjection(Operator):
    def __init__(self) -> None:
        super().__init__(SHAPE, SHAPE)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _guess(self, y: torch.Tensor) -> torch.Tensor:
        return y


class _FarProjection(Quantisation):
    def _project(self, z: torch.Tensor, y: torch.Tensor, tol: float, max_iter: int) -> torch.Tensor:
        return y.expand_as(z).clone()


class _Inconsistent(Clipping):
    def _project(self, z: torch.Tensor, y: torch.Tensor, tol: float, max_iter: int) -> torch.Tensor:
        return self._guess(y).expand_as(z).clone() * 0.99


class _WrongSlope(Quantisation):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return super()._forward(x.detach()) - (x - x.detach())


class _NoSlope(Quantisation):
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.steps).detach().round() / self.steps + 0 * x


class _NeedlessStandIn(Clipping):
    exact_gradient = False


def test_wrong_projections_and_slopes_fail_the_battery() -> None:
    with pytest.raises(NeedError, match="data an image can be made to match"):
        _NoProjection().project(torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE))
    for wrong, sentence in (
        (_FarProjection(SHAPE, 3), "leave an image with these data alone"),
        (_Inconsistent(SHAPE), "A project"),
        (_WrongSlope(SHAPE, 4), "long secants"),
        (_NoSlope(SHAPE, 4), "finite differences|long secants"),
        (_NeedlessStandIn(SHAPE), "exact_gradient to be True"),
    ):
        with pytest.raises(AssertionError, match=sentence):
            check_operator(wrong)


def test_projection_checks_batches() -> None:
    operator = Quantisation(SHAPE, 4)
    with pytest.raises(ShapeError, match="1 or 2 samples, got 3"):
        operator.project(torch.zeros(2, *SHAPE), torch.zeros(3, *SHAPE))
