"""Moment matching: guidance with the covariance that the denoiser's own derivative gives."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from operators.base import LinearOperator
from operators.likelihood import Likelihood
from operators.rng import Rng
from operators.solve import cg
from operators.spec import Need, Source
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import AnySchedule, Karras
from restoration.steps import ddim, linear_operator, noise_sigma, noisy_start, required


class MomentMatching(Method):
    """TMPD and moment-matching posterior sampling.

    Mean and covariance of x0 given x are both known from the denoiser: D and sigma² J with J = dD/dx (Tweedie's
    formula of first and second order). With the Gaussian of these moments,

        E[x0 | x, y] ≈ D + C A* (A C A* + sigma_y² I)⁻¹ (y - A D),   C = sigma² J,

    replaces D in the sampler. It is exact for every Gaussian prior, correlated or not, and every linear operator, so
    there the sampler is right up to its number of levels.

    `covariance` "full": the system is solved by conjugate gradients, one pullback an iteration (Rozet et al.).
    `covariance` "row-sums": A C A* is replaced by the diagonal of its row sums, A C A* 1, at one pullback; exact
    where A C A* is diagonal (Boys et al.).
    J is symmetric for a posterior mean; of a network, the transpose (vector-Jacobian product) is taken throughout.

    Source: Boys et al. 2024, TMPD (arXiv:2310.06721); Rozet et al. 2024, MMPS (arXiv:2405.13712).
    Deviations: conjugate gradients with a tolerance in place of one iteration of GMRES; row sums below zero count as
    zero; levels of EDM; the ancestral step for both.
    """

    kind: Literal["moment-matching"] = "moment-matching"
    title: ClassVar[str] = "Moment matching (TMPD, MMPS)"
    source: ClassVar[Source] = Source(
        paper="Boys et al., Tweedie Moment Projected Diffusions for Inverse Problems, TMLR 2024; Rozet et al., "
        "Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024",
        equation="the sections on TMPD and on moment-matching posterior sampling",
        arxiv="2310.06721; 2405.13712",
        code="bb515/tmpdjax; francois-rozet/diffusion-priors",
        licence="not checked",
    )

    schedule: Annotated[AnySchedule, Field(description="Noise levels.")] = Karras(steps=100, sigma_max=5)
    covariance: Annotated[
        Literal["full", "row-sums"], Field(description="Covariance of the estimate as the data see it.")
    ] = "full"
    iterations: Annotated[
        int, Field(ge=1, le=500, description="Most conjugate-gradient iterations, each a pullback (published: 1 to 3).")
    ] = 5
    tolerance: Annotated[
        float, Field(gt=0, lt=1, description="Relative residual at which conjugate gradients stop.")
    ] = 1e-3
    eta: Annotated[float, Field(ge=0, le=1, description="0 follows the flow, 1 is the ancestral step.")] = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DENOISER, Need.VJP, Need.LINEAR, Need.GAUSSIAN})

    def check(self, trained: tuple[float, float]) -> None:
        self.schedule.sigmas(trained)

    @torch.no_grad()
    def run(self, prior: Prior | None, likelihood: Likelihood, rng: Rng) -> Iterator[Step]:
        """One network call a level, and two pullbacks ("row-sums") or one more than iterations ("full")."""
        prior = required(prior, self)
        operator, sigma_y = linear_operator(likelihood, self), noise_sigma(likelihood, self)
        sigmas = self.schedule.sigmas(prior.denoiser.sigma_range)
        x = noisy_start(likelihood, sigmas[0], rng)
        for i, (now, then) in enumerate(pairwise([*sigmas, 0.0]), 1):
            x0, pullback = prior.denoise_vjp(x, now, keep=True)
            weights = self._solve(operator, pullback, now, sigma_y, likelihood.y - operator(x0))
            x0 = x0 + now**2 * pullback(operator.adjoint(weights))
            del pullback  # and with it the network's activations, before the next level makes its own
            x = ddim(x, x0, now, then, self.eta, rng)
            yield Step(i, len(sigmas), then, x, x0)

    def _solve(
        self,
        operator: LinearOperator,
        pullback: Callable[[Tensor], Tensor],
        now: float,
        sigma_y: float,
        misfit: Tensor,
    ) -> Tensor:
        """(A C A* + sigma_y² I)⁻¹ misfit."""

        def seen(v: Tensor) -> Tensor:
            return now**2 * operator(pullback(operator.adjoint(v)))

        if self.covariance == "full":
            return cg(lambda v: seen(v) + sigma_y**2 * v, misfit, tol=self.tolerance, max_iter=self.iterations)
        if misfit.is_complex():
            # Real and imaginary parts are components of their own.
            sums = torch.view_as_real(seen(torch.full_like(misfit, 1 + 1j))).clamp_min(0)
            return torch.view_as_complex(torch.view_as_real(misfit) / (sums + sigma_y**2))
        return misfit / (seen(torch.ones_like(misfit)).clamp_min(0) + sigma_y**2)
