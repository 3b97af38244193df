"""A picture as a case of a batch."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.inputs import Case
from app.pictures import encode_png, encode_tiff, read_picture
from app.view import (
    IMAGINED,
    SPREAD,
    data_picture,
    heat,
    heat_with_scale,
    png,
    png_of,
    reduced,
    resized,
    spread,
    spread_scale,
)
from app.work import Answer, Task, Work, alone, fitting, joined, pair
from restoration.pipeline import Pipeline

VIEW = 2048
"""Longest side of a picture for a page, in pixels."""

MOST_VIEWS = 64
"""Samples that a page is given; all are in the `npz` output."""


class PictureWork(Work):
    """A picture that was read and measured, or is the measurement.

    Raises:
        PreimageError: it cannot be read, or the recipe does not take it.
    """

    def __init__(self, case: Case, task: Task, pipeline: Pipeline) -> None:
        picture = read_picture(case.files[0])
        super().__init__(case, task, joined([picture.sha256]))
        self.picture, self.wanted = picture, fitting(task.options, ("png", "tiff", "npz"))
        truth = task.options.truth
        self.measurement = pipeline.simulate(picture.pixels) if truth else pipeline.observe(picture.pixels)
        self.shape = tuple(self.measurement.likelihood.operator.in_shape)
        height, width = picture.pixels.shape[-2:]
        self.facts = {"bits": picture.bits, "channels": len(picture.pixels), "height": height, "width": width}

    def answer(self, pipeline: Pipeline, size: int, watch: Any, stop: Any) -> Answer:
        answer = alone(pipeline, self.measurement, watch, stop)
        self.notes += answer.notes
        return answer

    def write(self, answer: Answer, folder: Path) -> None:
        bits: Literal[8, 16] = 8 if self.picture.bits == 8 else 16
        if "png" in self.wanted:
            self.place(folder, "restored.png").write_bytes(encode_png(answer.mean, bits, icc=self.picture.icc))
        if "tiff" in self.wanted:
            deep: Literal[8, 16, 32] = 32 if self.picture.bits == 32 else bits
            self.place(folder, "restored.tif").write_bytes(encode_tiff(answer.mean, deep, icc=self.picture.icc))
        if "png" in self.wanted or "tiff" in self.wanted:
            if len(answer.samples) > 1:
                values = spread(answer.std)
                self.place(folder, "std.png").write_bytes(png(heat_with_scale(values, spread_scale([values]), SPREAD)))
            if answer.imagined is not None:
                values = spread(answer.imagined)
                self.place(folder, "imagined.png").write_bytes(
                    png(heat_with_scale(values, spread_scale([values]), IMAGINED))
                )
        if "npz" in self.wanted:  # as `Result.save` writes it
            arrays: dict[str, Any] = {
                "samples": answer.samples,
                "y": answer.measurement.likelihood.y,
                "seeds": torch.tensor(self.recipe.seeds[: len(answer.samples)], dtype=torch.int64),
                **({} if answer.imagined is None else {"imagined": answer.imagined}),
                **{f"found_{name}": values for name, values in answer.found.items()},
            }
            numbers = {name: array.cpu().numpy() for name, array in arrays.items()}
            np.savez_compressed(self.place(folder, "samples.npz"), **numbers)

    def figures(self, answer: Answer) -> dict[str, float]:
        return answer.figures

    def preview(self, answer: Answer) -> bytes:
        shown = data_picture(answer.measurement.picture())
        return png(pair(shown, answer.mean))

    def views(self, answer: Answer, folder: Path) -> list[dict[str, Any]]:
        """Lossless PNG, reduced to `VIEW` pixels a side; maps without a legend, for which there is `scale`."""
        shown: list[dict[str, Any]] = []
        height, width = answer.mean.shape[-2:]

        def show(name: str, title: str, image: Tensor, alt: str, **facts: Any) -> None:
            picture = reduced(image, VIEW)
            (folder / f"{name}.png").write_bytes(encode_png(picture, icc=self.picture.icc))
            add(name, title, alt, picture.shape[-2], picture.shape[-1], **facts)

        def show_map(name: str, title: str, values: Tensor, alt: str) -> None:
            values = reduced(values[None], VIEW)[0]
            top = spread_scale([values])
            (folder / f"{name}.png").write_bytes(png_of(heat(values, top)))
            alt = f"{alt}; from black at 0 to pale yellow at {top:g} of full range"
            scale = {"low": 0.0, "high": top, "unit": "of full range"}
            add(name, title, alt, values.shape[0], values.shape[1], scale=scale)

        def add(name: str, title: str, alt: str, rows: int, columns: int, **facts: Any) -> None:
            usual = {"seed": None, "residual_sigma": None, "scale": None}
            size = {"file": f"{name}.png", "width": columns, "height": rows}
            shown.append({"name": name, "title": title, "alt": alt} | size | usual | facts)

        seeds, n = self.recipe.seeds, len(answer.samples)
        show("before", "Measurement", resized(data_picture(answer.measurement.picture()), height, width), "Measurement")
        fit = _finite(answer.residual)
        what = "Restored image" if n == 1 else f"Restored image, mean of {n} samples"
        alone = seeds[0] if n == 1 else None
        show("mean", what, answer.mean, f"{what}{_words(fit)}", seed=alone, residual_sigma=fit)
        for i, sample in enumerate(answer.samples[:MOST_VIEWS] if n > 1 else ()):
            fit = _finite(answer.residuals[i] if answer.residuals else None)
            alt = f"Sample {i + 1} of {n}, seed {seeds[i]}{_words(fit)}"
            show(f"sample-{i + 1}", f"Sample {i + 1}", sample, alt, seed=seeds[i], residual_sigma=fit)
        if n > 1:
            show_map("spread", "Spread", spread(answer.std), f"Map of the {SPREAD.split(' (')[0]}")
        if answer.imagined is not None:
            show_map("imagined", "Imagined", spread(answer.imagined), "Map of what the prior made up")
        if answer.measurement.truth is not None:
            show("truth", "Truth", answer.measurement.truth, "The image before it was measured")
        return shown


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _words(residual: float | None) -> str:
    return "" if residual is None else f", residual {residual:.2f} sigma"
