"""Measurement operators, noises and likelihoods; knows nothing of priors or screens."""

from typing import Annotated

from pydantic import Field

from operators.attenuation import HounsfieldWindow as HounsfieldWindow
from operators.base import Composed as Composed
from operators.base import LinearOperator as LinearOperator
from operators.base import Operator as Operator
from operators.base import OperatorSpec as OperatorSpec
from operators.base import Shape as Shape
from operators.base import SpectralOperator as SpectralOperator
from operators.base import Stacked as Stacked
from operators.blur import BlurSpec as BlurSpec
from operators.blur import CircularBlur as CircularBlur
from operators.blur import MirrorBlur as MirrorBlur
from operators.blur import ReplicateBlur as ReplicateBlur
from operators.blur import ValidBlur as ValidBlur
from operators.blur import ZeroBlur as ZeroBlur
from operators.blur import make_blur as make_blur
from operators.blur_downsample import BlurDownsample as BlurDownsample
from operators.blur_downsample import BlurDownsampleSpec as BlurDownsampleSpec
from operators.color import Grayscale as Grayscale
from operators.color import GrayscaleSpec as GrayscaleSpec
from operators.composition import Chain as Chain
from operators.composition import ComposedSpec as ComposedSpec
from operators.composition import StackedSpec as StackedSpec
from operators.compressed import CompressedSpec as CompressedSpec
from operators.compressed import MatrixSensing as MatrixSensing
from operators.ct import CT as CT
from operators.ct import CTSpec as CTSpec
from operators.defects import DefectivePixels as DefectivePixels
from operators.defects import DefectsSpec as DefectsSpec
from operators.downsample import Downsample as Downsample
from operators.downsample import DownsampleSpec as DownsampleSpec
from operators.errors import PreimageError as PreimageError
from operators.gain import Gain as Gain
from operators.gain import HazeSpec as HazeSpec
from operators.gain import StripesSpec as StripesSpec
from operators.hyperspectral import BandBlur as BandBlur
from operators.hyperspectral import BandBlurSpec as BandBlurSpec
from operators.hyperspectral import SpectralResponse as SpectralResponse
from operators.hyperspectral import SpectralResponseSpec as SpectralResponseSpec
from operators.identity import Identity as Identity
from operators.identity import IdentitySpec as IdentitySpec
from operators.inpainting import Inpainting as Inpainting
from operators.inpainting import InpaintingSpec as InpaintingSpec
from operators.jpeg import Jpeg as Jpeg
from operators.jpeg import JpegSpec as JpegSpec
from operators.kernels import AnyKernel as AnyKernel
from operators.likelihood import Likelihood as Likelihood
from operators.lowdose import LowDose as LowDose
from operators.masks import AnyMask as AnyMask
from operators.mosaic import Bayer as Bayer
from operators.mosaic import BayerSpec as BayerSpec
from operators.mri import MRI as MRI
from operators.mri import MRISpec as MRISpec
from operators.mri import MultiCoilMRI as MultiCoilMRI
from operators.mri import RealMRI as RealMRI
from operators.noise import Correlated as Correlated
from operators.noise import Gaussian as Gaussian
from operators.noise import Noise as Noise
from operators.noise_coherent import Rician as Rician
from operators.noise_coherent import Speckle as Speckle
from operators.noise_counts import Poisson as Poisson
from operators.noise_counts import PoissonGaussian as PoissonGaussian
from operators.noise_digital import Quantised as Quantised
from operators.noise_digital import SaltPepper as SaltPepper
from operators.noise_digital import Uniform as Uniform
from operators.noncartesian import NonCartesianMRI as NonCartesianMRI
from operators.noncartesian import NonCartesianMRISpec as NonCartesianMRISpec
from operators.nonlinear import ExposureBlur as ExposureBlur
from operators.nonlinear import ExposureBlurSpec as ExposureBlurSpec
from operators.parametric import Parametric as Parametric
from operators.partial import PartialCosine as PartialCosine
from operators.partial import PartialFourier as PartialFourier
from operators.partial import PartialHadamard as PartialHadamard
from operators.phase import CodedDiffraction as CodedDiffraction
from operators.phase import CodedDiffractionSpec as CodedDiffractionSpec
from operators.phase import Hologram as Hologram
from operators.phase import HologramSpec as HologramSpec
from operators.phase import MagnitudeOperator as MagnitudeOperator
from operators.phase import PhaseRetrieval as PhaseRetrieval
from operators.phase import PhaseRetrievalSpec as PhaseRetrievalSpec
from operators.rng import Rng as Rng
from operators.single_pixel import SinglePixel as SinglePixel
from operators.single_pixel import SinglePixelSpec as SinglePixelSpec
from operators.slices import ThickSlices as ThickSlices
from operators.slices import ThickSlicesSpec as ThickSlicesSpec
from operators.spec import DataRef as DataRef
from operators.spec import Need as Need
from operators.spec import Source as Source
from operators.spec import Spec as Spec
from operators.spec import Ui as Ui
from operators.spec import kinds as kinds
from operators.tone import Clipping as Clipping
from operators.tone import ClippingSpec as ClippingSpec
from operators.tone import Exposure as Exposure
from operators.tone import ExposureSpec as ExposureSpec
from operators.tone import Quantisation as Quantisation
from operators.tone import QuantisationSpec as QuantisationSpec
from operators.unknown_blur import UnknownKernel as UnknownKernel
from operators.unknown_blur import UnknownKernelSpec as UnknownKernelSpec
from operators.unknown_blur import UnknownWidth as UnknownWidth
from operators.unknown_blur import UnknownWidthSpec as UnknownWidthSpec
from operators.unknown_exposure import UnknownExposure as UnknownExposure
from operators.unknown_exposure import UnknownExposureSpec as UnknownExposureSpec
from operators.varying import TurbulenceSpec as TurbulenceSpec
from operators.varying import VaryingBlur as VaryingBlur
from operators.varying import VaryingBlurSpec as VaryingBlurSpec
from operators.varying import Warp as Warp
from operators.wizard import LearnedBlur as LearnedBlur
from operators.wizard import LearnedBlurSpec as LearnedBlurSpec

AnyOperator = Annotated[
    BlurSpec
    | VaryingBlurSpec
    | TurbulenceSpec
    | ExposureBlurSpec
    | LearnedBlurSpec
    | InpaintingSpec
    | BayerSpec
    | CompressedSpec
    | SinglePixelSpec
    | DownsampleSpec
    | BlurDownsampleSpec
    | ThickSlicesSpec
    | GrayscaleSpec
    | ClippingSpec
    | ExposureSpec
    | HazeSpec
    | QuantisationSpec
    | JpegSpec
    | DefectsSpec
    | StripesSpec
    | CTSpec
    | MRISpec
    | NonCartesianMRISpec
    | IdentitySpec
    | PhaseRetrievalSpec
    | CodedDiffractionSpec
    | HologramSpec
    | BandBlurSpec
    | SpectralResponseSpec
    | UnknownKernelSpec
    | UnknownWidthSpec
    | UnknownExposureSpec
    | ComposedSpec
    | StackedSpec,
    Field(discriminator="kind"),
]
# these two hold operators themselves
ComposedSpec.model_rebuild(_types_namespace={"AnyOperator": AnyOperator})
StackedSpec.model_rebuild(_types_namespace={"AnyOperator": AnyOperator})

AnyNoise = Annotated[
    Gaussian | Poisson | PoissonGaussian | Rician | Speckle | Correlated | Quantised | Uniform | SaltPepper | LowDose,
    Field(discriminator="kind"),
]
