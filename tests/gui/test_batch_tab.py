"""The Batch tab: settings from all sides, files, and the table in a browser."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from app.api import Desk
from app.gui import batch_tab
from app.gui.batch_tab import Chosen, begin_batch, from_preset, from_restore, from_run_file, usable
from app.jobs import JobStore
from app.uploads import LIMITS
from app.worker import Dispatcher
from operators.errors import PreimageError
from restoration.assets import AssetStore
from restoration.recipe import read_recipe

JOB = "00112233445566aa"
AT = f"/api/v1/jobs/{JOB}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A server's desk whose worker never starts."""
    store = JobStore(tmp_path / "jobs")
    store.root.mkdir()
    return Desk(Dispatcher(store), AssetStore(), LIMITS)


def picture(path: Path, size: tuple[int, int] = (32, 24)) -> Path:
    Image.new("L", size, 128).save(path)
    return path


def masked(path: str = "mask.png") -> dict[str, Any]:
    return {
        "operator": {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": path}}},
        "model": {"kind": "none"},
        "method": {"kind": "tv"},
    }


# settings


def test_a_preset_is_the_preset() -> None:
    assert from_preset("denoise").recipe == read_recipe("denoise")[0]


@pytest.mark.parametrize("name", ["/etc/passwd", "../denoise", "none-such"])
def test_only_presets_are_presets(name: str) -> None:
    with pytest.raises(PreimageError, match="Expected a preset out of"):
        from_preset(name)


def test_run_files_are_recipes_or_hold_one(tmp_path: Path) -> None:
    recipe = read_recipe("denoise")[0].model_dump(mode="json")
    bare, whole = tmp_path / "bare.json", tmp_path / "whole.json"
    bare.write_text(json.dumps(recipe))
    whole.write_text(json.dumps({"recipe": recipe, "options": {"precision": "fp32"}, "cases": []}))
    assert from_run_file(bare).recipe == from_run_file(whole).recipe == read_recipe("denoise")[0]
    assert from_run_file(whole).options.precision == "fp32"


@pytest.mark.parametrize(
    ("text", "said"),
    [("no json", "no JSON"), ("[1, 2]", "holds no recipe"), ("{}", "Expected settings"), ("[" * 100_000, "no JSON")],
)
def test_other_files_are_refused_with_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(PreimageError, match=said) as caught:
        from_run_file(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("value", ["text", [], 7, {"recipe": "x"}, {"recipe": {"operator": {"kind": "nope"}}}])
def test_what_the_browser_sends_is_checked(value: Any) -> None:
    with pytest.raises(PreimageError, match="Expected settings"):
        from_restore(value)


# files


def test_files_that_are_nothing_to_restore_are_told(tmp_path: Path) -> None:
    good, bad, note = picture(tmp_path / "a.png"), tmp_path / "broken.png", tmp_path / "notes.txt"
    bad.write_bytes(b"no picture")
    note.write_text("hello")
    assert usable([good, bad, note]) == ([good, bad], ["notes.txt"])  # a broken picture fails alone, in its row


def test_names_of_files_are_text(tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>.txt"
    evil.write_text("hello")
    said = batch_tab._facts([str(evil)])
    assert "<img" not in said
    assert "&lt;img" in said


def test_a_job_is_queued_with_pictures_for_the_page(desk: Desk, tmp_path: Path) -> None:
    chosen = Chosen.model_validate({"recipe": masked(), "options": {}})
    name = begin_batch(desk, chosen, [picture(tmp_path / "a.png")], [picture(tmp_path / "holes.png")])
    request = desk.find(name).request
    assert request.recipe["operator"]["mask"]["file"]["path"] == "inputs/recipe/holes.png"
    assert request.options["views"] is True
    assert desk.dispatcher.place(name) == 0


def test_masks_of_the_run_that_was_sent_are_taken_from_it(desk: Desk, tmp_path: Path) -> None:
    first = begin_batch(
        desk, Chosen.model_validate({"recipe": masked()}), [picture(tmp_path / "a.png")], [picture(tmp_path / "m.png")]
    )
    sent = {"recipe": desk.find(first).request.recipe, "options": {}, "job": first}
    second = begin_batch(desk, from_restore(sent), [picture(tmp_path / "b.png")])
    kept = desk.find(second).folder / "inputs" / "recipe" / "m.png"
    assert kept.read_bytes() == (tmp_path / "m.png").read_bytes()


def test_a_missing_mask_is_asked_for(desk: Desk, tmp_path: Path) -> None:
    chosen = Chosen.model_validate({"recipe": masked("/elsewhere/holes.png")})
    with pytest.raises(PreimageError, match=r"need the file holes\.png"):
        begin_batch(desk, chosen, [picture(tmp_path / "a.png")])


@pytest.mark.parametrize("path", ["inputs/recipe/../../job/request.json", "inputs/recipe/..", "/etc/passwd"])
def test_no_other_file_is_taken_for_a_mask(path: str, desk: Desk, tmp_path: Path) -> None:
    first = begin_batch(
        desk, Chosen.model_validate({"recipe": masked()}), [picture(tmp_path / "a.png")], [picture(tmp_path / "m.png")]
    )
    with pytest.raises(PreimageError):
        begin_batch(desk, from_restore({"recipe": masked(path), "job": first}), [picture(tmp_path / "b.png")])


# the table

Mount = Callable[..., Page]
STATUS = {"state": "running", "message": "", "total": 3, "done": 0, "failed": 0, "step": 0, "steps": 0, "updated": ""}
EVIL = "<img src=x onerror=window.hit=1>.png"
CASES = [
    {"number": 1, "name": "a.png", "kind": "picture", "folder": "results/a.png", "bytes": 2048},
    {"number": 2, "name": EVIL, "kind": "picture", "folder": "results/b", "bytes": 3_400_000},
    {"number": 3, "name": "c.png", "kind": "picture", "folder": "results/c.png", "bytes": 900},
]


def outcome(number: int, state: str = "done", **more: Any) -> dict[str, Any]:
    facts = {"width": 64, "height": 48} if state == "done" else {}
    outputs = [{"name": "restored.png", "sha256": "", "bytes": 1}, {"name": "restored.json", "sha256": "", "bytes": 1}]
    figures = {"residual_sigma": 0.987}
    return {
        "number": number, "case": f"c{number}", "kind": "picture", "state": state, "message": "", "seconds": 20.0,
        "outputs": outputs, "figures": figures, "facts": facts, "proven": False, **more,
    }  # fmt: skip


def stream(*events: tuple[str, Any]) -> tuple[str, bytes]:
    """Server-sent events; a browser does not ask again soon."""
    text = "retry: 600000\n\n" + "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return "text/event-stream", text.encode()


def answers(*events: tuple[str, Any], **others: Any) -> dict[str, Any]:
    commands = {"python": "", "cli": "preimage batch -i INPUTS -o OUT --recipe run.json", "curl": "", "run_file": {}}
    return {
        AT: ("application/json", json.dumps({"id": JOB, "place": None, "status": STATUS}).encode()),
        f"{AT}/events": stream(*events),
        f"{AT}/cases": ("application/json", json.dumps(CASES).encode()),
        f"{AT}/commands": ("application/json", json.dumps(commands).encode()),
        **{f"{AT}/{name}": value for name, value in others.items()},
    }


def case(number: int, state: str = "done", **more: Any) -> tuple[str, Any]:
    return "journal", {"event": "case", "outcome": outcome(number, state, **more)}


def shown(mounted: Mount, *events: tuple[str, Any], **others: Any) -> Page:
    return mounted("batch", {"value": None, "job": JOB}, answers(("journal", {"event": "start"}), *events, **others))


def cells(page: Page, number: int) -> list[str]:
    return page.locator(f"[data-number='{number}'] [role=cell]").all_inner_texts()


def test_without_a_job_it_says_what_will_be_here(mounted: Mount) -> None:
    page = mounted("batch", {"value": None, "job": None})
    expect(page.get_by_text("No batch is shown.")).to_be_visible()
    expect(page.locator(".pi-batch")).to_have_attribute("data-state", "empty")


def test_rows_fill_as_files_end(mounted: Mount) -> None:
    status = {**STATUS, "done": 1, "failed": 1, "step": 14, "steps": 40}
    page = shown(mounted, case(1), case(2, "failed", message="Mask is 512, image 2048."), ("status", status))
    expect(page.get_by_text("2 of 3 · about 13 s left")).to_be_visible()
    assert cells(page, 1) == ["a.png", "64×48", "done", "20 s", "0.99 σ", "ViewSave"]
    assert cells(page, 2)[:3] == [EVIL, "3.4 MB", "failed: Mask is 512, image 2048."]
    assert cells(page, 3)[:3] == ["c.png", "1 kB", "step 14 of 40"]
    assert page.evaluate("window.hit") is None
    expect(page.get_by_role("button", name="Stop now")).to_be_visible()
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()
    save = page.get_by_role("link", name="Save a.png")
    assert save.get_attribute("href") == f"http://localhost{AT}/files/results/a.png/restored.png"
    assert save.get_attribute("download") == "a-restored.png"
    assert f"job={JOB}" in page.url
    assert "tab=batch" in page.url


def test_the_end_offers_the_zip_and_the_line(mounted: Mount) -> None:
    status = {**STATUS, "state": "done", "done": 2, "failed": 1}
    page = shown(mounted, case(1), case(2, "failed", message="x"), case(3), ("status", status), ("end", {}))
    expect(page.locator(".pi-batch")).to_have_attribute("data-state", "done")
    expect(page.locator(".pi-batch-line")).to_have_text("2 of 3 done · 1 failed")
    assert (
        page.get_by_role("link", name="Download finished .zip").get_attribute("href") == f"http://localhost{AT}/archive"
    )
    expect(page.get_by_text("preimage batch -i INPUTS -o OUT --recipe run.json")).to_be_visible()
    for name in ("Stop now", "Stop after this file", "Continue"):
        expect(page.get_by_role("button", name=name)).to_be_hidden()


@pytest.mark.parametrize(
    ("button", "state", "path"),
    [
        ("Stop now", "running", "cancel"),
        ("Stop after this file", "running", "cancel?after=case"),
        ("Continue", "interrupted", "resume"),
    ],
)
def test_buttons_ask_the_server(button: str, state: str, path: str, mounted: Mount) -> None:
    asked: list[str] = []
    said = threading.Event()

    def post(route: Route) -> None:
        asked.append(f"{route.request.method} {route.request.url}")
        said.set()
        route.fulfill(content_type="application/json", body="{}")

    status = {**STATUS, "state": state}
    page = shown(mounted, case(1), ("status", status), **{path.split("?")[0]: post})
    page.get_by_role("button", name=button).click()
    page.wait_for_timeout(0)
    assert said.wait(5)
    assert asked == [f"POST http://localhost{AT}/{path}"]


def test_a_lost_server_is_said_and_forgotten(mounted: Mount) -> None:
    page = shown(mounted, ("status", STATUS))  # the stream breaks off
    expect(page.get_by_role("alert")).to_have_text(
        "Lost contact with the server. Your run continues; this page reconnects by itself."
    )


def test_a_result_is_looked_at_before_and_after(mounted: Mount) -> None:
    view = {"file": "x.png", "alt": "Restored image", "width": 2, "height": 2}
    views = [
        {
            "number": 1, "case": "c1", "kind": "picture",
            "views": [{**view, "name": "before", "title": "Measurement", "alt": "Measured", "file": "b.png"},
                      {**view, "name": "mean", "title": "Restored"}],
        }
    ]  # fmt: skip
    png = ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    others: dict[str, Any] = {"views": ("application/json", json.dumps(views).encode())}
    others |= {"views/c1/x.png": png, "views/c1/b.png": png}
    page = shown(mounted, case(1), ("status", {**STATUS, "state": "done"}), ("end", {}), **others)
    page.get_by_role("button", name="View a.png").click()
    dialog = page.get_by_role("dialog", name="a.png")
    expect(dialog.get_by_role("img", name="Restored image")).to_be_visible()
    dialog.get_by_role("button", name="Show before").click()
    expect(dialog.get_by_role("img", name="Measured")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_settings_from_restore_reach_python(mounted: Mount) -> None:
    page = mounted("batch", {"value": None, "job": None})
    page.evaluate(
        "window.dispatchEvent(new CustomEvent('preimage:batch', {detail: {recipe: {a: 1}, options: {}, job: 'x'}}))"
    )
    assert page.evaluate("window.heard") == [["change", None, {"recipe": {"a": 1}, "options": {}, "job": "x"}]]
    expect(page.get_by_text("Settings taken over.")).to_be_visible()


def test_a_job_opened_elsewhere_is_shown(mounted: Mount) -> None:
    page = mounted("batch", {"value": None, "job": None}, answers(("status", {**STATUS, "state": "done"}), ("end", {})))
    page.evaluate(f"window.dispatchEvent(new CustomEvent('preimage:job', {{detail: {{id: '{JOB}', tab: 'batch'}}}}))")
    expect(page.locator("[data-number]")).to_have_count(3)


def test_a_narrow_page_does_not_scroll_sideways(mounted: Mount) -> None:
    page = shown(mounted, case(1), case(2, "failed", message="Mask is 512x512, image 2048x1536."), ("status", STATUS))
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_style_tag(content="body, main { display: flex } #w { flex-grow: 1 }")  # as in Gradio
    expect(page.locator("[data-number]")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_question_mark_shows_the_keys(mounted: Mount) -> None:
    page = shown(mounted, case(1), ("status", {**STATUS, "state": "done"}), ("end", {}))
    page.get_by_role("button", name="View a.png").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
