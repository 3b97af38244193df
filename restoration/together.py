"""Several measurements of one kind through one network call."""

from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import Tensor

from operators.errors import NeedError
from operators.likelihood import Likelihood
from restoration.method import Step
from restoration.pipeline import Pipeline, Progress
from restoration.prior import Cost
from restoration.result import Measurement


def run_together(
    pipeline: Pipeline,
    measurements: Sequence[Measurement],
    size: int,
    cost: Cost,
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Tensor] | None:
    """The samples of at most `size` measurements with equal operators, all samples of all of them in one batch.

    The batch always has `size` places; empty ones repeat the last measurement. Libraries choose their kernels by the
    size of a batch, so samples may differ in the last bits from those of `Pipeline.run`, but they do not depend on
    which measurements were together, or in which order.

    Shapes: data (1, *out_shape) each → samples (n, C, H, W) each, n the number of the recipe's seeds.

    Args:
        pipeline: the recipe's.
        measurements: with operators of one description and shape.
        size: places in the batch.
        cost: billed for all places.
        watch: sees every step; the samples of measurement i are x0[i * n : (i + 1) * n].
        stop: asked at every step.

    Returns:
        None if it was stopped.
    """
    if not 1 <= len(measurements) <= size:
        raise NeedError(f"Expected 1 to {size} measurements, got {len(measurements)}; split them.")
    seeds, likelihood = pipeline.recipe.seeds, measurements[0].likelihood
    padded = [*measurements, *[measurements[-1]] * (size - len(measurements))]
    y = torch.cat([m.likelihood.y.expand(len(seeds), *m.likelihood.y.shape[1:]) for m in padded])
    joint = Measurement(Likelihood(likelihood.operator, likelihood.noise, y), None)
    last: Step | None = None
    with closing(pipeline.steps(joint, seeds * size, cost)) as steps:
        for last in steps:
            if watch is not None:
                watch(Progress(last, last.index, last.total))
            if stop is not None and stop() and last.index < last.total:
                return None
    if last is None:
        raise NeedError(f"Expected at least one step from {type(pipeline.recipe.method).__name__}, got none.")
    return [part.clone() for part in last.x0.split(len(seeds))[: len(measurements)]]
