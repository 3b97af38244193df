"""A picture as a case of a batch."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from app.inputs import Case
from app.pictures import encode_png, read_picture
from app.view import IMAGINED, SPREAD, data_picture, heat_with_scale, png, spread, spread_scale
from app.work import Answer, Task, Work, alone, fitting, joined, pair
from restoration.pipeline import Pipeline


class PictureWork(Work):
    """A picture that was read and measured, or is the measurement.

    Raises:
        PreimageError: it cannot be read, or the recipe does not take it.
    """

    def __init__(self, case: Case, task: Task, pipeline: Pipeline) -> None:
        picture = read_picture(case.files[0])
        super().__init__(case, task, joined([picture.sha256]))
        self.picture, self.wanted = picture, fitting(task.options, ("png", "npz"))
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
        if "png" in self.wanted:
            bits: Literal[8, 16] = 8 if self.picture.bits == 8 else 16
            self.place(folder, "restored.png").write_bytes(encode_png(answer.mean, bits, icc=self.picture.icc))
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
