"""Pictures looked at together, and the Compare tab."""

import base64
import csv
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect

from app.view import heat
from restoration.metrics import psnr, ssim
from tests.gui.fake_jobs import ID, Fake, encoded, photo

Mounted = Callable[..., Page]
OTHER = "b" * 16

VIEW = """async (pictures) => {
  const { CompareView } = await import("./static/compare.js");
  document.body.style.cssText = "margin: 0; width: 400px";
  window.view = new CompareView(document.querySelector("main"), { label: "Both" });
  await window.view.show(pictures);
}"""

SEEN = """() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() =>
  resolve(document.querySelector(".pi-compare canvas").toDataURL().split(",")[1]))))"""


def both(mounted: Mounted, first: np.ndarray, second: np.ndarray) -> Page:
    page = mounted(
        "compare_runs", {}, {"/a.png": ("image/png", encoded(first)), "/b.png": ("image/png", encoded(second))}
    )
    titles = [
        {"url": "a.png", "title": "Before", "alt": "The data"},
        {"url": "b.png", "title": "After", "alt": "The answer"},
    ]
    page.evaluate(VIEW, titles)
    expect(page.locator(".pi-compare")).to_have_attribute("data-state", "ready")
    return page


def seen(page: Page) -> np.ndarray:
    """What the first canvas shows, (H, W, 3)."""
    return decoded(base64.b64decode(page.evaluate(SEEN)))


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.array(picture.convert("RGB"))


def test_slider_is_exact_and_has_keys(mounted: Mounted) -> None:
    a, b = photo(0, 400), photo(1, 400)
    page = both(mounted, a, b)
    shown = seen(page)
    assert shown.shape == a.shape
    assert np.array_equal(shown[:, :200], a[:, :200])
    assert np.array_equal(shown[:, 201:], b[:, 201:])
    handle = page.get_by_role("slider", name="Boundary between Before and After")
    assert handle.get_attribute("aria-valuetext") == "50 % Before, 50 % After"
    for key in ("ArrowLeft", "Shift+ArrowLeft", "PageDown"):
        handle.press(key)
    expect(handle).to_have_attribute("aria-valuenow", "29")
    handle.press("End")
    assert np.array_equal(seen(page), a)
    handle.press("Home")
    assert np.array_equal(seen(page)[:, 1:], b[:, 1:])
    box = page.locator(".pi-compare-stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 10)
    page.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "75")
    expect(page.get_by_role("img", name="Left: The data. Right: The answer.")).to_be_visible()


def test_original_flip_and_difference(mounted: Mounted) -> None:
    a, b = photo(0, 400), photo(1, 400)
    page = both(mounted, a, b)
    stage = page.locator(".pi-compare-stage")
    stage.focus()
    page.keyboard.press("f")
    expect(page.locator(".pi-compare")).to_have_attribute("data-view", "flip")
    assert np.array_equal(seen(page), b)
    page.keyboard.down("c")
    assert np.array_equal(seen(page), a)
    page.keyboard.up("c")
    assert np.array_equal(seen(page), b)
    page.keyboard.press("f")
    assert np.array_equal(seen(page), a)
    page.get_by_role("radio", name="Difference").check()
    page.get_by_label("times").select_option("2")
    apart = np.abs(a.astype(int) - b)
    assert np.array_equal(seen(page), np.minimum(255, 2 * apart))
    expect(page.locator(".pi-compare-pane")).to_contain_text(f"mean {apart.mean():.2f}, largest {apart.max()} of 255")
    page.get_by_role("radio", name="Side by side").check()
    assert page.get_by_role("img", name="The").count() == 2


def test_zoom_and_pan_are_shared(mounted: Mounted) -> None:
    a, b = photo(0, 200), photo(1, 200)
    page = both(mounted, a, b)
    zoom = page.get_by_role("status", name="Zoom")
    expect(zoom).to_have_text("200 %")
    assert np.array_equal(seen(page)[:, :200], np.repeat(np.repeat(a, 2, 0), 2, 1)[:, :200])  # pixels, not a blur
    box = page.locator(".pi-compare-stage").bounding_box()
    assert box is not None
    x, y = box["x"], box["y"]
    page.mouse.move(x + 100, y + 100)
    expect(page.locator(".pi-compare-reading")).to_have_text(
        f"x 50, y 50 · Before {' '.join(map(str, a[50, 50]))} · After {' '.join(map(str, b[50, 50]))}"
    )
    page.mouse.wheel(0, -462)  # exp(0.0015 * 462) = 2
    expect(zoom).to_have_text("400 %")
    page.mouse.move(x + 101, y + 101)
    expect(page.locator(".pi-compare-reading")).to_contain_text("x 50, y 50")  # what was below stays there
    page.locator(".pi-compare-stage").press("0")
    page.get_by_role("radio", name="Flip").check()
    page.locator(".pi-compare-stage").press("+")
    assert np.array_equal(seen(page), np.repeat(np.repeat(a[50:150, 50:150], 4, 0), 4, 1))
    page.mouse.move(x + 200, y + 200)
    page.mouse.down()
    page.mouse.move(x + 160, y + 180)
    page.mouse.up()
    assert np.array_equal(seen(page), np.repeat(np.repeat(a[55:155, 60:160], 4, 0), 4, 1))
    page.locator(".pi-compare-stage").press("ArrowRight")
    assert np.array_equal(seen(page), np.repeat(np.repeat(a[55:155, 70:170], 4, 0), 4, 1))
    page.locator(".pi-compare-stage").press("z")
    expect(zoom).to_have_text("200 %")  # never smaller than the whole
    page.locator(".pi-compare-stage").press("0")
    expect(zoom).to_have_text("200 %")


def test_a_picture_that_does_not_come_can_be_asked_for_again(mounted: Mounted) -> None:
    good = {"now": b"no picture"}
    answers = {"/a.png": lambda route: route.fulfill(content_type="image/png", body=good["now"])}
    page = mounted("compare_runs", {}, answers)
    page.evaluate(VIEW, [{"url": "a.png", "title": "A", "alt": "A"}])
    expect(page.get_by_text("The pictures could not be loaded.")).to_be_visible()
    good["now"] = encoded(photo(0))
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".pi-compare")).to_have_attribute("data-state", "ready")


def test_scores_and_colours_are_those_of_python(mounted: Mounted) -> None:
    a, b = photo(0, 150)[:, :90], photo(1, 150)[:, :90]
    colours = heat(torch.arange(256.0)[None], 255.0)
    page = mounted("compare_runs", {}, {"/a.png": ("image/png", encoded(a)), "/b.png": ("image/png", encoded(b))})
    found = page.evaluate(
        """async (colours) => {
          const { psnr, ssim } = await import("./static/compare_metrics.js");
          const { load } = await import("./static/compare_paint.js");
          const { level } = await import("./static/compare_map.js");
          const [a, b] = [await load("a.png"), await load("b.png")];
          return [psnr(a, b), await ssim(a, b), psnr(a, a), colours.map((colour) => level(...colour))];
        }""",
        colours[0].tolist(),
    )
    one, two = (torch.from_numpy(p.astype(np.float64) / 255).permute(2, 0, 1) for p in (a, b))
    assert found[0] == pytest.approx(psnr(one, two), abs=1e-9)
    assert found[1] == pytest.approx(ssim(one, two), abs=1e-9)
    assert found[2] == float("inf")
    assert found[3] == list(range(256))


def runs() -> tuple[Fake, Fake, dict[str, Any]]:
    a, b = Fake(), Fake(name=OTHER, samples=1)
    b.recipe = b.recipe | {"method": {"kind": "daps"}, "seeds": [7]}
    b.recipe["title"] = "=1+1"
    truth = a.entries[0]["views"][1] | {"name": "truth", "title": "Truth", "file": "truth.png"}
    a.pictures["truth"] = photo(9)
    a.entries[0]["views"].append(truth)
    for fake in (a, b):
        fake.run(1, residual=9)
        fake.run(2, residual=1.5)
        fake.status["state"] = "done"
    listed = json.dumps({"jobs": [a.job, b.job], "total": 2, "waiting": 0}).encode()
    return a, b, a.answers | b.answers | {"/api/v1/jobs": ("application/json", listed)}


def ready(page: Page, count: int) -> None:
    expect(page.locator(".pi-chip")).to_have_count(count)
    page.locator(".pi-runs[data-state=ready]").wait_for()


def test_two_runs(mounted: Mounted) -> None:
    a, _, answers = runs()
    page = mounted("compare_runs", {}, answers)
    expect(page.get_by_text("Nothing to compare yet.")).to_be_visible()
    page.get_by_role("button", name="Add a run").click()
    page.get_by_role("button", name="Fill <b>holes</b>").click()
    ready(page, 1)
    page.evaluate(f"window.dispatchEvent(new CustomEvent('preimage:compare', {{detail: {{id: '{OTHER}'}}}}))")
    ready(page, 2)
    assert page.locator(".pi-compare canvas").count() == 2
    settings = page.get_by_role("group", name="Settings that differ")
    expect(page.get_by_text("Settings that differ (2)")).to_be_visible()
    shown = sorted(settings.locator("tbody tr").all_inner_texts())
    assert shown == ["method.kind\tdiffpir\tdaps", "seeds\t7, 8, 9, 10\t7"]
    expect(
        page.get_by_role("img", name="Residual over steps: A ends at 1.5 sigma, B ends at 1.5 sigma.")
    ).to_be_visible()
    page.get_by_label("Reference", exact=True).select_option(ID)
    ready(page, 2)
    one = torch.from_numpy(a.pictures["truth"] / 255).permute(2, 0, 1)
    two = torch.from_numpy(a.pictures["mean"] / 255).permute(2, 0, 1)
    row = page.get_by_role("row", name="PSNR")
    expect(row.get_by_role("cell").first).to_have_text(f"{psnr(one, two):.2f}")
    expect(page.get_by_role("row", name="SSIM").get_by_role("cell").first).to_have_text(f"{ssim(one, two):.3f}")
    assert page.locator(".pi-compare canvas").count() == 3
    with page.expect_download() as download:
        page.get_by_role("button", name="Table as CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert rows[1] == ["job", ID, OTHER]
    assert ["Time, s", "6.2", "6.2"] in rows
    assert rows[0][2].startswith("B: =1+1")
    with page.expect_download() as download:
        page.get_by_role("button", name="Figure as PNG").click()
    assert decoded(download.value.path().read_bytes()).shape == (48 * 5 + 30 + 8, 3 * (48 * 5 + 8) + 8, 3)
    page.get_by_text("Reproduce").click()
    page.get_by_label("As", exact=True).select_option("cli")
    expect(page.get_by_label("Text that repeats the run")).to_have_value("preimage batch\n")
    page.get_by_role("button", name="Remove run A").click()
    ready(page, 1)
    expect(page.get_by_label("Reference", exact=True)).to_have_value("")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_file_as_reference(mounted: Mounted) -> None:
    _, _, answers = runs()
    page = mounted("compare_runs", {}, answers)
    page.evaluate(f"window.dispatchEvent(new CustomEvent('preimage:compare', {{detail: {{id: '{ID}'}}}}))")
    ready(page, 1)
    file = page.locator("input[type=file]")
    file.set_input_files({"name": "notes.txt", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.get_by_text('"notes.txt" is not a picture that this browser can read.')).to_be_visible()
    file.set_input_files({"name": "truth.png", "mimeType": "image/png", "buffer": encoded(photo(1))})
    expect(page.get_by_role("row", name="PSNR").get_by_role("cell").first).to_have_text("equal")
    file.set_input_files({"name": "other.png", "mimeType": "image/png", "buffer": encoded(photo(1, 50))})
    expect(page.get_by_text("The reference has another size than one run: no scores there.")).to_be_visible()


def test_an_event_before_the_tab_was_opened_is_heard(mounted: Mounted, page: Page) -> None:
    _, _, answers = runs()
    page.add_init_script(f"window.preimage = {{pending: {{'preimage:compare': {{id: '{OTHER}'}}}}}}")
    mounted("compare_runs", {}, answers)
    ready(page, 1)
    assert page.evaluate("window.preimage.pending") == {}
