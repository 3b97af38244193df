"""Muon: momentum whose matrix updates are orthogonalised."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from restoration.precision import resolve_precision


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest (semi-)orthogonal matrices, roughly: singular values end near 1.

    Shapes: (N, rows, columns) → the same.
    Source: quintic Newton-Schulz iteration of Jordan et al. 2024 ("Muon").
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    # bf16 suffices, but where it is emulated this took five times as long as the network's own pass
    x = matrices.bfloat16() if resolve_precision("auto", matrices.device) == "bf16" else matrices
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


class Muon(Optimizer):
    """Muon for convolution kernels, seen as matrices (out, in x kh x kw).

    torch.optim.Muon takes two-dimensional parameters only; kernels of one shape are orthogonalised together here.
    The update is scaled by 0.2 sqrt(max(rows, columns)), which makes a learning rate of AdamW usable as it is.

    Source: Jordan et al. 2024; scale of Liu et al. 2025 (arXiv:2502.16982), eq. 4.
    Deviations: kernels of equal shape share one batched iteration.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; closures are not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients first.")
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                shapes.setdefault((update.shape[0], update.shape[1]), []).append((p, update))
            for (rows, columns), entries in shapes.items():
                directions = orthogonalise(torch.stack([u for _, u in entries]))
                step = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for (p, _), direction in zip(entries, directions, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(step * direction.view_as(p))
