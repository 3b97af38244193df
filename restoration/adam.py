"""Adam as a rule for a direction, elementwise, so that samples of a batch never meet."""

import torch
from torch import Tensor


class Adam:
    """Running means of gradients and of their squares, from zero.

    A complex number counts as its two components. Elements may take part in some steps only (`among`), as samples do
    that are done before others; all steps so far count for all in the correction of the start.

    Source: Kingma and Ba 2015, Algorithm 1. Deviations: none.
    """

    def __init__(self, like: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas, self.eps, self.count = betas, eps, 0
        self.mean = torch.zeros_like(_parts(like))
        self.square = torch.zeros_like(self.mean)

    def direction(self, gradient: Tensor, among: Tensor | slice = slice(None)) -> Tensor:
        """What to subtract, for a step size of 1; `among` are the samples that `gradient` belongs to."""
        g, (first, second) = _parts(gradient), self.betas
        self.count += 1
        mean = self.mean[among].lerp(g, 1 - first)
        square = self.square[among].lerp(g * g, 1 - second)
        self.mean[among], self.square[among] = mean, square
        corrected = (square / (1 - second**self.count)).sqrt() + self.eps
        move = mean / (1 - first**self.count) / corrected
        return torch.view_as_complex(move.contiguous()) if gradient.is_complex() else move


def _parts(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x
