"""The Restore tab: a picture, what is wrong with it, and the restored one; three steps on one screen."""

import html
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk, device_here
from app.gui.begin import again, begin, uploaded
from app.gui.faults import as_sentence, plain
from app.gui.form import ProblemForm, advise, files_of, forms_of, recipe_of
from app.gui.painter import MaskPainter, marked_equal, mask_file
from app.gui.painter import shown as painter_of
from app.gui.proxy import read_shown, restorable
from app.gui.quality import QualityForm
from app.gui.result import ResultView
from app.gui.samples import SAMPLES, sample
from app.gui.suggest import suggest
from app.options import Options
from operators.errors import PreimageError, ReadError
from restoration.recipe import Recipe

TYPES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".json"]

MORE = 4
"""Samples of a second run, whose spread is worth a map."""

_FIRST = "Step 1 first: add an image, or try an example."
_SECOND = "Step 2: choose what is wrong with the image."
_INVITE = "No file? Try one of these."


def build(desk: Desk, cache: Path) -> None:
    """Fill the tab.

    Args:
        desk: of the server.
        cache: Gradio's folder of uploads, below which all files of the page lie.
    """
    size = gr.State(None)
    kept = gr.State(False)  # whether a run file was just taken in, and away
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="pi-left"):
            gr.HTML('<h2 class="pi-step">1 Your image</h2>')
            file = gr.File(
                label="Image (PNG, JPEG, TIFF, 16 bit too) or run file", file_types=TYPES, height=120, elem_id="file"
            )
            facts = gr.HTML(_facts(_INVITE), elem_id="facts")
            with gr.Row(elem_classes="pi-samples"):
                buttons = {
                    name: gr.Button(chosen.label, size="sm", elem_id=f"sample-{name}")
                    for name, chosen in SAMPLES.items()
                }
            with gr.Column(visible="hidden", elem_id="painting") as painting:
                painter = MaskPainter(elem_id="painter")
            gr.HTML('<h2 class="pi-step">2 What is wrong with it?</h2>')
            problem = ProblemForm(elem_id="problem")
            gr.HTML('<h2 class="pi-step">3 Quality</h2>')
            quality = QualityForm(elem_id="quality")
            start = gr.Button("Restore", variant="primary", interactive=False, elem_id="start")
            reason = gr.HTML(_reason(_FIRST), elem_id="reason")
        with gr.Column(scale=7, min_width=320, elem_classes="pi-right"):
            result = ResultView(elem_id="result", tab="restore")

    @as_sentence()
    def take(path: str | None, quiet: bool) -> tuple[Any, ...]:
        """A file was chosen or taken away; `quiet` where what was said of it is to stay."""
        empty = painter_of(None), ProblemForm(picture=None), QualityForm(picture=None)
        if path is None:
            return None, gr.skip() if quiet else _facts(_INVITE), *empty, gr.skip(), False
        try:
            if path.lower().endswith(".json"):
                wrong, right = forms_of(_run_file(Path(path)))
                forms = ProblemForm(value=wrong, picture=None), QualityForm(value=right, picture=None)
                text = _facts("Settings of an earlier run taken over. Now add its image here.")
                return None, text, painter_of(None), *forms, gr.File(value=None), True
            shown = read_shown(Path(path))
        except PreimageError as error:
            # taken away, so that another can be dropped in its place
            return None, _facts(plain(error), fault=True), *empty, gr.File(value=None), True
        found = {name: getattr(shown, name) for name in ("width", "height", "channels", "bits")}
        forms = ProblemForm(picture=found), QualityForm(picture=found)
        return found, _facts(shown.facts), painter_of(shown), *forms, gr.skip(), False

    def unasked(path: str | None, found: Any) -> Any:
        """A guess that nobody asked for, after the picture is shown; none where it fails."""
        try:
            return ProblemForm(guess=suggest(Path(path), desk.assets)) if path and found else gr.skip()
        except PreimageError:
            return gr.skip()

    @as_sentence()
    def check(found: Any, wrong: Any, painted: Any) -> tuple[Any, Any, Any]:
        """Whether everything is there for a run, and if not, what is missing."""
        missing = _missing(found, wrong, painted)
        # without anything to paint the same widget shows the picture alone
        shown = gr.Column(visible=True if found else "hidden", elem_classes=[] if _paints(wrong) else ["pi-looking"])
        return gr.Button(interactive=not missing), _reason(missing), shown

    @as_sentence()
    def run(path: str | None, found: Any, wrong: Any, right: Any, painted: Any) -> tuple[Any, Any]:
        """Begin to restore; what is in the way is said beside the button."""
        if (missing := _missing(found, wrong, painted)) or path is None:
            return gr.skip(), _reason(missing or _FIRST)
        folder = cache / secrets.token_hex(16)
        try:
            folder.mkdir(mode=0o700)
            attachments: dict[str, Path] = {}
            if _paints(wrong):
                attachments["mask.png"] = mask_file(painted, (found["height"], found["width"]), folder, cache)
            named = {given: f"attached-{k}{Path(given).suffix.lower()}" for k, given in enumerate(files_of(wrong))}
            attachments |= {name: uploaded(given, cache) for given, name in named.items()}
            mask_name = "mask.png" if "mask.png" in attachments else None
            recipe, options = recipe_of(wrong, right, found, mask=mask_name, attachments=named)
            if not options.output_types and Path(path).suffix.lower() in (".tif", ".tiff"):
                options = options.model_copy(update={"output_types": ("tiff",)})
            job = _begun(desk, restorable(Path(path), folder), recipe, options, attachments)
        except PreimageError as error:
            return gr.skip(), _reason(plain(error), fault=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the job has files of its own
        return ResultView(job=job), _reason("")

    def equal(path: str | None, painted: Any) -> Any:
        """All pixels of one value are marked as missing."""
        with as_sentence():
            if path is None:
                raise PreimageError(_FIRST)
            return marked_equal(painted, Path(path))

    def example(name: str) -> tuple[Any, ...]:
        """A sample picture with its settings."""
        with as_sentence():
            path, recipe = sample(name, cache / "examples", desk.assets)
            wrong, _ = forms_of(recipe)
        right = {"quality": "balanced", "seed": recipe.seeds[0], "samples": 1}
        return str(path), ProblemForm(value=wrong), QualityForm(value=right)

    def built_in() -> tuple[Any, ...]:
        """The example of the first click, restored at once."""
        with as_sentence():
            path, recipe = sample("holes", cache / "examples", desk.assets)
            wrong, _ = forms_of(recipe)
            right = {"quality": "quick", "seed": 0, "samples": 1}
            found = {"width": 192, "height": 192, "channels": 3, "bits": 16}
            quick, options = recipe_of(wrong, right, found)
            if not options.output_types and Path(path).suffix.lower() in (".tif", ".tiff"):
                options = options.model_copy(update={"output_types": ("tiff",)})
            job = _begun(desk, path, quick, options, {})
        return str(path), ProblemForm(value=wrong), QualityForm(value=right), ResultView(job=job)

    def more(event: gr.EventData) -> Any:
        """The same run with more samples, for a spread map."""
        with as_sentence():
            return ResultView(job=again(desk, str(event._data.get("job", "")), MORE))

    def guessing(path: str | None) -> Any:
        """Estimate what is wrong; the form says that it is a guess."""
        with as_sentence():
            if path is None:
                raise PreimageError(_FIRST)
            return ProblemForm(guess=suggest(Path(path), desk.assets))

    quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    latest: dict[str, Any] = {**quick, "trigger_mode": "always_last", "queue": False}
    file.change(take, [file, kept], [size, facts, painter, problem, quality, file, kept], **latest)
    size.change(unasked, [file, size], [problem], **latest)
    gr.on([size.change, problem.change, quality.change], advise, [problem, quality, size], [problem, quality], **latest)
    gr.on(
        [size.change, problem.change, painter.change],
        check,
        [size, problem, painter],
        [start, reason, painting],
        **latest,
    )
    start.click(run, [file, size, problem, quality, painter], [result, reason], **quick)
    for name, button in buttons.items():
        button.click(lambda name=name: example(name), [], [file, problem, quality], **quick)
    result.example(built_in, [], [file, problem, quality, result], **quick)
    result.more(more, [], [result], **quick)
    painter.equal(equal, [file, painter], [painter], **quick)
    problem.suggest(guessing, [file], [problem], **quick)


def _begun(desk: Desk, file: Path, recipe: Recipe, options: Options, attachments: Mapping[str, Path]) -> str:
    asked = {**options.model_dump(mode="json"), "device": device_here()}
    return begin(desk, [file], recipe.model_dump(mode="json"), asked, attachments)


def _paints(wrong: Any) -> bool:
    return isinstance(wrong, dict) and wrong.get("paint") is True


def _missing(found: Any, wrong: Any, painted: Any) -> str:
    """What a run still needs, as a sentence; empty where nothing."""
    if not isinstance(found, dict):
        return _FIRST
    if not isinstance(wrong, dict) or not wrong.get("problem"):
        return _SECOND
    if _paints(wrong):
        if not isinstance(painted, dict) or not painted.get("painted"):
            return "Nothing is painted. Paint the missing area, or choose another problem type."
        if not painted.get("saved", True):
            return "The painted mask is on its way to the server."
    return ""


def _run_file(path: Path) -> Recipe:
    """The recipe of a run file, or a recipe by itself.

    Raises:
        ReadError: it is neither.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(1 << 20))
        return Recipe.model_validate(content.get("recipe", content))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ReadError("Expected a run file saved by this page, got another JSON file; choose another.") from error


# what is said


def _facts(text: str, *, fault: bool = False) -> str:
    return f'<p class="pi-facts{" pi-fault" if fault else ""}" role="status">{html.escape(text)}</p>'


def _reason(text: str, *, fault: bool = False) -> str:
    return f'<p class="pi-reason{" pi-fault" if fault else ""}" role="status">{html.escape(text)}</p>'
