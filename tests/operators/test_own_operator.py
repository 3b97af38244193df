"""The operator of one's own that the documentation shows: the very code, its length, and what comes out."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from operators.testing import adjoint_error, check_operator

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Composition and your own operator")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    # a module as a reader would write it: operators are pickled by the name of their class
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_operator_of_a_reader.py").write_text("\n".join(BLOCKS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield vars(importlib.import_module("own_operator_of_a_reader"))
        sys.modules.pop("own_operator_of_a_reader")


def test_the_page_shows_two_blocks_and_an_operator_of_less_than_twenty_lines() -> None:
    assert len(BLOCKS) == 2
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) < 20
    (shown,) = [node for node in ast.parse(BLOCKS[0]).body if isinstance(node, ast.ClassDef)]
    assert shown.name == "Ghost"


def test_the_operator_passes_the_battery_at_other_sizes(scope: dict[str, Any]) -> None:
    for shape in ((1, 9, 12), (2, 16, 7)):
        check_operator(scope["Ghost"](shape, (2, 5), 0.6))
    assert adjoint_error(scope["Ghost"]((3, 128, 128), (2, 5), 0.6)) < 1e-14


def test_sampling_undoes_it(scope: dict[str, Any]) -> None:
    samples, truth, likelihood = scope["samples"], scope["truth"], scope["likelihood"]
    assert samples.shape == (4, 3, 32, 32)
    # the exact posterior mean: Gaussian prior, linear operator, Gaussian noise
    mean = scope["ghost"].prox(torch.full_like(truth, 0.5), likelihood.y, 0.05**2 / 0.2**2)
    residual = likelihood.residual_sigma(samples)
    assert bool(((residual > likelihood.residual_sigma(mean)) & (residual < 1.1)).all())
    error, best, ghosted = (
        float((image - truth).square().mean().sqrt()) for image in (samples.mean(0), mean, likelihood.y)
    )
    assert best < error < 1.1 * best
    assert error < 0.2 * ghosted
