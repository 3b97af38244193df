"""Named endpoints for `gradio_client`: the jobs of the page, with files in and out. The HTTP API is the fuller one."""

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from app.answers import kinds_of
from app.desk import Desk, device_here
from app.gui.begin import begin
from app.gui.faults import as_sentence
from app.intake import shipped
from app.jobs import ENDED, Job
from app.options import Options, Outcome
from app.pictures import read_picture
from operators import AnyOperator
from operators.errors import PreimageError, RecipeError, ShapeError
from restoration.calls import calls_of
from restoration.metrics import psnr, ssim
from restoration.pipeline import with_seeds
from restoration.recipe import Recipe

_EVERY = 0.2
_KEPT = 3600  # seconds for which an answer can be fetched


def build(desk: Desk, cache: Path) -> None:
    """Add the endpoints to the page that is being built; nobody sees their components.

    Args:
        desk: of the server.
        cache: Gradio's folder of files that may be downloaded.
    """

    def restore(
        file: str, mask: str | None, operator: str, preset: str, steps: float, seed: float, samples: float
    ) -> Iterator[tuple[str | None, str]]:
        """Restore a picture with a preset; yields the state while it runs, and at last the file and the report.

        `operator` (JSON of a measurement operator) and `mask` (a picture, white where measured, black where missing)
        replace what the preset says; `steps` 0 keeps its steps.
        """
        with as_sentence():
            if not file:
                raise RecipeError("Expected a file to restore, got none; give one.")
            recipe, attached = _asked(preset, operator, mask, int(steps), int(seed), int(samples))
            options = Options(device=device_here(), views=True).model_dump(mode="json")
            name = begin(desk, [Path(file)], recipe.model_dump(mode="json"), options, attached)
        with as_sentence():
            job = desk.find(name)
            try:
                while (status := job.status()).state not in ENDED:
                    yield None, json.dumps({"job": name, **status.model_dump(mode="json")})
                    time.sleep(_EVERY)
            except GeneratorExit:
                job.request_stop()  # who asked for it is gone
                raise
            yield _answer(job, cache / "answers")

    def estimate(operator: str, preset: str, width: float, height: float) -> dict[str, Any]:
        """How many network calls a preset makes for a picture of that size."""
        with as_sentence():
            recipe, _ = _asked(preset, operator, None, 0, 0, 1)
            calls = calls_of(recipe, desk.assets)
            megapixels = float(width) * float(height) / 1e6
            return {"calls": calls.denoiser, "vjps": calls.vjps, "megapixels": megapixels}

    def operators() -> list[dict[str, Any]]:
        """Kinds of measurement operators with the JSON schemas of their fields."""
        return [kind.model_dump(mode="json") for kind in kinds_of(AnyOperator)]

    def metrics(file: str, reference: str) -> dict[str, float]:
        """PSNR (dB) and SSIM of a picture against a reference."""
        with as_sentence():
            if not file or not reference:
                raise RecipeError("Expected two pictures, got fewer; give both.")
            ours, truth = read_picture(Path(file)).pixels, read_picture(Path(reference)).pixels
            if ours.shape != truth.shape:
                raise ShapeError(
                    f"Expected pictures of one size, got {tuple(ours.shape)} and {tuple(truth.shape)}; crop one."
                )
            with torch.no_grad():
                return {"psnr": psnr(truth, ours), "ssim": ssim(truth, ours)}

    with gr.Group(visible=False):
        file, mask, reference = gr.File(label="file"), gr.File(label="mask"), gr.File(label="reference")
        operator = gr.Textbox(label="operator")
        preset = gr.Textbox("denoise", label="preset")
        steps, seed = gr.Number(0, label="steps", precision=0), gr.Number(0, label="seed", precision=0)
        samples = gr.Number(1, label="samples", precision=0)
        width, height = gr.Number(256, label="width", precision=0), gr.Number(256, label="height", precision=0)
        restored, report, facts = gr.File(label="restored"), gr.Textbox(label="report"), gr.JSON(label="facts")
        button = gr.Button()
        button.click(
            restore,
            [file, mask, operator, preset, steps, seed, samples],
            [restored, report],
            api_name="restore",
            concurrency_limit=8,
        )
        button.click(estimate, [operator, preset, width, height], [facts], api_name="estimate")
        button.click(operators, [], [facts], api_name="operators")
        button.click(metrics, [file, reference], [facts], api_name="metrics")


def _asked(
    preset: str, operator: str, mask: str | None, steps: int, seed: int, samples: int
) -> tuple[Recipe, dict[str, Path]]:
    if not 1 <= samples <= 64 or not 0 <= seed < 2**31 or not 0 <= steps <= 10_000:
        raise RecipeError("Expected 1 to 64 samples, a seed below 2^31 and at most 10000 steps; got others.")
    recipe = with_seeds(shipped(preset), tuple(range(seed, seed + samples)))
    described = recipe.model_dump(mode="json")
    attached: dict[str, Path] = {}
    if operator.strip():
        try:
            described["operator"] = json.loads(operator)
        except ValueError as error:
            raise RecipeError("Expected the operator as JSON, got something else; see 'operators'.") from error
    if mask:
        attached["mask.png"] = Path(mask)
        described["operator"] = {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": "mask.png"}}}
    if steps:
        schedule = described["method"].get("schedule")
        if not isinstance(schedule, dict):
            raise RecipeError("Expected a method with a schedule for 'steps', got one without; leave steps out.")
        schedule["steps"] = steps
    try:
        return Recipe.model_validate(described), attached
    except ValueError as error:
        raise RecipeError("Expected an operator as 'operators' describes them, got another; correct it.") from error


def _answer(job: Job, answers: Path) -> tuple[str | None, str]:
    """The restored file, under a name that only who asked knows, and the report; earlier ones go after a while."""
    outcomes = [Outcome.model_validate(event["outcome"]) for event in job.journal() if event.get("event") == "case"]
    if not outcomes or outcomes[-1].state == "failed":
        raise PreimageError(outcomes[-1].message if outcomes else job.status().message or "The run ended early.")
    files = [path for path in job.files() if path.name.startswith("restored.") and path.suffix != ".json"]
    if not files:
        return None, outcomes[-1].model_dump_json()
    for old in answers.glob("*"):
        with contextlib.suppress(OSError):  # another call takes it away
            if old.stat().st_mtime < time.time() - _KEPT:
                shutil.rmtree(old)
    place = answers / secrets.token_hex(16)
    place.mkdir(parents=True, mode=0o700)
    shutil.copyfile(job.folder / files[0], place / files[0].name)
    return str(place / files[0].name), outcomes[-1].model_dump_json()
