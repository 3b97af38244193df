"""The Help tab: what it shows is there, and what it says to copy works."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

import app.gui
from app.api import Desk
from app.gui.form import CARDS, groups
from app.gui.help_tab import diagnostics, licences, problems, versions
from app.jobs import JobStore
from app.uploads import LIMITS
from app.worker import Dispatcher
from restoration.assets import AssetStore

STATIC = Path(app.gui.__file__).parent / "static"
Mount = Callable[..., Page]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = JobStore(tmp_path / "jobs")
    store.root.mkdir()
    return Desk(Dispatcher(store), AssetStore(), LIMITS)


def test_every_problem_of_the_form_is_explained() -> None:
    assert {card["title"] for card in CARDS if card["id"] != "other"} <= {one["title"] for one in problems()}


def test_pictures_are_there_small_and_described() -> None:
    named = [one["image"] for one in problems() if "image" in one] + ["help-spread.jpg"]
    assert sum((STATIC / name).stat().st_size for name in named) < 300_000
    for name in named:
        with Image.open(STATIC / name) as picture:
            assert picture.size == (358, 176)
    assert all(len(one["alt"]) > 20 for one in problems() if "image" in one)


def test_licences_are_those_of_the_cards(desk: Desk) -> None:
    assert {one["name"] for one in licences(desk)} == set(desk.assets.cards)
    assert ("preimage", "Apache-2.0") in {(name, licence) for name, _, licence in versions()}


def test_diagnostics_hold_versions_and_no_places(desk: Desk, tmp_path: Path) -> None:
    text = diagnostics(desk)
    for wanted in ("preimage ", "torch ", "gradio ", "disk free", "cores"):
        assert wanted in text
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


def shown(mounted: Mount, desk: Desk, token: bool = False) -> Page:
    props: dict[str, Any] = {"problems": problems(), "groups": groups(), "versions": versions()}
    props |= {"licences": licences(desk), "token": token, "report": None, "value": None}
    page = mounted("help", props)
    expect(page.locator(".pi-help")).to_have_attribute("data-ready", "")
    return page


def test_the_page_is_whole(mounted: Mount, desk: Desk) -> None:
    page = shown(mounted, desk)
    headings = page.get_by_role("heading", level=2).all_inner_texts()
    assert headings == page.get_by_role("navigation").get_by_role("link").all_inner_texts()
    expect(page.get_by_text("Research use only.")).to_be_visible()
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(img) => img.complete && img.naturalWidth === 358", arg=picture.element_handle())
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_style_tag(content="body, main { display: flex } #w { flex-grow: 1 }")  # as in Gradio
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_snippets_are_for_this_server(mounted: Mount, desk: Desk) -> None:
    page = shown(mounted, desk)
    curl, python = page.locator("section:has(#pi-help-api) pre").all_inner_texts()
    assert "http://localhost/api/v1/jobs/ID/archive" in curl
    ast.parse(python)
    assert "http://localhost/api/v1/jobs" in python
    assert "TOKEN" not in curl + python


def test_snippets_name_the_token_where_one_is_needed(mounted: Mount, desk: Desk) -> None:
    page = shown(mounted, desk, token=True)
    curl, python = page.locator("section:has(#pi-help-api) pre").all_inner_texts()
    assert curl.count("$PREIMAGE_TOKEN") == 3
    ast.parse(python)
    assert "PREIMAGE_TOKEN" in python


def test_diagnostics_are_asked_of_python_and_shown_as_text(mounted: Mount, desk: Desk) -> None:
    page = shown(mounted, desk)
    page.get_by_role("button", name="Copy diagnostics").click()
    assert [name for name, _, _ in page.evaluate("heard")] == ["change"]
    page.evaluate(f"give({json.dumps({'report': 'torch <b>1</b>'})})")
    expect(page.get_by_label("Diagnostics")).to_have_text("torch <b>1</b>")


def test_question_mark_opens_the_table_but_not_while_writing(mounted: Mount, desk: Desk) -> None:
    page = shown(mounted, desk)
    page.get_by_role("link", name="Keyboard").click()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard")
    expect(dialog.get_by_role("row", name="Painter B, E brush, eraser")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.evaluate("document.querySelector('.pi-help').append(document.createElement('textarea'))")
    page.locator("textarea").press("?")
    assert page.locator("textarea").input_value() == "?"
    expect(dialog).to_have_count(0)
