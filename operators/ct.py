"""Computed tomography in the plane: line integrals of an image along parallel or fan-shaped rays."""

from math import hypot
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from operators.attenuation import HounsfieldWindow
from operators.base import LinearOperator, OperatorSpec, Shape, check_image_shape
from operators.ct_astra import StripTracer
from operators.ct_geometry import (
    AnyAngles,
    AnyBeam,
    FanBeam,
    ParallelBeam,
    Scan,
    SubsetAngles,
    check_source,
    default_detectors,
    default_spacing,
    full_arc,
)
from operators.ct_matrix import STORED_BYTES, Projector, Tracer
from operators.ct_rays import LineTracer
from operators.errors import ShapeError
from operators.fbp import Ramp, fbp
from operators.spec import Need, Ui

Model = Literal["joseph", "strip"]


class CT(LinearOperator):
    """Line integrals of every channel: y = slope · (sum of x times length), by Joseph's method unless told otherwise.

    The matrix and its transpose are stored when they fit into `stored_bytes`, else computed view by view in every
    call. The transpose is that of the very same numbers. `guess` is filtered back-projection, which is not the
    pseudo-inverse; `pinv` is, by conjugate gradients. A detector column is one ray through its middle, so columns much
    wider than a pixel are not averaged over their width; `strip` is (see `StripTracer`; needs ASTRA).

    With a window, image values stand for Hounsfield units and attenuation is slope · x + intercept. The operator is the
    linear part; what the intercept adds to every line integral is `background`, which `data_from_image` subtracts from
    measured line integrals and `data_as_image` adds. It is zero for windows that begin at −1000 HU. For any other,
    noise that depends on the whole attenuation (`LowDose`) cannot be drawn from the data, and recipes refuse it.

    Shapes: x (B, ..., H, W) → (B, ..., views, detectors).   Units: x is attenuation per unit of `pixel`, or image
    values if a window is given; y has no unit and is −ln of the transmitted fraction.

    Args:
        scan: angles, beam and detector.
        in_shape: (..., H, W), without batch.
        pixel: side of a pixel, in the unit of the scan's lengths; mm if a window is given.
        window: what image values stand for.
        ramp: filter of the guess.
        model: how an integral is discretised.
        stored_bytes: largest matrix stored, transpose included.

    Raises:
        ShapeError: the pixel is not positive, the source is inside the circle through the image's corners, or the model
            does not exist for this scan.
        NeedError: the model needs a package that is not installed.
    """

    def __init__(
        self,
        scan: Scan,
        in_shape: Shape,
        pixel: float = 1.0,
        *,
        window: HounsfieldWindow | None = None,
        ramp: Ramp = "hann",
        model: Model = "joseph",
        stored_bytes: int = STORED_BYTES,
    ) -> None:
        in_shape = check_image_shape(in_shape)
        height, width = in_shape[-2:]
        if not 0 < pixel < float("inf"):
            raise ShapeError(f"CT expected a pixel size > 0, got {pixel}; give the side of a pixel.")
        if isinstance(scan.beam, FanBeam):
            check_source(scan.beam.source_origin, hypot(height, width) * pixel / 2)
        super().__init__(in_shape, (*in_shape[:-2], len(scan.angles), scan.detectors))
        self.scan = scan
        self.pixel = pixel
        self.window = window
        self.ramp: Ramp = ramp
        self._slope = 1.0 if window is None else window.slope
        tracer: Tracer
        if model == "strip":
            tracer = StripTracer(scan, (height, width), pixel, self._slope)
        else:
            tracer = LineTracer(*scan.lines(), (height, width), pixel, self._slope)
        self.projector = Projector(tracer, stored_bytes)

    def background(self, like: Tensor) -> Tensor:
        """Line integrals of the image value 0, in the precision of data `like`; zero without a window.

        Shapes: → (views, detectors).
        """
        ratio = 0.0 if self.window is None else self.window.intercept / self.window.slope
        if ratio == 0:
            return like.new_zeros(self.out_shape[-2:])
        image = like.new_full((1, self.projector.tracer.pixels), ratio)
        return self.projector.project(image).reshape(self.out_shape[-2:])

    def data_from_image(self, picture: Tensor) -> Tensor:
        """The operator's data, from measured line integrals of attenuation above air.   Shapes: data → data.

        Raises:
            ShapeError: wrong shape.
        """
        self.check_data(picture)
        return picture - self.background(picture)

    def data_as_image(self, y: Tensor) -> Tensor:
        """Line integrals of attenuation above air; undoes `data_from_image`.   Shapes: data → data.

        Raises:
            ShapeError: wrong shape.
        """
        self.check_data(y)
        return y + self.background(y)

    def _forward(self, x: Tensor) -> Tensor:
        return self.projector.project(x.reshape(-1, self.projector.tracer.pixels)).reshape(-1, *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        rays = self.out_shape[-2] * self.out_shape[-1]
        return self.projector.backproject(y.reshape(-1, rays)).reshape(-1, *self.in_shape)

    def _guess(self, y: Tensor) -> Tensor:
        return fbp(self.scan, y, (self.in_shape[-2], self.in_shape[-1]), self.pixel, self.ramp) / self._slope


class CTSpec(OperatorSpec):
    """Computed tomography: an image seen as line integrals from many sides, or from too few."""

    title: ClassVar[str] = "CT"
    kind: Literal["ct"] = "ct"
    angles: Annotated[AnyAngles, Field(description="From where the image is seen.")] = SubsetAngles()
    beam: Annotated[AnyBeam, Field(description="Parallel rays, or a fan from a point.")] = ParallelBeam()
    pixel_size: Annotated[float, Field(gt=0, le=1e6, description="Side of a pixel."), Ui(unit="mm", scale="log")] = 1.0
    detectors: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="Detector columns; enough to see the whole image unless given."),
        Ui(advanced=True),
    ] = None
    spacing: Annotated[
        float | None,
        Field(gt=0, le=1e6, description="From column to column on the detector; the image of a pixel unless given."),
        Ui(unit="mm", advanced=True),
    ] = None
    center: Annotated[
        float | None,
        Field(ge=-1e5, le=1e5, description="Column onto which the rotation axis projects; the middle unless given."),
        Ui(unit="columns", advanced=True),
    ] = None
    window: Annotated[
        HounsfieldWindow | None,
        Field(description="Hounsfield units of the image; without it the image is attenuation per mm itself."),
    ] = HounsfieldWindow()
    model: Annotated[
        Model,
        Field(description="A line per column (joseph), or the mean over a column's width (strip, needs ASTRA)."),
        Ui(advanced=True),
    ] = "joseph"
    ramp: Annotated[Ramp, Field(description="Filter of the first guess; hann is the smoothest."), Ui(advanced=True)] = (
        "hann"
    )

    @property
    def offers(self) -> frozenset[Need]:
        """What `CT` offers."""
        return CT.offers

    def scan(self, in_shape: Shape) -> Scan:
        """The scan for images (..., H, W), with defaults filled in.

        Raises:
            ShapeError: the source is inside the image, or the detector is impossible.
        """
        height, width = check_image_shape(in_shape)[-2:]
        spacing = default_spacing(self.beam, self.pixel_size) if self.spacing is None else self.spacing
        detectors = self.detectors
        if detectors is None:
            detectors = default_detectors(self.beam, height, width, self.pixel_size, spacing)
        center = (detectors - 1) / 2 if self.center is None else self.center
        angles = tuple(self.angles.radians(full_arc(self.beam)).tolist())
        return Scan(angles, self.beam, detectors, spacing, center)

    def build(self, in_shape: Shape, base: Path = Path()) -> CT:
        """The operator on real images (..., H, W); see `OperatorSpec.build`."""
        scan = self.scan(in_shape)
        return CT(scan, in_shape, self.pixel_size, window=self.window, ramp=self.ramp, model=self.model)

    def image_shape(self, picture_shape: Shape) -> Shape:
        """A square image for a sinogram (..., views, detectors).

        Its diagonal is what the default detector just sees; it is as wide as the detector if `detectors` is given.

        Raises:
            ShapeError: the sinogram has other views or columns than this description.
        """
        *rest, views, columns = check_image_shape(picture_shape)
        expected = (len(self.angles.radians(full_arc(self.beam))), self.detectors or columns)
        if (views, columns) != expected:
            raise ShapeError(
                f"CT expected a sinogram of {expected[0]} views and {expected[1]} columns, got {views} and {columns}; "
                "describe the scan it comes from."
            )
        side = columns
        while side > 1 and self.detectors is None and self.scan((side, side)).detectors > columns:
            side -= 1
        if self.detectors is None and self.scan((side, side)).detectors != columns:
            raise ShapeError(
                f"CT expected a sinogram of as many columns as a square image needs, got {columns}; give `detectors`."
            )
        return (*rest, side, side)
