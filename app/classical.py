"""Classical methods to compare with: what a person without a diffusion model would try, by preset."""

from restoration.method import Method
from restoration.methods.direct import Direct, OpenCVInpaint
from restoration.methods.tv import TV
from restoration.methods.wiener import Wiener

# The best of the grid of benchmarks.tune_classical on photographs that no figure is reported on (docs/performance.md).
_WIENER = Wiener(std=0.15, exponent=1.3)
_TELEA, _NS = OpenCVInpaint(algorithm="telea", radius=2), OpenCVInpaint(algorithm="ns", radius=3)

CLASSICAL: dict[str, tuple[Method, ...]] = {
    "deblur-gaussian": (Direct(), _WIENER, TV(weight=5)),
    "deblur-motion": (Direct(), _WIENER, TV(weight=5)),
    "sr-x4": (Direct(), _WIENER, TV(weight=6)),
    "denoise": (Direct(), _WIENER, TV(weight=35)),
    "inpaint-box": (_WIENER, TV(weight=3), _TELEA, _NS),
    "inpaint-random-70": (_WIENER, TV(weight=18), _TELEA, _NS),
    "inpaint-scratches": (_WIENER, TV(weight=25), _TELEA, _NS),
    "hdr": (Direct(),),
    "nonlinear-blur": (Direct(),),
    "jpeg": (Direct(),),
    "phase-retrieval": (Direct(),),
}
"""Candidates for each preset; their numbers are fixed, not fitted to the picture at hand."""

CLASSICAL |= {f"bridge-{name}": CLASSICAL[name] for name in ("sr-x4", "jpeg")}
CLASSICAL["bridge-inpaint"] = CLASSICAL["inpaint-scratches"]
