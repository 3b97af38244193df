"""The Medical tab: a volume, what happened to it, and slices before and after."""

from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk
from app.gui.medical_handlers import BELONGS, FIELDS, INVITE, NO_DATA, PHANTOMS, TYPES, Handlers, chosen, drop, line
from app.gui.medical_recipe import CLASSICAL, PROBLEMS, best_prior, prior_sentence, priors
from app.gui.slices import SliceViewer

BANNER = (
    '<p class="pi-research" role="note"><strong>RESEARCH USE ONLY</strong> – not for diagnosis. '
    "Restored voxels are computed, not measured, and can look real.</p>"
)


def build(desk: Desk, cache: Path) -> None:
    """Fill the tab.

    Args:
        desk: of the server.
        cache: Gradio's folder of uploads, below which all files of the page lie.
    """
    do = Handlers(desk, cache)
    loaded = gr.State(None, delete_callback=drop)
    found = priors(desk.assets)
    methods = [
        *((card.title, name) for name, card in found.items()),
        ("Total variation (classical)", CLASSICAL),
    ]
    gr.HTML(BANNER, elem_id="research")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300, elem_classes="pi-left"):
            gr.HTML('<h2 class="pi-step">1 Volume</h2>')
            file = gr.File(
                label="DICOM series (.dcm or a zip), NIfTI (.nii, .nii.gz)",
                file_count="multiple",
                height=150,
                elem_id="medical-file",
            )
            with gr.Row(elem_classes="pi-samples"):
                buttons = {
                    name: gr.Button(label, size="sm", elem_id=f"phantom-{name}")
                    for name, (label, _, _) in PHANTOMS.items()
                }
            series = gr.Dropdown(label="Volume of these files", visible=False, elem_id="medical-series")
            facts = gr.HTML(line(INVITE), elem_id="medical-facts")
            gr.HTML('<h2 class="pi-step">2 What happened to it?</h2>')
            study = gr.Checkbox(
                label="My volume is clean: degrade it first, then restore and compare (study)", elem_id="medical-study"
            )
            problem = gr.Radio(
                [(title, name) for name, title in PROBLEMS.items()],
                value="noise",
                label="Problem",
                elem_id="medical-problem",
            )
            sigma = gr.Number(label="Noise level", value=10, minimum=0, elem_id="medical-sigma")
            width = gr.Number(label="Blur, standard deviation (pixels)", value=1.0, visible=False)
            hole = gr.Radio(
                [("A box in the middle", "box"), ("Pixels at random", "random"), ("As in a file", "file")],
                value="box",
                label="What is missing in every slice",
                visible=False,
            )
            fraction = gr.Number(label="Part of the pixels that is missing", value=0.5, visible=False)
            mask = gr.File(
                label="Mask of a slice's size (PNG or NPY; white is measured)",
                file_types=[".png", ".npy"],
                height=110,
                visible=False,
            )
            factor = gr.Number(label="Times fewer pixels each way", value=2, precision=0, visible=False)
            views = gr.Number(label="Views", value=60, precision=0, visible=False)
            arc = gr.Number(label="Over an arc of (°)", value=180, visible=False)
            acceleration = gr.Number(label="Acceleration", value=4, visible=False)
            pattern = gr.Dropdown(
                [
                    ("Even columns", "equispaced-fraction"),
                    ("Columns at random", "random"),
                    ("Poisson disc", "poisson-disc"),
                    ("Radial lines", "radial"),
                ],
                value="equispaced-fraction",
                label="Frequencies measured",
                visible=False,
            )
            gr.HTML('<h2 class="pi-step">3 Method</h2>')
            method = gr.Radio(methods, value=best_prior(desk.assets, ""), label="Prior", elem_id="medical-method")
            told = gr.HTML(line(prior_sentence(desk.assets, best_prior(desk.assets, ""))), elem_id="medical-prior")
            quality = gr.Radio(
                [("Quick look", "quick"), ("Balanced", "balanced"), ("Best", "best")],
                value="quick",
                label="Quality",
                elem_id="medical-quality",
            )
            samples = gr.Slider(1, 16, value=2, step=1, label="Samples (two or more give a spread map)")
            with gr.Accordion("Options", open=False):
                types = gr.CheckboxGroup(
                    [(title, name) for name, title in TYPES.items()],
                    value=["dicom", "nifti"],
                    label="Files to write",
                    elem_id="medical-types",
                )
                with gr.Row():
                    # a field for numbers that is empty says 0 as soon as it is seen
                    low = gr.Textbox(label="Black is", placeholder="automatic", max_lines=1, min_width=120)
                    high = gr.Textbox(label="White is", placeholder="automatic", max_lines=1, min_width=120)
                on_gap = gr.Radio(
                    [("Refuse", "refuse"), ("Restore slice by slice", "slicewise")],
                    value="refuse",
                    label="Missing or uneven slices",
                )
                seed = gr.Number(label="Seed", value=0, precision=0, minimum=0)
                labels = gr.File(label="Segmentation to lay over (NIfTI)", height=110, elem_id="medical-labels")
                nameless = gr.Checkbox(
                    label="Take identities out of the copies that are restored",
                    info="Else results carry the identity of their source, so that they can go back to an archive.",
                    elem_id="medical-nameless",
                )
                text_checked = gr.Checkbox(label="I have looked: no text is burned into the images")
            start = gr.Button("Reconstruct", variant="primary", interactive=False, elem_id="medical-start")
            reason = gr.HTML(line(NO_DATA), elem_id="medical-reason")
        with gr.Column(scale=8, min_width=320, elem_classes="pi-right"):
            viewer = SliceViewer(elem_id="slices", source=None, job="")

    form: dict[str, Any] = {
        "study": study,
        "problem": problem,
        "sigma": sigma,
        "width": width,
        "hole": hole,
        "fraction": fraction,
        "factor": factor,
        "views": views,
        "arc": arc,
        "acceleration": acceleration,
        "pattern": pattern,
        "method": method,
        "quality": quality,
        "samples": samples,
        "seed": seed,
    }

    quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    latest: dict[str, Any] = {**quick, "trigger_mode": "always_last"}
    reading = [labels, low, high, on_gap]
    changes = [loaded, facts, series, viewer, sigma, method]
    gr.on(
        [file.upload, file.clear, file.delete], do.take, [file, loaded, *reading], [*changes, study, problem], **latest
    )
    wished = [series.input, labels.change, low.change, high.change, on_gap.change]
    gr.on(wished, do.reread, [file, loaded, series, *reading], changes, **latest)
    for name, button in buttons.items():
        button.click(
            lambda *given, name=name: do.phantom(name, *given),
            [loaded, low, high, on_gap],
            [*changes, file, study, problem, quality],
            **quick,
        )
    problem.input(chosen, [problem, study, loaded], [study, sigma], **quick)
    fields = [form[name] for name in FIELDS]
    outputs = [start, reason, told, samples, sigma, *({**form, "mask": mask}[name] for name in BELONGS)]
    gr.on([loaded.change, *(field.change for field in fields)], do.check, [loaded, *fields], outputs, **latest)
    asking = [loaded, nameless, text_checked, types, mask, low, high, on_gap, *fields]
    start.click(do.run, asking, [viewer], **quick)
