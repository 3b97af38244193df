"""IR-SDE's ConditionalUNet, built from the shapes of a checkpoint's tensors and under their names."""

import torch
from torch import Tensor

from restoration.nets.rddm import RDDMUNet, Shapes


class ConditionalUNet(RDDMUNet):
    """N(x_t, y, t) of IR-SDE, asked on [-1, 1]: inside it sees x_t - y and y as they are in unit range.

    Shapes: both (B, 2 C, H, W), x_t before y, with H and W multiples of `multiple`, which is that of the released
    padding and twice what the network needs; t (B,) → (B, C, H, W).
    Source: Luo et al. 2023 (arXiv:2301.11699), released code.
    Deviations: inference alone.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.multiple = 2**self.levels
        if any(name.endswith(".norm.weight") for name in shapes):
            raise ValueError("group norms, which it has none of")

    def forward(self, both: Tensor, t: Tensor) -> Tensor:
        x, y = both.chunk(2, 1)
        return super().forward(torch.cat([(x - y) / 2, (y + 1) / 2], 1), t)
