"""What a bridge is trained on: pairs made by our own operators on the fly, at random times of its path.

Loaded only where a recipe asks for a bridge: it needs the operators, and with them all that the package needs.
"""

import contextlib
import math
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from operators.base import Operator
from operators.errors import PreimageError
from operators.likelihood import Likelihood
from operators.noise import Noise
from operators.rng import Rng
from restoration.bridge import CLOCK_GAP, Bridge, BridgeSpec, measured, pair, start, step, target
from restoration.nets.unet import ResidualUNet
from restoration.train.degradations import real_world

# Operators drawn for a batch at most: building one takes some 10 ms, which a GPU would wait for.
DRAWS = 8


class BridgeTraining(BridgeSpec):
    """The `bridge` of a training recipe: what the card of the asset will say, and how its network is trained."""

    loss: Annotated[Literal["mse", "l1"], Field(description="mse tends to the conditional mean, l1 to the median.")] = (
        "mse"
    )


class Bridging:
    """The objective of a bridge: regression of its target at x_t, t uniform over the path.

    Source: Liu et al. 2023 (I2SB), Algorithm 1; the others are the same with their own path and target.
    Deviations: the degraded image is the operator's guess from simulated data, for every path.
    """

    def __init__(self, values: dict[str, Any], image_channels: int, crop: int) -> None:
        try:
            self.spec = BridgeTraining.model_validate(values)
            shape = (image_channels, crop, crop)
            # what never varies is built once
            self._fixed: dict[int, tuple[Operator, Noise]] = {
                k: (t.operator.build(shape), t.noise) for k, t in enumerate(self.spec.tasks) if not t.ranges
            }
            for task in range(len(self.spec.tasks)):
                self.degraded(torch.zeros(1, *shape), np.random.default_rng(0), task)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
            raise ValueError(f"Expected a bridge in the recipe, got {faults}; correct these fields.") from error
        except PreimageError as error:
            raise ValueError(str(error)) from error
        self.channels = image_channels

    def net(self, channels: tuple[int, ...], blocks: int, embedding: int) -> ResidualUNet:
        """A fresh network that takes and answers what this bridge needs."""
        seen = self.spec.seen_channels(self.channels)
        out = 2 * self.channels if self.spec.predicts == "residual-noise" else self.channels
        return ResidualUNet(channels, blocks, embedding, self.channels, seen, out)

    def drawn(self, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Degraded images of tasks drawn at random, each equally often, what of them was measured, and the tasks.

        Shapes: x (B, C, H, W) → the same, (B, 1, H, W) and (B,).
        """
        parts = x.split(math.ceil(len(x) / DRAWS))
        tasks = [int(k) for k in rng.integers(len(self.spec.tasks), size=len(parts))]
        made = [self.degraded(part, rng, task) for part, task in zip(parts, tasks, strict=True)]
        each = torch.tensor([task for part, task in zip(parts, tasks, strict=True) for _ in part])
        return torch.cat([y for y, _ in made]), torch.cat([holes for _, holes in made]), each

    def degraded(self, x: Tensor, rng: np.random.Generator, task: int = 0) -> tuple[Tensor, Tensor]:
        """The degraded images that runs of a task start from, `Operator.guess` of simulated data; what was measured.

        One operator for all of them, drawn from the task's ranges.

        Shapes: x (B, C, H, W) → the same and (B, 1, H, W).   Units: [-1, 1], and shares.
        """
        one, shape, clean = self.spec.tasks[task], tuple(x.shape[1:]), (x + 1) / 2
        fixed = self._fixed.get(task)
        if fixed is None or fixed[0].in_shape != shape:
            spec, law = one.draw(rng)
            fixed = spec.build(shape), law
        operator, noise = fixed[0].to(x.device), fixed[1]
        told = one.operator.build(shape).to(x.device) if one.blind and one.ranges else operator
        with torch.no_grad():
            if one.made_by == "real-world":
                y = real_world(clean, x.shape[-1] // operator.out_shape[-1], rng)
            else:
                seeds = [int(s) for s in rng.integers(2**63 - 1, size=len(x))]
                y = Likelihood.simulate(operator, noise, clean, Rng(seeds, device=x.device)).y
            return 2 * told.guess(y) - 1, measured(told, y).expand(len(x), -1, -1, -1)

    def loss(
        self,
        net: nn.Module,
        x: Tensor,
        rng: np.random.Generator,
        generator: torch.Generator,
        autocast: contextlib.AbstractContextManager[Any],
        layout: torch.memory_format,
    ) -> Tensor:
        """Mean error of the network's answer for clean images x (B, C, H, W) on [-1, 1]."""
        y, holes, tasks = self.drawn(x, rng)
        bridge = self.bridge(net, tasks, layout, holes)
        t = torch.from_numpy(rng.integers(1, bridge.table.last + 1, len(x)))
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        state = pair(bridge.table, x, y, t, noise)
        wanted = target(bridge.table, bridge.predicts, state, x, y, t, noise)
        with autocast:
            answer = bridge.answer(state, t, y)
        return F.mse_loss(answer.float(), wanted) if self.spec.loss == "mse" else F.l1_loss(answer.float(), wanted)

    def bridge(
        self,
        net: nn.Module,
        tasks: Tensor | int = 0,
        layout: torch.memory_format = torch.contiguous_format,
        holes: Tensor | None = None,
    ) -> Bridge:
        """The bridge with this network, as it is at the moment, for one task or one for each image, (B,).

        Where it sees holes, `holes` are those of the images, (B, 1, H, W).
        """
        told = CLOCK_GAP * torch.as_tensor(tasks)

        def laid(both: Tensor, clock: Tensor) -> Tensor:
            answer: Tensor = net(both.contiguous(memory_format=layout), clock + told.to(clock))
            return answer

        shape = (self.channels, None, None)
        bridge = Bridge(laid, self.spec.path, self.spec.predicts, shape, sees_start=self.spec.sees_start)
        bridge.holes = holes if self.spec.sees_holes else None
        return bridge

    def validation(self, images: Tensor) -> "BridgeValidation":
        """Figures on these images, (N, C, H, W) on [-1, 1], always with the same data and noise."""
        return BridgeValidation(self, images)


class BridgeValidation:
    """PSNR (dB, on [0, 1]) of the degraded images, of one step (regression) and of the path's own sampler."""

    def __init__(self, objective: Bridging, images: Tensor) -> None:
        self.objective, self.images = objective, images
        rng = np.random.default_rng(20260101)
        # an operator of its own for each image: a mean over the ranges, not one draw of them
        self.degraded: list[tuple[Tensor, Tensor]] = []
        for task in range(len(objective.spec.tasks)):
            made = [objective.degraded(x[None], rng, task) for x in images]
            self.degraded.append((torch.cat([y for y, _ in made]), torch.cat([holes for _, holes in made])))

    @torch.no_grad()
    def run(
        self, net: nn.Module, device: torch.device, autocast: contextlib.AbstractContextManager[Any]
    ) -> dict[str, float]:
        """Keys `psnr_start`, `psnr_1` and `psnr_sample`; with several tasks `psnr_1.0` and so on."""
        found = {}
        for task, (degraded, holes) in enumerate(self.degraded):
            ending = f".{task}" if len(self.degraded) > 1 else ""
            found[f"psnr_start{ending}"] = _psnr(degraded, self.images)
            for name, steps in (("psnr_1", 1), ("psnr_sample", None)):
                done = []
                for k, (y, of) in enumerate(zip(degraded.split(8), holes.split(8), strict=True)):
                    bridge = self.objective.bridge(net, task, holes=of.to(device))
                    table, eta, times = bridge.walk(steps, None)
                    y, rng = y.to(device), Rng(range(8 * k, 8 * k + len(y)), device=device)
                    x = start(table, y, rng)
                    for t, to in times:
                        with autocast:
                            x0, ahead = bridge(x, torch.full((len(x),), t), y)
                        x = step(table, t, to, x, x0.float(), ahead.float(), eta, rng)
                    done.append(x.cpu())
                found[f"{name}{ending}"] = _psnr(torch.cat(done), self.images)
        return found


def _psnr(x: Tensor, truth: Tensor) -> float:
    errors = (x.clamp(-1, 1) - truth).square().mean(dim=(1, 2, 3))
    return float((10 * (4 / errors.clamp(min=1e-12)).log10()).mean())
