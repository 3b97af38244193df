"""The drawn masks: where they are, how much they take, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.ndimage import label

from operators import AnyMask, kinds
from operators.errors import ShapeError
from operators.masks import (
    BoxMask,
    LineMask,
    Mask,
    MaskFile,
    RandomBoxMask,
    RandomMask,
    StrokeMask,
    TextMask,
    line_mask,
    random_box_mask,
    random_mask,
    stroke_mask,
    text_mask,
)

DRAWN = [kind for kind in kinds(AnyMask).values() if kind is not MaskFile]


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("size", [(64, 64), (47, 90)])
def test_every_mask_is_repeatable_and_takes_a_part(kind: type[Mask], size: tuple[int, int]) -> None:
    spec = RandomBoxMask(margin=4) if kind is RandomBoxMask else kind()
    mask = spec.build(*size, channels=3)
    assert mask.shape in (size, (3, *size))
    assert mask.dtype == torch.bool
    assert 0.02 < float((~mask).float().mean()) < 0.9
    assert torch.equal(mask, spec.build(*size, channels=3))
    assert TypeAdapter(AnyMask).validate_json(spec.model_dump_json()) == spec


@given(
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    margin=st.integers(0, 3),
    box=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_box_anywhere_keeps_its_margin(height: int, width: int, margin: int, box: tuple[int, int], seed: int) -> None:
    rows, columns = (~random_box_mask(height, width, *box, margin, seed)).nonzero().T
    assert len(rows) == box[0] * box[1]
    assert margin <= int(rows.min()) <= int(rows.max()) < height - margin
    assert margin <= int(columns.min()) <= int(columns.max()) < width - margin


def test_a_box_anywhere_reaches_every_place() -> None:
    spots = {tuple((~random_box_mask(9, 10, 3, 3, 2, seed)).nonzero()[0].tolist()) for seed in range(200)}
    assert spots == {(top, left) for top in range(2, 5) for left in range(2, 6)}
    assert int((~RandomBoxMask().build(256, 256)).sum()) == 128 * 128


def test_a_box_and_margin_that_do_not_fit_are_refused() -> None:
    random_box_mask(8, 8, 2, 2, 3, 0)
    for box, margin in (((3, 2), 3), ((2, 3), 3), ((0, 2), 0), ((2, 2), -1)):
        with pytest.raises(ShapeError, match="8x8 image"):
            random_box_mask(8, 8, *box, margin, 0)
    with pytest.raises(ShapeError, match="margin"):
        RandomBoxMask(height=100, width=100, margin=16).build(128, 128)


def test_a_drawn_fraction_is_spread_evenly_over_its_range() -> None:
    fractions = np.array(
        [float((~RandomMask(fraction=0.3, up_to=0.7, seed=k).build(40, 50)).float().mean()) for k in range(300)]
    )
    assert fractions.min() >= 0.3 - 1 / 2000
    assert fractions.max() <= 0.7
    counts = np.histogram(fractions, 4, (0.3, 0.7))[0]
    assert counts.min() > 50  # 75 each expected, standard deviation 7.5
    assert RandomMask(fraction=0.4, up_to=0.4, seed=3).build(9, 9).equal(RandomMask(fraction=0.4, seed=3).build(9, 9))
    with pytest.raises(ValidationError, match="swap the two"):
        RandomMask(fraction=0.7, up_to=0.3)


def test_channels_lose_pixels_of_their_own() -> None:
    mask = RandomMask(fraction=0.5, per_channel=True).build(20, 30, channels=3)
    assert mask.shape == (3, 20, 30)
    assert int(mask.sum()) == 900
    assert not mask[0].equal(mask[1])
    assert RandomMask(fraction=0.5).build(20, 30, channels=3).equal(random_mask(20, 30, 0.5, 0))


def test_lines() -> None:
    assert line_mask(5, 2, 2, "rows", lost=False)[:, 0].tolist() == [True, False, True, False, True]
    assert line_mask(2, 5, 3, "columns", lost=True)[0].tolist() == [False, True, True, False, True]
    assert line_mask(6, 7, 4, "rows", lost=False).equal(~line_mask(6, 7, 4, "rows", lost=True))
    assert line_mask(6, 7, 4, "rows", lost=True).equal(line_mask(7, 6, 4, "columns", lost=True).T)
    assert float(LineMask().build(256, 256).float().mean()) == 0.5
    with pytest.raises(ShapeError, match="at least one measured pixel"):
        LineMask(lost=True).build(1, 5)
    with pytest.raises(ValidationError):
        LineMask(every=1)


def test_thin_strokes_are_thinner_and_more_numerous_than_thick_ones() -> None:
    # a square that fits into holes: thick strokes hold larger ones
    def widest(mask: torch.Tensor) -> int:
        hole = (~mask).float()[None, None]
        return max(
            k
            for k in (1, 3, 5, 7, 9, 11, 13, 15, 17)
            if bool((1 - torch.nn.functional.max_pool2d(1 - hole, k, 1)).any())
        )

    thin = [stroke_mask(128, 128, "thin", seed) for seed in range(8)]
    thick = [stroke_mask(128, 128, "thick", seed) for seed in range(8)]
    assert np.mean([widest(m) for m in thin]) < np.mean([widest(m) for m in thick])
    assert np.mean([label(~m.numpy())[1] for m in thin]) > np.mean([label(~m.numpy())[1] for m in thick]) + 1
    assert all(float((~m).float().mean()) < 0.9 for m in thin + thick)
    assert not thin[0].equal(thin[1])


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    style=st.sampled_from(["thin", "thick"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_strokes_of_any_size(height: int, width: int, style: str, seed: int) -> None:
    spec = StrokeMask.model_validate({"style": style, "seed": seed})
    mask = stroke_mask(height, width, spec.style, seed)
    assert mask.shape == (height, width)
    assert not mask.all()


def test_strokes_grow_with_the_image() -> None:
    small, large = (stroke_mask(size, size, "thick", 5) for size in (128, 512))
    shrunk = torch.nn.functional.avg_pool2d(large[None, None].float(), 4)[0, 0] > 0.5
    assert float((small == shrunk).float().mean()) > 0.95


def test_text_covers_the_image_and_can_be_read_in_rows() -> None:
    mask = text_mask(128, 200, "Preimage", 16)
    missing = ~mask
    assert missing.any(0).float().mean() > 0.9  # every other line is shifted, so that hardly a column stays free
    assert not missing.any(1).all()  # there is room between the lines
    assert all(bool(missing[top : top + 32].any()) for top in range(0, 128, 32))
    assert text_mask(128, 200, "Preimage", 16).sum() < text_mask(128, 200, ".", 16).sum()
    assert text_mask(4, 4, "Preimage", 500).all()  # the first line begins below the image
    assert not mask.equal(text_mask(128, 200, "Another", 16))


@pytest.mark.parametrize("text", ["", "   ", "Größe", "a\nb", "x" * 201])
def test_text_that_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TextMask(text=text)


def test_masks_that_leave_nothing_are_refused() -> None:
    for spec, size in ((BoxMask(height=4, width=4), (4, 4)), (RandomBoxMask(height=4, width=4, margin=0), (4, 4))):
        with pytest.raises(ShapeError, match="at least one measured pixel"):
            spec.build(*size)
