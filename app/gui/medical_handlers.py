"""What the Medical tab does when somebody does something."""

import html
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from pydantic import ValidationError

from app.desk import Desk, device_here
from app.gui.begin import begin, uploaded
from app.gui.faults import as_sentence, plain
from app.gui.medical_data import Loaded, Wishes, again, forget, sources, take_in
from app.gui.medical_recipe import (
    CLASSICAL,
    STUDIES,
    Asked,
    best_prior,
    options_of,
    prior_sentence,
    problem_of,
    recipe_of,
    samples_of,
    seconds,
)
from app.gui.slices import SliceViewer
from medical.phantoms import write_head, write_torso
from operators.errors import PreimageError, RecipeError

PHANTOMS: dict[str, tuple[str, Callable[[Path], list[Path]], dict[str, Any]]] = {
    "ct": ("Phantom CT, 60 views", write_torso, {"problem": "ct", "sigma": 0.02}),
    "mri": ("Phantom MRI ×4", write_head, {"problem": "mri", "sigma": 10.0}),
}
"""Label of the button, what makes the files, and the settings that go with them."""

INVITE = "No file? The phantoms are drawn by the program and show nobody."
NO_DATA = "Step 1 first: add a volume, or try a phantom."
TYPES = {"dicom": "DICOM (derived series)", "nifti": "NIfTI", "png": "Preview (PNG)", "npz": "All samples (NPZ)"}

FIELDS = tuple(Asked.model_fields)
"""Of the form, in the order in which handlers get them."""

_EVERY = frozenset({"box", "random", "file"})
BELONGS: dict[str, tuple[str, frozenset[str]]] = {
    "width": ("blur", _EVERY),
    "hole": ("missing", _EVERY),
    "fraction": ("missing", frozenset({"random"})),
    "factor": ("low", _EVERY),
    "views": ("ct", _EVERY),
    "arc": ("ct", _EVERY),
    "acceleration": ("mri", _EVERY),
    "pattern": ("mri", _EVERY),
    "mask": ("missing", frozenset({"file"})),
}
"""The problem that a field belongs to, and the kinds of holes."""

_making = threading.Lock()


class Handlers:
    """The handlers of the tab.

    Args:
        desk: of the server.
        cache: Gradio's folder of uploads, below which all files of the page lie.
    """

    def __init__(self, desk: Desk, cache: Path) -> None:
        self.desk, self.cache = desk, cache

    def inside(self, given: str) -> Path:
        """A file that the page names, which must have been uploaded to it."""
        return uploaded(given, self.cache)

    def wishes(self, segmentation: str | None, black: Any, white: Any, gap: Any, *, chosen: Any = None) -> Wishes:
        return Wishes(
            window=_window(black, white),
            on_gap="slicewise" if gap == "slicewise" else "refuse",
            labels=None if segmentation is None else self.inside(segmentation),
            chosen=chosen if isinstance(chosen, int) else None,
        )

    def accept(self, before: Loaded | None, read: Callable[[], Loaded], *, fresh: bool) -> tuple[Any, ...]:
        """What a volume changes on the page; a refusal of other files takes the old one away."""
        try:
            taken = read()
        except PreimageError as error:
            if before is not None and not fresh:  # what was refused are wishes; the volume is as good as it was
                kept = gr.update(value=before.cases.index(before.case))
                return before, line(plain(error), fault=True), kept, gr.skip(), gr.skip(), gr.skip()
            drop(before)
            return _nothing(line(plain(error), fault=True))
        if before is not None and before.folder != taken.folder:
            drop(before)
        several = [(_case(case.about, k, case.folder), k) for k, case in enumerate(taken.cases)]
        chosen = taken.cases.index(taken.case)
        shown = gr.Dropdown(choices=several, value=chosen, visible=len(several) > 1)
        best = best_prior(self.desk.assets, taken.modality)
        level = gr.Number(value=_usual("noise", taken), label=_sigma_label("noise", taken)) if fresh else gr.skip()
        return (
            taken,
            _told(taken),
            shown,
            SliceViewer(source={"views": list(taken.views)}, job=""),
            level,
            gr.Radio(value=best) if fresh else gr.skip(),
        )

    def take(self, files: list[str] | None, before: Loaded | None, *rest: Any) -> tuple[Any, ...]:
        """Files were added or taken away."""
        with as_sentence():
            if not files:
                drop(before)
                return *_nothing(line(INVITE)), gr.skip(), gr.skip()
            read = lambda: take_in([self.inside(f) for f in files], self.cache, self.wishes(*rest))  # noqa: E731
            return *self.accept(before, read, fresh=True), False, "noise"

    def reread(self, files: list[str] | None, before: Loaded | None, chosen: Any, *rest: Any) -> tuple[Any, ...]:
        """Another volume of the same files, or other wishes, with which files may be read that were refused."""
        with as_sentence():
            if before is None:
                return self.take(files, None, *rest)[:6] if files else (gr.skip(),) * 6
            return self.accept(before, lambda: again(before, self.wishes(*rest, chosen=chosen)), fresh=False)

    def phantom(self, name: str, before: Loaded | None, *rest: Any) -> tuple[Any, ...]:
        """A drawn body with the settings of its study."""
        _, make, settings = PHANTOMS[name]
        with as_sentence():
            files = _phantom(name, make, self.cache)
            changed = self.accept(before, lambda: take_in(files, self.cache, self.wishes(None, *rest)), fresh=True)
            if changed[0] is None:
                return (*changed, gr.skip(), gr.skip(), gr.skip(), gr.skip())
            level = gr.Number(value=settings["sigma"], label=_sigma_label(settings["problem"], changed[0]))
            return (*changed[:4], level, changed[5], None, True, settings["problem"], "quick")

    def check(self, taken: Loaded | None, *values: Any) -> tuple[Any, ...]:
        """What is missing for a run, how long it takes, and which fields are shown."""
        given = dict(zip(FIELDS, values, strict=True))
        asked, fault = _asked(given)
        kind, hole = given["problem"], given["hole"]
        shown = [gr.update(visible=kind == problem and hole in holes) for problem, holes in BELONGS.values()]
        label = gr.Number(label=_sigma_label(kind, taken))
        method_chosen = given["method"] if isinstance(given["method"], str) else CLASSICAL
        prior = line(prior_sentence(self.desk.assets, method_chosen))
        more = gr.Slider(interactive=method_chosen != CLASSICAL)
        if taken is None:
            said, ready = line(NO_DATA), False
        else:
            missing = fault or (problem_of(asked, taken) if asked is not None else "")
            said, ready = line(missing, fault=True), not missing
            if asked is not None and not missing:
                said = line(_estimate(seconds(asked, taken, _speed(self.desk)), taken, asked))
        return (gr.Button(interactive=ready), said, prior, more, label, *shown)

    def run(self, taken: Loaded | None, hidden: Any, seen: Any, wanted: Any, hole_file: Any, *rest: Any) -> Any:
        """Begin to restore."""
        black, white, gap, *values = rest
        with as_sentence():
            asked, fault = _asked(dict(zip(FIELDS, values, strict=True)))
            if taken is None or asked is None:
                raise RecipeError(fault or NO_DATA)
            attached: dict[str, Path] = {}
            if asked.problem == "missing" and asked.hole == "file" and hole_file:
                attached[f"mask{Path(hole_file).suffix.lower()}"] = self.inside(hole_file)
            recipe = recipe_of(asked, taken, self.desk.assets, next(iter(attached), ""))
            device = device_here()
            chosen = tuple(name for name in TYPES if name in (wanted or ()))
            able = chosen if taken.case.kind == "dicom" else tuple(name for name in chosen if name != "dicom")
            gaps: Literal["refuse", "slicewise"] = "slicewise" if gap == "slicewise" else "refuse"
            options = options_of(asked, able, _window(black, white), gaps, device)
            files = sources(taken, nameless=bool(hidden), text_checked=bool(seen))
            values_of = (recipe.model_dump(mode="json"), options.model_dump(mode="json"))
            try:
                return SliceViewer(job=begin(self.desk, files, *values_of, attached))
            finally:
                if hidden:
                    forget(files[0].parent)  # copies, of which the job has its own


def _nothing(said: str) -> tuple[Any, ...]:
    """The page without a volume."""
    empty = SliceViewer(source=None, job="")
    return None, said, gr.Dropdown(choices=[], visible=False), empty, gr.skip(), gr.skip()


def drop(taken: Loaded | None) -> None:
    """Take what was kept of an upload off the disk."""
    forget(None if taken is None else taken.folder)


def _phantom(name: str, make: Callable[[Path], list[Path]], cache: Path) -> list[Path]:
    """The files of a phantom, drawn when they are first wanted."""
    folder = cache / "examples" / f"phantom-{name}"
    with _making:
        if not folder.is_dir():
            make(folder)
    return sorted(folder.iterdir())


def _asked(values: dict[str, Any]) -> tuple[Asked | None, str]:
    """The form, or what is wrong with it."""
    names = {name: value for name, value in values.items() if value is not None}
    try:
        return Asked.model_validate(names), ""
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "form"
        return None, f"{_NAMES.get(field, field.capitalize())}: {first['msg'][0].lower()}{first['msg'][1:]}."


_NAMES = {"sigma": "Noise level", "width": "Blur", "fraction": "Missing part", "factor": "Times fewer pixels"}


def chosen(problem: str, study: bool, taken: Loaded | None) -> tuple[Any, Any]:
    """Problems whose data are no slices can only be studied; noise in another unit needs another level."""
    return study or problem in STUDIES, _usual(problem, taken)


def _usual(problem: str, taken: Loaded | None) -> float:
    """A level to begin with: what was estimated, or a fortieth of the range where that is next to nothing."""
    if problem == "ct":
        return 0.02
    if taken is None:
        return 10.0
    least = 0.002 * taken.scale.span
    return _rounded(taken.sigma if taken.sigma and taken.sigma > least else 0.025 * taken.scale.span)


def _window(black: Any, white: Any) -> tuple[float, float] | None:
    """What two fields say, which are empty or hold a number as text."""
    given = ["" if value is None else str(value).strip() for value in (black, white)]
    if given == ["", ""]:
        return None
    if "" in given:
        raise RecipeError("Expected both black and white in Options, or neither; fill in the other.")
    try:
        low, high = map(float, given)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RecipeError("Expected numbers for black and white in Options, white the larger; got others; change them.")
    return low, high


def _speed(desk: Desk) -> float | None:
    found = desk.dispatcher.speed().get("seconds_per_call_megapixel")
    return float(found) if found else None


# what is said


def line(text: str, *, fault: bool = False) -> str:
    """A sentence as HTML."""
    return f'<p class="pi-facts{" pi-fault" if fault else ""}" role="status">{html.escape(text)}</p>'


def _told(taken: Loaded) -> str:
    """The facts of a volume; nothing of it is taken for HTML."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in taken.facts)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in taken.notes)
    hidden = ", ".join(map(html.escape, taken.hidden)) or "none"
    return (
        f'<p class="pi-facts" role="status">{html.escape(taken.title)}</p>'
        f'<details class="pi-volume"><summary>Volume facts</summary><dl>{rows}</dl>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"<p>Identifiers are not shown. Elements of the file that hold some: {hidden}.</p></details>"
    )


def _sigma_label(problem: Any, taken: Loaded | None) -> str:
    if problem == "ct":
        return "Noise of the line integrals (−ln, no unit)"
    if taken is None:
        return "Noise level"
    guess = f"; estimated ≈ {_rounded(taken.sigma):g}" if taken.sigma else ""
    return f"Noise level ({taken.unit}{guess})"


def _estimate(time: float | None, taken: Loaded, asked: Asked) -> str:
    what = f"{taken.slices} slices of {taken.plane[1]} × {taken.plane[0]}"
    if time is None:
        return f"{what}, slice by slice."
    return f"About {_duration(time)}: {what}, {samples_of(asked)} samples."


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _case(about: str, number: int, folder: str) -> str:
    return f"{number + 1}: {about or folder.rsplit('/', 1)[-1]}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
