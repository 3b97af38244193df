"""Measurement operators, noises and likelihoods; knows nothing of priors or screens."""

from typing import Annotated

from pydantic import Field

from operators.base import Composed as Composed
from operators.base import LinearOperator as LinearOperator
from operators.base import Operator as Operator
from operators.base import OperatorSpec as OperatorSpec
from operators.base import Shape as Shape
from operators.base import SpectralOperator as SpectralOperator
from operators.blur import BlurSpec as BlurSpec
from operators.blur import CircularBlur as CircularBlur
from operators.blur import MirrorBlur as MirrorBlur
from operators.blur import ZeroBlur as ZeroBlur
from operators.blur import make_blur as make_blur
from operators.downsample import Downsample as Downsample
from operators.downsample import DownsampleSpec as DownsampleSpec
from operators.errors import PreimageError as PreimageError
from operators.identity import Identity as Identity
from operators.identity import IdentitySpec as IdentitySpec
from operators.inpainting import Inpainting as Inpainting
from operators.inpainting import InpaintingSpec as InpaintingSpec
from operators.kernels import AnyKernel as AnyKernel
from operators.likelihood import Likelihood as Likelihood
from operators.masks import AnyMask as AnyMask
from operators.noise import AnyNoise as AnyNoise
from operators.noise import Gaussian as Gaussian
from operators.noise import Noise as Noise
from operators.noise import Poisson as Poisson
from operators.rng import Rng as Rng
from operators.spec import DataRef as DataRef
from operators.spec import Need as Need
from operators.spec import Source as Source
from operators.spec import Spec as Spec
from operators.spec import Ui as Ui
from operators.spec import kinds as kinds

AnyOperator = Annotated[BlurSpec | InpaintingSpec | DownsampleSpec | IdentitySpec, Field(discriminator="kind")]
