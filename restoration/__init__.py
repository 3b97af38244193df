"""The inference side: priors, methods, recipes and the pipeline that joins them.

Names load on first use, so that `import restoration` and the training command stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restoration.assets import AssetStore as AssetStore
    from restoration.methods.daps import DAPS as DAPS
    from restoration.methods.diffpir import DiffPIR as DiffPIR
    from restoration.methods.direct import Direct as Direct
    from restoration.methods.direct import OpenCVInpaint as OpenCVInpaint
    from restoration.methods.dps import DPS as DPS
    from restoration.methods.tv import TV as TV
    from restoration.methods.wiener import Wiener as Wiener
    from restoration.pipeline import Pipeline as Pipeline
    from restoration.prior import Prior as Prior
    from restoration.recipe import Recipe as Recipe
    from restoration.recipe import read_recipe as read_recipe
    from restoration.result import Result as Result

_HOME = {
    "AssetStore": "restoration.assets",
    "DAPS": "restoration.methods.daps",
    "DPS": "restoration.methods.dps",
    "DiffPIR": "restoration.methods.diffpir",
    "Direct": "restoration.methods.direct",
    "OpenCVInpaint": "restoration.methods.direct",
    "Pipeline": "restoration.pipeline",
    "Prior": "restoration.prior",
    "Recipe": "restoration.recipe",
    "Result": "restoration.result",
    "TV": "restoration.methods.tv",
    "Wiener": "restoration.methods.wiener",
    "read_recipe": "restoration.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'restoration' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
