"""The inference side: priors, methods, recipes and the pipeline that joins them.

Names load on first use, so that `import restoration` and the training command stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restoration.assets import AssetStore as AssetStore
    from restoration.best_of import BestOf as BestOf
    from restoration.checkpoints import Checkpoint as Checkpoint
    from restoration.methods.cddb import CDDB as CDDB
    from restoration.methods.daps import DAPS as DAPS
    from restoration.methods.ddnm import DDNM as DDNM
    from restoration.methods.ddrm import DDRM as DDRM
    from restoration.methods.dds import DDS as DDS
    from restoration.methods.diffpir import DiffPIR as DiffPIR
    from restoration.methods.direct import Direct as Direct
    from restoration.methods.direct import OpenCVInpaint as OpenCVInpaint
    from restoration.methods.direct_bridge import DirectBridge as DirectBridge
    from restoration.methods.dps import DPS as DPS
    from restoration.methods.flow_chef import FlowChef as FlowChef
    from restoration.methods.flow_dps import FlowDPS as FlowDPS
    from restoration.methods.lgd import LGD as LGD
    from restoration.methods.mcg import MCG as MCG
    from restoration.methods.mcg_diff import MCGDiff as MCGDiff
    from restoration.methods.moment_matching import MomentMatching as MomentMatching
    from restoration.methods.pigdm import PiGDM as PiGDM
    from restoration.methods.pnp_dm import PnPDM as PnPDM
    from restoration.methods.pnp_flow import PnPFlow as PnPFlow
    from restoration.methods.rad import RAD as RAD
    from restoration.methods.red_diff import REDDiff as REDDiff
    from restoration.methods.sitcom import SITCOM as SITCOM
    from restoration.methods.tv import TV as TV
    from restoration.methods.wiener import Wiener as Wiener
    from restoration.pipeline import Pipeline as Pipeline
    from restoration.prior import Prior as Prior
    from restoration.recipe import Recipe as Recipe
    from restoration.recipe import read_recipe as read_recipe
    from restoration.result import Result as Result
    from restoration.sequence import sequence as sequence

_HOME = {
    "AssetStore": "restoration.assets",
    "BestOf": "restoration.best_of",
    "Checkpoint": "restoration.checkpoints",
    "CDDB": "restoration.methods.cddb",
    "DAPS": "restoration.methods.daps",
    "DPS": "restoration.methods.dps",
    "DDNM": "restoration.methods.ddnm",
    "DDRM": "restoration.methods.ddrm",
    "DDS": "restoration.methods.dds",
    "FlowChef": "restoration.methods.flow_chef",
    "FlowDPS": "restoration.methods.flow_dps",
    "LGD": "restoration.methods.lgd",
    "MCG": "restoration.methods.mcg",
    "MomentMatching": "restoration.methods.moment_matching",
    "MCGDiff": "restoration.methods.mcg_diff",
    "PiGDM": "restoration.methods.pigdm",
    "PnPDM": "restoration.methods.pnp_dm",
    "PnPFlow": "restoration.methods.pnp_flow",
    "RAD": "restoration.methods.rad",
    "REDDiff": "restoration.methods.red_diff",
    "SITCOM": "restoration.methods.sitcom",
    "DiffPIR": "restoration.methods.diffpir",
    "DirectBridge": "restoration.methods.direct_bridge",
    "Direct": "restoration.methods.direct",
    "OpenCVInpaint": "restoration.methods.direct",
    "Pipeline": "restoration.pipeline",
    "Prior": "restoration.prior",
    "Recipe": "restoration.recipe",
    "Result": "restoration.result",
    "TV": "restoration.methods.tv",
    "Wiener": "restoration.methods.wiener",
    "sequence": "restoration.sequence",
    "read_recipe": "restoration.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'restoration' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
