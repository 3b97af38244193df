"""Start a wide network from a narrow one without losing what it knows."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def widen(narrow: dict[str, Tensor], net: nn.Module) -> None:
    """Load the weights of an equal or narrower network of the same layout; the function stays the same.

    Old channels keep their weights and read nothing from new ones; new channels keep their random start, so that
    their gradients differ from the first step on.

    Source: after Chen et al. 2016 (Net2Net, arXiv:1511.05641); new channels are random rather than copies.
    """
    wide = net.state_dict()
    if set(narrow) != set(wide):
        raise ValueError(
            f"Expected weights of the same layout, got {sorted(set(narrow) ^ set(wide))[:4]} in one of them only; "
            "choose weights of a network with as many levels and blocks."
        )
    for name, target in wide.items():
        source = narrow[name]
        if source.ndim != target.ndim or any(s > t for s, t in zip(source.shape, target.shape, strict=True)):
            raise ValueError(
                f"Expected {name} no larger than {tuple(target.shape)}, got {tuple(source.shape)}; widen the recipe."
            )
        if source.shape == target.shape:
            target.copy_(source)
            continue
        old = tuple(slice(0, n) for n in source.shape)
        if target.ndim == 4:
            # Transposed convolutions store (in, out, ...), the others (out, in, ...).
            out_axis = 1 if name.startswith("up.") else 0
            reading = list(old)
            reading[1 - out_axis] = slice(source.shape[1 - out_axis], None)
            target[tuple(reading)] = 0
        else:
            target.zero_()
        target[old] = source
    net.load_state_dict(wide)


def grey(colour: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network of colour pictures as one of grey pictures: it answers for three equal channels as it did, in the mean.

    It expects noise of its own in each channel, and there is one now: a start for training, no prior by itself.
    """
    state = dict(colour)
    state["head.weight"] = colour["head.weight"].sum(1, keepdim=True)
    state["tail.weight"] = colour["tail.weight"].mean(0, keepdim=True)
    state["tail.bias"] = colour["tail.bias"].mean(0, keepdim=True)
    return state
