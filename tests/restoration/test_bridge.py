"""Bridges: published tables and posteriors, and laws on Gaussian problems where everything is known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from operators import CircularBlur, Gaussian, Identity, Inpainting, Jpeg, Likelihood, Rng
from operators.errors import NeedError, RecipeError
from operators.kernels import gaussian_kernel
from restoration.bridge import BilledBridge, Bridge, Predicts, pair, start, step, target, weights
from restoration.bridge_paths import I2SB, IRSDE, RDBM, RDDM, InDI, Path, Resfusion, ResShift
from restoration.convert import cosine_betas
from restoration.methods.cddb import CDDB
from restoration.methods.direct_bridge import DirectBridge
from restoration.prior import Prior
from tests.oracle import MASK, SMALL, Conjugate, Law, assert_covariance, assert_law, world

PATHS: list[Path] = [
    I2SB(), I2SB(ode=True, beta_max=1.0), I2SB(steps=7), InDI(), InDI(epsilon=0.1, steps=20), IRSDE(), RDBM(),
    RDBM(lam=0.1, steps=10), ResShift(), ResShift(steps=15, first=0.04), Resfusion(), Resfusion(steps=100), RDDM(),
    RDDM(total=1.0, steps=30), RDDM(total=0.0, steps=30),
]  # fmt: skip


def names(path: Path) -> str:
    return f"{path.kind}-{path.table.last}-{path.table.noise:g}"


class Oracle(nn.Module):
    """A network that knows the truth: E[x0 | x_t, y] for x0 given y ~ N(mean, covariance), (n,) and (n, n)."""

    def __init__(self, path: Path, mean: Tensor, covariance: Tensor, shape: tuple[int, ...] = SMALL) -> None:
        super().__init__()
        self.path, self.mean, self.covariance, self.shape = path, mean, covariance, shape

    def gains(self, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """H and h of E[x0 | x_t, y] = H x_t + h."""
        table, one = self.path.table, torch.eye(len(self.mean)).double()
        a, b, s = float(table.a[t]), float(table.b[t]), table.noise * float(table.s[t])
        if abs(a) < 1e-12:
            return torch.zeros_like(one), self.mean
        gain = a * self.covariance @ torch.linalg.inv(a**2 * self.covariance + s**2 * one)
        return gain, self.mean - gain @ (b * y + a * self.mean)

    def forward(self, both: Tensor, clock: Tensor) -> Tensor:
        x, y = both.chunk(2, 1)
        t, table = round(float(clock[0]) * self.path.table.last), self.path.table
        x = x if table.scale is None else x / table.scale[t]
        gain, constant = self.gains(t, y[0].flatten())
        return (x.flatten(1) @ gain.T + constant).view_as(x)

    def billed(self) -> BilledBridge:
        return BilledBridge(Bridge(self, self.path, "x0", self.shape))


def oracle(path: Path, w: Conjugate) -> Oracle:
    """The exact conditional mean of a world whose start tells all that its data tell; on [-1, 1]."""
    return Oracle(path, 2 * w.posterior_mean - 1, 4 * w.posterior_covariance, w.likelihood.operator.in_shape)


def law(net: Oracle, w: Conjugate, method: DirectBridge | CDDB) -> tuple[Law, Tensor]:
    """The law of the result in unit range, by affine steps, and the operator's matrix."""
    y = (2 * w.likelihood.guess() - 1).flatten()
    table, eta, times = net.billed().bridge.walk(method.steps, method.eta)
    one, normal = torch.eye(len(y)).double(), w.matrix.T @ w.matrix
    spread = table.noise * float(table.s[-1])
    now = Law(float(table.a[-1] + table.b[-1]) * y, spread**2 * one)
    rate = method.rate / float(torch.linalg.eigvalsh(normal)[-1]) if isinstance(method, CDDB) else 0.0
    pull = 2 * w.matrix.T @ w.data - normal.sum(1)
    for t, to in times:
        kept, fresh = table.carry(t, to, eta)
        a, b, a_to, b_to = (float(v) for v in (table.a[t], table.b[t], table.a[to], table.b[to]))
        gain, constant = net.gains(t, y)
        matrix, shift, late, later = gain, constant, 0 * gain, 0 * constant
        if isinstance(method, CDDB) and method.form == "shallow":
            matrix, shift = gain - rate * normal @ gain, constant - rate * (normal @ constant - pull)
        elif isinstance(method, CDDB):
            late, later = rate * gain.T @ normal @ gain, rate * gain.T @ (normal @ constant - pull)
        share = a_to - kept * a
        now = now.step(
            share * matrix + kept * one - late, share * shift + (b_to - kept * b) * y - later, fresh**2 * one
        )
    return Law((now.mean + 1) / 2, now.covariance / 4), w.matrix


def run(method: DirectBridge | CDDB, model: BilledBridge, likelihood: Likelihood, seeds: int) -> Tensor:
    *_, last = method.run(model, likelihood, Rng(range(seeds), dtype=torch.float64))
    return last.x0


# Tables


def test_i2sb_has_the_released_levels() -> None:
    for beta_max, total, sigmas, peak in (
        (0.3, 0.14103, (0.0100, 0.17315, 0.26554, 0.37554), 0.18789),
        (1.0, 0.24693, (0.0100, 0.20282, 0.35138, 0.49692), 0.24868),
    ):
        table = I2SB(beta_max=beta_max).table
        assert table.displacement is not None
        sigma = table.displacement[1:]
        assert sigma[-1] ** 2 == pytest.approx(total, abs=6e-6)
        assert sigma[[0, 250, 499, 999]] == pytest.approx(sigmas, abs=6e-6)
        # The released kernel counts each beta on both sides; ours is pinned.
        betas = np.diff(table.displacement**2)
        other = sigma[-1] ** 2 - sigma**2 + betas
        assert np.sqrt(sigma**2 * other / (sigma**2 + other)).max() == pytest.approx(peak, abs=6e-6)
        assert table.s.max() == pytest.approx(peak, rel=1e-3)


def test_resshift_has_the_published_tables() -> None:
    table = ResShift().table
    root = table.s[1:] / 2
    assert root == pytest.approx([0.1, 0.520096, 0.761382, 0.99], abs=1e-6)
    assert table.scale is not None
    assert 1 / table.scale[1:] == pytest.approx([1.0198, 1.44291, 1.82176, 2.2182], abs=1e-5)
    carried = [table.carry(t, t - 1) for t in range(1, 5)]
    assert [r for r, _ in carried] == pytest.approx([0, 0.036969, 0.466619, 0.591473], abs=1e-6)
    assert [c**2 for _, c in carried] == pytest.approx([0, 0.038521, 0.577119, 0.947297], abs=1e-6)
    table = ResShift(steps=15, first=0.04).table
    assert table.s[1:] / 2 == pytest.approx(
        [0.02, 0.117165, 0.176305, 0.233629, 0.291574, 0.351009, 0.412356, 0.475858, 0.541672, 0.60991, 0.680658,
         0.753985, 0.829951, 0.908606, 0.99], abs=1e-6,
    )  # fmt: skip
    assert [table.carry(t, t - 1)[1] ** 2 for t in range(1, 16)] == pytest.approx(
        [0, 0.001553, 0.03066, 0.053529, 0.078156, 0.105413, 0.13573, 0.169415, 0.206732, 0.247927, 0.293244,
         0.342927, 0.397223, 0.456386, 0.520675], abs=1e-6,
    )  # fmt: skip


def test_resfusion_has_the_published_tables() -> None:
    table = Resfusion().table
    assert table.b == pytest.approx(1 - np.array([1, 0.995825, 0.913182, 0.758629, 0.557163, 0.5]), abs=1e-6)
    assert table.a[-1] == 0
    assert table.b[-1] == 0.5
    assert table.resnoise is not None
    assert table.resnoise[1:] == pytest.approx([0.045739, 0.212598, 0.355877, 0.478774, 0.456427], abs=1e-6)
    fresh = [table.carry(t, t - 1)[1] ** 2 for t in range(1, 6)]
    assert fresh == pytest.approx([0, 0.00798, 0.12124, 0.28354, 0.17898], abs=6e-6)
    assert [Resfusion(steps=n).table.last for n in (25, 50, 100, 273)] == [10, 19, 37, 100]


def test_rdbm_and_ir_sde_have_the_released_levels() -> None:
    assert RDBM().table.a[[1, 11, 26, 51, 76, 91, 99]] == pytest.approx(
        [0.99937, 0.96678, 0.83630, 0.48179, 0.13914, 0.02313, 0.00089], abs=6e-6
    )
    assert RDBM().table.s.max() == pytest.approx(0.01, abs=1e-4)
    assert cosine_betas(100).sum() == pytest.approx(7.8789, abs=1e-4)
    table = IRSDE().table
    assert table.a[[1, 25, 50, 75, 100]] == pytest.approx([0.999824, 0.853089, 0.360822, 0.059236, 0.005], abs=1e-6)
    # published for images in [0, 1]
    assert table.s[[1, 25, 50, 75, 100]] / 2 == pytest.approx(
        [0.000737, 0.020461, 0.036574, 0.039147, 0.039215], abs=1e-6
    )


def test_rddm_shifts_by_falling_and_adds_noise_by_rising_shares() -> None:
    table = RDDM().table
    shift, noise = np.diff(table.b), np.diff(table.s**2)
    assert (np.diff(shift) < 0).all()
    assert (np.diff(noise) > 0).all()
    assert table.b[-1] == 1
    assert table.s[-1] ** 2 == pytest.approx(0.01)


# Steps


@pytest.mark.parametrize("path", PATHS, ids=names)
@pytest.mark.parametrize("eta", [1.0, 0.4, 0.0])
def test_steps_close_on_the_path(path: Path, eta: float) -> None:
    """r² s_t² + c² = s_u² for every pair, and with the true x0 the chain has the path's law and ends on x0."""
    table, g = path.table, torch.Generator().manual_seed(1)
    x0, y = torch.rand(2, 2, 1, 3, 3, generator=g).double()
    mean, variance = (table.a[-1] + table.b[-1]) * y, (table.noise * table.s[-1]) ** 2
    off = mean - table.a[-1] * x0 - table.b[-1] * y
    for t, to in table.times(9):
        kept, fresh = table.carry(t, to, eta)
        variance = kept**2 * variance + fresh**2
        off = kept * off
        assert variance == pytest.approx((table.noise * table.s[to]) ** 2, abs=1e-14)
    assert off.abs().max() == 0
    x = start(table, y, Rng([0, 1], dtype=torch.float64))
    for t, to in table.times(9):
        x = step(table, t, to, x, x0, y, eta, Rng([2, 3], dtype=torch.float64))
        if path.table.noise == 0:  # the deterministic path does not depend on the number of steps
            assert torch.allclose(x, table.a[to] * x0 + table.b[to] * y, atol=1e-12)
    assert torch.allclose(x, x0, atol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=names)
def test_posteriors_of_a_markov_path_compose(path: Path) -> None:
    """Two draws, t to u and u to v, have the law of one draw from t to v when x0 is known."""
    table = path.table
    (t, u), (_, v), *_ = table.times(5)
    if path.kind == "indi" or table.noise == 0:  # not a Markov path with noise: its posterior adds none
        assert table.carry(t, u)[1] == 0
        return
    (r1, c1), (r2, c2), (r, c) = table.carry(t, u), table.carry(u, v), table.carry(t, v)
    assert r2 * r1 == pytest.approx(r, abs=1e-12)
    assert r2**2 * c1**2 + c2**2 == pytest.approx(c**2, abs=1e-12)


def moved(path: Path, t: int, to: int, eta: float | None = None) -> tuple[float, float, float, float]:
    """Weights of x_t, x0 and y in the step, and its noise."""
    table = path.table
    r, c = table.carry(t, to, path.eta if eta is None else eta)
    return r, float(table.a[to] - r * table.a[t]), float(table.b[to] - r * table.b[t]), c


def test_steps_are_the_published_ones() -> None:
    # I2SB: a² = sigma_n² - sigma_m², weights a²/sigma_n² and sigma_m²/sigma_n², variance sigma_m² a²/sigma_n².
    table = I2SB().table
    assert table.displacement is not None
    n, m = (float(table.displacement[t]) ** 2 for t in (700, 300))
    assert moved(I2SB(), 700, 300) == pytest.approx((m / n, 1 - m / n, 0, math.sqrt(m * (n - m) / n)), abs=1e-12)
    assert moved(I2SB(ode=True), 700, 300) == pytest.approx((m / n, 1 - m / n, 0, 0), abs=1e-12)
    # from the pinned end as well, where x_t is y
    n = float(table.displacement[1000]) ** 2
    _, clean, degraded, fresh = moved(I2SB(), 1000, 300)
    assert (clean, degraded, fresh) == pytest.approx((1 - m / n, m / n, math.sqrt(m * (n - m) / n)), abs=1e-12)
    # InDI: delta/t F + (1 - delta/t) x
    assert moved(InDI(steps=10), 8, 5) == pytest.approx((5 / 8, 3 / 8, 0, 0), abs=1e-12)
    # ResShift, and SinSR's deterministic teacher: k x0 + m x + j y
    b, b_to = (float(ResShift().table.b[t]) for t in (3, 2))
    assert moved(ResShift(), 3, 2) == pytest.approx(
        (b_to / b, 1 - b_to / b, 0, 2 * math.sqrt(b_to * (b - b_to) / b)), abs=1e-12
    )
    m, j = math.sqrt(b_to / b), b_to - math.sqrt(b_to * b)
    assert moved(ResShift(), 3, 2, 0.0) == pytest.approx((m, 1 - m - j, j, 0), abs=1e-12)
    # IR-SDE: the optimal reverse step, and MRS
    table = IRSDE().table
    lam = 20 / 255
    now, then = float(table.a[60]), float(table.a[59])
    decay = now / then
    one, two = decay * (1 - then**2) / (1 - now**2), then * (1 - decay**2) / (1 - now**2)
    deviation = lam * math.sqrt((1 - decay**2) * (1 - then**2) / (1 - now**2))
    assert moved(IRSDE(), 60, 59, 1.0) == pytest.approx((one, two, 1 - one - two, deviation), abs=1e-12)
    assert one * now + two == pytest.approx(then)  # the weights close
    ratio = float(table.s[40] / table.s[60])
    clean = float(table.a[40]) - ratio * now
    assert moved(IRSDE(), 60, 40) == pytest.approx((ratio, clean, 1 - ratio - clean, 0), abs=1e-12)
    # RDBM: mu + Sigma'/Sigma (x - mu) + (Theta' - Theta Sigma'/Sigma)(x0 - mu)
    table = RDBM().table
    ratio = float(table.s[40] / table.s[60])
    clean = float(table.a[40] - table.a[60] * ratio)
    assert moved(RDBM(), 60, 40) == pytest.approx((ratio, clean, 1 - ratio - clean, 0), abs=1e-12)
    assert moved(RDBM(), 100, 40)[:2] == pytest.approx((0, float(table.a[40])), abs=1e-12)


def test_resfusion_is_ddpm_with_resnoise() -> None:
    """(x - beta/sqrt(1 - abar) r)/sqrt(alpha) for any answer r, and DDPM's posterior in u = x - R for the true one."""
    path, g = Resfusion(), torch.Generator().manual_seed(0)
    table = path.table
    x, y, answer = torch.randn(3, 1, 1, 4, 4, generator=g).double()
    bridge = Bridge(lambda both, clock: answer, path, "resnoise", (1, 4, 4))
    for t in range(2, 6):
        root = [float(1 - table.b[u]) for u in (t, t - 1)]
        alpha, spread = root[0] ** 2 / root[1] ** 2, math.sqrt(1 - root[0] ** 2)
        x0, ahead = bridge(x, torch.tensor([t]), y)
        got = step(table, t, t - 1, x, x0, ahead, 1.0, Rng([5], dtype=torch.float64))
        mean = (x - (1 - alpha) / spread * answer) / math.sqrt(alpha)
        noise = Rng([5], dtype=torch.float64).randn((1, 4, 4))
        fresh = math.sqrt((1 - alpha) * (1 - root[1] ** 2) / (1 - root[0] ** 2))
        assert torch.allclose(got, mean + fresh * noise, atol=1e-12)
    assert start(table, y, Rng([5], dtype=torch.float64)).sub(y / 2 + math.sqrt(0.75) * noise).abs().max() < 1e-12


def test_rddm_steps_by_residual_and_noise() -> None:
    """I' = I - (abar - abar') R - (bbar - bbar') e for any two answers."""
    path, g = RDDM(total=0.5), torch.Generator().manual_seed(0)
    table = path.table
    x, y, residual, noise = torch.randn(4, 2, 3, 4, 4, generator=g).double()
    bridge = Bridge(lambda both, clock: torch.cat([residual, noise], 1), path, "residual-noise", (3, 4, 4))
    for t, to in ((1000, 800), (800, 200), (200, 0)):
        x0, ahead = bridge(x, torch.tensor([t, t]), y)
        got = step(table, t, to, x, x0, ahead, 0.0, Rng([0, 1]))
        b, b_to, s, s_to = (float(v) for v in (table.b[t], table.b[to], table.s[t], table.s[to]))
        assert torch.allclose(got, x - (b - b_to) * residual - (s - s_to) * noise, atol=1e-12)


@pytest.mark.parametrize("total", [0.0, 0.3])
def test_rddm_by_the_residual_alone(total: float) -> None:
    """R decides the noise too, e = (I - y + (1 - abar) R)/bbar, or there is none; the end is y - R."""
    path, g = RDDM(total=total), torch.Generator().manual_seed(0)
    table = path.table
    x, y, *answers = torch.randn(5, 2, 3, 4, 4, generator=g).double()
    assert start(table, y, Rng([0, 1])).equal(y) is (total == 0)
    for (t, to), residual in zip(((1000, 800), (800, 200), (200, 0)), answers, strict=True):
        x0, ahead = Bridge(lambda both, clock, r=residual: r, path, "residual", (3, 4, 4))(x, torch.tensor([t, t]), y)
        got = step(table, t, to, x, x0, ahead, 0.0, Rng([0, 1]))
        b, b_to, s, s_to = (float(v) for v in (table.b[t], table.b[to], table.s[t], table.s[to]))
        noise = (x - y + (1 - b) * residual) / s if total else 0 * x
        x = x - (b - b_to) * residual - (s - s_to) * noise
        assert torch.allclose(got, x if to else y - residual, atol=1e-12)


# Targets


@pytest.mark.parametrize("path", [*PATHS, RDBM(modulated=True)], ids=names)
@pytest.mark.parametrize("predicts", ["x0", "residual", "epsilon", "displacement", "resnoise", "residual-noise"])
def test_a_network_that_answers_the_target_tells_the_clean_image(path: Path, predicts: Predicts) -> None:
    table, g = path.table, torch.Generator().manual_seed(2)
    told = {
        "x0": True, "residual": True, "displacement": path.kind == "i2sb", "resnoise": path.kind == "resfusion",
        "epsilon": path.kind in ("ir-sde", "resshift") or path == Resfusion(steps=100),
        "residual-noise": not table.modulated and table.noise == 1,
    }  # fmt: skip
    if not told[predicts]:
        with pytest.raises(RecipeError, match="predict x0"):
            weights(table, predicts)
        return
    x0, y, noise = torch.randn(3, 4, 2, 3, 3, generator=g).double()
    t = torch.tensor([1, 2, max(2, table.last // 2), table.last])
    x = pair(table, x0, y, t, noise)
    answer = target(table, predicts, x, x0, y, t, noise)
    seen: list[Tensor] = []

    def net(both: Tensor, clock: Tensor) -> Tensor:
        seen.extend((both, clock))
        return answer

    got, ahead = Bridge(net, path, predicts, (2, 3, 3))(x, t, y)
    assert torch.allclose(got, x0, atol=1e-9)
    assert torch.allclose(ahead, y, atol=1e-9)
    scale = torch.ones(4).double() if table.scale is None else torch.from_numpy(table.scale)[t]
    assert torch.allclose(seen[0], torch.cat([x * scale.view(-1, 1, 1, 1), y], 1))
    assert torch.allclose(seen[1], t.double() / table.last)
    if predicts == "epsilon":
        assert torch.allclose(answer, noise, atol=1e-9)
    if predicts == "resnoise" and table.resnoise is not None:
        weight = torch.from_numpy(table.resnoise)[t].view(-1, 1, 1, 1)
        assert torch.allclose(answer, noise + weight * (y - x0), atol=1e-9)
    if predicts == "displacement" and table.displacement is not None:
        sigma = torch.from_numpy(table.displacement)[t].view(-1, 1, 1, 1)
        assert torch.allclose(answer, (x - x0) / sigma)


def test_modulated_noise_leaves_undamaged_pixels_alone() -> None:
    table, g = RDBM(lam=0.05, modulated=True).table, torch.Generator().manual_seed(2)
    x0, y, noise = torch.randn(3, 1, 1, 4, 4, generator=g).double()
    y[..., :2] = x0[..., :2]
    x = pair(table, x0, y, torch.tensor([50]), noise)
    assert torch.allclose(x[..., :2], x0[..., :2])
    plain = RDBM(lam=0.05).table
    off = x - plain.a[50] * x0 - plain.b[50] * y
    assert torch.allclose(off, plain.s[50] * noise * (x0 - y))
    x = step(table, 100, 50, y, x0, y, 1.0, Rng([0], dtype=torch.float64))
    assert torch.allclose(x[..., :2], x0[..., :2])
    assert (x - plain.a[50] * x0 - plain.b[50] * y)[..., 2:].abs().min() > 1e-4


# Laws


@pytest.mark.parametrize("path", PATHS, ids=names)
def test_the_end_law_is_the_predicted_one(path: Path) -> None:
    w = world("correlated blur")
    net = oracle(path, w)
    method = DirectBridge(steps=6, eta=None if path.kind != "ir-sde" else 0.5)
    predicted, _ = law(net, w, method)
    random = float(predicted.covariance.diagonal().min()) > 1e-12
    samples = run(method, net.billed(), w.likelihood, 1000 if random else 2).flatten(1)
    if random:
        assert_law(samples, predicted.mean, predicted.covariance.diagonal())
        assert_covariance(samples, predicted.covariance)
    else:  # a deterministic bridge that sees y is the regression
        assert torch.allclose(samples, predicted.mean.expand_as(samples), atol=1e-9)
        assert torch.allclose(predicted.mean, w.posterior_mean, atol=1e-9)


@pytest.mark.parametrize("path", [I2SB(beta_max=1.0), IRSDE(lam=0.5, steps=1000), RDBM(lam=0.1, steps=1000)], ids=names)
def test_with_many_steps_the_end_law_is_the_posterior(path: Path) -> None:
    w = world("correlated blur")
    net, errors = oracle(path, w), []
    for steps in (125, 250, 500):
        found, _ = law(net, w, DirectBridge(steps=steps, eta=1.0))
        # next to nothing of the clean image is in the start of IR-SDE; the others start on y exactly
        assert torch.allclose(found.mean, w.posterior_mean, atol=2e-3)
        errors.append(float((found.covariance - w.posterior_covariance).norm() / w.posterior_covariance.norm()))
    assert errors[2] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.5)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("path", [I2SB(), ResShift(), Resfusion()], ids=names)
@pytest.mark.parametrize("form", ["shallow", "deep"])
@pytest.mark.parametrize("name", ["correlated inpainting", "correlated blur"])
def test_cddb_has_its_predicted_law(path: Path, form: Any, name: str) -> None:
    w = world(name)
    net = oracle(path, w)
    method = CDDB(form=form, rate=0.7, steps=5)
    predicted, _ = law(net, w, method)
    samples = run(method, net.billed(), w.likelihood, 1000).flatten(1)
    assert_law(samples, predicted.mean, predicted.covariance.diagonal())
    assert_covariance(samples, predicted.covariance)


def test_cddb_without_a_step_is_the_bridge_and_fits_an_image_at_once() -> None:
    w = world("correlated blur")
    model = oracle(I2SB(), w).billed()
    plain = run(DirectBridge(steps=5), model, w.likelihood, 3)
    for form in ("shallow", "deep"):
        assert torch.equal(run(CDDB(form=form, rate=0, steps=5), model, w.likelihood, 3), plain)  # type: ignore[arg-type]
    # A = I: x0 is replaced by y
    w = world("identity")
    got = run(CDDB(steps=5), oracle(I2SB(), w).billed(), w.likelihood, 3)
    assert torch.allclose(got, w.likelihood.y.expand_as(got), atol=1e-12)


@pytest.mark.parametrize(("form", "below"), [("shallow", 0.7), ("deep", 0.75), ("projection", 0.1)])
def test_cddb_pulls_a_bridge_to_data_of_another_blur(form: Any, below: float) -> None:
    """The bridge knows one width, the data have another: the residual falls beneath that of the bridge alone."""
    trained = world("correlated blur", sigma=0.02)
    net = oracle(I2SB(), trained)
    blur = CircularBlur(gaussian_kernel(5, 0.6), SMALL).double()
    data = Likelihood.simulate(blur, Gaussian(sigma=0.02), trained.truth, Rng([8], dtype=torch.float64))
    plain = data.residual_sigma(run(DirectBridge(steps=10), net.billed(), data, 8)).mean()
    held = data.residual_sigma(run(CDDB(form=form, steps=10), net.billed(), data, 8)).mean()
    assert plain > 1.5
    assert held < below * plain


@pytest.mark.parametrize("form", ["shallow", "projection"])
def test_cddb_keeps_known_pixels(form: Any) -> None:
    w = world("correlated inpainting")
    got = run(CDDB(form=form, steps=5), oracle(I2SB(), w).billed(), w.likelihood, 3)
    operator = w.likelihood.operator
    assert isinstance(operator, Inpainting)
    assert torch.allclose(operator(got), w.likelihood.y.expand_as(got), atol=1e-14)
    assert got[:, ~MASK[None]].std(0).min() > 0  # and draws the others


def test_cddb_projects_onto_the_cell_of_a_jpeg() -> None:
    operator = Jpeg((1, 16, 16), 10).double()
    x = Rng([3], dtype=torch.float64).rand((1, 16, 16))
    data = Likelihood(operator, Gaussian(sigma=0.02), operator(x))
    net = Oracle(I2SB(), torch.zeros(256).double(), 0.1 * torch.eye(256).double(), (1, 16, 16))
    plain = run(DirectBridge(steps=4), net.billed(), data, 2)
    held = run(CDDB(form="projection", steps=4), net.billed(), data, 2)
    assert (operator(plain) - data.y).abs().max() > 0.05
    assert (operator(held) - data.y).abs().max() < 1e-9
    with pytest.raises(NeedError, match="linear operator for CDDB"):
        run(CDDB(steps=4), net.billed(), data, 2)


# The protocol


def test_samples_do_not_depend_on_their_batch() -> None:
    w = world("correlated blur")
    model = oracle(ResShift(), w).billed()
    for method in (DirectBridge(), CDDB()):
        both = list(method.run(model, w.likelihood, Rng([4, 7], dtype=torch.float64)))
        alone = list(method.run(model, w.likelihood, Rng([7], dtype=torch.float64)))
        assert [s.index for s in both] == [1, 2, 3, 4]
        assert both[-1].sigma == 0
        assert torch.equal(both[-1].x, both[-1].x0)
        assert torch.allclose(both[-1].x0[1:], alone[-1].x0, atol=1e-12)


def test_calls_are_billed() -> None:
    w = world("correlated blur")
    model = oracle(I2SB(), w).billed()
    run(DirectBridge(), model, w.likelihood, 3)
    assert (model.cost.denoised, model.cost.pulled_back) == (30, 0)
    run(CDDB(form="deep", steps=2), model, w.likelihood, 3)
    assert (model.cost.denoised, model.cost.pulled_back) == (36, 6)
    assert model.cost.seconds > 0


def test_what_is_no_bridge_is_refused() -> None:
    w = world("identity")
    for method in (DirectBridge(), CDDB()):
        for prior in (None, Prior(w.prior.denoiser)):
            with pytest.raises(NeedError, match="bridge model"):
                next(iter(method.run(prior, w.likelihood, Rng([0]))))
    net = Oracle(I2SB(), torch.zeros(16).double(), torch.eye(16).double())
    data = Likelihood(_Bare().double(), Gaussian(sigma=0.1), torch.ones(1, *SMALL).double())
    with pytest.raises(NeedError, match="projections"):
        run(CDDB(form="projection"), net.billed(), data, 1)


class _Bare(Identity):
    """Identity that offers nothing."""

    offers = frozenset()

    def __init__(self) -> None:
        super().__init__(SMALL)
