"""Image quality against a known truth; images clipped to [0, 1], floating point, data range 1."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor


def _array(image: Tensor) -> np.ndarray:
    return image.detach().double().clamp(0, 1).cpu().numpy()


def psnr(truth: Tensor, image: Tensor) -> float:
    """Peak signal-to-noise ratio in dB (infinite for equal images).   Shapes: both (C, H, W)."""
    a, b = _array(truth), _array(image)
    return float("inf") if np.array_equal(a, b) else float(peak_signal_noise_ratio(a, b, data_range=1))


def ssim(truth: Tensor, image: Tensor) -> float:
    """Structural similarity of Wang et al. 2004 (Gaussian window, std 1.5), mean over channels.   Shapes: (C, H, W)."""
    return float(
        structural_similarity(
            _array(truth),
            _array(image),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
