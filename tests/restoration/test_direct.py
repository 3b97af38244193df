"""OpenCV's inpainting beside OpenCV itself."""

import cv2
import numpy as np
import pytest
import torch

from operators import DefectsSpec, Gaussian, Inpainting, Likelihood, Rng
from operators.masks import random_mask
from restoration.assets import AssetStore
from restoration.methods.direct import OpenCVInpaint
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe


@pytest.mark.parametrize("algorithm", ["telea", "ns"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_filled_as_opencv_fills_them(algorithm: str, channels: int) -> None:
    mask = random_mask(channels * 20, 24, 0.4, 0).reshape(channels, 20, 24)
    levels = torch.randint(0, 256, (1, channels, 20, 24), generator=torch.Generator().manual_seed(0))
    flag = cv2.INPAINT_TELEA if algorithm == "telea" else cv2.INPAINT_NS
    for holes in (mask, mask[0]):
        operator = Inpainting(holes, (channels, 20, 24))
        held = Likelihood(operator, Gaussian(sigma=0.1), operator(levels / 255))
        method = OpenCVInpaint.model_validate({"algorithm": algorithm})
        (step,) = method.run(None, held, Rng([0]))
        for channel in range(channels):
            hole = (~(holes[channel] if holes.ndim == 3 else holes)).numpy().astype(np.uint8)
            picture = levels[0, channel].numpy().astype(np.uint8) * (1 - hole)
            expected = cv2.inpaint(picture, hole, 3, flag)
            assert np.allclose(step.x0[0, channel].numpy() * 255, expected, atol=1e-3)


def test_colours_are_filled_as_opencv_fills_a_colour_picture() -> None:
    mask = random_mask(20, 24, 0.4, 0)
    levels = torch.randint(0, 256, (1, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    operator = Inpainting(mask, (3, 20, 24))
    (step,) = OpenCVInpaint().run(None, Likelihood(operator, Gaussian(sigma=0.1), operator(levels / 255)), Rng([0]))
    picture = (levels[0] * mask).permute(1, 2, 0).numpy().astype(np.uint8)
    expected = cv2.inpaint(picture, (~mask).numpy().astype(np.uint8), 3, cv2.INPAINT_TELEA)
    assert np.allclose(step.x0[0].permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)


@pytest.mark.parametrize("algorithm", ["telea", "ns"])
def test_defective_pixels_are_filled_as_holes_are(algorithm: str) -> None:
    spec = DefectsSpec(dead=0.05, hot=0.1, columns=1)
    method = {"kind": "opencv-inpaint", "algorithm": algorithm}
    recipe = Recipe.model_validate({"operator": spec, "method": method, "model": {"kind": "none"}})
    assert recipe.problems(AssetStore()) == []
    pipeline = Pipeline.load(recipe)
    measurement = pipeline.simulate(Rng([0]).rand((3, 20, 24))[0])
    found = pipeline.run(measurement).samples
    # hot pixels are white in the picture, and OpenCV would let that shine through
    held = measurement.likelihood
    plain = Inpainting(spec.build((3, 20, 24)).mask, (3, 20, 24))
    (step,) = recipe.method.run(None, Likelihood(plain, held.noise, held.y), Rng([0]))
    assert torch.equal(found, step.x0)
