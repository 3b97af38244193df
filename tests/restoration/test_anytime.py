"""Any method can be stopped after any step, and what it has by then is an image."""

from typing import Any

import pytest
import torch

from operators import Inpainting, Rng
from operators.spec import kinds
from restoration.method import Method
from restoration.recipe import AnyMethod
from tests.oracle import MASK, Conjugate

SHAPE = (3, 4, 4)
SMALLER: dict[str, dict[str, Any]] = {
    "pnp-dm": {"hold": 3, "reverse_steps": 4},
    "mcg-diff": {"particles": 4},
    "best-of": {"method": {"kind": "dps", "schedule": {"kind": "karras", "steps": 6}}},
    "tv": {"iterations": 40},
}


def short(kind: type) -> Method:
    """A method at its defaults, with six levels where it has any."""
    fields = kind.model_fields  # type: ignore[attr-defined]
    tag = fields["kind"].default
    values: dict[str, Any] = {name: v for name, v in SMALLER.get(tag, {}).items() if name in fields}
    if "schedule" in fields:
        values["schedule"] = {"kind": "karras", "steps": 20 if tag == "daps" else 6}
    made: Method = kind.model_validate(values)  # type: ignore[attr-defined]
    return made


def world() -> Conjugate:
    return Conjugate.make(Inpainting(MASK, SHAPE), sigma=0.05)


def fits(method: Method) -> bool:
    w = world()
    return method.needs <= w.likelihood.operator.offers | w.likelihood.noise.offers | w.prior.denoiser.offers


TAGS = [tag for tag, kind in kinds(AnyMethod).items() if fits(short(kind))]


def test_nearly_all_methods_are_asked() -> None:
    """All but those for operators with something unknown in them."""
    assert {"diffpir", "daps", "dps", "pnp-flow", "rad", "best-of", "tv", "direct"} <= set(TAGS)


@pytest.mark.parametrize("tag", TAGS)
def test_every_step_is_worth_stopping_at(tag: str) -> None:
    """The clean estimate is finite, of the result's shape, stays as it was given, and is no noisier than a picture."""
    w, method = world(), short(kinds(AnyMethod)[tag])
    given, kept = [], []
    for step in method.run(w.prior, w.likelihood, Rng([0, 3], dtype=torch.float64)):
        assert step.x0.isfinite().all()
        given.append(step.x0)
        kept.append(step.x0.clone())
        off = (step.x0 - w.truth).square().mean().sqrt()
        # Grey alone is off by 0.25, the spread of the prior; the noise of the first levels is 1.5. DAPS shows its draw,
        # which in the holes has a noise of half a level.
        assert off < 0.75
    assert all(x0.shape == given[-1].shape for x0 in given)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
    final = (given[-1] - w.truth).square().mean().sqrt()
    assert final < 0.35


@pytest.mark.parametrize("tag", TAGS)
def test_a_run_that_is_closed_early_leaves_what_it_gave(tag: str) -> None:
    """Nor does looking change it: a run stopped after k steps gave the first k of the whole run."""
    method, steps = short(kinds(AnyMethod)[tag]), []
    for stop in (2, 1000):
        w = world()
        run, seen = method.run(w.prior, w.likelihood, Rng([0], dtype=torch.float64)), []
        for step in run:
            seen.append(step)
            if len(seen) == stop:
                run.close()  # type: ignore[attr-defined]  # they are generators
                break
        steps.append(seen)
    for early, whole in zip(*steps, strict=False):
        assert torch.equal(early.x0, whole.x0)
        assert (early.index, early.total) == (whole.index, whole.total)
