"""The forms: what they draw from the descriptions, the values they give, and what Python makes of those."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect
from pydantic import ValidationError

from app.gui.form import CARDS, advice_on, card_of, files_of, forms_of, groups, problem_props, recipe_of
from app.gui.quality import ROWS, beginnings, offers, quality_props, reasons, row_of
from app.options import Options
from operators import AnyNoise, AnyOperator, DataRef
from operators.errors import PreimageError, RecipeError
from operators.kernels import KernelFile
from operators.masks import MaskFile
from operators.spec import Need, Spec, kinds
from restoration.alternating import Alternating
from restoration.best_of import BestOf
from restoration.calls import TRAINED, calls_of
from restoration.method import Method
from restoration.methods.mcg_diff import MCGDiff
from restoration.methods.pnp_dm import PnPDM
from restoration.methods.sitcom import SITCOM
from restoration.pipeline import Pipeline
from restoration.recipe import AnyMethod, PowerLaw, Recipe, preset_names, read_recipe
from restoration.schedule import FlowTimes, Karras, LinearVP

Mounted = Callable[..., Page]
PICTURE = {"width": 512, "height": 384, "channels": 3, "bits": 8}
SPEED = {"/api/v1/speed": ("application/json", b'{"seconds_per_call_megapixel": 6.0, "device": "CPU, 2 cores"}')}
DARK = """body { background: #0d1420; --body-text-color: #e8edf4; --body-text-color-subdued: #a9b6c8;
--background-fill-primary: #131c2b; --background-fill-secondary: #1a2537; --border-color-primary: #344256; }"""


def made(union: Any) -> dict[str, Spec]:
    """The members that have defaults, at those."""
    found = {}
    for kind, spec in kinds(union).items():
        try:
            found[kind] = spec()
        except ValidationError:
            continue
    return found


OPERATORS, NOISES = made(AnyOperator), made(AnyNoise)
METHODS = {kind: spec for kind, spec in made(AnyMethod).items() if isinstance(spec, Method)}


def problem_form(mounted: Mounted, **props: Any) -> Page:
    page = mounted("form_problem", {"value": None, **problem_props(), "picture": PICTURE, **props})
    page.wait_for_selector(".pi-problem[data-ready]")
    return page


def quality_form(mounted: Mounted, **props: Any) -> Page:
    page = mounted("form_quality", {"value": None, **quality_props(), "picture": PICTURE, **props}, SPEED)
    page.wait_for_selector(".pi-quality[data-speed]")
    return page


def value(page: Page) -> Any:
    return page.evaluate("window.props.value")


def tell(page: Page, operator: Spec, noise: Spec | None = None) -> None:
    """As the first form tells the second."""
    detail = {
        "problem": card_of(operator.kind),  # type: ignore[attr-defined]
        "operator": operator.model_dump(mode="json"),
        "noise": (noise or NOISES["gaussian"]).model_dump(mode="json"),
    }
    page.evaluate("detail => window.dispatchEvent(new CustomEvent('preimage:problem', {detail}))", detail)


# in the browser


def test_every_operator_and_noise_is_drawn_with_its_defaults(mounted: Mounted) -> None:
    page = problem_form(mounted)
    assert value(page) == {"problem": None}
    expect(page.locator(".pi-problem")).to_have_attribute("data-state", "empty")
    page.get_by_role("radio", name="Other").click()
    page.get_by_text("Another kind of noise").click()
    chosen = page.get_by_label("What happened")
    for kind in kinds(AnyOperator):
        chosen.select_option(kind)
        if kind in OPERATORS:
            assert value(page)["operator"] == OPERATORS[kind].model_dump(mode="json")
            expect(page.locator(".pi-problem")).to_have_attribute("data-state", "ready")
        else:  # it wants a file
            expect(page.locator(".pi-problem")).to_have_attribute("data-state", "invalid")
    for kind, noise in NOISES.items():
        page.get_by_label("Kind of noise").select_option(kind)
        assert value(page)["noise"] == noise.model_dump(mode="json")


def test_every_kernel_and_mask_is_drawn_with_its_defaults(mounted: Mounted) -> None:
    page = problem_form(mounted)
    page.get_by_role("radio", name="Blur").click()
    for kind in kinds(type(OPERATORS["blur"]).model_fields["kernel"].annotation):
        page.get_by_label("What kind of blur").select_option(kind)
        kernel = value(page)["operator"]["kernel"]
        if kind == "file":
            assert kernel == {"kind": "file", "file": None}
            continue
        recipe, _ = recipe_of(value(page), {})
        assert recipe.operator.kernel.kind == kind  # type: ignore[union-attr]
        recipe.operator.build((3, 300, 300))  # the side holds the blur
    page.get_by_role("radio", name="Missing parts").click()
    assert value(page)["paint"] is True
    page.get_by_role("radio", name="A regular or random pattern").click()
    for kind, mask in made(type(OPERATORS["inpainting"]).model_fields["mask"].annotation).items():
        page.get_by_label("Pattern", exact=True).select_option(kind)
        assert value(page)["operator"] == {"kind": "inpainting", "mask": mask.model_dump(mode="json")}
        assert value(page)["paint"] is False


def test_every_method_is_drawn_with_its_defaults(mounted: Mounted) -> None:
    page = quality_form(mounted)
    page.get_by_text("Advanced:").click()
    for kind, method in METHODS.items():
        page.locator("select[id$=-method]").select_option(kind)
        assert value(page)["method"] == method.model_dump(mode="json")
        assert value(page)["quality"] == "custom"
    expect(page.locator(".pi-quality")).to_have_attribute("data-state", "ready")


def test_methods_are_greyed_with_the_reason(mounted: Mounted) -> None:
    page = quality_form(mounted)
    model = offers(type(PowerLaw()))
    for operator in OPERATORS.values():
        offered = offers(type(operator)) | NOISES["gaussian"].offers | model  # type: ignore[attr-defined]
        tell(page, operator)
        shown = page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.pi-quality optgroup option')]"
            ".map(o => [o.value, o.disabled ? o.title : '']))"
        )
        for kind, method in METHODS.items():
            fits = any(begun.needs <= offered for begun in beginnings(type(method)))
            assert shown[kind] == ("" if fits else reasons(method, offered)), (operator, kind)
    tell(page, OPERATORS["jpeg"])
    page.get_by_text("Advanced:").click()
    page.get_by_text("Why some methods are greyed").click()
    expect(page.locator("li[data-kinds~=diffpir]")).to_contain_text(Need.PROX.sentence)


def test_numbers_are_checked_where_they_are_typed(mounted: Mounted) -> None:
    page = problem_form(mounted)
    page.get_by_role("radio", name="Blur").click()
    width = page.get_by_label("Width of the blur", exact=False).first
    width.fill("99")
    expect(width).to_have_attribute("aria-invalid", "true")
    told = width.get_attribute("aria-describedby") or ""
    assert "Give a number above 0 and at most 30." in [page.locator(f"#{name}").inner_text() for name in told.split()]
    expect(page.locator(".pi-problem")).to_have_attribute("data-state", "invalid")
    page.get_by_role("button", name="Reset Width of the blur to 3").click()
    assert value(page)["operator"]["kernel"] == {"kind": "gaussian", "size": 25, "std": 3}
    expect(page.locator(".pi-problem")).to_have_attribute("data-state", "ready")
    page.get_by_role("slider", name="Width of the blur").fill("500")
    assert value(page)["operator"]["kernel"]["std"] == 5
    page.get_by_role("radio", name="Too small").click()
    page.get_by_label("Times smaller").first.fill("2.5")
    expect(page.get_by_text("Give a whole number from 2 to 12.")).to_be_visible()
    page.get_by_label("Times smaller").first.fill("2")
    expect(page.get_by_text("512 × 384 becomes 1024 × 768.")).to_be_visible()


def test_lists_and_files_and_what_may_be_left_out(mounted: Mounted) -> None:
    page = problem_form(mounted)
    page.get_by_role("radio", name="Other").click()
    what = page.get_by_label("What happened")
    what.select_option("hologram")
    page.get_by_role("textbox", name="Distances").fill("1, 2.5")
    assert value(page)["operator"]["distances"] == [1, 2.5]
    what.select_option("composed")
    steps = len(value(page)["operator"]["steps"])
    page.get_by_role("button", name="Add one").click()
    assert len(value(page)["operator"]["steps"]) == steps + 1
    page.get_by_role("button", name=f"Move up number {steps + 1}").click()
    page.get_by_role("button", name=f"Remove number {steps + 1}").click()
    assert len(value(page)["operator"]["steps"]) == steps
    what.select_option("ct")
    page.get_by_label("Window", exact=True).uncheck()
    assert value(page)["operator"]["window"] is None
    page.get_by_label("Window", exact=True).check()
    assert value(page)["operator"]["window"] == OPERATORS["ct"].model_dump(mode="json")["window"]
    page.get_by_role("radio", name="Blur").click()
    page.get_by_label("What kind of blur").select_option("file")
    page.locator("input[type=file]").set_input_files({"name": "star.png", "mimeType": "image/png", "buffer": b"x"})
    expect(page.get_by_text("star.png")).to_be_visible()
    assert files_of(value(page)) == ["/cache/1/star.png"]


def test_guesses_fill_in_what_was_asked_for(mounted: Mounted) -> None:
    page = problem_form(mounted)
    noise = {"kind": "gaussian", "sigma": 0.031}
    guess = {"problem": "blur", "sigma": 0.031, "width": 1.8, "missing": 0, "sentence": "A guess: blur. Check it."}
    operator = {"kind": "blur", "kernel": {"kind": "gaussian", "size": 17, "std": 1.8}, "boundary": "reflect"}
    guess["value"] = {"problem": "blur", "noise": noise, "operator": operator}
    page.evaluate("guess => window.give({guess})", guess)  # when a picture was loaded
    assert value(page) == {"problem": None}
    page.get_by_role("button", name="Suggest").click()
    assert page.evaluate("window.heard.some(([name]) => name === 'suggest')")
    page.evaluate("guess => window.give({guess})", guess)
    expect(page.get_by_text("A guess: blur. Check it.")).to_be_visible()
    assert (value(page)["operator"], value(page)["noise"]) == (operator, noise)
    page.get_by_label("Noise level").first.fill("0.1")
    page.evaluate("guess => window.give({guess})", guess)  # not asked for: what was typed stays
    assert value(page)["noise"]["sigma"] == 0.1
    page.get_by_role("button", name="Estimate").click()
    page.evaluate("guess => window.give({guess})", guess)
    assert value(page)["noise"] == noise


def test_missing_parts_are_preselected_where_the_file_marks_them(mounted: Mounted) -> None:
    page = problem_form(mounted)
    guess = {"problem": "missing", "sigma": None, "width": None, "missing": 0.1, "value": {"problem": "missing"}}
    page.evaluate("guess => window.give({guess})", {**guess, "sentence": "10 % of the picture is missing."})
    expect(page.get_by_role("radio", name="Missing parts")).to_be_checked()
    expect(page.get_by_text("10 % of the picture is missing.")).to_be_visible()


def test_settings_of_a_run_fill_both_forms(mounted: Mounted) -> None:
    recipes = {name: read_recipe(name)[0] for name in preset_names()}
    options = Options(truth=True, precision="fp32", output_types=("png",))
    send = "detail => window.dispatchEvent(new CustomEvent('preimage:settings', {detail}))"
    for form, part in ((problem_form, 0), (quality_form, 1)):
        page = form(mounted)
        for recipe in recipes.values():
            detail = {"recipe": recipe.model_dump(mode="json"), "options": options.model_dump(mode="json")}
            page.evaluate(send, detail)
            assert value(page) == forms_of(recipe, options)[part]


def test_values_that_python_puts_in_are_heard(mounted: Mounted) -> None:
    page = problem_form(mounted)
    recipe, _ = read_recipe("deblur-gaussian")
    problem, _ = forms_of(recipe)
    guess = {"sigma": 0.1, "missing": 0, "value": None, "sentence": ""}
    # with the picture of an example comes a guess, which leaves alone what was put in
    page.evaluate("value => window.give({value})", problem)
    page.evaluate("([picture, guess]) => window.give({picture, guess})", [PICTURE, guess])
    assert value(page) == problem
    page.evaluate("([picture, guess]) => window.give({picture, guess})", [PICTURE, guess])  # a picture of one's own
    assert value(page)["noise"]["sigma"] == 0.1
    page = quality_form(mounted)
    put = {"quality": "quick", "seed": 5, "samples": 2}
    page.evaluate("value => { window.props.value = value }", put)  # not told of yet
    tell(page, recipe.operator)
    assert {name: value(page)[name] for name in put} == put


def test_costs_follow_size_and_samples(mounted: Mounted) -> None:
    page = quality_form(mounted)
    tell(page, OPERATORS["identity"])
    card = page.get_by_role("radio", name="Balanced").locator("xpath=..")
    expect(card).to_contain_text("About 24 s, CPU")  # 20 calls x 0.197 megapixels x 6 s
    page.get_by_role("spinbutton", name="Samples").fill("4")
    expect(card).to_contain_text("About 2 min, CPU")
    page.evaluate("window.give({picture: {width: 4000, height: 3000, channels: 3}})")
    expect(card).to_contain_text("About 1 h 36 min, CPU")
    page.get_by_role("spinbutton", name="Samples").fill("0")
    expect(page.get_by_text("Give a whole number from 1 to 64.")).to_be_visible()
    expect(page.locator(".pi-quality")).to_have_attribute("data-state", "invalid")


def test_dice_draws_another_seed(mounted: Mounted) -> None:
    page = quality_form(mounted)
    first = value(page)["seed"]
    page.get_by_role("button", name="New Seed").click()
    second = value(page)["seed"]
    assert first != second
    assert 0 <= second < 2**31
    assert recipe_of({"problem": "noise", "operator": {"kind": "identity"}}, value(page))[0].seeds == (second,)


def test_all_controls_can_be_reached_by_keyboard(mounted: Mounted) -> None:
    page = problem_form(mounted)
    page.get_by_role("radio", name="Blur").click()
    for summary in page.locator("summary").all():
        summary.click()
    wanted = page.evaluate(
        "[...document.querySelectorAll('.pi-problem :is(button, input, select, summary)')]"
        ".filter(e => e.checkVisibility() && e.type !== 'radio' && e.type !== 'file').length"
    )
    page.get_by_role("radio", name="Blur").focus()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.dataset.seen ??= String(Math.random())")
        seen.add(page.evaluate("document.activeElement.type === 'radio' ? null : document.activeElement.dataset.seen"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert len(seen - {None}) >= wanted


@pytest.mark.parametrize("which", ["problem", "quality"])
def test_narrow_and_dark(mounted: Mounted, which: str) -> None:
    page = problem_form(mounted) if which == "problem" else quality_form(mounted)
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_style_tag(content=DARK)
    if which == "problem":
        page.get_by_role("radio", name="Blur").click()
    else:
        page.get_by_text("Advanced:").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, input[type=number], label:has(input), summary')]"
        ".filter(e => e.checkVisibility()).map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height])"
        ".filter(([, height]) => height < 24)"
    )
    assert small == []
    label = page.locator("label").first
    assert label.evaluate("e => getComputedStyle(e).color") == "rgb(232, 237, 244)"


# recipes


@pytest.mark.parametrize("name", preset_names())
def test_presets_survive_the_forms(name: str) -> None:
    recipe, _ = read_recipe(name)
    options = Options(truth=True, output_types=("tiff",))
    again, kept = recipe_of(*forms_of(recipe, options), PICTURE)
    assert again.digest == recipe.digest
    assert (kept.truth, kept.output_types) == (True, ("tiff",))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    operator=st.sampled_from(list(OPERATORS.values())),
    noise=st.sampled_from(list(NOISES.values())),
    method=st.sampled_from([begun for method in METHODS.values() for begun in beginnings(type(method))]),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
    power=st.booleans(),
)
def test_recipes_survive_the_forms(operator: Any, noise: Any, method: Any, seeds: list[int], power: bool) -> None:
    model = {"model": PowerLaw()} if power else {}
    recipe = Recipe(operator=operator, noise=noise, method=method, seeds=tuple(seeds), **model)
    values = json.loads(json.dumps(forms_of(recipe)))
    try:
        again, _ = recipe_of(*values)
    except RecipeError:
        assume(False)
    if again.model != recipe.model:  # classical methods look at no model
        assert not method.needs & {Need.DENOISER, Need.BRIDGE}
        again = again.model_copy(update={"model": recipe.model})
    assert again.digest == recipe.digest


def test_files_go_by_the_names_of_attachments() -> None:
    path = "/cache/ab/star.png"
    problem = {
        "problem": "blur",
        "operator": {"kind": "blur", "kernel": {"kind": "file", "file": {"path": path, "sha256": None}}},
    }
    assert files_of(problem) == [path]
    recipe, _ = recipe_of(problem, {}, attachments={path: "kernel.png"})
    assert recipe.operator.kernel == KernelFile(file=DataRef(path="kernel.png"))  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="Choose the file again"):
        recipe_of(problem, {})
    painted, _ = recipe_of({"problem": "missing"}, {}, mask="mask.png")
    assert painted.operator.mask == MaskFile(file=DataRef(path="mask.png"))  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"^Nothing is painted\. Paint the missing area"):
        recipe_of({"problem": "missing"}, {})
    form, _ = forms_of(painted)
    assert form["paint"] is True
    assert recipe_of(form, {}, mask="mask.png")[0].digest == painted.digest


DEEP: dict[str, Any] = {"kind": "composed", "steps": []}
for _ in range(400):
    DEEP = {"kind": "composed", "steps": [DEEP]}
IDENTITY = {"problem": "noise", "operator": {"kind": "identity"}}


@pytest.mark.parametrize(
    ("problem", "quality"),
    [
        (None, {}),
        ("x", {}),
        ({}, {}),
        ({"problem": "unheard"}, {}),
        ({"problem": "noise"}, {}),
        ({"problem": "noise", "operator": []}, {}),
        ({"problem": "other", "operator": DEEP}, {}),
        ({"problem": "other", "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "std": -1}}}, {}),
        ({"problem": "other", "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "std": "NaN"}}}, {}),
        ({"problem": "other", "operator": {"kind": "blur", "kernel": {"kind": "file", "file": "/etc/passwd"}}}, {}),
        ({"problem": "other", "operator": {"kind": "haze", "depth": {"path": "/etc/passwd"}}}, {}),
        ({**IDENTITY, "noise": {"kind": "gaussian", "sigma": None}}, {}),
        ({**IDENTITY, "extra": 1}, {}),
        (IDENTITY, []),
        (IDENTITY, {"seed": -1}),
        (IDENTITY, {"seed": 1.5}),
        (IDENTITY, {"samples": 10**9}),
        (IDENTITY, {"seeds": [1, 1]}),
        (IDENTITY, {"seeds": list(range(100_000))}),
        (IDENTITY, {"quality": "custom"}),
        (IDENTITY, {"quality": "custom", "method": {"kind": "blind-dps"}}),
        (IDENTITY, {"quality": "custom", "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 0}}}),
        (IDENTITY, {"model": {"kind": "checkpoint", "path": "/etc/passwd"}}),
        (IDENTITY, {"model": {"kind": "trained", "name": "../x"}}),
        (IDENTITY, {"precision": "int3"}),
        (IDENTITY, {"output": "nifti" * 50_000}),
        ({"problem": "phase", "operator": {"kind": "hologram", "distances": []}}, {}),
    ],
)
def test_hostile_values_are_refused_in_a_sentence(problem: Any, quality: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(problem, quality, PICTURE)
    said = str(caught.value)
    assert said[0].isupper(), said
    assert said.endswith("."), said
    assert len(said) < 500
    for internal in ("pydantic", "http", "Traceback", "/etc/passwd", "{", "validation error"):
        assert internal not in said
    advice_on(problem, quality, PICTURE)  # and this does not fail either


def test_wrong_numbers_are_named() -> None:
    blur = {"kind": "blur", "kernel": {"kind": "gaussian", "size": 25, "std": 31}}
    with pytest.raises(RecipeError, match=r"^Standard deviation should be at most 30, not 31\.$"):
        recipe_of({"problem": "blur", "operator": blur}, {})
    with pytest.raises(RecipeError, match=r"^Noise level should be above 0, not 0\.$"):
        recipe_of({**IDENTITY, "noise": {"kind": "gaussian", "sigma": 0}}, {})


def test_sizes_are_refused_before_the_run() -> None:
    operator = {"kind": "stacked", "parts": [{"kind": "downsample", "factor": 2}, {"kind": "identity"}]}
    with pytest.raises(RecipeError):
        recipe_of({"problem": "other", "operator": operator}, {}, {"width": 31, "height": 17, "channels": 3})


# qualities


def test_every_problem_has_qualities_that_can_run() -> None:
    assert {kind for group in groups() for kind in (entry["kind"] for entry in group["kinds"])} == set(
        kinds(AnyOperator)
    )
    assert [card["id"] for card in CARDS][-1] == "other"
    for kind, operator in OPERATORS.items():
        others = frozenset({Need.GAUSSIAN, Need.DENOISER, Need.VJP})
        offered = operator.offers | others  # type: ignore[attr-defined]
        row = row_of(operator, others)  # type: ignore[arg-type]
        assert row is not None, kind
        for choice in row.three.values():
            assert choice.method.needs <= offered
    for row in ROWS:
        for choice in row.three.values():
            choice.method.check(TRAINED)
            assert len({c.method.needs for c in row.three.values()}) == 1


FIVE, SMALL = Karras(steps=5, sigma_max=1, sigma_min=0.1), LinearVP(steps=20)


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_calls_are_those_that_a_run_makes(kind: str) -> None:
    method: Method = METHODS[kind]
    if "schedule" in type(method).model_fields:
        walk = {"linear-vp": SMALL, "flow": FlowTimes(steps=6)}.get(method.schedule.kind, FIVE)  # type: ignore[attr-defined]
        method = type(method).model_validate({**method.model_dump(), "schedule": walk.model_dump()})
    smaller: dict[str, Method] = {
        "pnp-dm": PnPDM(schedule=FIVE, hold=2, reverse_steps=3),
        "mcg-diff": MCGDiff(schedule=FIVE, particles=4),
        "sitcom": SITCOM(schedule=FIVE, iterations=3),
        "best-of": BestOf(runs=2, method=beginnings(BestOf)[0].method.model_copy(update={"schedule": FIVE})),  # type: ignore[attr-defined]
        "alternating": Alternating(rounds=3, settle=1, method=type(Alternating().method)(schedule=FIVE)),
    }
    method = smaller.get(kind, method)
    others = {"blind-dps": "unknown-kernel", "gdp": "unknown-exposure"}
    operator = OPERATORS[others.get(kind, "inpainting")]
    noise = NOISES["correlated" if kind == "structured" else "gaussian"]
    recipe = Recipe(operator=operator, noise=noise, method=method, model=PowerLaw())
    if method.needs - (recipe.operator.offers | recipe.noise.offers | recipe.model.offers):
        return  # no such prior here
    pipeline = Pipeline.load(recipe)
    report = pipeline.run(pipeline.simulate(torch.rand(3, 24, 24))).report
    calls = calls_of(recipe)
    early = {"sitcom": 1, "moment-matching": 1}.get(kind)
    if early:  # they may stop before
        assert 0 < report.nfe <= calls.denoiser
        assert 0 < report.vjps <= calls.vjps
    else:
        assert (report.nfe, report.vjps) == (calls.denoiser, calls.vjps)


def test_advice_has_the_kernel_the_calls_and_what_goes_together() -> None:
    problem = {
        "problem": "blur",
        "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "size": 25, "std": 3}, "boundary": "circular"},
    }
    first, second = advice_on(problem, {"quality": "balanced"}, PICTURE)
    assert first["kernel"]["width"] == first["kernel"]["height"] <= 25
    assert second["calls"] == 20
    assert Need.SPECTRUM in second["offers"]  # which a blur has by its parameters alone
    assert json.loads(json.dumps([first, second]))[1]["kind"] == "blur"
    _, refused = advice_on(problem, {"quality": "custom", "method": {"kind": "rad"}}, PICTURE)
    assert "missing pixels" in refused["refusal"]
    assert advice_on({"problem": None}, {})[1]["calls"] is None


def test_a_kernel_as_wide_as_it_may_be_is_shown_small() -> None:
    kernel = {"kind": "gaussian", "size": 255, "std": 30}
    first, _ = advice_on({"problem": "blur", "operator": {"kind": "blur", "kernel": kernel}}, {})
    assert max(first["kernel"]["width"], first["kernel"]["height"]) <= 96


def test_no_picture_of_the_machine_in_refusals(tmp_path: Path) -> None:
    with pytest.raises(PreimageError) as caught:
        recipe_of(
            {"problem": "other", "operator": {"kind": "haze", "depth": {"path": str(tmp_path)}}}, {}, attachments={}
        )
    assert str(tmp_path) not in str(caught.value)
