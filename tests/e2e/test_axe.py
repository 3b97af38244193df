"""t11: no serious fault of accessibility on any tab, light or dark, with runs to be seen."""

import time
from typing import Literal

import pytest
import torch
from playwright.sync_api import Browser, Page

from app.pictures import encode_png
from tests.e2e.axe import faults
from tests.e2e.conftest import Gui

pytestmark = pytest.mark.e2e

TABS = ("Restore", "Medical", "Compare", "Batch", "Jobs", "Help")

ALLOWED = {
    "nested-interactive": ("[data-testid=toast-body]",),
    "color-contrast": ("[data-testid=toast-body]",),
    # Gradio names its drop zone otherwise than the text in it
    "label-content-name-mismatch": ("button.upload-container",),
}
"""Faults of Gradio's own elements, by rule."""

SHOWN = """() => {
  const shown = [...document.querySelectorAll('.tabitem')].find((tab) => tab.offsetParent !== null);
  const widgets = shown ? [...shown.querySelectorAll('[data-ready], [data-state]')] : [];
  return widgets.length > 0 && widgets.every((widget) => widget.dataset.state !== 'loading');
}"""


def run(gui: Gui, count: int) -> str:
    """A job of some small pictures that is done."""
    grey = encode_png(torch.full((3, 48, 40), 0.5), 8)
    files = [("files", (f"picture {k}.png", grey, "image/png")) for k in range(count)]
    recipe = '{"operator": {"kind": "identity"}, "model": {"kind": "none"}, "method": {"kind": "tv", "iterations": 5}}'
    made = gui.api.post("/api/v1/jobs", files=files, data={"recipe": recipe, "options": '{"views": true}'})
    assert made.status_code == 201, made.text
    at = f"/api/v1/jobs/{made.json()['id']}"
    until = time.monotonic() + 60
    while gui.api.get(at).json()["status"]["state"] != "done":
        assert time.monotonic() < until
        time.sleep(0.1)
    return str(made.json()["id"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_t11_no_serious_faults_on_any_tab(scheme: Literal["light", "dark"], gui: Gui, browser: Browser) -> None:
    one, several = run(gui, 1), run(gui, 2)
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    try:
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(f"{gui.url}/?job={one}&tab=restore")
        page.locator("#result .pi-result[data-state=done]").wait_for()
        page.evaluate("id => dispatchEvent(new CustomEvent('preimage:compare', {detail: {id}}))", one)
        page.evaluate("id => dispatchEvent(new CustomEvent('preimage:job', {detail: {id, tab: 'batch'}}))", several)
        page.locator(".pi-batch[data-state=done]").wait_for()
        found = []
        for title in TABS:
            tab = page.get_by_role("tab", name=title, exact=True)
            tab.click()
            page.wait_for_function(SHOWN)
            found += [f"{title}: {line}" for line in faults(page, ALLOWED)]
        found += [f"dialog: {line}" for line in _dialogs(page)]
        assert found == [], "\n".join(found)
    finally:
        context.close()


def _dialogs(page: Page) -> list[str]:
    """Faults of the table of keys and of the question before a run is deleted."""
    page.get_by_role("tab", name="Jobs", exact=True).click()
    page.locator(".pi-jobs-row").first.get_by_role("button", name="Delete").click()
    found = faults(page, ALLOWED)
    page.keyboard.press("Escape")
    page.locator("#pi-jobs-filter").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    return [*found, *faults(page, ALLOWED)]
