"""The four coefficients that turn a raw network into a denoiser."""

from torch import Tensor


def edm(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients of D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).

    Shapes: sigma (B,) → four tensors (B,).   Units: those of the network's own range.
    Source: Karras et al. 2022, Table 1, column "Ours" (arXiv:2206.00364).
    """
    variance = sigma**2 + sigma_data**2
    return sigma_data**2 / variance, sigma * sigma_data / variance.sqrt(), variance.rsqrt(), sigma.log() / 4
