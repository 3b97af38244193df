"""What a method costs: network calls and pullbacks, known before anything runs."""

from dataclasses import dataclass
from itertools import pairwise

from restoration.alternating import Alternating
from restoration.assets import AssetStore
from restoration.best_of import BestOf
from restoration.method import Method
from restoration.methods.blind_dps import BlindDPS
from restoration.methods.cddb import CDDB
from restoration.methods.daps import DAPS
from restoration.methods.ddnm import DDNM
from restoration.methods.direct_bridge import DirectBridge
from restoration.methods.dps import DPS
from restoration.methods.lgd import LGD
from restoration.methods.mcg import MCG
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.moment_matching import MomentMatching
from restoration.methods.pigdm import PiGDM
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.pnp_flow import PnPFlow
from restoration.methods.sitcom import SITCOM
from restoration.recipe import Recipe
from restoration.schedule import Schedule
from restoration.structured import Structured

TRAINED = (0.0025, 10.0)
"""Noise levels of a prior that is not known here: those of the photo prior."""


@dataclass(frozen=True)
class Calls:
    """Network calls and pullbacks through the network for one sample; where a method may stop early, the most."""

    denoiser: int = 0
    vjps: int = 0

    def times(self, n: int) -> "Calls":
        """Of n runs."""
        return Calls(n * self.denoiser, n * self.vjps)


def calls_of(recipe: Recipe, store: AssetStore | None = None) -> Calls:
    """Calls for one sample of a recipe.

    Raises:
        PreimageError: the schedule does not fit the prior.
    """
    trained = recipe.model.sigma_range(store or AssetStore())
    return calls_of_method(recipe.method, trained or TRAINED)


def calls_of_method(method: Method, trained: tuple[float, float]) -> Calls:
    """Calls for one sample with a prior of that range of noise levels; raises as `calls_of` does."""
    match method:
        case BestOf():
            return calls_of_method(method.method, trained).times(method.runs)
        case Alternating():
            return calls_of_method(method.method, trained).times(method.rounds)
        case Structured():
            return calls_of_method(method.method, trained)
        case DirectBridge() | CDDB():
            steps = 10 if method.steps is None else method.steps
            return Calls(steps, steps if isinstance(method, CDDB) and method.form == "deep" else 0)
    schedule = getattr(method, "schedule", None)
    if not isinstance(schedule, Schedule):
        return Calls()  # no network
    levels = schedule.sigmas(trained)
    n = len(levels)
    match method:
        case DAPS():
            return Calls(sum(len(method._walk(now, levels[-1])) - 1 for now in levels))
        case DDNM():
            path = method._path(n)
            return Calls(sum(b > a for a, b in pairwise(path)))
        case PnPDM():
            widths = [*levels, *[levels[-1]] * method.hold]
            return Calls(sum(len(method._levels(rho, trained[0])) for rho in widths))
        case MomentMatching():
            return Calls(n, n * (method.iterations + 1))
        case SITCOM():
            return Calls(n * (method.iterations + 1), n * method.iterations)
        case MCGDiff():
            return Calls(n * method.particles)
        case PnPFlow():
            return Calls(n * method.draws)
        case DPS() | PiGDM() | MCG() | LGD() | BlindDPS():
            return Calls(n, n)
    return Calls(n)
