"""Draws docs/real-data.md's pictures: `PREIMAGE_DATA=... python -m docs.make_real_data`; needs h5py.

The data cannot be shipped with the project; tests/conftest.py says where they are looked for.
"""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image
from torch import Tensor

from operators import DataRef, Gaussian, Likelihood, Rng
from operators.coils import CalibratedCoils, root_sum_of_squares
from operators.ct import CT
from operators.ct_geometry import ParallelBeam, Scan
from operators.ct_real import line_integrals, rotation_center
from operators.mri import MRISpec, MultiCoilMRI
from operators.sampling import MeasuredKspace
from restoration.methods.tv import TV

HERE = Path(__file__).parent / "real-data"


def panels(name: str, images: list[Tensor], side: int = 256) -> None:
    """Images (H, W) side by side, all on the scale of the first, as a small file."""
    low, high = (float(np.percentile(images[0], q)) for q in (0.5, 99.7))
    row = np.hstack([((image.numpy() - low) / (high - low)).clip(0, 1) for image in images])
    picture = Image.fromarray((row * 255).round().astype(np.uint8))
    height = min(side, picture.height)
    size = (round(picture.width * height / picture.height), height)
    picture.resize(size, Image.Resampling.LANCZOS).save(HERE / f"{name}.webp", quality=85, method=6)


def binned(sinogram: Tensor, center: float, columns: int) -> tuple[Tensor, float]:
    """Means over neighbouring columns, and the axis among them.   Shapes: (views, n) → (views, n // columns)."""
    kept = sinogram.shape[1] // columns * columns
    return sinogram[:, :kept].unflatten(1, (-1, columns)).mean(2), (center + 0.5) / columns - 0.5


def tomography(name: str, sinogram: Tensor, angles: np.ndarray, center: float, weight: float) -> None:
    """FBP, least squares by 20 conjugate gradients, and total variation."""
    n = sinogram.shape[1]
    operator = CT(Scan(tuple(angles.tolist()), ParallelBeam(), n, 1.0, center), (1, n, n))
    y = sinogram[None, None]
    # one unit range for all: the brightest of the filtered back-projection is 1
    scale = float(operator.guess(y).max())
    likelihood = Likelihood(operator, Gaussian(sigma=1.0), y / scale)
    *_, last = TV(weight=weight, iterations=60, primal=1e-3).run(None, likelihood, Rng([0]))
    fitted = operator.pinv(y / scale, tol=0.0, max_iter=20)
    images = [operator.guess(y)[0, 0] / scale, fitted[0, 0], last.x0[0, 0]]
    residuals = [float((operator(v[None, None]) - y / scale).norm() / (y / scale).norm()) for v in images]
    print(name, "axis", round(center, 2), "relative residuals FBP, CG, TV", [round(r, 4) for r in residuals])
    panels(name, images)


def tooth(data: Path) -> None:
    """tomopy's tooth: 181 views, flat and dark fields."""
    with h5py.File(data / "sinogram/tomopy/source/tomopy/data/tooth.h5") as file:
        parts = [
            torch.from_numpy(file[f"exchange/{part}"][:, 0].astype("float32"))
            for part in ("data", "data_white", "data_dark")
        ]
        theta = np.radians(file["exchange/theta"][:])
    sinogram = line_integrals(*parts)
    scan = Scan(tuple(theta.tolist()), ParallelBeam(), sinogram.shape[1], 1.0, 290.0)
    sinogram, center = binned(sinogram, rotation_center(sinogram, scan, reach=0.05), 2)
    tomography("tooth", sinogram, theta, center, 4.0)


def dendrites(data: Path) -> None:
    """tomobar's sinogram of growing dendrites, 360 views; a background over the whole detector is taken off."""
    file = scipy.io.loadmat(data / "sinogram/tomobar/data/RealDataDend.mat")
    sinogram = torch.from_numpy(file["sinoRD"].T.astype("float32").copy()) / 1000
    sinogram = sinogram - torch.minimum(sinogram[:, :20].mean(), sinogram[:, -20:].mean())
    angles = file["anglesRad"].ravel()
    sinogram, center = binned(sinogram, (sinogram.shape[1] - 1) / 2, 4)
    tomography("dendrites", sinogram, angles, center, 8.0)


def brain(data: Path) -> None:
    """The eight-coil scan of sigpy's tutorial: zero-filled root sum of squares and coil combination, CG-SENSE."""
    path = data / "kspace/sigpy_tutorial/data/cartesian_ksp.npy"
    file = DataRef(path=str(path))
    spec = MRISpec(sampling=MeasuredKspace(file=file), coils=CalibratedCoils(file=file))
    operator = spec.build((1, 230, 180))
    assert isinstance(operator, MultiCoilMRI)
    kspace = torch.from_numpy(np.load(path))
    y = operator.data_from_image(kspace[None, None])
    zero_filled = root_sum_of_squares(
        torch.fft.ifftshift(torch.fft.ifft2(torch.fft.fftshift(kspace, dim=(-2, -1))), dim=(-2, -1))
    )
    start = torch.zeros(1, *operator.in_shape, dtype=torch.complex64)
    sense = operator.prox(start, y, 0.01, max_iter=100)
    print("brain acceleration", round(operator.acceleration, 2))
    images = [zero_filled, operator.guess(y)[0, 0].abs(), sense[0, 0].abs()]
    panels("brain", [image / image.quantile(0.99) for image in images])


def main() -> int:
    """Draw all pictures."""
    data = Path(os.environ["PREIMAGE_DATA"])
    HERE.mkdir(exist_ok=True)
    with torch.no_grad():
        brain(data)
        tooth(data)
        dendrites(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
