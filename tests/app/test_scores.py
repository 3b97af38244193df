"""Where the truth lies among the samples."""

import numpy as np
import pytest
import torch

from app.scores import coverage, ranks, sample_figures


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_exchangeable_truths_have_even_ranks_and_the_nominal_coverage(samples: int) -> None:
    shares = ranks(drawn(0, 3, 200, 200), drawn(1, samples, 3, 200, 200))
    assert len(shares) == samples + 1
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / (samples + 1)] * (samples + 1), abs=0.01)
    for nominal, held in coverage(shares):
        assert held == pytest.approx(nominal, abs=0.01)


def test_too_narrow_samples_hold_less_than_they_should() -> None:
    nominal, held = coverage(ranks(drawn(0, 1, 100, 100), 0.5 * drawn(1, 9, 1, 100, 100)))[-1]
    assert nominal == pytest.approx(0.8)
    assert 0.3 < held < 0.6


def test_ranks_count_the_samples_below() -> None:
    truth = torch.tensor([0.0, 1.5, 2.5, 9.0]).view(1, 2, 2)
    samples = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert ranks(truth, samples) == pytest.approx([0.25, 0.25, 0.25, 0.25])


def test_a_tie_counts_for_all_its_ranks_in_equal_parts() -> None:
    truth = torch.ones(1, 1, 1)
    assert ranks(truth, torch.tensor([1.0, 1.0, 2.0]).view(3, 1, 1, 1)) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    # samples that are all equal to the truth say nothing
    assert ranks(truth, torch.ones(4, 1, 1, 1)) == pytest.approx([0.2] * 5)


def test_coverage_is_nominal_for_even_ranks_and_zero_where_all_samples_are_off() -> None:
    assert [pair == pytest.approx((n, n)) for pair, n in zip(coverage([0.2] * 5), (0.2, 0.6), strict=True)] == [
        True,
        True,
    ]
    assert [held for _, held in coverage([1, 0, 0, 0, 0])] == [0, 0]


def test_figures_have_flat_names_and_ranks_only_where_there_are_several() -> None:
    truth, samples = drawn(0, 1, 4, 4), drawn(1, 2, 1, 4, 4)
    found = sample_figures(truth, samples, [30.0, 31.0], [0.8, 0.9], [1.0, 1.1])
    assert {k: v for k, v in found.items() if "rank" not in k} == {
        "psnr[0]": 30.0,
        "psnr[1]": 31.0,
        "ssim[0]": 0.8,
        "ssim[1]": 0.9,
        "residual_sigma[0]": 1.0,
        "residual_sigma[1]": 1.1,
    }
    assert {k for k in found if "rank" in k} == {"rank[0]", "rank[1]", "rank[2]"}
    assert not any("rank" in k for k in sample_figures(truth, samples[:1], [30.0], [0.8], [1.0]))
