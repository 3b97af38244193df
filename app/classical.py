"""Classical methods to compare with: what a person without a diffusion model would try, by preset."""

from restoration.method import Method
from restoration.methods.direct import Direct, OpenCVInpaint
from restoration.methods.tv import TV
from restoration.methods.wiener import Wiener

_WIENER = Wiener(std=0.25, exponent=1.2)
_TV = TV(weight=20)

CLASSICAL: dict[str, tuple[Method, ...]] = {
    "deblur-gaussian": (Direct(), _WIENER, _TV),
    "deblur-motion": (Direct(), _WIENER, _TV),
    "sr-x4": (Direct(), _WIENER, _TV),
    "denoise": (Direct(), _WIENER, _TV),
    "inpaint-box": (_TV, OpenCVInpaint(algorithm="telea"), OpenCVInpaint(algorithm="ns")),
    "inpaint-random-70": (_WIENER, _TV, OpenCVInpaint(algorithm="telea"), OpenCVInpaint(algorithm="ns")),
    "inpaint-scratches": (_WIENER, _TV, OpenCVInpaint(algorithm="telea"), OpenCVInpaint(algorithm="ns")),
}
"""Candidates for each preset; their numbers are fixed, not fitted to the picture at hand."""
