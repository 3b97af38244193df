"""SeqDiff: images of a sequence, each begun where the one before it ended."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from operators.errors import RecipeError
from operators.likelihood import Likelihood
from operators.rng import Rng
from restoration.best_of import BestOf
from restoration.method import Method, Step
from restoration.prior import Prior
from restoration.schedule import Schedule, Tail


def sequence(
    method: Method, prior: Prior, likelihoods: Iterable[Likelihood], rng: Rng, *, level: float
) -> Iterator[tuple[int, Step]]:
    """The number of the image and the method's steps, for one image of a sequence (video, slices) after another.

    The first runs through all levels of the method. Each later one starts from the last result plus noise of the
    highest level at or below `level` and runs through the levels from there on. `level`, in unit range, should be no
    less than what images differ by from one to the next, or what moved stays where it was.

    Sample k continues sample k. Image number f draws from the child stream "frame f".

    Raises:
        RecipeError: the method has no noise levels, or fewer than two at or below `level`.

    Source: Stevens et al. 2025, SeqDiff (arXiv:2409.05399). Deviations: any method, not DPS alone; no transition model.
    """
    later = from_level(method, level)
    later.check(prior.denoiser.sigma_range)
    last: Step | None = None
    for frame, likelihood in enumerate(likelihoods):
        now = likelihood if last is None else replace(likelihood, start=last.x0)
        for last in (method if frame == 0 else later).run(prior, now, rng.child(f"frame {frame}")):
            yield frame, last


def from_level(method: Method, level: float) -> Method:
    """The method with its noise levels from `level` down.

    Raises:
        RecipeError: the method has none.
    """
    if isinstance(method, BestOf):
        return method.model_copy(update={"method": from_level(method.method, level)})
    schedule = getattr(method, "schedule", None)
    if not isinstance(schedule, Schedule):
        raise RecipeError(f"Expected a method with noise levels, got {type(method).__name__}; use DiffPIR or DAPS.")
    if isinstance(schedule, Tail):
        return method.model_copy(update={"schedule": Tail(of=schedule.of, top=min(level, schedule.top))})
    return method.model_copy(update={"schedule": Tail(of=schedule, top=level)})
