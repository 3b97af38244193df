"""Adjoints are transposes at the sizes at which they are used, in both precisions; and wrong ones are seen."""

import pytest
import torch
from torch import Tensor

from operators import AnyOperator, LinearOperator, Need, Operator, OperatorSpec, kinds
from operators.errors import ShapeError
from operators.testing import adjoint_error

KINDS = [kind() for kind in kinds(AnyOperator).values() if not any(f.is_required() for f in kind.model_fields.values())]


def build(spec: OperatorSpec) -> Operator:
    """For colour, or one plane (as MRI is used), or a volume where nothing else will do."""
    sizes = [(3, 256, 256), (1, 256, 256), (1, 32, 128, 128)]
    for size in sizes[1:2] if spec.kind.startswith("mri") else sizes[:-1]:
        try:
            return spec.build(spec.usable_shape(size))
        except ShapeError:
            continue
    return spec.build(spec.usable_shape(sizes[-1]))


@pytest.mark.parametrize("spec", [spec for spec in KINDS if Need.LINEAR in spec.offers], ids=lambda spec: spec.kind)
def test_the_adjoint_is_the_transpose(spec: OperatorSpec) -> None:
    operator = build(spec)
    assert isinstance(operator, LinearOperator)
    assert operator.in_shape[-1] >= 128
    assert adjoint_error(operator, probes=2, dtype=torch.float32) <= 1e-6
    assert adjoint_error(operator.to(torch.float64), probes=1) <= 1e-12


class _Mirrored(LinearOperator):
    """Turned upside down; its adjoint is too, but for a part `wrong` of it."""

    def __init__(self, wrong: float) -> None:
        super().__init__((2, 64, 64), (2, 64, 64))
        self.wrong = wrong

    def _forward(self, x: Tensor) -> Tensor:
        return x.flip(-2)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.flip(-2) + self.wrong * y


@pytest.mark.parametrize("wrong", [1e-9, 1e-3, 0.5])
def test_the_error_is_that_of_the_matrices(wrong: float) -> None:
    # |A − B*| = wrong |1| = wrong |A|; 400 probes give it to 4 % (one standard deviation)
    assert adjoint_error(_Mirrored(wrong), probes=400) == pytest.approx(wrong, rel=0.15)


def test_an_operator_without_data_is_refused() -> None:
    class Nothing(LinearOperator):
        def _forward(self, x: Tensor) -> Tensor:
            return 0 * x

    with pytest.raises(AssertionError, match="other than zero"):
        adjoint_error(Nothing((1, 4, 4), (1, 4, 4)))
