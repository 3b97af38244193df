"""What particle methods share: how many particles the weights are worth, and which ones live on."""

import torch
from torch import Tensor

from operators.rng import Rng


def effective_number(log_weights: Tensor) -> Tensor:
    """(sum w)² / sum w², from 1 (one particle has all the weight) to K.   Shapes: (B, K) → (B,)."""
    shares = torch.softmax(log_weights, 1)
    return 1 / shares.square().sum(1)


def systematic(log_weights: Tensor, rng: Rng) -> Tensor:
    """Which particle of the same swarm stands at each place next: one uniform number a swarm, equally spaced picks.

    Particle k is kept floor(K share) or ceil(K share) times. Places are in order, so that a place is a draw by weight
    only if it was chosen at random.

    Shapes: (B, K) → (B K,), row numbers in a batch in which the K particles of a sample follow each other.
    Source: Kitagawa 1996; Douc et al. 2005.
    """
    batch, count = log_weights.shape
    ends = torch.softmax(log_weights.double(), 1).cumsum(1)
    places = torch.arange(count, device=ends.device) + rng.rand(()).to(ends)[:, None]
    chosen = torch.searchsorted(ends, places / count).clamp(max=count - 1)
    return (chosen + count * torch.arange(batch, device=ends.device)[:, None]).flatten()
