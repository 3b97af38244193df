"""Every noise law in a recipe: simulated, judged beforehand, and followed by methods that need no more than a slope."""

import pytest
import torch

from operators import (
    AnyNoise,
    BlurSpec,
    Gaussian,
    InpaintingSpec,
    Likelihood,
    LowDose,
    Noise,
    PoissonGaussian,
    Quantised,
    Rician,
    Rng,
    SaltPepper,
    Speckle,
    Uniform,
    kinds,
)
from operators.errors import NeedError
from operators.kernels import DiskKernel
from operators.masks import RandomMask
from restoration.analytic import PowerLawPrior
from restoration.assets import AssetStore
from restoration.draws import Langevin
from restoration.methods.daps import DAPS
from restoration.methods.dps import DPS, LikelihoodGuidance
from restoration.methods.wiener import Wiener
from restoration.pipeline import Pipeline
from restoration.prior import Prior
from restoration.recipe import PowerLaw, Recipe
from restoration.schedule import Karras

SHAPE = (3, 16, 16)
KINDS = list(kinds(AnyNoise).values())
# DPS's literal likelihood step is stable where the noise is large or the steps are fine: noisy settings, then
NOISY: dict[str, Noise] = {
    "gaussian": Gaussian(sigma=0.2),
    "poisson-gaussian": PoissonGaussian(peak=30, sigma=0.1),
    "rician": Rician(sigma=0.2),
    "speckle": Speckle(looks=2),
    "quantised": Quantised(step=0.25, sigma=0.2),
    "uniform": Uniform(half_width=0.2, sigma=0.1),
    "salt-pepper": SaltPepper(fraction=0.1, sigma=0.2),
    "low-dose": LowDose(photons=40, electronic=1),
}


def noisy(kind: type[Noise]) -> Noise:
    plain = kind()
    return NOISY.get(plain.kind, plain)


def test_a_recipe_says_which_laws_a_method_takes() -> None:
    for kind in KINDS:
        values = {"operator": {"kind": "identity"}, "noise": {"kind": kind().kind}}
        for method in ("diffpir", "daps", "wiener", "tv"):
            problems = Recipe.model_validate({**values, "method": {"kind": method}}).problems(AssetStore())
            assert any("Gaussian noise" in p for p in problems) == (kind is not Gaussian)
        for method in ({"kind": "dps"}, {"kind": "daps", "inner": {"kind": "langevin"}}):
            assert Recipe.model_validate({**values, "method": method}).problems(AssetStore()) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_methods_for_white_gaussian_noise_refuse_the_others_in_a_sentence(kind: type[Noise]) -> None:
    operator = BlurSpec(kernel=DiskKernel(size=3, radius=1.2)).build(SHAPE)
    held = Likelihood(operator, kind(), torch.rand(1, *SHAPE))
    if kind is Gaussian:
        assert held.prox(torch.zeros(1, *SHAPE), 0.1).isfinite().all()
        return
    with pytest.raises(NeedError, match=f"Gaussian noise for its proximal step, got {kind().kind}"):
        held.prox(torch.zeros(1, *SHAPE), 0.1)
    with pytest.raises(NeedError, match=r"Gaussian noise"):
        held.draw(torch.zeros(1, *SHAPE), 0.1, Rng([0]))
    with pytest.raises(NeedError, match="Gaussian noise for Wiener"):
        next(Wiener().run(None, held, Rng([0])))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("holes", [False, True])
def test_dps_follows_every_law(kind: type[Noise], holes: bool) -> None:
    noise = noisy(kind)
    spec = InpaintingSpec(mask=RandomMask(fraction=0.3)) if holes else BlurSpec(kernel=DiskKernel(size=3, radius=1.2))
    operator = spec.build(SHAPE)
    prior = Prior(PowerLawPrior(0.5, 0.15, 1.2))
    truth = (0.5 + 0.3 * torch.sin(torch.arange(16) / 3)).expand(1, *SHAPE).contiguous()
    held = Likelihood(operator, noise, noise.sample(operator(truth), Rng([7]).child("measurement")))
    schedule = Karras(steps=30, sigma_max=1, sigma_min=0.02)
    seeds = [0, 1]

    def last(weight: float) -> torch.Tensor:
        method = DPS(schedule=schedule, guidance=LikelihoodGuidance(weight=weight))
        *_, step = method.run(prior, held, Rng(seeds))
        assert step.x.isfinite().all()
        return step.x

    sample, unguided = last(0.3), last(1e-9)
    assert bool((held.log_prob(sample) > held.log_prob(unguided)).all())
    assert bool(((sample - truth).square().mean((1, 2, 3)) < (unguided - truth).square().mean((1, 2, 3))).all())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_langevin_daps_follows_every_law(kind: type[Noise]) -> None:
    noise = noisy(kind)
    operator = BlurSpec(kernel=DiskKernel(size=3, radius=1.2)).build(SHAPE)
    truth = (0.5 + 0.3 * torch.sin(torch.arange(16) / 3)).expand(1, *SHAPE).contiguous()
    held = Likelihood(operator, noise, noise.sample(operator(truth), Rng([7])))
    method = DAPS(schedule=Karras(steps=8), inner=Langevin(steps=6, rate=1e-4), shed=False)
    ends = []
    for likelihood in (held, Likelihood(operator, Gaussian(sigma=10), held.y)):  # the second says next to nothing
        *_, step = method.run(Prior(PowerLawPrior(0.5, 0.15, 1.2)), likelihood, Rng([0, 1]))
        ends.append(step.x0)
    assert ends[0].isfinite().all()
    assert bool((held.log_prob(ends[0]) > held.log_prob(ends[1])).all())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_recipe_with_any_law_runs_and_reports(kind: type[Noise]) -> None:
    recipe = Recipe(
        operator=BlurSpec(kernel=DiskKernel(size=3, radius=1.2)),
        noise=noisy(kind),
        model=PowerLaw(std=0.15),
        method=DPS(schedule=Karras(steps=5, sigma_max=0.5, sigma_min=0.05), guidance=LikelihoodGuidance(weight=0.05)),
        seeds=(3, 4),
    )
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    pipeline = Pipeline.load(recipe)
    measurement = pipeline.simulate(torch.full(SHAPE, 0.5))
    result = pipeline.run(measurement)
    assert result.samples.shape == (2, *SHAPE)
    assert 0 < result.report.residual_sigma < 20
    truth = float(measurement.likelihood.residual_sigma(torch.full((1, *SHAPE), 0.5)))
    assert truth == pytest.approx(1, abs=0.15)  # the truth explains the data
