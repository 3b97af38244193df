"""The Batch tab: many files with the same settings, as one job."""

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from pydantic import ValidationError

from app.desk import Desk, device_here
from app.gui.begin import begin
from app.gui.faults import as_sentence, plain
from app.gui.widget import Widget
from app.inputs import kind_of
from app.intake import ATTACHED, shipped
from app.options import Options
from app.uploads import plain_name
from operators.errors import PreimageError, ReadError, RecipeError
from operators.spec import Spec
from restoration.recipe import Recipe, preset_names, read_recipe

LARGEST = 4 << 20
"""Bytes of a file with settings."""

NOTHING = "Nothing chosen yet."


class BatchView(Widget):
    """The table of a job, prop `job`; its value is what the Restore tab sent: `{recipe, options, job}`."""

    module = "batch"


class Chosen(Spec):
    """The settings of a batch; files that the recipe names lie in the job `job`, where there is one."""

    recipe: Recipe
    options: Options = Options()
    job: str = ""
    origin: str = ""


def build(desk: Desk) -> None:
    """Fill the tab."""
    presets = [(read_recipe(name)[0].title or name, name) for name in preset_names()]
    chosen = gr.State(None)
    with gr.Row():
        with gr.Column(min_width=320, elem_classes="pi-left"):
            gr.HTML('<h2 class="pi-step">1 Settings</h2>')
            preset = gr.Dropdown(
                presets,
                value=None,
                label="A preset",
                info='Or press "Send to Batch" beside a result of the Restore tab.',
                elem_id="batch-preset",
            )
            run_file = gr.UploadButton("Use a run file (JSON)", file_types=[".json"], elem_id="batch-run-file")
            settings = gr.Textbox(NOTHING, label="Settings of this batch", interactive=False, elem_id="batch-settings")
            named = gr.File(
                label="Mask or kernel for all files",
                file_count="multiple",
                height=130,
                visible=False,
                elem_id="batch-named",
            )
        with gr.Column(min_width=320, elem_classes="pi-left"):
            gr.HTML('<h2 class="pi-step">2 Files</h2>')
            files = gr.File(
                label="Pictures, NIfTI, DICOM, or zips of them",
                file_count="multiple",
                height=200,
                elem_id="batch-files",
            )
            facts = gr.HTML(_facts([]), elem_id="batch-facts")
            gr.HTML('<h2 class="pi-step">3 Run</h2>')
            fail_fast = gr.Checkbox(False, label="Stop at the first file that fails", elem_id="batch-fail-fast")
            with gr.Row():
                first = gr.Button("Try first file", interactive=False, elem_id="batch-first")
                start = gr.Button("Start batch", variant="primary", interactive=False, elem_id="batch-start")
            reason = gr.HTML(_reason(None, [], []), elem_id="batch-reason")
    view = BatchView(elem_id="batch-view")

    def shown(what: Chosen | None) -> tuple[Any, ...]:
        return what, _about(what), gr.File(visible=what is not None and bool(_missing(what)))

    def by_preset(name: str | None, now: Chosen | None) -> tuple[Any, ...]:
        with as_sentence():
            return shown(from_preset(name) if name else now)

    def by_file(path: str | None, now: Chosen | None) -> tuple[Any, ...]:
        with as_sentence():
            return shown(from_run_file(Path(path)) if path else now)

    def by_restore(value: Any, now: Chosen | None) -> tuple[Any, ...]:
        with as_sentence():
            return shown(from_restore(value) if value else now)

    def ready(what: Chosen | None, paths: list[str] | None, extra: list[str] | None) -> tuple[Any, ...]:
        text = _reason(what, paths or [], extra or [])
        can = text == ""
        return gr.Button(interactive=can), gr.Button(interactive=can), text, _facts(paths or [])

    def run(what: Chosen | None, paths: list[str] | None, extra: list[str] | None, fail_fast: bool) -> BatchView:
        with as_sentence():
            if what is None:
                raise RecipeError("Step 1 first: choose a preset, or send settings from Restore.")
            given, _ = usable([Path(path) for path in paths or []])
            if not given:
                raise ReadError("Step 2 first: add pictures, NIfTI, DICOM or zips of them.")
            masks = [Path(path) for path in extra or []]
            return BatchView(job=begin_batch(desk, what, given, masks, fail_fast=fail_fast))

    def run_first(what: Chosen | None, paths: list[str] | None, extra: list[str] | None, fail_fast: bool) -> BatchView:
        with as_sentence():
            given, _ = usable([Path(path) for path in paths or []])
        return run(what, [str(path) for path in given[:1]], extra, fail_fast)

    settled = [chosen, settings, named]
    asked = [chosen, files, named]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    for event in (
        preset.input(by_preset, [preset, chosen], settled, **private),
        run_file.upload(by_file, [run_file, chosen], settled, **private),
        view.change(by_restore, [view, chosen], settled, **private),
    ):
        event.then(ready, asked, [first, start, reason, facts], **private)
    files.change(ready, asked, [first, start, reason, facts], **private)
    named.change(ready, asked, [first, start, reason, facts], **private)
    first.click(run_first, [*asked, fail_fast], [view], **private)
    start.click(run, [*asked, fail_fast], [view], **private)


# settings


def from_preset(name: str) -> Chosen:
    """The settings of a preset.

    Raises:
        RecipeError: there is none of that name.
    """
    return Chosen(recipe=shipped(name), options=Options(device=device_here()), origin="preset")


def from_restore(value: Any) -> Chosen:
    """What the Restore tab sent through the browser.

    Raises:
        RecipeError: it is no recipe with options.
    """
    if not isinstance(value, dict):
        raise RecipeError("Expected settings from the Restore tab, got something else; send them again.")
    return _valid({key: value[key] for key in ("recipe", "options", "job") if value.get(key)}, "from Restore")


def from_run_file(path: Path) -> Chosen:
    """A recipe, or a file that holds one with its options: a run file, `restored.json` or `manifest.json`.

    Raises:
        ReadError, RecipeError: it cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ReadError(f'"{path.name}" is too large for a file with settings; choose the JSON of a run.')
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError(f'"{path.name}" is no JSON that I can read; choose the JSON of a run.') from error
    if not isinstance(values, dict):
        raise RecipeError(f'"{path.name}" holds no recipe; choose the JSON of a run.')
    inside = {key: values[key] for key in ("recipe", "options") if values.get(key)} if "recipe" in values else None
    return _valid(inside or {"recipe": values}, path.name)


def _valid(values: dict[str, Any], origin: str) -> Chosen:
    try:
        return Chosen.model_validate({**values, "origin": origin})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg'][:200]}" for e in error.errors()[:3])
        raise RecipeError(f"Expected settings of this version, got: {faults}; choose others.") from error


def _about(what: Chosen | None) -> str:
    """The settings in a line."""
    if what is None:
        return NOTHING
    recipe = what.recipe
    many = f"{len(recipe.seeds)} samples" if len(recipe.seeds) > 1 else f"seed {recipe.seeds[0]}"
    parts = [recipe.title or recipe.operator.title, recipe.method.title, many, what.options.device]
    parts += [f"needs {name}" for name in _missing(what)]
    return " · ".join(parts) + (f" ({what.origin})" if what.origin else "")


# files


def usable(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that a batch takes, and the names of those that are nothing to restore."""
    kinds = [(path, kind_of(path)) for path in paths]
    return [path for path, kind in kinds if kind], [path.name for path, kind in kinds if not kind]


def _facts(paths: Sequence[str]) -> str:
    """How many files there are, as HTML."""
    if not paths:
        return '<p class="pi-facts">No files yet.</p>'
    taken, skipped = usable([Path(path) for path in paths])
    text = f"{len(taken)} file{'s' * (len(taken) != 1)}"
    if skipped:
        more = ", ..." if len(skipped) > 3 else ""
        text += f" · {len(skipped)} skipped (no picture or volume): {', '.join(skipped[:3])}{more}"
    return f'<p class="pi-facts" role="status">{html.escape(text)}</p>'


def _reason(what: Chosen | None, paths: Sequence[str], extra: Sequence[str]) -> str:
    """Why a batch cannot be started yet, as HTML; empty when it can."""
    text = ""
    if what is None:
        text = "Step 1 first: choose a preset, or send settings from Restore."
    elif not any(kind_of(Path(path)) for path in paths):
        text = "Step 2 first: add files."
    else:
        try:
            _placed(what, [Path(path) for path in extra])
        except PreimageError as error:
            text = plain(error)
    return f'<p class="pi-reason">{html.escape(text)}</p>' if text else ""


# files that the recipe names


def begin_batch(
    desk: Desk, what: Chosen, files: Sequence[Path], extra: Sequence[Path] = (), *, fail_fast: bool = False
) -> str:
    """Queue a job with these settings and return its identifier.

    Args:
        desk: of the server.
        what: the settings.
        files: what is to be restored.
        extra: masks and kernels, in place of those that the recipe names.
        fail_fast: end after the first file that fails.

    Raises:
        PreimageError: a file that the recipe names is missing, or the job cannot be carried out.
    """
    recipe, attached = _placed(what, extra)
    kept = {}
    for name, file in attached.items():
        kept[name] = file if file is not None else _of_job(desk, what.job, name)
    options = {**what.options.model_dump(mode="json"), "views": True, "fail_fast": fail_fast}
    return begin(desk, files, recipe, options, kept)


def _placed(what: Chosen, extra: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Path | None]]:
    """The recipe with plain names of attachments, and the file of each; None for one of the earlier job."""
    recipe = what.recipe.model_dump(mode="json")
    refs = list(_references(recipe))
    given = {plain_name(path.name): path for path in extra}
    only = next(iter(given)) if len(given) == 1 and len({ref["path"] for ref in refs}) == 1 else ""
    attached: dict[str, Path | None] = {}
    for ref in refs:
        name = plain_name(PurePosixPath(ref["path"]).name)
        if only or name in given:
            name = only or name
            attached[name], ref["sha256"] = given[name], None
        elif what.job and ref["path"].startswith(f"{ATTACHED}/"):
            attached[name] = None
        else:
            raise RecipeError(f"These settings need the file {name}: add it as the mask or kernel for all files.")
        ref["path"] = name
    return recipe, attached


def _missing(what: Chosen) -> list[str]:
    """Names of the files that a recipe names."""
    names = (plain_name(PurePosixPath(ref["path"]).name) for ref in _references(what.recipe.model_dump(mode="json")))
    return list(dict.fromkeys(names))


def _references(values: Any) -> Iterator[dict[str, Any]]:
    """The parts of a recipe's JSON that name files."""
    if isinstance(values, dict):
        if isinstance(values.get("path"), str):
            yield values
        values = list(values.values())
    if isinstance(values, list):
        for part in values:
            yield from _references(part)


def _of_job(desk: Desk, identifier: str, name: str) -> Path:
    """An attachment of an earlier job."""
    path = desk.find(identifier).folder / ATTACHED / name
    if path.is_symlink() or not path.is_file():
        raise ReadError(f"The file {name} of that run is gone: add it as the mask or kernel for all files.")
    return path
