"""Random streams: one per sample, the same in any company."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import Rng
from operators.errors import RecipeError, ShapeError


@given(seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), k=st.integers(0, 4))
def test_a_sample_is_the_same_alone_and_in_a_batch(seeds: list[int], k: int) -> None:
    k %= len(seeds)
    together, alone = Rng(seeds), Rng([seeds[k]])
    assert torch.equal(together.randn((2, 3))[k : k + 1], alone.randn((2, 3)))
    assert torch.equal(together.rand((4,))[k : k + 1], alone.rand((4,)))
    rate = torch.full((len(seeds), 5), 7.0)
    assert torch.equal(together.poisson(rate)[k : k + 1], alone.poisson(rate[:1]))
    assert torch.equal(together.child("a").randn((3,), complex=True)[k], alone.child("a").randn((3,), complex=True)[0])


def test_every_bit_of_the_seed_counts() -> None:
    draws = [Rng([seed]).randn((8,)) for seed in (0, 1, 2**32, 2**32 + 1, 2**63 - 1)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert not torch.equal(a, b)


@pytest.mark.parametrize("seeds", [[-1], [2**63], [0.5], [True], ["1"], []])
def test_what_is_no_seed_is_refused(seeds: list[int]) -> None:
    with pytest.raises(RecipeError, match="seed"):
        Rng(seeds)


def test_moments() -> None:
    rng = Rng([0, 1])
    normal, uniform = rng.randn((50000,)), rng.rand((50000,))
    assert float(normal.mean().abs()) < 5 / 100000**0.5
    assert float(normal.std()) == pytest.approx(1, rel=0.01)
    assert float(normal.pow(4).mean()) == pytest.approx(3, rel=0.05)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert float(uniform.var()) == pytest.approx(1 / 12, rel=0.02)
    wave = rng.randn((50000,), complex=True)
    assert float(wave.real.std()) == pytest.approx(1, rel=0.02)
    assert float(wave.imag.std()) == pytest.approx(1, rel=0.02)


def test_samples_are_independent() -> None:
    drawn = Rng(range(6), dtype=torch.float64).randn((20000,))
    correlation = torch.corrcoef(drawn) - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / 20000**0.5


def test_children_are_independent_of_the_parent_and_of_each_other() -> None:
    parent, other = Rng([0]), Rng([0])
    other.randn((10,))
    a = parent.child("a").randn((20000,))
    assert torch.equal(a, other.child("a").randn((20000,)))
    assert torch.equal(parent.randn((3,)), Rng([0]).randn((3,)))
    streams = [
        a,
        parent.child("b").randn((20000,)),
        Rng([0]).randn((20000,)),
        parent.child("a").child("a").randn((20000,)),
    ]
    correlation = torch.corrcoef(torch.cat(streams)) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / 20000**0.5
    ab = parent.child("ab").child("c").randn((4,))
    assert not torch.equal(ab, parent.child("a").child("bc").randn((4,)))


def test_drawing_advances_and_views_share_the_streams() -> None:
    rng, whole = Rng([3, 4]), Rng([3, 4])
    first, second = whole.randn((5,)), whole.randn((5,))
    assert not torch.equal(first, second)
    assert torch.equal(rng.to(dtype=torch.float32).randn((5,)), first)
    assert torch.equal(rng.select([1]).randn((5,)), second[1:])
    assert torch.equal(rng.randn((5,))[:1], second[:1])


def test_select_names_its_mistakes() -> None:
    rng = Rng([1, 2, 3])
    assert rng.select([2, 0]).seeds == (3, 1)
    for wrong in ([], [0, 0], [3], [-1]):
        with pytest.raises(RecipeError, match="distinct sample numbers below 3"):
            rng.select(wrong)


def test_precision_and_copies() -> None:
    rng = Rng([1], dtype=torch.float64)
    assert rng.randn((2,)).dtype == torch.float64
    assert rng.randn((2,), complex=True).dtype == torch.complex128
    assert rng.randn(()).shape == (1,)
    assert rng.rand(()).shape == (1,)
    assert rng.poisson(torch.ones(1)).shape == (1,)
    assert (rng.batch, rng.device, rng.dtype) == (1, torch.device("cpu"), torch.float64)
    assert torch.equal(copy.deepcopy(rng).randn((4,)), rng.randn((4,)))
    with pytest.raises(TypeError, match="float32 or float64"):
        Rng([1], dtype=torch.float16)


def test_rates_are_checked() -> None:
    rng = Rng([1])
    for wrong in (torch.tensor([[-1.0]]), torch.tensor([[float("nan")]]), torch.tensor([[1e30]])):
        with pytest.raises(ShapeError, match="finite rates"):
            rng.poisson(wrong)
    with pytest.raises(ShapeError, match="1 samples, got 2"):
        rng.poisson(torch.ones(2, 1))


def test_the_streams_are_pinned() -> None:
    # a change here changes every published number: it belongs in the changelog
    rng = Rng([0], dtype=torch.float64)
    expected = torch.tensor(PINNED, dtype=torch.float64)
    found = torch.cat([rng.randn((2,))[0], rng.child("noise").randn((1,))[0], rng.rand((1,))[0]])
    assert torch.allclose(found, expected, atol=1e-12)


PINNED = [1.1375024404290368, 0.5381662705471898, 1.564944552873572, 0.07552235432853116]
