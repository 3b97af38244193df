"""Dead and hot pixels, dead columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import DefectivePixels, DefectsSpec, Inpainting, Rng
from operators.defects import defects
from operators.errors import ShapeError
from operators.testing import check_operator


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    dead=st.floats(0, 0.49),
    hot=st.floats(0, 0.49),
    columns=st.integers(0, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_defects_are_as_many_as_said(height: int, width: int, dead: float, hot: float, columns: int, seed: int) -> None:
    columns = min(columns, width)
    is_dead, is_hot = defects(height, width, dead, hot, columns, seed)
    assert not (is_dead & is_hot).any()
    assert is_dead.all(0).sum() >= columns
    if columns == 0:
        assert is_dead.sum() == int(dead * height * width)
        assert is_hot.sum() == int(hot * height * width)
    again = defects(height, width, dead, hot, columns, seed)
    assert torch.equal(again[0], is_dead)
    assert torch.equal(again[1], is_hot)


def test_pictures_show_black_and_white_and_are_read_whatever_they_show() -> None:
    spec = DefectsSpec(dead=0.1, hot=0.1, columns=1)
    operator = spec.build((3, 12, 10))
    assert isinstance(operator, DefectivePixels)
    check_operator(operator)
    x = 0.2 + 0.6 * Rng([0]).rand((3, 12, 10))
    shown = operator.data_as_image(operator(x))
    dead, hot = defects(12, 10, 0.1, 0.1, 1, 0)
    assert not shown[..., dead].any()
    assert (shown[..., hot] == 1).all()
    assert torch.equal(shown[..., operator.mask], x[..., operator.mask])
    assert torch.equal(operator.data_from_image(torch.where(operator.mask, x, 7.0)), operator(x))


def test_it_is_inpainting_of_the_good_pixels() -> None:
    operator = DefectsSpec(dead=0.3, hot=0.2).build((2, 9, 11))
    plain = Inpainting(operator.mask, (2, 9, 11))
    rng = Rng([0, 1])
    x, y = rng.randn((2, 9, 11)), rng.randn(operator.out_shape)
    assert torch.equal(operator(x), plain(x))
    assert torch.equal(operator.prox(x, y, 0.3), plain.prox(x, y, 0.3))
    assert torch.equal(operator.guess(y), plain.guess(y))


def test_too_many_defects_are_refused() -> None:
    with pytest.raises(ShapeError, match="at most 5 dead columns"):
        DefectsSpec(columns=6).build((1, 8, 5))
    with pytest.raises(ShapeError, match="at least one measured pixel"):
        DefectsSpec(columns=5).build((1, 8, 5))
